// The vectors of docs/spec/sealed-dataset.md, which Rust and Python run too; the sealer is compared byte for byte.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { encapsulate, infoOf, open, parseRecord, Refused, rootKey, seal, sha256, sizeOf, type SecretKey } from "./sealed";

const load = (name: string) => readFileSync(new URL(`../../test/vectors/sealed-dataset/${name}`, import.meta.url));
const index = JSON.parse(load("index.json").toString());
const secret = Buffer.from(index.root_secret, "hex");
const keys = new Map<number, SecretKey>();
const keyOf = (epoch: number) => {
  const key = keys.get(epoch) ?? rootKey(secret, epoch);
  keys.set(epoch, key);
  return key;
};
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const takes = (attempt: () => unknown) => {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
};

describe("sealed datasets", () => {
  it.each(index.roots as any[])("root of epoch $epoch", (root) => {
    const key = keyOf(root.epoch);
    expect([hex(key.ikm), hex(key.sk), hex(key.publicKey)]).toEqual([root.ikm, root.sk, root.public_key]);
    expect(`0x${hex(sha256(key.publicKey))}`).toBe(root.root_key_id);
  });

  it.each(index.public_keys as any[])("public key: $about", ({ public_key, accepted }) => {
    expect(takes(() => encapsulate(Buffer.from(public_key, "hex"), Buffer.alloc(64, 1)))).toBe(accepted);
  });

  it.each(index.headers as any[])("header: $about", ({ header, size }) => {
    const block = Buffer.from(header, "hex");
    if (size === undefined) expect(() => sizeOf(block, "data")).toThrow(Refused);
    else expect(sizeOf(block, "data")).toBe(BigInt(size));
  });

  it.each(index.recovery as any[])("recovery record: $about", ({ record, accepted }) => {
    expect(takes(() => parseRecord(record))).toBe(accepted);
  });

  it.each(index.cases as any[])("$file", ({ file, attested, expected, layers }) => {
    const bytes = load(file);
    const key = keyOf(attested.root_epoch);
    if (layers) {
      const error = (() => {
        try {
          return open(bytes, key, attested);
        } catch (thrown) {
          return thrown;
        }
      })();
      expect(error).toBeInstanceOf(Refused);
      expect(layers).toContain((error as Refused).layer);
      return;
    }
    const opened = open(bytes, key, attested);
    const { eseed, ...values } = expected;
    expect({
      dataset_id: `0x${hex(opened.id)}`,
      data_root: `0x${hex(opened.root)}`,
      plaintext_bytes: opened.plaintext.length,
      plaintext_sha256: `0x${hex(sha256(opened.plaintext))}`,
      info: hex(opened.info),
      wrap_key: hex(opened.wrap),
      data_key: hex(opened.dataKey),
      chunk_key: hex(opened.chunkKey),
    }).toEqual(values);
    if (!eseed) return;
    const random = Buffer.from(eseed, "hex");
    const sealed = seal(opened.envelope.json, key.publicKey, infoOf(attested), opened.plaintext, random, opened.dataKey);
    expect(Buffer.compare(sealed, bytes)).toBe(0);
  });
});
