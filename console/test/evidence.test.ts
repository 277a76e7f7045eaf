// Quotes and event logs: recorded ones, and each broken in one place.
import { existsSync, readFileSync } from "node:fs";
import { hexToBytes } from "viem";
import { describe, expect, it } from "vitest";
import { replay } from "../src/verify/event-log";
import { parseQuote, rootOf } from "../src/verify/quote";

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
    const { registers, app, composeHash } = replay(log);
    expect(registers).toEqual(parseQuote(quote).registers);
    expect([`0x${app}`, `0x${composeHash}`]).toEqual([result.app, result.terms.compose_hash]);
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

describe("evidence of a real machine", () => {
  const sample = `${process.env["COHORT_SAMPLES"] ?? new URL("../../../shared/samples", import.meta.url).pathname}/real-dstack-cvm/quote-report.json`;
  if (!existsSync(sample)) console.log(`skipped: a quote of Intel hardware (${sample} is not there)`);
  it.skipIf(!existsSync(sample))("leads to Intel's root, and its log replays", () => {
    const report = JSON.parse(readFileSync(sample, "utf8"));
    const parsed = parseQuote(hexToBytes(`0x${String(report.quote).replace(/^0x/, "")}`));
    expect(rootOf(parsed, Date.parse("2026-01-01T00:00:00Z") / 1000)).toBe("intel");
    const { registers } = replay(typeof report.event_log === "string" ? report.event_log : JSON.stringify(report.event_log));
    expect(registers.map((it, index) => it ?? parsed.registers[index])).toEqual(parsed.registers);
  });
});
