// A third reader and a sealer of docs/spec/sealed-dataset.md, for its vectors only: the console reads no sealed files.
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync } from "node:crypto";
import { x25519 } from "@noble/curves/ed25519";
import { blake3 } from "@noble/hashes/blake3";
import { sha3_256, shake256 } from "@noble/hashes/sha3";
import { ml_kem768 } from "@noble/post-quantum/ml-kem";
import { canonical, parseJson, utf8, type Json, type JsonObject } from "../src/format/json";

export const FORMAT = "cohort-sealed-dataset/1";
const TAG = 16;
const BLOCK = 512;
const ENVELOPE_LIMIT = 2n ** 20n;

/** The layer is a word of section 8. */
export class Refused extends Error {
  constructor(readonly layer: string, reason: string) {
    super(`${layer}: ${reason}`);
  }
}

export function require(holds: boolean, layer: string, reason: string): asserts holds {
  if (!holds) throw new Refused(layer, reason);
}

type Part = string | number[] | Uint8Array;
export const join = (...parts: Part[]) =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Uint8Array.from(part))));
export const unhex = (text: string) => Buffer.from(text.slice(2), "hex");
export const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();
const u32 = (value: number) => Buffer.from(value.toString(16).padStart(8, "0"), "hex");
const u64 = (value: number) => Buffer.from(value.toString(16).padStart(16, "0"), "hex");
const prefixed = (part: Part) => join(u32(join(part).length), part);
const hkdf = (salt: string, ikm: Uint8Array, info: Part) => Buffer.from(hkdfSync("sha256", ikm, salt, join(info), 32));
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

// ---- section 2: the archive ----

