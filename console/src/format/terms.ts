// Terms in JSON (docs/spec/typed-data.md) and as the EIP-712 message that owners sign.
import { concat, keccak256, type Hex } from "viem";
import { types } from "../generated/contract";
import { hash, ZERO_HASH } from "./hex";
import { integer, members, type Json, type JsonObject } from "./json";
import { decimal, epsilon, epsilonText } from "./loss";
import { structHash, type Terms } from "./typed";

const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function read(name: string, type: string, value: Json | undefined): Hex | bigint {
  if (type === "bytes32") return hash(value, name);
  if (name.startsWith("epsilon")) return epsilon(value, name);
  if (name.startsWith("delta")) return decimal(value, name, 64);
  return BigInt(integer(value, name));
}

function write(name: string, value: Hex | bigint): Json {
  if (typeof value === "string") return value;
  if (name.startsWith("epsilon")) return epsilonText(value);
  return name.startsWith("delta") ? value.toString() : Number(value);
}

export function parseTerms(value: Json | undefined): Terms {
  const object = members(value, "terms", types.Terms.map(({ name }) => snake(name)));
  return Object.fromEntries(
    types.Terms.map(({ name, type }) => [name, read(name, type, object[snake(name)])]),
  ) as unknown as Terms;
}

export function termsJson(terms: Terms): JsonObject {
  return Object.fromEntries(
    types.Terms.map(({ name }) => [snake(name), write(name, (terms as Record<string, Hex | bigint>)[name] as Hex)]),
  );
}

/** `devices` and `systems`: keccak256 over the ids in ascending order, joined; zero for no limit. */
export const idList = (ids: readonly Hex[]): Hex =>
  ids.length ? keccak256(concat([...new Set(ids.map((id) => id.toLowerCase() as Hex))].sort())) : ZERO_HASH;

/** The EIP-712 struct hash, which is the proposal's identity. */
export const proposalId = (terms: Terms): Hex => structHash("Terms", terms);
