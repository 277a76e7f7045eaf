// Results, quotes and event logs: the vectors that the command line runs, and recorded ones, each broken in one place.
import { existsSync, readFileSync } from "node:fs";
import { hexToBytes } from "viem";
import { describe, expect, it } from "vitest";
import { parseResult } from "../src/format/result";
import { appraise } from "../src/verify/collateral";
import { replay } from "../src/verify/event-log";
import { chain, gpus, verify } from "../src/verify/gpu";
import { reportData } from "../src/verify/machine";
import { offline } from "../src/verify/offline";
import { parseQuote, signers } from "../src/verify/quote";
import { Report } from "../src/verify/report";

const rootOf = (quote: ReturnType<typeof parseQuote>, now: number) => signers(quote, now)?.root ?? null;
const { result } = JSON.parse(readFileSync(new URL("../public/walkthrough.json", import.meta.url), "utf8"));
const quote = hexToBytes(`0x${result.evidence.quote}`);
const log: string = result.evidence.event_log;
const then: number = result.receipt.produced_at;

const flipped = (at: number) => quote.with(at, (quote[at] as number) ^ 1);
type Entry = { imr: number; event: string; event_payload: string; digest: string };
const edited = (edit: (entries: Entry[]) => void) => {
  const entries = JSON.parse(log);
  edit(entries);
  return JSON.stringify(entries);
};
const at = (entries: Entry[], name: string) => entries.findIndex(({ event }) => event === name);

describe("a recorded quote", () => {
  it("leads to its root, which is not Intel's", () => expect(rootOf(parseQuote(quote), then)).toBe("other"));

  it("leads nowhere outside its certificates' dates", () => {
    expect(rootOf(parseQuote(quote), 0)).toBeNull();
    expect(rootOf(parseQuote(quote), 1e11)).toBeNull();
  });

  // Version 4: header 48, TD report 584, length 4, signature 64, key 64, type and size 6, enclave report 384, signature 64.
  it.each([
    ["the report data", 568],
    ["a register", 48 + 472],
    ["the quote's signature", 636 + 10],
    ["the attestation key", 636 + 64 + 10],
    ["the enclave's report", 636 + 134 + 10],
    ["the key that the enclave names", 636 + 134 + 320],
    ["the enclave's signature", 636 + 134 + 384 + 10],
  ])("is refused with one bit changed in %s", (_, position) => {
    expect(rootOf(parseQuote(flipped(position)), then)).toBeNull();
  });

  it("is refused with another certificate in its chain", () => {
    const text = new TextDecoder("latin1").decode(quote);
    const begin = text.indexOf("-----BEGIN CERTIFICATE-----", text.indexOf("-----BEGIN CERTIFICATE-----") + 1);
    const refused = [60, 200, 400].map((offset) => {
      try {
        return rootOf(parseQuote(flipped(begin + offset)), then);
      } catch (error) {
        return (error as Error).constructor.name;
      }
    });
    expect(refused.every((it) => it === null || it === "FormatError")).toBe(true);
  });

  it.each([0, 10, 47, 631, 635, 700, 2000])("is refused when it is cut at byte %i", (length) => {
    expect(() => rootOf(parseQuote(quote.subarray(0, length)), then)).toThrow();
  });
});

describe("a recorded event log", () => {
  it("replays to the quote's registers and names app and code", () => {
    const { registers, boot } = replay(log);
    expect(registers).toEqual(parseQuote(quote).registers);
    expect([`0x${boot.get("app-id")}`, `0x${boot.get("compose-hash")}`]).toEqual([result.app, result.terms.compose_hash]);
  });

  it.each<[string, (entries: Entry[]) => void]>([
    ["another payload under the same digest", (it) => ((it[at(it, "compose-hash")] as Entry).event_payload = "11".repeat(32))],
    ["a second app-id", (it) => it.push({ ...(it[at(it, "app-id")] as Entry) })],
    ["no compose-hash", (it) => it.splice(at(it, "compose-hash"), 1)],
    ["another order", (it) => it.splice(at(it, "app-id"), 0, ...it.splice(at(it, "compose-hash"), 1))],
    ["a name that hides another", (it) => it.splice(at(it, "app-id"), 0, { ...(it[at(it, "app-id")] as Entry), event: "x:y", digest: "" })],
    ["no digest where only that is measured", (it) => ((it[0] as Entry).digest = "")],
    ["a register that is none", (it) => ((it[0] as Entry).imr = 4)],
    ["an event of the firmware in dstack's register", (it) => ((it[0] as Entry).imr = 3)],
  ])("is refused with %s", (_, edit) => expect(() => replay(edited(edit))).toThrow());

  it("gives other registers with an event more", () => {
    const more = edited((it) => it.push({ ...(it[at(it, "app-id")] as Entry), event: "of-the-app", digest: "" }));
    expect(replay(more).registers[3]).not.toBe(parseQuote(quote).registers[3]);
  });
});

const vectors = new URL("../../test/vectors/evidence/", import.meta.url);
const { files } = JSON.parse(readFileSync(new URL("cases.json", vectors), "utf8"));

type Case = { file: string; fails_at: string | null };
/** Lists that terms name by their hash, of which the page has none to compare, and the proof of SQL, which it cannot plan. */
const UNTOLD = ["CVM image", "device", "privacy proof"];
/** What the page asks the chain, where the command line also takes proofs in the file. */
const ONLINE = new Set([
  "block header", "account proof", "storage proofs", "receipt proof", "receipt on chain", "run on chain", "pinned root", "quorum",
  "own approval", "datasets", "analyst", "agent key", "budget", "transaction", "time", "request signature",
]);
const cases: [string, string | null][] = files.filter((it: Case) => !ONLINE.has(String(it.fails_at))).map((it: Case) => [it.file, it.fails_at]);

