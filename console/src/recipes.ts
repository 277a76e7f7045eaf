// Recipe files that this browser has seen, by compose hash, so that a person need not give the same file twice and can
// compare with the one approved before. Whoever takes one out hashes it again.
import type { Hex } from "viem";
import { parseCompose, type Compose } from "./format/recipe";

const PREFIX = "cohort.compose.";
const MOST = 8;

export function remember(compose: Compose): void {
  try {
    const kept = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    for (const key of kept.slice(0, Math.max(0, kept.length - MOST + 1))) localStorage.removeItem(key);
    localStorage.setItem(PREFIX + compose.composeHash, new TextDecoder().decode(compose.bytes));
  } catch {
    // Storage is full or forbidden: the person gives the file again.
  }
}

export function recall(hash: Hex): Compose | null {
  try {
    const text = localStorage.getItem(PREFIX + hash);
    const compose = text === null ? null : parseCompose(new TextEncoder().encode(text));
    return compose?.composeHash === hash ? compose : null;
  } catch {
    return null;
  }
}
