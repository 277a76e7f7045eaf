// A TDX quote (Intel's DCAP formats 4 and 5): its fields, and the signatures from the quote up to the root certificate.
import { p256 } from "@noble/curves/nist";
import { sha256 } from "@noble/hashes/sha2";
import { bytesToHex, concatBytes } from "@noble/hashes/utils";
import { FormatError } from "../format/json";
import { authority, pem, type Certificate } from "./der";

/** Public key of Intel's SGX Root CA, to which every quote of Intel hardware chains. */
const INTEL_ROOT =
  "040ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f567918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394";

const TDX = 0x81;
const ECDSA_P256 = 2;
/** Intel's quoting enclave. */
const VENDOR = "939a7233f79c4ca9940a0db3957f0607";
const HEADER = 48;
/** Certification data: the quoting enclave's report, and in it the PCK certificate chain. */
const QE_REPORT = 6;
const PCK_CHAIN = 5;
/** Bytes of the quoting enclave's report, and where its report data stands in it. */
const ENCLAVE_REPORT = { size: 384, data: 320 };
/** Bytes that the quoting enclave adds to what its report names. */
const ENCLAVE_EXTRA = 32;

/** The TD report: bytes of its fields, from and to. */
const FIELD = {
  tcb: [0, 16], moduleSigner: [64, 112], moduleAttributes: [112, 120], attributes: [120, 128], mrtd: [136, 184],
  config: [184, 232], reportData: [520, 584], currentTcb: [584, 600], serviceTd: [600, 648],
} as const;

export interface Quote {
  /** RTMR0 to RTMR3, in hex. */
  registers: string[];
  reportData: string;
  /** The TD report. */
  body: Uint8Array;
  /** Header and report: what the attestation key signed. */
  signed: Uint8Array;
  /** What stands behind that. */
  proof: Uint8Array;
}

/** A field of the TD report; empty where its form has none. */
export const part = (quote: Quote, name: keyof typeof FIELD): Uint8Array => quote.body.subarray(...FIELD[name]);

/** Takes bytes from the front, or refuses. */
export class Reader {
  private at = 0;
  constructor(
    private readonly bytes: Uint8Array,
    private readonly what = "the quote",
  ) {}

  take(length: number): Uint8Array {
    const part = this.bytes.subarray(this.at, this.at + length);
    if (part.length !== length) throw new FormatError(`${this.what} is cut short`);
    this.at += length;
    return part;
  }

  /** Little-endian. */
  number(length: number): number {
    return this.take(length).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  get left(): number {
    return this.bytes.length - this.at;
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
  if (reader.number(2) !== ECDSA_P256) throw new FormatError("the quote's key is of another kind");
  if (reader.number(4) !== TDX) throw new FormatError("the quote is not of TDX");
  reader.take(4);
  if (bytesToHex(reader.take(16)) !== VENDOR) throw new FormatError("the quote is of another maker's enclave");
  reader.take(HEADER - 28);
  const { head, length } = bodyLength(version, reader);
  const body = reader.take(length);
  const field = (from: number, size: number) => bytesToHex(body.subarray(from, from + size));
  return {
    registers: [328, 376, 424, 472].map((from) => field(from, 48)),
    reportData: field(520, 64),
    body,
    signed: bytes.subarray(0, head + length),
    proof: reader.take(reader.number(4)),
  };
}

export const verified = (signature: Uint8Array, format: "compact" | "der", message: Uint8Array, key: Uint8Array): boolean => {
  try {
    const parsed = format === "der" ? p256.Signature.fromDER(signature) : p256.Signature.fromCompact(signature);
    return p256.verify(parsed, sha256(message), key, { lowS: false });
  } catch {
    return false; // no signature, or no point
  }
};

export const same = (a: Uint8Array, b: Uint8Array) => bytesToHex(a) === bytesToHex(b);

/** Whether the issuer, an authority, has signed it. */
export const issued = (certificate: Certificate, issuer: Certificate): boolean =>
  authority(issuer).is &&
  same(certificate.issuer, issuer.subject) &&
  verified(certificate.signature, "der", certificate.signed, issuer.key);

export const valid = (certificate: Certificate, now: number): boolean => certificate.notBefore <= now && now <= certificate.notAfter;

export type Root = "intel" | "other";

/** A quote whose signatures hold, with who signed it. */
export interface Signed {
  root: Root;
  /** The machine's certificate, its authority's, the root's. */
  chain: [pck: Certificate, authority: Certificate, root: Certificate];
  /** The quoting enclave's report. */
  enclave: Uint8Array;
}

/**
 * Who signed the quote; null where a signature or a date does not hold.
 *
 * The attestation key signed the quote, the quoting enclave's report names that key, the PCK signed this report, and
 * the PCK chains to a root by one certificate in between. `appraise` judges revocation, TCB level and enclave.
 */
export function signers(quote: Quote, now: number): Signed | null {
  const reader = new Reader(quote.proof);
  const signature = reader.take(64);
  const key = reader.take(64);
  if (reader.number(2) !== QE_REPORT) throw new FormatError("the quote has no report of its quoting enclave");
  const inner = new Reader(reader.take(reader.number(4)));
  const enclave = inner.take(ENCLAVE_REPORT.size);
  const enclaveSignature = inner.take(64);
  const extra = inner.take(inner.number(2));
  if (inner.number(2) !== PCK_CHAIN) throw new FormatError("the quote has no PCK certificate chain");
  const [pck, middle, root, more] = pem(new TextDecoder().decode(inner.take(inner.number(4))));
  if (!pck || !middle || !root || more) throw new FormatError("the quote has no PCK certificate chain");
  const named = enclave.subarray(ENCLAVE_REPORT.data, ENCLAVE_REPORT.data + 64);
  const expected = concatBytes(sha256(concatBytes(key, extra)), new Uint8Array(32));
  const holds =
    verified(signature, "compact", quote.signed, concatBytes(new Uint8Array([4]), key)) &&
    extra.length === ENCLAVE_EXTRA &&
    same(named, expected) &&
    verified(enclaveSignature, "compact", enclave, pck.key) &&
    issued(pck, middle) &&
    issued(middle, root) &&
    issued(root, root) &&
    [pck, middle, root].every((certificate) => valid(certificate, now));
  if (!holds) return null;
  return { root: bytesToHex(root.key) === INTEL_ROOT ? "intel" : "other", chain: [pck, middle, root], enclave };
}
