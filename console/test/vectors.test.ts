// The same vectors that Solidity, Rust and Python run.
import { readdirSync, readFileSync } from "node:fs";
import type { Hex } from "viem";
import { describe, expect, it } from "vitest";
import { types } from "../src/generated/contract";
import { digest, recover, structHash, typedData, type Message, type TypeName } from "../src/format/typed";

const folder = new URL("../../test/vectors/eip712/", import.meta.url);
type Raw = { [key: string]: string | Raw };

function message(name: TypeName, raw: Raw): Message<TypeName> {
  const fields = types[name].map((member) => {
    const value = raw[member.name] as string & Raw;
    if (member.type in types) return [member.name, message(member.type as TypeName, value)];
    return [member.name, member.type.startsWith("uint") ? BigInt(value) : value];
  });
  return Object.fromEntries(fields) as never;
}

const vectors: [string, any][] = readdirSync(folder)
  .filter((name) => name.endsWith(".json"))
  .map((name): [string, any] => [name, JSON.parse(readFileSync(new URL(name, folder), "utf8"))])
  .filter(([, vector]) => vector.primaryType in types);

describe("EIP-712 vectors", () => {
  it("cover every type that the console signs or checks", () => {
    const covered = new Set(vectors.map(([, vector]) => vector.primaryType));
    expect(Object.keys(types).filter((name) => !covered.has(name))).toEqual([]);
  });

  it.each(vectors)("%s", async (_, vector) => {
    const name = vector.primaryType as TypeName;
    const place = { chainId: Number(vector.domain.chainId), app: vector.domain.verifyingContract as Hex };
    const signed = message(name, vector.message);
    expect(structHash(name, signed)).toBe(vector.structHash);
    expect(digest(place, name, signed)).toBe(vector.digest);
    expect(await recover(vector.digest, vector.signature)).toBe(vector.signer);
    // What a wallet is shown is the same document.
    const document = JSON.parse(typedData(place, name, signed));
    expect(document.message).toEqual(vector.message);
    expect(document.domain).toEqual({ ...vector.domain, chainId: Number(vector.domain.chainId) });
  });

  it("refuses a signature with a high s", async () => {
    const vector = vectors[0]?.[1];
    const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
    const signature = vector.signature as string;
    const s = order - BigInt(`0x${signature.slice(66, 130)}`);
    const twin = `${signature.slice(0, 66)}${s.toString(16).padStart(64, "0")}${signature.endsWith("1b") ? "1c" : "1b"}`;
    expect(await recover(vector.digest, twin as Hex)).toBeNull();
  });
});
