// Privacy loss: decimals with at most nine places, and the integers of 1e-9 that the contract counts in.
import { FormatError, type Json } from "./json";

const UINT64 = (1n << 64n) - 1n;

/** Epsilon in units of 1e-9. */
export function epsilon(value: Json | undefined, what: string): bigint {
  const found = typeof value === "string" ? /^(0|[1-9][0-9]{0,10})(?:\.([0-9]{1,9}))?$/.exec(value) : null;
  if (!found) throw new FormatError(`${what} is no epsilon: a decimal in a text, at most nine places`);
  const nano = BigInt(found[1] as string) * 1_000_000_000n + BigInt((found[2] ?? "").padEnd(9, "0"));
  if (nano > UINT64) throw new FormatError(`${what} is beyond what the contract can count`);
  return nano;
}

/** The shortest decimal of an epsilon in units of 1e-9. */
export function epsilonText(nano: bigint): string {
  const places = (nano % 1_000_000_000n).toString().padStart(9, "0").replace(/0+$/, "");
  return `${nano / 1_000_000_000n}${places && `.${places}`}`;
}

/** Delta in units of 1e-18. */
export function delta(value: Json | undefined, what: string): bigint {
  const found = typeof value === "string" ? /^(0|1)(?:\.([0-9]{1,18}))?$/.exec(value) : null;
  if (!found) throw new FormatError(`${what} is no delta: a decimal in a text, at most 18 places`);
  return BigInt(found[1] as string) * 10n ** 18n + BigInt((found[2] ?? "").padEnd(18, "0"));
}

/** The shortest decimal of a delta in units of 1e-18. */
export function deltaText(atto: bigint): string {
  const places = (atto % 10n ** 18n).toString().padStart(18, "0").replace(/0+$/, "");
  return `${atto / 10n ** 18n}${places && `.${places}`}`;
}

/** An unsigned integer in a decimal text, below 2^bits. */
export function decimal(value: Json | undefined, what: string, bits: number): bigint {
  if (typeof value !== "string" || !/^(0|[1-9][0-9]{0,38})$/.test(value) || BigInt(value) >= 1n << BigInt(bits)) {
    throw new FormatError(`${what} is no whole number below 2^${bits} in a text`);
  }
  return BigInt(value);
}
