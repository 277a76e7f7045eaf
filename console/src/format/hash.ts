// SHA-256 of bytes and of canonical JSON. Not WebCrypto: that is absent where the page is served without TLS.
import { sha256 } from "@noble/hashes/sha2";
import { bytesToHex } from "@noble/hashes/utils";
import type { Hex } from "viem";
import { canonical, type Json } from "./json";

export const sha256Hex = (bytes: Uint8Array): Hex => `0x${bytesToHex(sha256(bytes))}`;
/** SHA-256 of the RFC 8785 bytes. */
export const canonicalHash = (value: Json): Hex => sha256Hex(new TextEncoder().encode(canonical(value)));
