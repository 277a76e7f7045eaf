// Strict JSON (a key that stands twice in one object is refused: two readers would see two values under one hash) and
// its canonical form, RFC 8785.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** Text that is not what its format says; `message` names the place. */
export class FormatError extends Error {}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const SPACE = /[ \t\n\r]*/y;
/** Deeper nesting than any of the formats has. */
const MAX_DEPTH = 64;

class Parser {
  private at = 0;
  constructor(private readonly text: string) {}

  document(): Json {
    const value = this.value(0);
    this.skip();
    if (this.at !== this.text.length) this.fail("text after the value");
    return value;
  }

  private value(depth: number): Json {
    if (depth > MAX_DEPTH) this.fail("nested too deeply");
    this.skip();
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.array(depth);
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private object(depth: number): JsonObject {
    const entries = new Map<string, Json>();
    this.at += 1;
    this.skip();
    if (this.take("}")) return {};
    do {
      this.skip();
      const key = this.string();
      if (entries.has(key)) this.fail(`the key ${JSON.stringify(key)} stands twice`);
      this.skip();
      if (!this.take(":")) this.fail("a colon is missing");
      entries.set(key, this.value(depth + 1));
      this.skip();
    } while (this.take(","));
    if (!this.take("}")) this.fail("an object does not end");
    // Object.fromEntries defines own properties, "__proto__" included.
    return Object.fromEntries(entries);
  }

  private array(depth: number): Json[] {
    const items: Json[] = [];
    this.at += 1;
    this.skip();
    if (this.take("]")) return items;
    do {
      items.push(this.value(depth + 1));
      this.skip();
    } while (this.take(","));
    if (!this.take("]")) this.fail("a list does not end");
    return items;
  }

  private string(): string {
    const token = this.match(STRING, "a text");
    const value = JSON.parse(token) as string;
    if (!value.isWellFormed()) this.fail("half of a surrogate pair");
    return value;
  }

  private number(): number {
    const value = Number(this.match(NUMBER, "a value"));
    if (!Number.isFinite(value)) this.fail("a number beyond the range of doubles");
    return value;
  }

  private word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fail("an unknown word");
    this.at += word.length;
    return value;
  }

  private match(pattern: RegExp, what: string): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (!found) return this.fail(`${what} is missing`);
    this.at += found.length;
    return found;
  }

  private take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private skip(): void {
    SPACE.lastIndex = this.at;
    this.at += SPACE.exec(this.text)?.[0].length ?? 0;
  }

  private fail(what: string): never {
    throw new FormatError(`not usable JSON: ${what}, at character ${this.at}`);
  }
}

/** Parses one JSON value and refuses what `JSON.parse` would let through. */
export function parseJson(text: string): Json {
  return new Parser(text).document();
}

/** Decodes UTF-8, refusing what is none; a byte order mark stays and is then refused as JSON. */
export function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError("not UTF-8");
  }
}

/** The canonical form of RFC 8785. ECMAScript's own number and string forms are the ones that it prescribes. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.keys(value)
      .sort() // by UTF-16 code units
      .map((key) => `${JSON.stringify(key)}:${canonical(value[key] as Json)}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value);
}

/** The value as an object with exactly these members; those in `optional` may be absent. */
export function members(value: Json | undefined, what: string, required: string[], optional: string[] = []): JsonObject {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new FormatError(`${what} is no object`);
  }
  for (const key of required) if (!(key in value)) throw new FormatError(`${what} has no ${key}`);
  for (const key of Object.keys(value)) {
    if (!required.includes(key) && !optional.includes(key)) throw new FormatError(`${what} has an unknown ${key}`);
  }
  return value;
}

export function text(value: Json | undefined, what: string): string {
  if (typeof value !== "string") throw new FormatError(`${what} is no text`);
  return value;
}

export function integer(value: Json | undefined, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new FormatError(`${what} is no whole number`);
  }
  return value;
}

export function list(value: Json | undefined, what: string): Json[] {
  if (!Array.isArray(value)) throw new FormatError(`${what} is no list`);
  return value;
}
