// Hex values of the formats: `0x` and an even number of digits.
import type { Hex } from "viem";
import { FormatError, type Json } from "./json";

/** A hex text of exactly `bytes` bytes, in lower case; any number of bytes without `bytes`. */
export function hex(value: Json | undefined, what: string, bytes?: number): Hex {
  const digits = typeof value === "string" ? /^0x((?:[0-9a-fA-F]{2})*)$/.exec(value)?.[1] : undefined;
  if (digits === undefined || (bytes !== undefined && digits.length !== 2 * bytes)) {
    throw new FormatError(`${what} is not ${bytes ?? "some"} bytes in hex`);
  }
  return `0x${digits.toLowerCase()}`;
}

export const address = (value: Json | undefined, what: string): Hex => hex(value, what, 20);
export const hash = (value: Json | undefined, what: string): Hex => hex(value, what, 32);

export const ZERO_HASH: Hex = `0x${"0".repeat(64)}`;
