// A TDX quote (Intel's DCAP formats 4 and 5): its fields, and the signatures from the quote up to the root certificate.
import { p256 } from "@noble/curves/nist";
import { sha256 } from "@noble/hashes/sha2";
import { bytesToHex, concatBytes } from "@noble/hashes/utils";
import { FormatError } from "../format/json";
import { pem, type Certificate } from "./der";

/** Public key of Intel's SGX Root CA, to which every quote of Intel hardware chains. */
const INTEL_ROOT =
  "040ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f567918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394";

const TDX = 0x81;
const HEADER = 48;
/** Certification data: the quoting enclave's report, and in it the PCK certificate chain. */
const QE_REPORT = 6;
const PCK_CHAIN = 5;
/** Bytes of the quoting enclave's report, and where its report data stands in it. */
const ENCLAVE_REPORT = { size: 384, data: 320 };

export interface Quote {
  /** RTMR0 to RTMR3, in hex. */
  registers: string[];
  reportData: string;
  /** Header and report: what the attestation key signed. */
  signed: Uint8Array;
  /** What stands behind that. */
  proof: Uint8Array;
}

/** Takes bytes from the front, or refuses. */
class Reader {
  private at = 0;
  constructor(private readonly bytes: Uint8Array) {}

  take(length: number): Uint8Array {
    const part = this.bytes.subarray(this.at, this.at + length);
    if (part.length !== length) throw new FormatError("the quote is cut short");
    this.at += length;
    return part;
  }

  /** Little-endian. */
  number(length: number): number {
    return this.take(length).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }
}

/** Length of the TD report by version and body type. */
function bodyLength(version: number, reader: Reader): { head: number; length: number } {
  if (version === 4) return { head: HEADER, length: 584 };
  const type = reader.number(2);
  const length = reader.number(4);
  if (version !== 5 || (type !== 2 && type !== 3 && type !== 4) || length < 584 || length > 1024) {
    throw new FormatError("the quote is of another version");
  }
  return { head: HEADER + 6, length };
}

export function parseQuote(bytes: Uint8Array): Quote {
  const reader = new Reader(bytes);
  const version = reader.number(2);
  reader.take(2);
  if (reader.number(4) !== TDX) throw new FormatError("the quote is not of TDX");
  reader.take(HEADER - 8);
  const { head, length } = bodyLength(version, reader);
  const body = reader.take(length);
  const field = (from: number, size: number) => bytesToHex(body.subarray(from, from + size));
  return {
    registers: [328, 376, 424, 472].map((from) => field(from, 48)),
    reportData: field(520, 64),
    signed: bytes.subarray(0, head + length),
    proof: reader.take(reader.number(4)),
  };
}

const verified = (signature: Uint8Array, format: "compact" | "der", message: Uint8Array, key: Uint8Array): boolean => {
  try {
    const parsed = format === "der" ? p256.Signature.fromDER(signature) : p256.Signature.fromCompact(signature);
    return p256.verify(parsed, sha256(message), key, { lowS: false });
  } catch {
    return false; // no signature, or no point
  }
};

const same = (a: Uint8Array, b: Uint8Array) => bytesToHex(a) === bytesToHex(b);

/** Whether each certificate is signed by the next, the last by itself, and all are valid at `now` (Unix seconds). */
function chains(certificates: Certificate[], now: number): boolean {
  return certificates.every((certificate, index) => {
    const issuer = certificates[Math.min(index + 1, certificates.length - 1)];
    return (
      issuer !== undefined &&
      same(certificate.issuer, issuer.subject) &&
      verified(certificate.signature, "der", certificate.signed, issuer.key) &&
      certificate.notBefore <= now &&
      now <= certificate.notAfter
    );
  });
}

export type Root = "intel" | "other";

/**
 * The root that the quote's signatures lead to; null where one of them does not hold.
 *
 * The attestation key signed the quote, the quoting enclave's report names that key, the PCK signed this report, and
 * the PCK chains to a root by one certificate in between. Says nothing about revocation lists, TCB levels and the quoting enclave's identity.
 */
export function rootOf(quote: Quote, now: number): Root | null {
  const reader = new Reader(quote.proof);
  const signature = reader.take(64);
  const key = reader.take(64);
  if (reader.number(2) !== QE_REPORT) throw new FormatError("the quote has no report of its quoting enclave");
  const inner = new Reader(reader.take(reader.number(4)));
  const report = inner.take(ENCLAVE_REPORT.size);
  const reportSignature = inner.take(64);
  const extra = inner.take(inner.number(2));
  if (inner.number(2) !== PCK_CHAIN) throw new FormatError("the quote has no PCK certificate chain");
  const certificates = pem(new TextDecoder().decode(inner.take(inner.number(4))));
  const [pck] = certificates;
  const root = certificates.at(-1);
  if (!pck || !root || certificates.length !== 3) throw new FormatError("the quote has no PCK certificate chain");
  const named = report.subarray(ENCLAVE_REPORT.data, ENCLAVE_REPORT.data + 64);
  const expected = concatBytes(sha256(concatBytes(key, extra)), new Uint8Array(32));
  const holds =
    verified(signature, "compact", quote.signed, concatBytes(new Uint8Array([4]), key)) &&
    same(named, expected) &&
    verified(reportSignature, "compact", report, pck.key) &&
    chains(certificates, now);
  if (!holds) return null;
  return bytesToHex(root.key) === INTEL_ROOT ? "intel" : "other";
}
