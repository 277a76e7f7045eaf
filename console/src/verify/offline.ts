// What a result file shows by itself: arithmetic, no network. Order and names are those of `cohort verify`.
import { Validator } from "@cfworker/json-schema";
import { keccak_256 } from "@noble/hashes/sha3";
import { sha512 } from "@noble/hashes/sha2";
import { bytesToHex } from "@noble/hashes/utils";
import { concat, hexToBytes, numberToHex, stringToBytes, type Hex } from "viem";
import { canonicalHash } from "../format/hash";
import { epsilonText } from "../format/loss";
import { parseCompose, type Compose } from "../format/recipe";
import type { Binding, ResultFile } from "../format/result";
import { proposalId } from "../format/terms";
import { digest, recover, structHash } from "../format/typed";
import { replay } from "./event-log";
import { parseQuote, rootOf, type Quote } from "./quote";
import type { Report } from "./report";

export async function offline(result: ResultFile, report: Report): Promise<void> {
  const hash = canonicalHash(result.payload);
  report.check("payload", hash === result.receipt.outputHash, hash);
  recipe(result, report);
  await signatures(result, report);
  evidence(result, report);
  await request(result, report);
}

function compose(result: ResultFile): Compose | string {
  if (result.appCompose === null) return "no app_compose";
  try {
    return parseCompose(new TextEncoder().encode(result.appCompose));
  } catch (error) {
    return (error as Error).message;
  }
}

function recipe(result: ResultFile, report: Report): void {
  const parsed = compose(result);
  if (typeof parsed === "string") return report.check("recipe", false, parsed);
  const { terms } = result;
  report.check("compose_hash", parsed.composeHash === terms.composeHash, parsed.composeHash);
  const same =
    parsed.recipeHash === terms.recipeHash &&
    parsed.outputSchemaHash === terms.outputSchemaHash &&
    parsed.epsilonPerRun === terms.epsilonPerRun &&
    parsed.epsilonBudget === terms.epsilonBudget;
  report.check("recipe", same, parsed.recipeHash);
  const schema = new Validator(parsed.outputSchema as object, "2020-12");
  report.check("output_schema", schema.validate(result.payload).valid, parsed.outputSchemaHash);
  const { receipt } = result;
  const approved = receipt.epsilon === terms.epsilonPerRun && receipt.delta === terms.deltaPerRun;
  report.check("privacy_loss", approved, `\u03b5 ${epsilonText(receipt.epsilon)}`);
}

async function signatures(result: ResultFile, report: Report): Promise<void> {
  const { place, receipt, certificate, binding } = result;
  const signer = await recover(digest(place, "Receipt", receipt), result.receiptSignature);
  report.check("receipt_signature", signer === certificate.agent, certificate.agent);
  const root = await recover(digest(place, "AgentCertificate", certificate), result.certificateSignature);
  const bound =
    root === binding.kmsRoot &&
    certificate.composeHash === result.terms.composeHash &&
    receipt.producedAt < certificate.notAfter;
  report.check("certificate", bound, binding.kmsRoot);
}

/** SHA-512 over the parts, each with its length before it (docs/spec/release.md). */
export function reportData(binding: Binding): string {
  const parts: Uint8Array[] = [
    stringToBytes("cohort-release/1"),
    hexToBytes(numberToHex(binding.chainId, { size: 8 })),
    ...[binding.app, binding.kmsRoot, binding.challenge, binding.runId, binding.encryptionKeyHash, binding.receiptKey]
      .map((part) => hexToBytes(part)),
  ];
  const framed = parts.flatMap((part) => [hexToBytes(numberToHex(part.length, { size: 4 })), part]);
  return bytesToHex(sha512(concat(framed)));
}

function evidence(result: ResultFile, report: Report): void {
  const hash = canonicalHash(result.committed);
  report.check("evidence", hash === result.receipt.evidenceHash, hash);
  try {
    machine(result, parseQuote(hexToBytes(result.quote)), report);
  } catch (error) {
    report.check("tdx_quote", false, (error as Error).message);
  }
  report.skip("tcb", "Intel DCAP");
  if (result.hasGpu) report.skip("gpu", "NVIDIA");
}

/** What the quote and the event log say of the machine, and who signed that. */
function machine(result: ResultFile, quote: Quote, report: Report): void {
  const root = rootOf(quote, Number(result.receipt.producedAt));
  report.check("tdx_quote", root !== null, root === "intel" ? "Intel SGX Root CA" : "not Intel SGX Root CA");
  report.check("claimed_platform", result.attestation === (root === "intel" ? "intel" : "development"), result.attestation);
  const { binding, place } = result;
  const named =
    binding.chainId === place.chainId &&
    binding.app === place.app &&
    binding.runId === result.receipt.runId &&
    binding.receiptKey === result.certificate.agent;
  report.check("quote_binding", named && quote.reportData === reportData(binding), `0x${quote.reportData}`);
  report.check("measurement", ...measurement(result, quote));
}

/** Whether the event log replays to the quote's registers and names this app and this code. */
function measurement(result: ResultFile, quote: Quote): [holds: boolean, detail: string] {
  try {
    const log = replay(result.eventLog);
    const same = log.registers.every((value, index) => value === null || value === quote.registers[index]);
    const own = `0x${log.app}` === result.place.app && `0x${log.composeHash}` === result.terms.composeHash;
    return [same && own, `RTMR3 ${quote.registers[3]}`];
  } catch (error) {
    return [false, (error as Error).message];
  }
}

/** keccak256 of the dataset ids, joined in the order of the inputs. */
export const inputsHash = (ids: Hex[]): Hex => `0x${bytesToHex(keccak_256(concat(ids.map((id) => hexToBytes(id)))))}`;

const bits = (set: bigint): number => set.toString(2).replaceAll("0", "").length;

async function request(result: ResultFile, report: Report): Promise<void> {
  const { run, receipt, inputs } = result;
  const id = structHash("RunRequest", run);
  report.check("run", id === receipt.runId && proposalId(result.terms) === run.proposalId, id);
  const signer = await recover(digest(result.place, "RunRequest", run), result.runSignature);
  if (signer === run.analyst) report.check("request_signature", true, run.analyst);
  else report.skip("request_signature", run.analyst);
  const hash = inputsHash(inputs.map(({ datasetId }) => datasetId));
  report.check("inputs", hash === receipt.inputsHash && inputs.length === bits(run.participants), hash);
}
