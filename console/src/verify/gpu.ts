// Evidence of NVIDIA GPUs (docs/spec/gpu-evidence.md): reports that answer this run's nonce, signed by certified devices,
// as many as the recipe requires, and the quote commits to them. Golden values of firmware the command line compares.
import { p384 } from "@noble/curves/nist";
import { sha256, sha384 } from "@noble/hashes/sha2";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils";
import { FormatError, integer, list, members, parseJson, text, utf8, type Json, type JsonObject } from "../format/json";
import { authority, certificate, commonName, elements, inside, OID, only, TAG, type Certificate } from "./der";
import { Reader, same, valid } from "./quote";

const MOST = { gpus: 16, report: 16 << 10, certificate: 4 << 10 } as const;
/** SHA-256 of NVIDIA's Device Identity CA. */
const NVIDIA_ROOT = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48";
/** How device certificates name Hopper's chip. NVIDIA's root is also that of others. */
const CHIP = "GH100";
/** Leaf, device, provisioner, model, root. */
const CERTIFICATES = 5;

interface Gpu {
  architecture: string;
  report: Uint8Array;
  certificates: Uint8Array[];
}

/** Lower-case or upper-case hex without prefix. */
function hex(value: Json | undefined, what: string, most: number): Uint8Array {
  const digits = text(value, what);
  if (!/^(?:[0-9a-f]{2})*$/i.test(digits)) throw new FormatError(`${what} is not hex`);
  if (digits.length > 2 * most) throw new FormatError(`${what} is too long`);
  return hexToBytes(digits.toLowerCase());
}

function parse(value: Json): Gpu {
  const object = members(value, "evidence of a GPU", ["architecture", "report", "certificates"]);
  return {
    architecture: text(object["architecture"], "architecture"),
    report: hex(object["report"], "report", MOST.report),
    certificates: list(object["certificates"], "certificates").map((it) => hex(it, "a certificate", MOST.certificate)),
  };
}

/** Each part with its length before it. */
export function framed(...parts: Uint8Array[]): Uint8Array {
  return concatBytes(...parts.flatMap((part) => {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, part.length);
    return [length, part];
  }));
}

const commitment = (gpus: Gpu[]): string =>
  bytesToHex(sha256(framed(
    utf8ToBytes("cohort-gpu-evidence/1"),
    ...gpus.flatMap(({ architecture, report, certificates }) => [utf8ToBytes(architecture), report, ...certificates]),
  )));

/** What a report has to answer, from the report data as it is without GPUs. */
export const nonce = (reportData: Uint8Array): Uint8Array => sha256(framed(utf8ToBytes("cohort-gpu-nonce/1"), reportData));

interface Report {
  nonce: Uint8Array;
  signed: Uint8Array;
  signature: Uint8Array;
  /** Values by type. */
  opaque: Map<number, Uint8Array>;
}

const BLOCKS = 64;
const VALUE = 48;

/** SPDM 1.1: GET_MEASUREMENTS of all blocks, signed, and its answer. */
function spdm(bytes: Uint8Array): Report {
  const reader = new Reader(bytes, "a GPU's report");
  const expect = (digits: string) => {
    if (bytesToHex(reader.take(digits.length / 2)) !== digits) throw new FormatError("a GPU's report is not what GET_MEASUREMENTS of all blocks gives");
  };
  expect("11e001ff");
  const asked = reader.take(32);
  expect("001160000040"); // slot, header of the answer, number of blocks
  if (reader.number(3) !== BLOCKS * (7 + VALUE)) throw new FormatError("a GPU's report has another number of measurements");
  for (let index = 1; index <= BLOCKS; index += 1) {
    expect(`${index.toString(16).padStart(2, "0")}013300013000`);
    reader.take(VALUE);
  }
  reader.take(32);
  const fields = new Reader(reader.take(reader.number(2)), "a GPU's report");
  const opaque = new Map<number, Uint8Array>();
  while (fields.left) {
    const type = fields.number(2);
    if (opaque.has(type)) throw new FormatError("a GPU's report has a field twice");
    opaque.set(type, fields.take(fields.number(2)));
  }
  const signature = reader.take(96);
  if (reader.left) throw new FormatError("bytes follow a GPU's report");
  return { nonce: asked, signed: bytes.subarray(0, bytes.length - 96), signature, opaque };
}

const TYPE = { driver: 3, vbios: 6, nvdec: 11, firmware: 20, protectedPcie: 21, mode: 36 } as const;

function field(report: Report, type: number, size: number): Uint8Array {
  const value = report.opaque.get(type);
  if (value?.length !== size) throw new FormatError(`field ${type} of a GPU's report is not there or not usable`);
  return value;
}

