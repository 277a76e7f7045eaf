// What the page asks the chain about a result: each answer that must not pass, given by an endpoint in memory.
import { readFileSync } from "node:fs";
import { decodeFunctionData, encodeAbiParameters, encodeEventTopics, encodeFunctionResult, hexToString, type Hex } from "viem";
import { describe, expect, it } from "vitest";
import { parseResult } from "../src/format/result";
import { digest } from "../src/format/typed";
import { abi } from "../src/generated/contract";
import { online } from "../src/verify/online";
import { Report } from "../src/verify/report";

const result = parseResult(readFileSync(new URL("../../test/vectors/evidence/sound.json", import.meta.url), "utf8"));
const { place, position, receipt, run, terms } = result;
const signed = digest(place, "Receipt", receipt);
const ZERO: Hex = `0x${"0".repeat(64)}`;
const opened = receipt.producedAt - 5n;

type Answers = Record<string, (args: readonly unknown[]) => unknown>;

const owners = result.inputs.length;
const everyone = (1n << BigInt(owners)) - 1n;
const era = Number(terms.era);
const SOUND = {
  run: [ZERO, run.participants, opened, signed] as unknown[],
  proposal: [everyone, 2, false, false, era, terms.expiry, 1n] as unknown[],
  config: [everyone, 2, owners, era, owners, 1n] as unknown[],
};

/** A chain on which the vector's result stands; `changes` are answers that differ. */
function chain(changes: Answers = {}, block = {}, id = place.chainId) {
  const named = (id: unknown) => hexToString(id as Hex, { size: 32 }).replaceAll("\0", "");
  const answers: Answers = {
    run: () => SOUND.run,
    proposal: () => SOUND.proposal,
    config: () => SOUND.config,
    kmsRoot: () => result.binding.kmsRoot,
    agentRevoked: () => false,
    isAnalyst: () => true,
    ownerOf: ([id]) => [true, result.inputs.findIndex(({ owner }) => owner === named(id)), place.app, place.app],
    dataset: ([id]) => [true, false, result.inputs.findIndex((it) => it.datasetId === id), terms.composeHash],
    ...changes,
  };
  const topics = encodeEventTopics({ abi, eventName: "ReceiptPosted", args: { runId: receipt.runId, proposalId: run.proposalId, agent: result.certificate.agent } });
  const mined = { status: "0x1", blockNumber: `0x${position.blockNumber.toString(16)}`, blockHash: position.blockHash, logs: [posted(topics as Hex[])], ...block };
  return {
    async request({ method, params }: { method: string; params?: unknown }) {
      const [first] = (params ?? []) as [{ data: Hex }];
      if (method === "eth_chainId") return `0x${id.toString(16)}`;
      if (method === "eth_getTransactionReceipt") return mined;
      if (method === "eth_getBlockByHash") return { timestamp: `0x${(receipt.producedAt + 5n).toString(16)}`, ...block };
      if (method === "eth_getCode") return "0x";
      const { functionName, args } = decodeFunctionData({ abi, data: first.data });
      return encodeFunctionResult({ abi, functionName, result: answers[functionName]?.(args ?? []) } as never);
    },
  };
}

/** The event's data from its own definition, with this receipt's digest. */
function posted(topics: Hex[]) {
  const event = abi.find((it) => it.type === "event" && it.name === "ReceiptPosted") as unknown as { inputs: { name: string; type: string; indexed?: boolean; components?: unknown }[] };
  const plain = event.inputs.filter(({ indexed }) => !indexed);
  const values = plain.map(({ name }) => (name === "digest" ? signed : name === "receipt" ? receipt : undefined));
  return { address: place.app, topics, data: encodeAbiParameters(plain as never, values as never) };
}

async function failing(provider: ReturnType<typeof chain>, file = result): Promise<string[]> {
  const report = new Report();
  await online(provider, file, report);
  return report.checks.filter(({ verdict }) => verdict === "failed").map(({ name }) => name);
}

describe("the chain's answers about a result", () => {
  it("hold where they are the ones of the vector", async () => expect(await failing(chain())).toEqual([]));

  const other = (name: keyof typeof SOUND, at: number, value: unknown): Answers => ({ [name]: () => SOUND[name].with(at, value) });
  it.each<[string, Answers, object]>([
    ["run_on_chain", other("run", 3, ZERO), {}],
    ["run_on_chain", other("run", 1, 1n << 5n), {}],
    ["time", other("run", 2, receipt.producedAt + 901n), {}],
    ["time", {}, { timestamp: `0x${(receipt.producedAt - 901n).toString(16)}` }],
    ["kms_root", { kmsRoot: () => place.app }, {}],
    ["agent_key", { agentRevoked: () => true }, {}],
    ["analyst", { isAnalyst: () => false }, {}],
    ["quorum", other("proposal", 2, true), {}],
    ["quorum", other("proposal", 3, true), {}],
    ["quorum", other("proposal", 1, 9), {}],
    ["quorum", other("proposal", 4, era + 1), {}],
    ["quorum", other("proposal", 5, terms.expiry + 1n), {}],
    ["quorum", other("config", 3, era + 1), {}],
    ["quorum", other("config", 0, 1n), {}],
    ["quorum", {}, { timestamp: `0x${terms.expiry.toString(16)}` }],
    ["own_approval", other("proposal", 0, everyone - 1n), {}],
    ["budget", other("proposal", 6, 0n), {}],
    ["budget", other("proposal", 6, 99n), {}],
    ["datasets", { dataset: () => [false, false, 0, terms.composeHash] }, {}],
    ["datasets", { dataset: () => [true, false, 7, terms.composeHash] }, {}],
    ["datasets", { ownerOf: () => [false, 0, place.app, place.app] }, {}],
    ["receipt_on_chain", {}, { blockHash: ZERO }],
    ["receipt_on_chain", {}, { logs: [] }],
    ["receipt_on_chain", {}, { status: "0x0" }],
  ])("%s", async (name, changes, block) => expect(await failing(chain(changes, block))).toContain(name));

  it("spend more delta than was approved", async () =>
    expect(await failing(chain(), { ...result, terms: { ...terms, deltaPerRun: 1n } })).toContain("budget"));

  it("are of another chain", async () => expect(await failing(chain({}, {}, 1))).toEqual(["chain"]));
});
