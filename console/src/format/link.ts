// Terms inside a link, so that an analyst can send owners a proposal that nobody has put on chain yet. Whoever opens the
// link sees terms whose hash must be the proposal id in it.
import { FormatError, parseJson } from "./json";
import { parseTerms, termsJson } from "./terms";
import type { Terms } from "./typed";

export function termsToLink(terms: Terms): string {
  const bytes = new TextEncoder().encode(JSON.stringify(termsJson(terms)));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function termsFromLink(text: string): Terms {
  let json: string;
  try {
    json = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    throw new FormatError("the terms in the link are damaged");
  }
  return parseTerms(parseJson(json));
}
