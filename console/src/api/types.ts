// Answers of the indexer (docs/spec/indexer-api.md).
import type { Hex } from "viem";

export interface Position {
  number: number;
  hash: Hex;
  timestamp: number;
}

export interface Stamp {
  cursor: string;
  block: Position;
  transaction_hash: Hex;
}

/** Every `/v1` answer names the chain and the blocks at which it holds. */
export interface Answer {
  chain_id: number;
  head: Position;
  confirmed: Position;
}

export interface OwnerRef {
  owner: string | null;
  index: number;
}

export interface Owner {
  owner: string;
  index: number;
  account: Hex;
  revoker: Hex | null;
  pending_account: Hex | null;
  jurisdiction: string;
  grades: string[];
  budget: { epsilon_cap: string; epsilon_committed: string; epsilon_left: string };
  added: Stamp;
}

export interface AppState {
  app: Hex;
  supported: boolean;
  registered: Stamp;
  created: Stamp;
  name: string;
  sector: string;
  threshold: number;
  era: number;
  kms_root: Hex;
  owners: Owner[];
  former_owners: Owner[];
  analysts: Hex[];
  datasets: number;
  records: number;
}

export type TermsJson = Record<string, string | number>;

export interface Budget {
  epsilon_budget: string;
  epsilon_spent: string;
  epsilon_left: string;
  runs_left: number;
}

export type Approval = OwnerRef & { by_signature: boolean; counts: boolean; at: Stamp };

export interface Proposal {
  proposal_id: Hex;
  terms: TermsJson | null;
  created: Stamp | null;
  quorum: { signed: number; threshold: number; owners: number };
  approvals: Approval[];
  awaiting: OwnerRef[];
  activated: Stamp | null;
  superseded_by: { proposal_id: Hex; at: Stamp } | null;
  revocation: (OwnerRef & { by: Hex; at: Stamp }) | null;
  rejections: (OwnerRef & { reason: string; at: Stamp })[];
  budget: Budget | null;
  decision: { head: string; confirmed: string };
}

export type Dataset = OwnerRef & {
  dataset_id: Hex;
  compose_hash: Hex;
  region: string;
  kind: string;
  records: number;
  size_bytes: number;
  supersedes: Hex | null;
  superseded_by: { dataset_id: Hex; at: Stamp } | null;
  registered: Stamp;
};

export interface ReceiptJson {
  run_id: Hex;
  output_hash: Hex;
  inputs_hash: Hex;
  evidence_hash: Hex;
  epsilon: string;
  delta: string;
  privacy_proof: number;
  produced_at: number;
}

export interface Run {
  run_id: Hex;
  proposal_id: Hex;
  analyst: Hex;
  participants: OwnerRef[];
  epsilon: string;
  delta: string;
  opened: Stamp;
  status: "open" | "closed";
  receipt: { agent: Hex; receipt: ReceiptJson; digest: Hex; posted: Stamp } | null;
  equivocations: { agent: Hex; digest: Hex; at: Stamp }[];
}

export type Event = Stamp & { kind: string; args: Record<string, unknown>; undecodable?: boolean };

export interface Status extends Answer {
  registry: Hex;
  synced: boolean;
  lag_seconds: number | null;
  apps: number;
}

export type Met = "match" | "partial" | "miss";

export interface Cohort {
  app: Hex;
  name: string | null;
  sector: string | null;
  owners: number;
  threshold: number;
  datasets: number;
  records: number;
  size_bytes: number;
  jurisdictions: string[];
  grades: string[];
  regions: string[];
  kinds: string[];
  criteria: { owners: Met; jurisdictions: Met; grades: Met };
  status: "live" | "forming";
}
