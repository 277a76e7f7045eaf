// `cohort-result/1`, the Sign-RPC envelope (docs/spec/sign-rpc.md), as far as a page checks it.
import type { Hex } from "viem";
import { address, hash, hex } from "./hex";
import { FormatError, integer, list, members, parseJson, text, type Json, type JsonObject } from "./json";
import { decimal, epsilon } from "./loss";
import { parseTerms } from "./terms";
import type { Message, Place, Terms } from "./typed";

const FORMAT = "cohort-result/1";
const PROOFS = ["declared", "proved"];

export interface Binding extends Place {
  kmsRoot: Hex;
  challenge: Hex;
  runId: Hex;
  encryptionKeyHash: Hex;
  receiptKey: Hex;
  /** Hash of the evidence of GPUs, where there is any. */
  gpuEvidenceHash: Hex | null;
}

export interface ResultFile {
  place: Place;
  /** `intel` or `development`, as the file claims. */
  attestation: string;
  payload: Json;
  receipt: Message<"Receipt">;
  receiptSignature: Hex;
  certificate: Message<"AgentCertificate">;
  certificateSignature: Hex;
  terms: Terms;
  run: Message<"RunRequest">;
  runSignature: Hex;
  inputs: { owner: string; datasetId: Hex }[];
  binding: Binding;
  /** TDX quote, raw. */
  quote: Hex;
  /** The guest agent's event log, JSON text. */
  eventLog: string;
  /** What Intel and NVIDIA say of the machine, as of the run. */
  collateral: Json | undefined;
  gpu: Json | undefined;
  /** Exact text of the app-compose file, if the evidence has it. */
  appCompose: string | null;
  /** `{binding, evidence}` as they stand in the file: what the evidence hash is over. */
  committed: JsonObject;
  position: { transaction: Hex; blockNumber: number; blockHash: Hex };
}

function receipt(value: Json | undefined): [Message<"Receipt">, Hex] {
  const object = members(value, "receipt", [
    "run_id", "output_hash", "inputs_hash", "evidence_hash", "epsilon", "delta", "privacy_proof", "produced_at",
    "signature",
  ]);
  const proof = PROOFS.indexOf(text(object["privacy_proof"], "privacy_proof"));
  if (proof < 0) throw new FormatError("privacy_proof is neither declared nor proved");
  const message = {
    runId: hash(object["run_id"], "run_id"),
    outputHash: hash(object["output_hash"], "output_hash"),
    inputsHash: hash(object["inputs_hash"], "inputs_hash"),
    evidenceHash: hash(object["evidence_hash"], "evidence_hash"),
    epsilon: epsilon(object["epsilon"], "epsilon"),
    delta: decimal(object["delta"], "delta", 64),
    privacyProof: BigInt(proof),
    producedAt: BigInt(integer(object["produced_at"], "produced_at")),
  };
  return [message, hex(object["signature"], "signature")];
}

function certificate(value: Json | undefined): [Message<"AgentCertificate">, Hex] {
  const object = members(value, "certificate", ["agent", "compose_hash", "not_after", "signature"]);
  const message = {
    agent: address(object["agent"], "agent"),
    composeHash: hash(object["compose_hash"], "compose_hash"),
    notAfter: BigInt(integer(object["not_after"], "not_after")),
  };
  return [message, hex(object["signature"], "signature")];
}

function request(value: Json | undefined): [Message<"RunRequest">, Hex] {
  const keys = ["proposal_id", "participants", "analyst", "nonce", "deadline", "signature"];
  const object = members(value, "run", keys);
  const message = {
    proposalId: hash(object["proposal_id"], "proposal_id"),
    participants: decimal(object["participants"], "participants", 128),
    analyst: address(object["analyst"], "analyst"),
    nonce: hash(object["nonce"], "nonce"),
    deadline: BigInt(integer(object["deadline"], "deadline")),
  };
  return [message, hex(object["signature"], "signature")];
}

function binding(value: Json | undefined): Binding {
  const object = members(value, "binding", [
    "chain_id", "app", "kms_root", "challenge", "run_id", "encryption_key_hash", "receipt_key",
  ], ["gpu_evidence_hash"]);
  const gpu = object["gpu_evidence_hash"];
  return {
    chainId: integer(object["chain_id"], "chain_id"),
    app: address(object["app"], "app"),
    kmsRoot: address(object["kms_root"], "kms_root"),
    challenge: hash(object["challenge"], "challenge"),
    runId: hash(object["run_id"], "run_id"),
    encryptionKeyHash: hash(object["encryption_key_hash"], "encryption_key_hash"),
    receiptKey: address(object["receipt_key"], "receipt_key"),
    gpuEvidenceHash: gpu === undefined ? null : hash(gpu, "gpu_evidence_hash"),
  };
}

/** The format that a file names; null where it names none. */
export const formatOf = (value: Json): Json =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? (value["format"] ?? null) : null;

export const parseResult = (source: string): ResultFile => readResult(parseJson(source));

export function readResult(value: Json): ResultFile {
  const format = formatOf(value);
  if (format !== FORMAT) throw new FormatError(`the format is ${JSON.stringify(format)}, not ${FORMAT}`);
  const file = members(value, "the result", [
    "format", "chain_id", "app", "attestation", "payload", "receipt", "certificate", "terms", "run", "inputs",
    "binding", "evidence", "position",
  ], ["chain"]); // the chain's proofs: the browser asks the chain itself
  const [receiptMessage, receiptSignature] = receipt(file["receipt"]);
  const [certificateMessage, certificateSignature] = certificate(file["certificate"]);
  const [run, runSignature] = request(file["run"]);
  const evidence = file["evidence"];
  if (evidence === null || typeof evidence !== "object" || Array.isArray(evidence)) {
    throw new FormatError("evidence is no object");
  }
  const appCompose = evidence["app_compose"];
  const position = members(file["position"], "position", ["transaction", "block_number", "block_hash"]);
  return {
    place: { chainId: integer(file["chain_id"], "chain_id"), app: address(file["app"], "app") },
    attestation: text(file["attestation"], "attestation"),
    payload: file["payload"] as Json,
    receipt: receiptMessage,
    receiptSignature,
    certificate: certificateMessage,
    certificateSignature,
    terms: parseTerms(file["terms"]),
    run,
    runSignature,
    inputs: list(file["inputs"], "inputs").map((value) => {
      const input = members(value, "an input", ["owner", "dataset_id"]);
      return { owner: text(input["owner"], "owner"), datasetId: hash(input["dataset_id"], "dataset_id") };
    }),
    binding: binding(file["binding"]),
    quote: hex(`0x${text(evidence["quote"], "quote")}`, "quote"),
    eventLog: text(evidence["event_log"], "event_log"),
    collateral: evidence["collateral"],
    gpu: evidence["gpu"],
    appCompose: typeof appCompose === "string" ? appCompose : null,
    committed: { binding: file["binding"] as Json, evidence },
    position: {
      transaction: hash(position["transaction"], "transaction"),
      blockNumber: integer(position["block_number"], "block_number"),
      blockHash: hash(position["block_hash"], "block_hash"),
    },
  };
}