describe("the vectors of result files", () => {
  it.each(cases)("%s: %s", async (name, failing) => {
    const report = new Report();
    await offline(parseResult(readFileSync(new URL(name, vectors), "utf8")), report);
    const failed = report.checks.find(({ verdict }) => verdict === "failed");
    const expected = failing === null || UNTOLD.includes(failing) ? undefined : failing.toLowerCase().replaceAll(" ", "_");
    expect([failed?.name, failed?.detail]).toEqual([expected, failed ? expect.any(String) : undefined]);
  });

  it("have every check that is made without the chain", async () => {
    const report = new Report();
    await offline(parseResult(readFileSync(new URL("sound-gpu.json", vectors), "utf8")), report);
    expect(report.checks.map(({ name }) => name)).toEqual([
      "payload", "compose_hash", "recipe", "output_schema", "privacy_loss", "receipt_signature", "certificate", "evidence", "tdx_quote",
      "collateral", "event_log", "measurement", "quote_binding", "cvm_image", "device", "gpu_evidence", "gpu_firmware",
      "claimed_platform", "run", "request_signature", "inputs",
    ]);
    expect(report.checks.filter(({ verdict }) => verdict === "skipped").map(({ name }) => name)).toEqual(["gpu_firmware"]);
  });
});

describe("GPUs", () => {
  const sound = parseResult(readFileSync(new URL("sound-gpu.json", vectors), "utf8"));
  const state = Buffer.from(JSON.stringify({ version: 2, provider: "nvidia", devices: 1, cc_mode: "on", devtools: false, evidence_sha256: "00" })).toString("hex");
  const asked = {
    required: { architecture: "hopper", count: 1 }, evidence: sound.gpu, committed: sound.binding.gpuEvidenceHash?.slice(2) ?? null,
    reportData: reportData(sound.binding).plain, state,
  };
  const at = Number(sound.receipt.producedAt);
  it("hold as they are", () => expect(gpus(asked, at)?.genuine).toBe(false));

  it.each<[string, object]>([
    ["commits to other GPUs", { committed: "11".repeat(32) }],
    ["commits to other GPUs", { committed: null }],
    ["another nonce", { reportData: asked.reportData.with(0, 1) }],
    ["requires 2", { required: { architecture: "hopper", count: 2 } }],
    ["requires none", { required: undefined }],
    ["another architecture", { required: { architecture: "blackwell", count: 1 } }],
    ["says nothing of GPUs", { state: undefined }],
    ["confidential GPUs", { state: Buffer.from('{"version":2,"provider":"nvidia","devices":1,"cc_mode":"off","devtools":false}').toString("hex") }],
  ])("%s", (why, changes) => expect(() => gpus({ ...asked, ...changes }, at)).toThrow(why));

  it("are of no certificate's time", () => expect(() => gpus(asked, 0)).toThrow("no chain"));
});

const samples = process.env["COHORT_SAMPLES"] ?? new URL("../../../shared/samples", import.meta.url).pathname;
const missing = !existsSync(`${samples}/real-dstack-cvm`);
if (missing) console.log(`skipped: evidence of real machines (${samples} is not there)`);

describe.skipIf(missing)("evidence of a real machine", () => {
  const sample = (name: string) => readFileSync(`${samples}/${name}`, "utf8");

  it("leads to Intel's root, its log replays, and by Intel's collateral it is up to date", () => {
    const report = JSON.parse(sample("real-dstack-cvm/quote-report.json"));
    const parsed = parseQuote(hexToBytes(`0x${String(report.quote).replace(/^0x/, "")}`));
    const { registers } = replay(typeof report.event_log === "string" ? report.event_log : JSON.stringify(report.event_log));
    expect(registers.map((it, index) => it ?? parsed.registers[index])).toEqual(parsed.registers);
    const collateral = JSON.parse(sample("real-dstack-cvm/collateral_fmspc_90c06f000000.json"));
    const now = 1771500000;
    const signed = signers(parsed, now);
    expect(signed?.root).toBe("intel");
    if (!signed) return;
    expect(appraise(parsed, signed, collateral, now).evaluation).toBeGreaterThan(10);
    expect(() => appraise(parsed, signed, collateral, 1774003275)).toThrow("of 2026-");
    const info = { ...collateral, tcb_info: collateral.tcb_info.replace("UpToDate", "OutOfDate") };
    expect(() => appraise(parsed, signed, info, now)).toThrow("not signed");
  });

  it("is of a GPU that leads to NVIDIA's root, and its report is signed by it", () => {
    const report = new Uint8Array(Buffer.from(sample("nvidia-hopper/hopperAttestationReport.txt").trim(), "hex"));
    const pem = sample("nvidia-hopper/hopperCertChain.txt");
    const certificates = [...pem.matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END/g)].map(([, body]) => new Uint8Array(Buffer.from(body as string, "base64")));
    const now = 1771500000;
    expect(chain(certificates, now).genuine).toBe(true);
    const asked = report.subarray(4, 36);
    expect(verify({ architecture: "hopper", report, certificates }, asked, now)).toMatchObject({ genuine: true, mode: 0 });
    const last = report.with(report.length - 1, (report.at(-1) as number) ^ 1);
    expect(() => verify({ architecture: "hopper", report: last, certificates }, asked, now)).toThrow("not signed");
    const forged = certificates.with(1, (certificates[1] as Uint8Array).with(-20, 1));
    expect(() => chain(forged, now)).toThrow("no chain");
  });
});
