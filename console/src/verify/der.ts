// As much of X.509 as chains of signatures and revocation lists take: where the signed part, the key, the names, the
// extensions and the signature stand. What they say is checked by the signatures over them.
import { bytesToHex } from "@noble/hashes/utils";
import { FormatError } from "../format/json";

export interface Element {
  tag: number;
  /** With its header. */
  whole: Uint8Array;
  content: Uint8Array;
}

export const TAG = {
  boolean: 0x01, integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utcTime: 0x17, time: 0x18, sequence: 0x30, set: 0x31,
} as const;

/** Tag `[number]` of a field that has its own. */
const field = (number: number): number => 0xa0 | number;

/** The elements that stand one after another, DER lengths only. */
export function elements(bytes: Uint8Array): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at + 1] ?? 0;
    const more = first < 0x80 ? 0 : first & 0x7f;
    if (first === 0x80 || more > 3) throw new FormatError("a certificate has a length that is not DER");
    let length = more === 0 ? first : 0;
    for (let index = 0; index < more; index += 1) length = length * 256 + (bytes[at + 2 + index] ?? 0);
    const from = at + 2 + more;
    if (from + length > bytes.length) throw new FormatError("a certificate is cut short");
    found.push({ tag: bytes[at] ?? 0, whole: bytes.subarray(at, from + length), content: bytes.subarray(from, from + length) });
    at = from + length;
  }
  return found;
}

export function only(element: Element | undefined, tag: number): Uint8Array {
  if (element?.tag !== tag) throw new FormatError("a certificate is not of the expected form");
  return element.content;
}

/** The one element that the bytes are, as the elements inside it. */
export function inside(bytes: Uint8Array, tag: number = TAG.sequence): Element[] {
  const [element, rest] = elements(bytes);
  if (rest) throw new FormatError("bytes follow a certificate's part");
  return elements(only(element, tag));
}

/** SEQUENCEs that begin with an object identifier, by its content in hex; each once. */
export function named(list: Element[]): Map<string, Element[]> {
  const found = new Map<string, Element[]>();
  for (const item of list) {
    const [id, ...values] = elements(only(item, TAG.sequence));
    const name = bytesToHex(only(id, TAG.oid));
    if (found.has(name)) throw new FormatError("a certificate says something twice");
    found.set(name, values);
  }
  return found;
}

export interface Extension {
  critical: boolean;
  value: Uint8Array;
}

/** Extensions by their object identifier, its content in hex. */
export const OID = { basicConstraints: "551d13", keyUsage: "551d0f", subjectKeyId: "551d0e", authorityKeyId: "551d23" } as const;

function extensions(list: Element[]): Map<string, Extension> {
  return new Map([...named(list)].map(([id, values]) => {
    const critical = values[0]?.tag === TAG.boolean && values[0].content[0] !== 0;
    return [id, { critical, value: only(values.at(-1), TAG.octets) }];
  }));
}

export interface Certificate {
  /** All of it. */
  der: Uint8Array;
  /** What the issuer signed. */
  signed: Uint8Array;
  /** ECDSA signature in DER. */
  signature: Uint8Array;
  /** The algorithm inside and outside, byte by byte. */
  algorithms: [Uint8Array, Uint8Array];
  /** Algorithm and curve of the key. */
  keyType: Uint8Array;
  /** Uncompressed point. */
  key: Uint8Array;
  /** In hex. */
  serial: string;
  /** Names, byte by byte. */
  issuer: Uint8Array;
  subject: Uint8Array;
  /** Unix seconds; both ends are valid. */
  notBefore: number;
  notAfter: number;
  extensions: Map<string, Extension>;
}

const COMMON_NAME = "550403";

/** Common name of the subject; empty if it has none. */
export function commonName(of: Certificate): string {
  const attributes = inside(of.subject).flatMap((set) => elements(only(set, TAG.set)));
  const [value] = named(attributes).get(COMMON_NAME) ?? [];
  return value ? new TextDecoder().decode(value.content) : "";
}

/** UTCTime or GeneralizedTime to Unix seconds. */
function time(element: Element | undefined): number {
  const text = new TextDecoder().decode(element?.content);
  const digits = element?.tag === TAG.utcTime ? `${Number(text.slice(0, 2)) < 50 ? "20" : "19"}${text}` : text;
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(digits) ?? [];
  const seconds = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) / 1000;
  if (!Number.isFinite(seconds)) throw new FormatError("a certificate has no usable dates");
  return seconds;
}