export function header(name: string, size: bigint): Buffer {
  const block = Buffer.alloc(BLOCK);
  const fields: [number, string][] = [
    [0, name], [100, "0000644"], [108, "0000000"], [116, "0000000"], [136, "00000000000"], [148, " ".repeat(8)],
    [156, "0"], [257, "ustar\0" + "00"], [329, "0000000"], [337, "0000000"],
  ];
  for (const [at, text] of fields) block.write(text, at, "latin1");
  if (size < 2n ** 33n) {
    block.write(size.toString(8).padStart(11, "0"), 124);
  } else {
    block[124] = 0x80;
    block.writeBigUInt64BE(size, 128);
  }
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** What a header announces, in the one form that it has. */
export function sizeOf(block: Buffer, name: string): bigint {
  const digits = /^[0-7]{11}$/.exec(block.toString("latin1", 124, 135))?.[0];
  require(digits !== undefined || block[124] === 0x80, "tar", "size");
  const size = digits === undefined ? block.readBigUInt64BE(128) : BigInt(`0o${digits}`);
  require(same(block, header(name, size)), "tar", "header");
  return size;
}

interface Entries {
  envelope: Buffer;
  data: Buffer;
  commitment: Buffer;
}

export function readArchive(file: Buffer): Entries {
  let at = 0;
  const take = (length: bigint) => {
    require(BigInt(at) + length <= BigInt(file.length), "tar", "cut short");
    const part = file.subarray(at, at + Number(length));
    at += part.length;
    return part;
  };
  const entry = (name: string, limit = 2n ** 64n) => {
    const size = sizeOf(take(BigInt(BLOCK)), name);
    require(size <= limit, "tar", "too large");
    const content = take(size);
    require(isZero(take((512n - (size % 512n)) % 512n)), "tar", "padding");
    return content;
  };
  const envelope = entry("envelope.json", ENVELOPE_LIMIT);
  const data = entry("data");
  const commitment = entry("commitment");
  require(commitment.length === 32, "tar", "commitment");
  const end = file.subarray(at);
  require(end.length === 2 * BLOCK && isZero(end), "tar", "end");
  return { envelope, data, commitment };
}

// ---- section 3: the envelope ----

const CONSTANTS = { aead: "AES-256-GCM", format: FORMAT, kdf: "HKDF-SHA256", kem: "X-Wing" };
const HEX = { app: 20, compose_hash: 32, enc: 1120, key_commitment: 32, root_key_id: 32, schema_hash: 32, wrapped_key: 48 };
const INTEGERS = { chain_id: [0, 2 ** 53 - 1], chunk_bytes: [4096, 2 ** 24], root_epoch: [0, 2 ** 32 - 1] } as const;
const MEMBERS = [...Object.keys({ ...CONSTANTS, ...HEX, ...INTEGERS }), "content", "owner"];

const isObject = (value: Json | undefined): value is JsonObject =>
  value !== null && typeof value === "object" && !Array.isArray(value);
const isInteger = (value: Json | undefined, low: number, high: number): value is number =>
  Number.isInteger(value) && (value as number) >= low && (value as number) <= high;
const matches = (value: Json | undefined, pattern: RegExp): value is string =>
  typeof value === "string" && pattern.test(value);
const isHex = (value: Json | undefined, bytes: number): value is string =>
  matches(value, /^0x[0-9a-f]*$/) && value.length === 2 + 2 * bytes;
const hasExactly = (value: JsonObject, required: string[], optional: string[] = []) =>
  required.every((name) => Object.hasOwn(value, name)) &&
  Object.keys(value).every((name) => required.includes(name) || optional.includes(name));

export interface Envelope {
  json: JsonObject;
  text: Record<string, string>;
  chunkBytes: number;
  bytes: number;
}

export function parseEnvelope(bytes: Buffer): Envelope {
  const check = (holds: boolean, reason: string) => require(holds, "envelope", reason);
  let json: Json;
  try {
    json = parseJson(utf8(bytes));
  } catch (error) {
    throw new Refused("envelope", String(error));
  }
  check(same(Buffer.from(canonical(json)), bytes), "not canonical");
  if (!isObject(json) || !hasExactly(json, MEMBERS)) throw new Refused("envelope", "members");
  for (const [name, value] of Object.entries(CONSTANTS)) check(json[name] === value, name);
  for (const [name, size] of Object.entries(HEX)) check(isHex(json[name], size), name);
  for (const [name, [low, high]] of Object.entries(INTEGERS)) check(isInteger(json[name], low, high), name);
  const chunkBytes = json["chunk_bytes"] as number;
  check(Number.isInteger(Math.log2(chunkBytes)), "chunk_bytes");
  check(matches(json["owner"], /^[A-Za-z0-9._-]{1,31}$/), "owner");
  const content = json["content"];
  if (!isObject(content)) throw new Refused("envelope", "content");
  check(hasExactly(content, ["bytes", "kind"], ["rows", "schema"]), "members of content");
  check(isInteger(content["bytes"], 0, 2 ** 40), "bytes");
  check(["parquet", "csv", "arrow", "bytes"].includes(content["kind"] as string), "kind");
  if ("rows" in content) check(isInteger(content["rows"], 0, 2 ** 53 - 1), "rows");
  let hash: Uint8Array = new Uint8Array(32);
  if ("schema" in content) {
    const schema = content["schema"] as Json;
    check(Array.isArray(schema) && schema.length <= 4096 && schema.every(isColumn), "schema");
    hash = sha256(Buffer.from(canonical(schema)));
  }
  check(same(unhex(json["schema_hash"] as string), hash), "schema_hash");
  return { json, text: json as Record<string, string>, chunkBytes, bytes: content["bytes"] as number };
}

function isColumn(column: Json): boolean {
  if (!isObject(column) || !hasExactly(column, ["name", "type"])) return false;
  const { name, type } = column;
  const length = typeof name === "string" ? Buffer.byteLength(name) : 0;
  return length >= 1 && length <= 128 && matches(name, /^[^\u0000-\u001f\u007f-\u009f]*$/) &&
    matches(type, /^[\x20-\x7e]{1,256}$/);
}

// ---- section 4: from the root's secret to the wrap key ----

export interface SecretKey {
  ikm: Buffer;
  sk: Buffer;
  lattice: Uint8Array;
  curve: Buffer;
  publicKey: Buffer;
}

export function rootKey(secret: Buffer, epoch: number): SecretKey {
  const ikm = hkdf("cohort-kms-root/1", secret, join("sealing", u32(epoch)));
  const labelled = join(ikm, "HPKE-v1", "KEM", [0x64, 0x7a, 0, 13], "DeriveKeyPair", [0, 32]);
  const sk = Buffer.from(shake256(labelled, { dkLen: 32 }));
  const expanded = Buffer.from(shake256(sk, { dkLen: 96 }));
  const lattice = ml_kem768.keygen(expanded.subarray(0, 64));
  const curve = expanded.subarray(64);
  return { ikm, sk, lattice: lattice.secretKey, curve, publicKey: join(lattice.publicKey, x25519.getPublicKey(curve)) };
}

/** RFC 7748's function; the library raises an error in place of a result of zeros. */
function dh(secret: Uint8Array, point: Uint8Array): Uint8Array {
  try {
    return x25519.getSharedSecret(secret, point);
  } catch {
    return new Uint8Array(32);
  }
}

const combine = (lattice: Uint8Array, curve: Uint8Array, ct: Uint8Array, pk: Uint8Array) =>
  sha3_256(join(lattice, curve, ct, pk, [0x5c, 0x2e, 0x2f, 0x2f, 0x5e, 0x5c]));

function decapsulate(key: SecretKey, enc: Buffer): Uint8Array {
  const point = enc.subarray(1088);
  const shared = ml_kem768.decapsulate(enc.subarray(0, 1088), key.lattice);
  return combine(shared, dh(key.curve, point), point, key.publicKey.subarray(1184));
}

/** Throws for a key that nobody may seal to. */
export function encapsulate(publicKey: Buffer, eseed: Buffer): { enc: Buffer; shared: Uint8Array } {
  if (publicKey.length !== 1216) throw new Error("not 1216 bytes");
  const [lattice, pk] = [publicKey.subarray(0, 1184), publicKey.subarray(1184)];
  for (let i = 0; i < 1152; i += 3) {
    const triple = lattice.readUIntLE(i, 3);
    if ((triple & 0xfff) >= 3329 || triple >> 12 >= 3329) throw new Error("a coefficient is not below 3329");
  }
  const ephemeral = eseed.subarray(32);
  const curve = dh(ephemeral, pk);
  if (isZero(curve)) throw new Error("a point of low order");
  const { cipherText, sharedSecret } = ml_kem768.encapsulate(lattice, eseed.subarray(0, 32));
  const point = x25519.getPublicKey(ephemeral);
  return { enc: join(cipherText, point), shared: combine(sharedSecret, curve, point, pk) };
}

const SUITE = join("HPKE", [0x64, 0x7a, 0, 1, 0xff, 0xff]);
const hmac = (key: Part, message: Part) => createHmac("sha256", join(key)).update(join(message)).digest();
const extract = (salt: Part, label: string, ikm: Part) => hmac(salt, join("HPKE-v1", SUITE, label, ikm));
const expand = (prk: Part, label: string, info: Part) =>
  hmac(prk, join([0, 32], "HPKE-v1", SUITE, label, info, [1]));

export function wrapKey(shared: Uint8Array, info: Buffer): Buffer {
  const schedule = join([0], extract("", "psk_id_hash", ""), extract("", "info_hash", info));
  const exporter = expand(extract(shared, "secret", ""), "exp", schedule);
  return expand(exporter, "sec", "cohort wrap key");
}

/** What the KMS verified about who asks. */
export interface Attested {
  chain_id: number;
  app: string;
  compose_hash: string;
  owner: string;
  root_epoch: number;
  schema_hash: string;
}

export function infoOf(facts: Attested): Buffer {
  const { chain_id, app, compose_hash, owner, root_epoch, schema_hash } = facts;
  const parts = [FORMAT, u64(chain_id), unhex(app), unhex(compose_hash), owner, u32(root_epoch), unhex(schema_hash)];
  return join(...parts.map(prefixed));
}

// ---- sections 5 to 7 ----

function decrypt(layer: string, key: Buffer, nonce: Buffer, ciphertext: Buffer, aad: Buffer): Buffer {
  require(ciphertext.length >= TAG, layer, "too short");
  const cipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG }).setAAD(aad);
  cipher.setAuthTag(ciphertext.subarray(-TAG));
  const plain = cipher.update(ciphertext.subarray(0, -TAG));
  try {
    cipher.final();
  } catch {
    throw new Refused(layer, "does not decrypt");
  }
  return plain;
}