function driver(report: Report): string {
  const value = report.opaque.get(TYPE.driver) ?? new Uint8Array();
  const said = new TextDecoder("latin1").decode(value);
  if (!/^[\x21-\x7e]+\0$/.test(said)) throw new FormatError("a GPU's report names no driver");
  return said.slice(0, -1);
}

function vbios(report: Report): string {
  const [d, c, b, a, e] = [...field(report, TYPE.vbios, 8)] as [number, number, number, number, number];
  return [a, b, c, d, e].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(".");
}

function isOn(report: Report, type: number): boolean {
  const [value] = field(report, type, 1);
  if (value !== 0xaa && value !== 0x55) throw new FormatError(`field ${type} of a GPU's report is neither on nor off`);
  return value === 0xaa;
}

/** 0 alone, 1 one of several, 2 protected PCIe. */
function mode(report: Report): number {
  const pcie = report.opaque.has(TYPE.protectedPcie) && isOn(report, TYPE.protectedPcie);
  if (!report.opaque.has(TYPE.mode)) return pcie ? 2 : 0;
  const [low = 0, high = 0] = field(report, TYPE.mode, 2);
  const stated = low + 256 * high;
  if (stated > 2 || (pcie && stated !== 2)) throw new FormatError("a GPU's report states no mode");
  return stated;
}

/** `ecdsa-with-SHA384`, and a key of ECDSA on P-384. */
const SHA384_ECDSA = "300a06082a8648ce3d040303";
const P384_KEY = "301006072a8648ce3d020106052b81040022";
const DICE = "678105050401"; // 2.23.133.5.4.1
const KNOWN_CRITICAL: string[] = [OID.basicConstraints, OID.keyUsage];

/** First byte of the bits of KeyUsage. */
const usage = (of: Certificate): number => {
  const extension = of.extensions.get(OID.keyUsage);
  const [bits] = extension ? elements(extension.value) : [];
  return bits ? (only(bits, TAG.bits)[1] ?? 0) : 0;
};
const SIGNS_MESSAGES = 0x80;
const SIGNS_CERTIFICATES = 0x04;

function fits(of: Certificate, index: number): boolean {
  const { is, below } = authority(of);
  if (index === 0) return !is && (usage(of) & SIGNS_MESSAGES) !== 0;
  const critical = of.extensions.get(OID.basicConstraints)?.critical === true;
  return is && critical && below >= index - 1 && (usage(of) & SIGNS_CERTIFICATES) !== 0;
}

function kind(of: Certificate): boolean {
  const critical = [...of.extensions].filter(([, extension]) => extension.critical).map(([id]) => id);
  return (
    of.algorithms.every((algorithm) => bytesToHex(algorithm) === SHA384_ECDSA) &&
    bytesToHex(of.keyType) === P384_KEY &&
    critical.every((id) => KNOWN_CRITICAL.includes(id))
  );
}

function verified(signature: Uint8Array, format: "compact" | "der", message: Uint8Array, key: Uint8Array): boolean {
  try {
    const parsed = format === "der" ? p384.Signature.fromDER(signature) : p384.Signature.fromCompact(signature);
    return p384.verify(parsed, sha384(message), key, { lowS: false });
  } catch {
    return false; // no signature, or no point
  }
}

/** By the issuer's name, key id and signature. */
function issued(of: Certificate, issuer: Certificate): boolean {
  const own = of.extensions.get(OID.authorityKeyId);
  const above = issuer.extensions.get(OID.subjectKeyId);
  const [id] = own ? inside(own.value) : [];
  const [wanted] = above ? elements(above.value) : [];
  return (
    id?.tag === 0x80 && wanted?.tag === TAG.octets && same(id.content, wanted.content) &&
    same(of.issuer, issuer.subject) && verified(of.signature, "der", of.signed, issuer.key)
  );
}

/** The device's key, and the firmware that the leaf was made for. */
function dice(leaf: Certificate): { key: string; firmware: string } {
  const extension = leaf.extensions.get(DICE);
  const [version, key, firmware, more] = extension ? inside(extension.value) : [];
  const [type, point] = key ? elements(only(key, TAG.sequence)) : [];
  const [algorithm, digest] = firmware ? elements(only(firmware, TAG.sequence)) : [];
  const holds =
    more === undefined &&
    bytesToHex(only(version, TAG.integer)) === "01" &&
    type !== undefined && bytesToHex(type.whole) === P384_KEY &&
    bytesToHex(only(algorithm, TAG.oid)) === "608648016503040202"; // sha384
  if (!holds) throw new FormatError("a GPU's certificate names no firmware");
  return { key: bytesToHex(only(point, TAG.bits).subarray(1)), firmware: bytesToHex(only(digest, TAG.octets)) };
}

