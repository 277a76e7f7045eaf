// The machine behind a result: quote, Intel's collateral, event log, image, device and GPUs, all as of the run. Order and
// names are those of `cohort verify`.
import { sha256, sha512 } from "@noble/hashes/sha2";
import { keccak_256 } from "@noble/hashes/sha3";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils";
import { numberToHex, type Hex } from "viem";
import { canonicalHash } from "../format/hash";
import { ZERO_HASH } from "../format/hex";
import { canonical, FormatError, parseJson, text, utf8, type Json, type JsonObject } from "../format/json";
import { parseCompose } from "../format/recipe";
import type { Binding, ResultFile } from "../format/result";
import { idList } from "../format/terms";
import { appraise, CollateralError, type Appraised } from "./collateral";
import { replay, type Replayed } from "./event-log";
import { framed, gpus } from "./gpu";
import { parseQuote, part, signers, type Quote, type Signed } from "./quote";
import type { CheckName, Report } from "./report";

const bytes = (hex: string) => hexToBytes(hex.replace(/^0x/, ""));

/** What a quote's report data commits to, without and with the GPUs (docs/spec/release.md). */
export function reportData(binding: Binding): { plain: Uint8Array; whole: string } {
  const number = bytes(numberToHex(binding.chainId, { size: 8 }));
  const { app, kmsRoot, challenge, runId, encryptionKeyHash, receiptKey, gpuEvidenceHash } = binding;
  const base = framed(utf8ToBytes("cohort-release/1"), number, ...[app, kmsRoot, challenge, runId, encryptionKeyHash, receiptKey].map(bytes));
  const plain = sha512(base);
  return { plain, whole: bytesToHex(gpuEvidenceHash ? sha512(concatBytes(base, framed(bytes(gpuEvidenceHash)))) : plain) };
}

/** A check that throws its reason; null where it does. */
function attempt<T>(report: Report, name: CheckName, work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    report.check(error instanceof CollateralError ? "collateral" : name, false, error.message);
    return null;
  }
}

export function machine(result: ResultFile, report: Report): void {
  const hash = canonicalHash(result.committed);
  report.check("evidence", hash === result.receipt.evidenceHash, hash);
  const quote = attempt(report, "tdx_quote", () => parseQuote(bytes(result.quote)));
  if (!quote) return;
  const at = Number(result.receipt.producedAt);
  const signed = attempt(report, "tdx_quote", () => signers(quote, at) ?? refuse("a signature or a date does not hold"));
  const judged = signed && attempt(report, "tdx_quote", () => appraise(quote, signed, result.collateral, at));
  if (signed && judged) {
    report.check("tdx_quote", true, signed.root === "intel" ? "Intel SGX Root CA, UpToDate" : "not Intel SGX Root CA, UpToDate");
    report.check("collateral", true, `tcbEvaluationDataNumber ${judged.evaluation}`);
  }
  const log = attempt(report, "event_log", () => replayed(result, quote));
  if (log) report.check("event_log", true, `RTMR3 ${quote.registers[3]}`);
  if (log) report.check("measurement", measured(result, quote, log), `0x${log.boot.get("compose-hash")}`);
  binding(result, quote, report);
  if (log) image(result, quote, log, report);
  if (judged) device(result, judged, report);
  const accelerated = log ? accelerators(result, log, at, report) : null;
  if (signed) platform(result, signed, accelerated, report);
}

function refuse(reason: string): never {
  throw new FormatError(reason);
}

function replayed(result: ResultFile, quote: Quote): Replayed {
  const log = replay(result.eventLog);
  const other = log.registers.findIndex((value, index) => value !== null && value !== quote.registers[index]);
  return other < 0 ? log : refuse(`it does not give RTMR${other} of the quote`);
}

/** Whether the log names this app and this code, and the machine was configured for no other. */
function measured(result: ResultFile, quote: Quote, log: Replayed): boolean {
  const config = bytesToHex(part(quote, "config"));
  return (
    `0x${log.boot.get("app-id")}` === result.place.app &&
    `0x${log.boot.get("compose-hash")}` === result.terms.composeHash &&
    (/^0*$/.test(config) || config === configFor(Number.parseInt(config.slice(0, 2), 16), log))
  );
}