function encrypt(key: Buffer, nonce: Buffer, plaintext: Buffer, aad: Buffer): Buffer {
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG }).setAAD(aad);
  return join(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
}

const nonce = (index: number, last: boolean) => join([0, 0, 0], u64(index), [last ? 1 : 0]);
const chunkCount = (envelope: Envelope) => Math.max(1, Math.ceil(envelope.bytes / envelope.chunkBytes));
const none = Buffer.alloc(0);

function headerOf(json: JsonObject): Buffer {
  const { wrapped_key: _, ...rest } = json;
  return Buffer.from(canonical(rest));
}

export const keysOf = (dataKey: Buffer) => ({
  chunkKey: hkdf(FORMAT, dataKey, "chunk key"),
  commitment: hkdf(FORMAT, dataKey, "key commitment"),
});

export function open(file: Buffer, key: SecretKey, attested: Attested) {
  const entries = readArchive(file);
  const envelope = parseEnvelope(entries.envelope);
  const count = chunkCount(envelope);
  require(entries.data.length === envelope.bytes + TAG * count, "content", "size of data");
  const root = Buffer.from(blake3(entries.data));
  require(same(root, entries.commitment), "commitment", "other data");
  const info = infoOf(attested);
  const wrap = wrapKey(decapsulate(key, unhex(envelope.text["enc"]!)), info);
  const wrapped = unhex(envelope.text["wrapped_key"]!);
  const dataKey = decrypt("wrap", wrap, Buffer.alloc(12), wrapped, headerOf(envelope.json));
  const { chunkKey, commitment } = keysOf(dataKey);
  require(same(commitment, unhex(envelope.text["key_commitment"]!)), "wrap", "key_commitment");
  const step = envelope.chunkBytes + TAG;
  const chunks = Array.from({ length: count }, (_, i) =>
    decrypt("chunk", chunkKey, nonce(i, i === count - 1), entries.data.subarray(i * step, (i + 1) * step), none));
  const id = sha256(join(prefixed("cohort-dataset/1"), prefixed(entries.envelope), prefixed(root)));
  return { envelope, info, wrap, dataKey, chunkKey, root, id, plaintext: join(...chunks) };
}