interface Verified {
  /** Of NVIDIA's root; another one is a development root. */
  genuine: boolean;
  device: string;
  mode: number;
  driver: string;
  vbios: string;
}

/** Five certificates, each issued by the next. */
export function chain(certificates: Uint8Array[], now: number): { leaf: Certificate; device: Certificate; genuine: boolean } {
  const found = certificates.map(certificate);
  const [leaf, device] = found;
  const root = found.at(-1);
  if (found.length !== CERTIFICATES || !leaf || !device || !root) throw new FormatError("a GPU has not five certificates");
  const holds = found.every((it, index) => kind(it) && fits(it, index) && valid(it, now) && (it === root || issued(it, found[index + 1] ?? it)));
  if (!holds) throw new FormatError("a GPU's certificates are no chain");
  return { leaf, device, genuine: bytesToHex(sha256(root.der)) === NVIDIA_ROOT };
}

/** One GPU's report and its certificates. Throws {@link FormatError} with the reason. */
export function verify(gpu: Gpu, expected: Uint8Array, now: number): Verified {
  const report = spdm(gpu.report);
  if (!same(report.nonce, expected)) throw new FormatError("a GPU's report answers another nonce");
  const { leaf, device, genuine } = chain(gpu.certificates, now);
  if (commonName(device).split(" ")[0] !== CHIP) throw new FormatError(`a GPU is a "${commonName(device)}", no Hopper`);
  if (!verified(report.signature, "compact", report.signed, leaf.key)) throw new FormatError("a GPU's report is not signed by its certificate's key");
  const named = dice(leaf);
  if (named.key !== bytesToHex(device.key) || named.firmware !== bytesToHex(field(report, TYPE.firmware, VALUE))) {
    throw new FormatError("a GPU's report is of other firmware than its certificate");
  }
  isOn(report, TYPE.nvdec);
  return { genuine, device: named.key, mode: mode(report), driver: driver(report), vbios: vbios(report) };
}

/** What measured boot code found: confidential computing is on, nobody debugs, this many GPUs. */
function requireState(payload: string | undefined, count: number): void {
  if (payload === undefined) throw new FormatError("the event log says nothing of GPUs");
  const state = parseJson(utf8(hexToBytes(payload))) as JsonObject | null;
  const holds =
    state?.["version"] === 2 && state["provider"] === "nvidia" && state["cc_mode"] === "on" && state["devtools"] === false && state["devices"] === count;
  if (!holds) throw new FormatError("the VM's boot code did not find this many confidential GPUs");
}

export interface Asked {
  /** `cohort.gpu` of the measured recipe. */
  required: Json | undefined;
  /** `evidence.gpu`. */
  evidence: Json | undefined;
  /** `binding.gpu_evidence_hash`. */
  committed: string | null;
  /** Of the binding without GPUs. */
  reportData: Uint8Array;
  /** Payload of the event `gpu-attestation`, in hex. */
  state: string | undefined;
}

/** What holds of the GPUs; null where none is required and none is there. Throws {@link FormatError} with the reason. */
export function gpus(asked: Asked, now: number): { genuine: boolean; detail: string } | null {
  const evidence = (asked.evidence === undefined ? [] : list(asked.evidence, "gpu")).map(parse);
  if (asked.required === undefined) {
    if (evidence.length || asked.committed !== null) throw new FormatError("there is evidence of GPUs, and the recipe requires none");
    return null;
  }
  const required = members(asked.required, "gpu", ["architecture", "count"]);
  const count = integer(required["count"], "count");
  if (evidence.length !== count || count < 1 || count > MOST.gpus) throw new FormatError(`there is evidence of ${evidence.length} GPUs, and the recipe requires ${count}`);
  if (commitment(evidence) !== asked.committed) throw new FormatError("the quote commits to other GPUs");
  requireState(asked.state, count);
  if (evidence.some(({ architecture }) => architecture !== required["architecture"] || architecture !== "hopper")) throw new FormatError("a GPU is of another architecture");
  const expected = nonce(asked.reportData);
  const found = evidence.map((gpu) => verify(gpu, expected, now));
  if (new Set(found.map(({ device }) => device)).size !== count) throw new FormatError("one GPU stands twice");
  if (found.some((it) => it.mode !== (count === 1 ? 0 : 1))) throw new FormatError("a GPU shares its memory in the clear");
  const { driver: version, vbios: firmware } = found[0] as Verified;
  const genuine = found.every((it) => it.genuine);
  return { genuine, detail: `${count} \u00d7 ${String(required["architecture"])}, ${genuine ? "NVIDIA Device Identity CA" : "not NVIDIA Device Identity CA"}, driver ${version}, VBIOS ${firmware}` };
}
