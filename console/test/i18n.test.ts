// Both dictionaries say the same things, and every key in the sources exists.
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { en } from "../src/i18n/en";
import { tr } from "../src/i18n/tr";

const holes = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();

describe("dictionaries", () => {
  it("have the same keys", () => expect(Object.keys(tr)).toEqual(Object.keys(en)));

  it("name the same values in each text", () => {
    const differ = Object.entries(en).filter(([key, text]) => `${holes(text)}` !== `${holes(tr[key as keyof typeof tr])}`);
    expect(differ).toEqual([]);
  });

  it("translate every text", () => {
    const same = Object.entries(en).filter(([key, text]) => tr[key as keyof typeof tr] === text).map(([key]) => key);
    expect(same).toEqual(["title", "terms.delta_of", "terms.era_round", "check.tdx_quote"]); // names, and no words
  });

  it("have every key that is looked up by a name of the contract", () => {
    const source = readFileSync(new URL("../../contracts/IDstackApp.sol", import.meta.url), "utf8");
    const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/^_/, "");
    const events = [...source.matchAll(/^    event (\w+)\(/gm)].map(([, name]) => `event.${snake(name as string)}`);
    expect(events.length).toBeGreaterThan(30);
    expect(events.filter((key) => !(key in en))).toEqual([]);
  });

  it("have no key that nothing uses", () => {
    const folder = new URL("../src/", import.meta.url);
    const sources = readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.tsx?$/.test(name) && !name.startsWith("i18n/") && !name.startsWith("generated/"))
      .map((name) => readFileSync(new URL(name, folder), "utf8"))
      .join("\n");
    const prefixes = [...sources.matchAll(/[`"]([\w.]+\.)\$\{/g)].map(([, prefix]) => prefix as string);
    const unused = Object.keys(en).filter(
      (key) => !sources.includes(`"${key}"`) && !prefixes.some((prefix) => key.startsWith(prefix)),
    );
    expect(unused).toEqual([]);
  });
});