/** The file for these public facts, as a sealer makes it that draws these random bytes. */
export function seal(json: JsonObject, publicKey: Buffer, info: Buffer, plaintext: Buffer, eseed: Buffer, dataKey: Buffer) {
  const { enc, shared } = encapsulate(publicKey, eseed);
  const { chunkKey, commitment } = keysOf(dataKey);
  const facts: JsonObject = {
    ...json,
    enc: `0x${enc.toString("hex")}`,
    key_commitment: `0x${commitment.toString("hex")}`,
  };
  const wrapped = encrypt(wrapKey(shared, info), Buffer.alloc(12), dataKey, headerOf(facts));
  const envelope = Buffer.from(canonical({ ...facts, wrapped_key: `0x${wrapped.toString("hex")}` }));
  const chunkBytes = facts["chunk_bytes"] as number;
  const count = Math.max(1, Math.ceil(plaintext.length / chunkBytes));
  const data = join(...Array.from({ length: count }, (_, i) =>
    encrypt(chunkKey, nonce(i, i === count - 1), plaintext.subarray(i * chunkBytes, (i + 1) * chunkBytes), none)));
  const entry = (name: string, content: Buffer) =>
    join(header(name, BigInt(content.length)), content, new Uint8Array((BLOCK - (content.length % BLOCK)) % BLOCK));
  const commitmentEntry = entry("commitment", Buffer.from(blake3(data)));
  return join(entry("envelope.json", envelope), entry("data", data), commitmentEntry, new Uint8Array(2 * BLOCK));
}

/** Section 10: the data key of a recovery record. */
export function parseRecord(text: string): Buffer {
  if (Buffer.byteLength(text) > 4096) throw new Error("larger than 4096 bytes");
  const json = parseJson(text);
  if (!isObject(json) || !hasExactly(json, ["data_key", "format", "key_commitment"])) throw new Error("members");
  const { data_key, format, key_commitment } = json;
  if (format !== "cohort-recovery/1" || !isHex(data_key, 32) || !isHex(key_commitment, 32)) throw new Error("values");
  const dataKey = unhex(data_key);
  if (!same(keysOf(dataKey).commitment, unhex(key_commitment))) throw new Error("key_commitment");
  return dataKey;
}
