// As much of X.509 as a chain of signatures takes: where the signed part, the key and the signature stand. What they say
// is checked by the signatures over them.
import { FormatError } from "../format/json";

interface Element {
  tag: number;
  /** With its header. */
  whole: Uint8Array;
  content: Uint8Array;
}

const SEQUENCE = 0x30;
const BIT_STRING = 0x03;

/** The elements that stand one after another, DER lengths only. */
function elements(bytes: Uint8Array): Element[] {
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

function only(element: Element | undefined, tag: number): Uint8Array {
  if (element?.tag !== tag) throw new FormatError("a certificate is not of the expected form");
  return element.content;
}

export interface Certificate {
  /** What the issuer signed. */
  signed: Uint8Array;
  /** ECDSA signature in DER. */
  signature: Uint8Array;
  /** Uncompressed P-256 point. */
  key: Uint8Array;
  /** Names, byte by byte. */
  issuer: Uint8Array;
  subject: Uint8Array;
  /** Unix seconds. */
  notBefore: number;
  notAfter: number;
}

/** UTCTime or GeneralizedTime to Unix seconds. */
function time(element: Element | undefined): number {
  const text = new TextDecoder().decode(element?.content);
  const digits = element?.tag === 0x17 ? `${Number(text.slice(0, 2)) < 50 ? "20" : "19"}${text}` : text;
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(digits) ?? [];
  const seconds = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) / 1000;
  if (!Number.isFinite(seconds)) throw new FormatError("a certificate has no usable dates");
  return seconds;
}

export function certificate(der: Uint8Array): Certificate {
  const [body, , sealed] = elements(only(elements(der)[0], SEQUENCE));
  const fields = elements(only(body, SEQUENCE));
  // [0] version, serial number, algorithm, issuer, validity, subject, key
  const [, , , issuer, validity, subject, info] = fields;
  const [notBefore, notAfter] = elements(only(validity, SEQUENCE));
  const [, point] = elements(only(info, SEQUENCE));
  const key = only(point, BIT_STRING).subarray(1);
  if (!body || !issuer || !subject || key.length !== 65) throw new FormatError("a certificate has no P-256 key");
  return {
    signed: body.whole,
    signature: only(sealed, BIT_STRING).subarray(1),
    key,
    issuer: issuer.whole,
    subject: subject.whole,
    notBefore: time(notBefore),
    notAfter: time(notAfter),
  };
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
