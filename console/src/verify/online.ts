// What the chain says about a result, at the receipt's own block, through the reader's own wallet or endpoint.
import { decodeEventLog, stringToHex, type Hex } from "viem";
import { App, type Mined } from "../chain/app";
import { ChainError, type Provider } from "../chain/provider";
import { abi } from "../generated/contract";
import { epsilonText } from "../format/loss";
import type { ResultFile } from "../format/result";
import { digest, recover } from "../format/typed";
import type { Report } from "./report";

/** Adds the chain's checks as one endpoint answers them. Throws {@link ChainError} when it does not answer. */
export async function online(provider: Provider, result: ResultFile, report: Report): Promise<void> {
  const app = new App(provider, result.place.app);
  const chainId = await app.chainId();
  report.check("chain", chainId === result.place.chainId, String(chainId));
  if (chainId !== result.place.chainId) return;
  const { transaction } = result.position;
  const mined = (await app.ask("eth_getTransactionReceipt", [transaction])) as Mined | null;
  if (!mined || Number(mined.status) !== 1) return report.check("receipt_on_chain", false, transaction);
  // The block that the chain names, not the one that the file claims.
  const at = BigInt(mined.blockNumber);
  const block = (await app.ask("eth_getBlockByHash", [mined.blockHash, false])) as { timestamp: Hex } | null;
  if (!block) return report.check("receipt_on_chain", false, mined.blockHash);
  const then = BigInt(block.timestamp);
  await receipt(app, result, mined, { at, then }, report);
  await approvals(app, result, { at, then }, report);
  await datasets(app, result, at, report);
  const [, , , , , , runs] = await app.read("proposal", [result.run.proposalId]);
  const { epsilonBudget: budget, deltaPerRun, deltaBudget } = result.terms;
  const spent = runs * result.terms.epsilonPerRun;
  const within = runs >= 1n && spent <= budget && runs * deltaPerRun <= deltaBudget;
  report.check("budget", within, `\u03b5 ${epsilonText(spent)} / ${epsilonText(budget)}`);
}

function posted(mined: Mined, result: ResultFile, signed: Hex): boolean {
  return mined.logs.some((log) => {
    if (log.address.toLowerCase() !== result.place.app) return false;
    try {
      const event = decodeEventLog({ abi, data: log.data, topics: log.topics });
      return (
        event.eventName === "ReceiptPosted" &&
        event.args.digest === signed &&
        event.args.runId === result.receipt.runId
      );
    } catch {
      return false; // another event
    }
  });
}

/** The receipt's block, and its time in Unix seconds. */
interface Moment {
  at: bigint;
  then: bigint;
}

/** Seconds by which the clocks of the machine and of the chain may differ. */
const CLOCKS_APART = 900n;

async function receipt(app: App, result: ResultFile, mined: Mined, { at, then }: Moment, report: Report): Promise<void> {
  const signed = digest(result.place, "Receipt", result.receipt);
  const { position } = result;
  const here = mined.blockHash === position.blockHash && at === BigInt(position.blockNumber);
  report.check("receipt_on_chain", posted(mined, result, signed) && here, `#${at} ${position.transaction}`);
  // The run id is the hash of the request, which names the proposal: `offline` has checked both.
  const [, participants, openedAt, stored] = await app.read("run", [result.receipt.runId]);
  const epsilon = result.terms.epsilonPerRun;
  const closed =
    participants === result.run.participants && stored === signed && epsilon === result.receipt.epsilon;
  report.check("run_on_chain", closed, `\u03b5 ${epsilonText(epsilon)}`);
  const { producedAt } = result.receipt;
  // The host sets the agent's clock, as of which evidence and collateral are judged: the chain bounds it.
  const bounded = producedAt + CLOCKS_APART >= BigInt(openedAt) && producedAt <= then + CLOCKS_APART;
  report.check("time", bounded, new Date(Math.min(Number(producedAt), 8.64e12) * 1000).toISOString());
  const root = (await app.read("kmsRoot", [], at)).toLowerCase();
  report.check("kms_root", root === result.binding.kmsRoot, root);
  const revoked = await app.read("agentRevoked", [result.certificate.agent]);
  report.check("agent_key", !revoked, result.certificate.agent);
}

const bits = (set: bigint): number => set.toString(2).replaceAll("0", "").length;

/** Quorum and each participant's own approval, as they stood at the receipt's block. */
async function approvals(app: App, result: ResultFile, { at, then }: Moment, report: Report): Promise<void> {
  const [given, snapshot, revoked, superseded, era, expiry] = await app.read("proposal", [result.run.proposalId], at);
  const [active, threshold, owners, current] = await app.read("config", [], at);
  const { terms } = result;
  const inForce =
    !revoked && !superseded && era === current && BigInt(era) === terms.era && BigInt(expiry) === terms.expiry && then < terms.expiry;
  const needed = Math.max(snapshot, threshold);
  const signed = bits(given & active);
  report.check("quorum", signed >= needed && inForce, `${signed} / ${owners} \u2265 ${needed}`);
  report.check("own_approval", (result.run.participants & ~given) === 0n, result.inputs.map((i) => i.owner).join(", "));
}

async function datasets(app: App, result: ResultFile, at: bigint, report: Report): Promise<void> {
  let participants = 0n;
  let holds = true;
  for (const input of result.inputs) {
    const [listed, index] = await app.read("ownerOf", [stringToHex(input.owner, { size: 32 })], at);
    const [registered, , owner, composeHash] = await app.read("dataset", [input.datasetId], at);
    holds &&= listed && registered && owner === index && composeHash === result.terms.composeHash;
    participants |= 1n << BigInt(index);
  }
  report.check("datasets", holds && participants === result.run.participants, String(result.inputs.length));
  const signer = await recover(digest(result.place, "RunRequest", result.run), result.runSignature);
  if (signer !== result.run.analyst) {
    const code = (await app.ask("eth_getCode", [result.run.analyst, "latest"])) as Hex;
    report.check("request_signature", code !== "0x", result.run.analyst);
  }
  report.check("analyst", await app.read("isAnalyst", [result.run.analyst], at), result.run.analyst);
}

export { ChainError };
