// Re-checks a result file, line by line, as `cohort verify` does and under the same names.
export type Verdict = "ok" | "failed" | "skipped";

export interface Check {
  /** Stable short name; its words are in the dictionaries under `check.<name>`. */
  name: CheckName;
  verdict: Verdict;
  /** What was compared: hashes, addresses, numbers. */
  detail: string;
}

export type CheckName =
  | "payload"
  | "compose_hash"
  | "recipe"
  | "output_schema"
  | "privacy_proof"
  | "privacy_loss"
  | "receipt_signature"
  | "certificate"
  | "evidence"
  | "tdx_quote"
  | "collateral"
  | "event_log"
  | "measurement"
  | "quote_binding"
  | "cvm_image"
  | "device"
  | "gpu_evidence"
  | "gpu_firmware"
  | "claimed_platform"
  | "run"
  | "request_signature"
  | "inputs"
  | "contract"
  | "chain"
  | "receipt_on_chain"
  | "run_on_chain"
  | "time"
  | "kms_root"
  | "agent_key"
  | "quorum"
  | "own_approval"
  | "datasets"
  | "analyst"
  | "budget";

export class Report {
  readonly checks: Check[] = [];

  check(name: CheckName, holds: boolean, detail: string): void {
    this.checks.push({ name, verdict: holds ? "ok" : "failed", detail });
  }

  skip(name: CheckName, detail: string): void {
    this.checks.push({ name, verdict: "skipped", detail });
  }

  get failures(): number {
    return this.checks.filter(({ verdict }) => verdict === "failed").length;
  }
}
