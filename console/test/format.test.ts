import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { canonical, FormatError, parseJson } from "../src/format/json";
import { ZERO_HASH } from "../src/format/hex";
import { delta, deltaText, epsilon, epsilonText } from "../src/format/loss";
import { parseCompose } from "../src/format/recipe";
import { idList, parseTerms, proposalId, termsJson } from "../src/format/terms";
import { sha256Hex } from "../src/format/hash";
import { lines } from "../src/format/words";
import { review } from "../src/wallet/approve";

const file = (path: string) => new Uint8Array(readFileSync(new URL(`../../test/${path}`, import.meta.url)));
const utf8 = (text: string) => new TextEncoder().encode(text);

describe("JSON", () => {
  it.each([
    ['{"a":1,"a":2}', "a key twice"],
    ['{"a":1,"\\u0061":2}', "a key twice, spelled with an escape"],
    ['{"a":{"b":[{"c":1,"c":1}]}}', "a key twice, deep inside"],
    ["01", "a leading zero"],
    ["1e999", "a number beyond doubles"],
    ['"\\ud800"', "half a surrogate pair"],
    ["[1,]", "a trailing comma"],
    ["{} {}", "two values"],
    ["\ufeff{}", "a byte order mark"],
    ["NaN", "no number"],
    ["[".repeat(100) + "]".repeat(100), "nesting beyond the limit"],
    ["", "nothing"],
  ])("refuses %s (%s)", (text) => expect(() => parseJson(text)).toThrow(FormatError));

  it("reads what JSON.parse reads", () => {
    const text = ' { "b" : [1, -0.5, 1e3, "\\u00fc\\n", true, null], "__proto__" : {} , "a" : {} } ';
    expect(canonical(parseJson(text))).toBe('{"__proto__":{},"a":{},"b":[1,-0.5,1000,"\u00fc\\n",true,null]}');
  });

  // RFC 8785, section 3.2.3 and appendix B.
  it("sorts by UTF-16 code units and writes numbers as RFC 8785 does", () => {
    const keys = { "\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7 };
    expect(Object.values(parseJson(canonical(keys)) as object)).toEqual([4, 2, 6, 7, 1, 5, 3]);
    expect(canonical([333333333.33333329, 1e30, 4.5, 2e-3, 1e-27, -0])).toBe(
      "[333333333.3333333,1e+30,4.5,0.002,1e-27,0]",
    );
  });
});

describe("epsilon", () => {
  it.each([["1.5", 1_500_000_000n], ["0", 0n], ["0.000000001", 1n], ["18446744073.709551615", (1n << 64n) - 1n]])(
    "%s",
    (text, nano) => {
      expect(epsilon(text, "e")).toBe(nano);
      expect(epsilonText(nano)).toBe(text);
    },
  );
  it.each(["", "1.", ".5", "01", "1.0000000001", "-1", "1e3", "18446744073.709551616", 1.5])("refuses %s", (text) =>
    expect(() => epsilon(text, "e")).toThrow(FormatError),
  );
});

describe("the compose file", () => {
  const vector = JSON.parse(new TextDecoder().decode(file("vectors/compose/heart-disease.json")));

  it("has the hashes of the vector", () => {
    const compose = parseCompose(file("data/heart-disease/app-compose.json"));
    expect([compose.composeHash, compose.recipeHash, compose.outputSchemaHash]).toEqual([
      vector.compose_hash, vector.recipe_hash, vector.output_schema_hash,
    ]);
  });

  it("is read in full", () => {
    const recipe = parseCompose(file("data/heart-disease/app-compose.json")).recipe;
    expect(recipe?.measures.map(({ name, cells }) => [name, cells])).toEqual([
      ["patients", 8], ["prevalence", 8], ["resting_blood_pressure", 8], ["cholesterol", 8], ["age", 6],
    ]);
    expect(recipe?.keys[0]?.labels).toEqual(["<45", "45-54", "55-64", ">=65"]);
    expect(recipe?.measures.reduce((sum, { epsilon }) => sum + epsilon, 0n)).toBe(1_500_000_000n);
  });

  it("has another hash with another space", () => {
    const bytes = file("data/heart-disease/app-compose.json");
    expect(parseCompose(new Uint8Array([...bytes, 32])).composeHash).not.toBe(vector.compose_hash);
    expect(parseCompose(new Uint8Array([...bytes, 32])).recipeHash).toBe(vector.recipe_hash);
  });

  it("gives the hash of docs/spec/compose.md", () => {
    const text = '{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x"}';
    expect(sha256Hex(utf8(text))).toBe("0x85e9af0a6c799bb4ac657e8c9befea1bc4bd0eb0c54c8f54608eabc42b010e0f");
  });

  it("with anything that has no words here is shown as its whole text", () => {
    const text = new TextDecoder().decode(file("data/heart-disease/app-compose.json"));
    for (const other of [text.replace('"version": 1,', '"version": 1, "extra": 1,'), text.replace('"kind": "count",', '"kind": "rows",')]) {
      const compose = parseCompose(utf8(other));
      expect(compose.recipe).toBeNull();
      expect(compose.epsilonPerRun).toBe(1_500_000_000n);
    }
    expect(() => parseCompose(utf8(text.replace('"epsilon_per_run": "1.5"', '"epsilon_per_run": 1.5')))).toThrow(FormatError);
  });

  it("may have regressions, quantiles, a script and a GPU", () => {
    const whole = JSON.parse(new TextDecoder().decode(file("data/heart-disease/app-compose.json")));
    const features = [{ column: "age", lower: 20, upper: 90 }];
    whole.cohort.measures = [
      { name: "m", kind: "quantile", by: ["sex"], column: "chol", lower: 150, upper: 350, probability: "0.5", over: "p", round_to: "1", epsilon: "0.5" },
      { name: "r", kind: "logistic_regression", by: [], where: { column: "num", op: ">=", value: 1 }, features, limit: 100, round_to: "0.01", epsilon: "0.5" },
      { name: "e", kind: "emitted", by: [], lower: 0, upper: 1, labels: ["a", "b", "c"], over: "p", round_to: "0.01", epsilon: "0.5" },
    ];
    whole.cohort.python = { script: "emit([0])", seconds: 60, memory_mib: 512 };
    whole.cohort.gpu = { architecture: "hopper", count: 1 };
    const recipe = parseCompose(utf8(JSON.stringify(whole))).recipe;
    expect(recipe?.measures.map(({ cells }) => cells)).toEqual([2, 2, 3]);
    expect([recipe?.script?.text, recipe?.gpu]).toEqual(["emit([0])", "hopper \u00d7 1"]);
  });
});

describe("a recipe of SQL over several owners with Gaussian noise", () => {
  const whole = JSON.parse(new TextDecoder().decode(file("data/heart-disease/app-compose.json")));
  const column = (name: string, type = "int64") => ({ name, type, nullable: false });
  Object.assign(whole.cohort, {
    datasets: { owners: ["bank-A", "bank-B"], columns: [column("customer"), { ...column("amount"), owners: ["bank-A"] }] },
    prepare: {
      steps: [{ name: "spend", sql: 'SELECT customer,\n MAX(amount) AS amount FROM "bank-A" GROUP BY customer' }],
      tables: [{ name: "zones", columns: [{ name: "zone", type: "int64" }], rows: [[1], [2]] }],
      columns: [column("customer"), column("amount")],
      seconds: 90,
    },
    privacy: { unit: "customer", epsilon_per_run: "1", epsilon_budget: "2", noise: "gaussian", delta: "0.000001", delta_budget: "0.000003" },
    keys: [{ name: "size", column: "amount", bands: [10] }],
    measures: [{ name: "customers", kind: "count", by: ["size"], round_to: "1", epsilon: "1" }],
  });
  const compose = parseCompose(utf8(JSON.stringify(whole)));

  it("has its loss in units of the contract", () => {
    expect([compose.epsilonPerRun, compose.deltaPerRun, compose.deltaBudget]).toEqual([10n ** 9n, 10n ** 12n, 3n * 10n ** 12n]);
    expect(deltaText(compose.deltaPerRun)).toBe("0.000001");
  });

  it("is put into words, SQL and all", () => {
    const said = lines(compose).join("\n");
    for (const part of ["amount (int64), of bank-A only", 'MAX(amount) AS amount FROM "bank-A"', "2 rows", "the same at all owners", "exactly 90 s", "Gaussian", "0.000001 / 0.000003"]) {
      expect(said).toContain(part);
    }
  });

  it("is not reviewed with terms of another delta", () => {
    const terms = {
      composeHash: compose.composeHash, recipeHash: compose.recipeHash, outputSchemaHash: compose.outputSchemaHash,
      epsilonPerRun: 10n ** 9n, deltaPerRun: 10n ** 12n, epsilonBudget: 2n * 10n ** 9n, deltaBudget: 3n * 10n ** 12n,
      expiry: 2n, devices: ZERO_HASH, systems: ZERO_HASH, era: 0n, round: 0n,
    };
    expect(review(proposalId(terms), terms, compose)).toMatchObject({ terms });
    for (const other of [{ ...terms, deltaPerRun: 0n }, { ...terms, deltaBudget: 10n ** 13n }]) {
      expect(review(proposalId(other), other, compose)).toBe("delta");
    }
  });
});

describe("delta", () => {
  it.each(["", "1.", "2", ".5", "1e-6", "0.0000000000000000001", 0])("refuses %s", (text) => expect(() => delta(text, "d")).toThrow(FormatError));
});

describe("terms", () => {
  it("limit machines and images by the hash of an ordered list", () => {
    const vector = JSON.parse(new TextDecoder().decode(file("vectors/terms/id-list.json")));
    expect(idList(vector.ids)).toBe(vector.hash);
    expect(idList([...vector.ids].reverse())).toBe(vector.hash);
    expect(idList([])).toBe(`0x${"0".repeat(64)}`);
  });

  const vector = JSON.parse(new TextDecoder().decode(file("vectors/eip712/terms.json")));

  it("in JSON give the proposal id", () => {
    const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const json = Object.fromEntries(
      Object.entries<string>(vector.message).map(([name, value]) => {
        if (name.startsWith("epsilon")) return [snake(name), epsilonText(BigInt(value))];
        return [snake(name), /^(expiry|era|round)$/.test(name) ? Number(value) : value];
      }),
    );
    const terms = parseTerms(json);
    expect(proposalId(terms)).toBe(vector.structHash);
    expect(termsJson(terms)).toEqual(json);
    expect(() => parseTerms({ ...json, extra: 1 })).toThrow(FormatError);
  });
});