/** The three parts of what an authority signs: the content, the algorithm, the signature. */
function sealed(der: Uint8Array): { body: Element; algorithm: Uint8Array; signature: Uint8Array } {
  const [body, algorithm, signature] = inside(der);
  if (!body || !algorithm) throw new FormatError("a certificate is not of the expected form");
  return { body, algorithm: algorithm.whole, signature: only(signature, TAG.bits).subarray(1) };
}

export function certificate(der: Uint8Array): Certificate {
  const { body, algorithm, signature } = sealed(der);
  const fields = elements(only(body, TAG.sequence));
  const [version, serial, inner, issuer, validity, subject, info] = fields;
  if (version?.tag !== field(0) || inside(version.whole, field(0))[0]?.content[0] !== 2) throw new FormatError("a certificate is not of version 3");
  const [notBefore, notAfter] = elements(only(validity, TAG.sequence));
  const [keyType, point] = elements(only(info, TAG.sequence));
  const key = only(point, TAG.bits).subarray(1);
  const listed = fields.find(({ tag }) => tag === field(3));
  if (!inner || !issuer || !subject || !keyType || key[0] !== 4) throw new FormatError("a certificate has no key on a curve");
  return {
    der,
    signed: body.whole,
    signature,
    algorithms: [inner.whole, algorithm],
    keyType: keyType.whole,
    key,
    serial: bytesToHex(only(serial, TAG.integer)),
    issuer: issuer.whole,
    subject: subject.whole,
    notBefore: time(notBefore),
    notAfter: time(notAfter),
    extensions: extensions(listed ? inside(inside(listed.whole, field(3))[0]?.whole ?? new Uint8Array()) : []),
  };
}

/** BasicConstraints: whether it may certify others, and how many authorities may stand below it. */
export function authority(of: Certificate): { is: boolean; below: number } {
  const extension = of.extensions.get(OID.basicConstraints);
  const [is, below] = extension ? inside(extension.value) : [];
  if (is?.tag !== TAG.boolean || is.content[0] === 0) return { is: false, below: 0 };
  return { is: true, below: below ? only(below, TAG.integer).reduce((sum, byte) => sum * 256 + byte, 0) : Infinity };
}

/** A certificate revocation list. */
export interface Revoked {
  signed: Uint8Array;
  signature: Uint8Array;
  issuer: Uint8Array;
  /** Unix seconds, the second one exclusive. */
  thisUpdate: number;
  nextUpdate: number;
  /** Serial numbers in hex. */
  serials: Set<string>;
}

export function revocationList(der: Uint8Array): Revoked {
  const { body, signature } = sealed(der);
  const fields = elements(only(body, TAG.sequence));
  // Version 2, algorithm, issuer, dates, entries if there are any, extensions.
  const [, , issuer, thisUpdate, nextUpdate, ...rest] = fields;
  const entries = rest.find(({ tag }) => tag === TAG.sequence);
  const listed = rest.find(({ tag }) => tag === field(0));
  const own = listed ? extensions(inside(inside(listed.whole, field(0))[0]?.whole ?? new Uint8Array())) : new Map<string, Extension>();
  // A critical extension would say that the list is a part, or another's.
  if (!issuer || [...own.values()].some(({ critical }) => critical)) throw new FormatError("a revocation list is of a kind that is not known here");
  const serials = (entries ? elements(entries.content) : []).map((entry) => {
    const [serial, , more] = elements(only(entry, TAG.sequence));
    if (more && [...extensions(elements(only(more, TAG.sequence))).values()].some(({ critical }) => critical)) {
      throw new FormatError("a revocation list is of a kind that is not known here");
    }
    return bytesToHex(only(serial, TAG.integer));
  });
  return { signed: body.whole, signature, issuer: issuer.whole, thisUpdate: time(thisUpdate), nextUpdate: time(nextUpdate), serials: new Set(serials) };
}

/** The certificates of a PEM text, in order. */
export function pem(text: string): Certificate[] {
  return [...text.matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/g)].map(([, body = ""]) => {
    let binary: string;
    try {
      binary = atob(body.replace(/\s/g, ""));
    } catch {
      throw new FormatError("a certificate is not base64");
    }
    return certificate(Uint8Array.from(binary, (it) => it.charCodeAt(0)));
  });
}
