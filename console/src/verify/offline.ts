// What a result file shows by itself: arithmetic, no network. Order and names are those of `cohort verify`.
import { Validator } from "@cfworker/json-schema";
import { keccak_256 } from "@noble/hashes/sha3";
import { bytesToHex } from "@noble/hashes/utils";
import { concat, hexToBytes, type Hex } from "viem";
import { canonicalHash } from "../format/hash";
import type { JsonObject } from "../format/json";
import { epsilonText } from "../format/loss";
import { parseCompose, type Compose } from "../format/recipe";
import type { ResultFile } from "../format/result";
import { proposalId } from "../format/terms";
import { digest, recover, structHash } from "../format/typed";
import { machine } from "./machine";
import type { Report } from "./report";

export async function offline(result: ResultFile, report: Report): Promise<void> {
  const hash = canonicalHash(result.payload);
  report.check("payload", hash === result.receipt.outputHash, hash);
  recipe(result, report);
  await signatures(result, report);
  machine(result, report);
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
    parsed.epsilonBudget === terms.epsilonBudget &&
    parsed.deltaPerRun === terms.deltaPerRun &&
    parsed.deltaBudget === terms.deltaBudget;
  report.check("recipe", same, parsed.recipeHash);
  const schema = new Validator(parsed.outputSchema as object, "2020-12");
  report.check("output_schema", schema.validate(result.payload).valid, parsed.outputSchemaHash);
  const evidence = result.committed.evidence as JsonObject;
  if ("privacy_proof" in evidence) report.skip("privacy_proof", String((evidence["privacy_proof"] as JsonObject | null)?.["planner"]));
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
