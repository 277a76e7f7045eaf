// dstack's event log, parsed and replayed (docs/spec/attestation.md): nothing in it counts until its digests give the
// registers of a quote.
import { sha384 } from "@noble/hashes/sha2";
import { bytesToHex, concatBytes, hexToBytes } from "@noble/hashes/utils";
import { canonical, FormatError, integer, list, parseJson, type Json, type JsonObject } from "../format/json";

const DSTACK_EVENT = 0x08000001;
const DSTACK_REGISTER = 3;
const LIMIT = { bytes: 1 << 20, events: 1024, name: 256, payload: 256 << 10 };

/** Each exactly once, in this order; the last is the boundary, after which the app may append. */
const ORDER = ["app-id", "compose-hash", "instance-id", "boot-mr-done", "key-provider", "system-ready"] as const;
/** At most once, anywhere before the boundary. */
const ONCE = ["system-preparing", "gpu-policy-hash", "gpu-attestation", "mr-kms", "os-image-hash", "storage-fs"];
const REPEATED = "init-script-hash";
const RESERVED = new Set<string>([...ORDER, ...ONCE, REPEATED]);

interface Event {
  register: number;
  digest: Uint8Array;
  name: string;
  payload: Uint8Array;
}

export interface Replayed {
  /** RTMR0 to RTMR3 in hex; null for a register of which the log says nothing. */
  registers: (string | null)[];
  /** Payloads of the boot's events, by name, in hex; of the last where there are several. */
  boot: Map<string, string>;
}

function bytes(value: Json | undefined, what: string): Uint8Array {
  if (typeof value !== "string" || !/^(?:[0-9a-f]{2})*$/i.test(value)) throw new FormatError(`${what} is not hex`);
  return hexToBytes(value.toLowerCase());
}

/** What register 3 measures of an event: its name and payload. */
function preimage(entry: JsonObject, name: string, payload: Uint8Array): Uint8Array {
  const utf8 = (text: string) => new TextEncoder().encode(text);
  switch (entry["version"] ?? 1) {
    case 1:
      return concatBytes(new Uint8Array([1, 0, 0, 8]), utf8(`:${name}:`), payload);
    case 2:
      return utf8(canonical({ name, payload: bytesToHex(payload), type: DSTACK_EVENT }));
    default:
      throw new FormatError("an event has an unknown version");
  }
}

function event(value: Json, index: number): Event {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new FormatError(`event ${index} is no object`);
  const at = (name: string) => `${name} of event ${index}`;
  const register = integer(value["imr"], at("imr"));
  if (register > DSTACK_REGISTER) throw new FormatError(`${at("imr")} is no register`);
  const own = integer(value["event_type"], at("event_type")) === DSTACK_EVENT;
  if (own !== (register === DSTACK_REGISTER)) throw new FormatError(`${at("event_type")} does not belong in register ${register}`);
  const name = value["event"];
  if (typeof name !== "string" || new TextEncoder().encode(name).length > LIMIT.name) throw new FormatError(`${at("event")} is no name`);
  const payload = bytes(value["event_payload"], at("event_payload"));
  if (payload.length > LIMIT.payload) throw new FormatError(`${at("event_payload")} is too long`);
  const stated = bytes(value["digest"] ?? "", at("digest"));
  const digest = own ? sha384(preimage(value, name, payload)) : stated;
  if (digest.length !== 48) throw new FormatError(`${at("digest")} is not 48 bytes`);
  if (stated.length > 0 && bytesToHex(stated) !== bytesToHex(digest)) {
    throw new FormatError(`${at("digest")} is not that of its name and payload`);
  }
  return { register, digest, name, payload };
}

/** The grammar of register 3: an app must not measure a second identity, nor hide one behind a colon. */
function requireBootOrder(events: Event[]): Event[] {
  let next = 0;
  const seen = new Set<string>();
  for (const { name } of events) {
    const over = next === ORDER.length;
    if (over ? RESERVED.has(name.split(":")[0] ?? "") : name.includes(":")) throw new FormatError(`${name} may not stand there`);
    if (over) continue;
    if (name === ORDER[next]) next += 1;
    else if ((ORDER as readonly string[]).includes(name) || (ONCE.includes(name) && seen.has(name))) throw new FormatError(`${name} may not stand there`);
    seen.add(name);
  }
  if (next < ORDER.length) throw new FormatError(`${ORDER[next]} is missing`);
  return events.slice(0, events.findIndex(({ name }) => name === ORDER.at(-1)));
}

/** Throws {@link FormatError} where the log is not one that a measured dstack image writes. */
export function replay(text: string): Replayed {
  if (text.length > LIMIT.bytes) throw new FormatError("the event log is too long");
  const entries = list(parseJson(text), "the event log");
  if (entries.length > LIMIT.events) throw new FormatError("the event log has too many events");
  const events = entries.map(event);
  const own = events.filter(({ register }) => register === DSTACK_REGISTER);
  const boot = requireBootOrder(own);
  const registers = [0, 1, 2, 3].map((register) => {
    const digests = events.filter((it) => it.register === register).map(({ digest }) => digest);
    const value = digests.reduce((sum, digest) => sha384(concatBytes(sum, digest)), new Uint8Array(48));
    return digests.length > 0 ? bytesToHex(value) : null;
  });
  return { registers, boot: new Map(boot.map(({ name, payload }) => [name, bytesToHex(payload)])) };
}