/** dstack's numbers and names of key providers. */
const PROVIDERS: Record<string, [number, string]> = {
  none: [0, "none"], local: [1, "local"], "local-sgx": [1, "local"], kms: [2, "kms"], tpm: [3, "tpm"],
};

/** MR_CONFIG_ID as dstack's host writes it for this boot, in hex; null for a form that is not known. */
function configFor(form: number, log: Replayed): string | null {
  const digest = form === 1 ? log.boot.get("compose-hash") : form === 2 || form === 3 ? providerDigest(form, log) : null;
  return digest ? `0${form}${digest}${"0".repeat(30)}` : null;
}

function providerDigest(form: 2 | 3, { boot }: Replayed): string | null {
  let provider: JsonObject;
  try {
    provider = parseJson(utf8(bytes(boot.get("key-provider") ?? ""))) as JsonObject;
  } catch {
    return null;
  }
  const [kind, name] = PROVIDERS[String(provider["name"])] ?? [];
  const id = String(provider["id"]).toLowerCase();
  const app = boot.get("app-id") ?? "";
  const compose = boot.get("compose-hash") ?? "";
  if (kind === undefined || name === undefined || !/^(?:[0-9a-f]{2})*$/.test(id)) return null;
  if (form === 2) return bytesToHex(keccak_256(concatBytes(bytes(compose), bytes(app), new Uint8Array([kind]), bytes(id))));
  const document = {
    version: 3, app_id: app, compose_hash: compose, key_provider: name, key_provider_id: id, instance_id: boot.get("instance-id") ?? "",
  };
  return bytesToHex(sha256(utf8ToBytes(`dstack-mr-config-v3:\0${canonical(document)}`)));
}

function binding(result: ResultFile, quote: Quote, report: Report): void {
  const { binding: bound, place } = result;
  const named =
    bound.chainId === place.chainId &&
    bound.app === place.app &&
    bound.runId === result.receipt.runId &&
    bound.receiptKey === result.certificate.agent;
  report.check("quote_binding", named && quote.reportData === reportData(bound).whole, `0x${quote.reportData}`);
}

/** Terms name one id, or a list of which they hold only the hash. */
function listed(name: "cvm_image" | "device", wanted: Hex, id: Hex, report: Report): void {
  if (idList([id]) === wanted) report.check(name, true, id);
  else report.skip(name, id);
}

/** dstack's `mr_system`: firmware, kernel and image, and where keys come from. */
function image(result: ResultFile, quote: Quote, log: Replayed, report: Report): void {
  const provider = sha256(bytes(log.boot.get("key-provider") ?? ""));
  const registers = quote.registers.slice(0, 3).map(bytes);
  const system: Hex = `0x${bytesToHex(sha256(concatBytes(part(quote, "mrtd"), ...registers, provider)))}`;
  if (result.terms.systems === ZERO_HASH) report.skip("cvm_image", system);
  else listed("cvm_image", result.terms.systems, system, report);
}

function device(result: ResultFile, judged: Appraised, report: Report): void {
  const id: Hex = `0x${bytesToHex(sha256(judged.ppid))}`;
  if (result.terms.devices === ZERO_HASH) report.check("device", true, id);
  else listed("device", result.terms.devices, id, report);
}

/** `cohort.gpu` of the measured file. */
function required(result: ResultFile): Json | undefined {
  return parseCompose(new TextEncoder().encode(text(result.appCompose ?? undefined, "app_compose"))).gpu;
}

function accelerators(result: ResultFile, log: Replayed, at: number, report: Report): ReturnType<typeof gpus> {
  return attempt(report, "gpu_evidence", () => {
    const asked = {
      required: required(result),
      evidence: result.gpu,
      committed: result.binding.gpuEvidenceHash?.slice(2) ?? null,
      reportData: reportData(result.binding).plain,
      state: log.boot.get("gpu-attestation"),
    };
    const found = gpus(asked, at);
    if (found) {
      report.check("gpu_evidence", true, found.detail);
      report.skip("gpu_firmware", "--gpu-golden");
    }
    return found;
  });
}

/** One development root makes all of it development. */
function platform(result: ResultFile, signed: Signed, accelerated: ReturnType<typeof gpus>, report: Report): void {
  const genuine = signed.root === "intel" && accelerated?.genuine !== false;
  report.check("claimed_platform", result.attestation === (genuine ? "intel" : "development"), result.attestation);
}
