// `cohort-rehearsal/1` (docs/spec/rehearsal.md): what a recipe puts out on synthetic rows, signed by an analyst.
import { hashTypedData, type Hex } from "viem";
import { canonicalHash } from "./hash";
import { address, hash, hex } from "./hex";
import { FormatError, integer, members, type Json } from "./json";
import { recover } from "./typed";

export const REHEARSAL = "cohort-rehearsal/1";

export interface Rehearsal {
  composeHash: Hex;
  recipeHash: Hex;
  rowsPerOwner: number;
  seed: number;
  seconds: number;
  payload: Json;
  analyst: Hex;
}

const TYPES = {
  Rehearsal: [
    ["composeHash", "bytes32"], ["recipeHash", "bytes32"], ["outputHash", "bytes32"], ["rowsPerOwner", "uint32"], ["seed", "uint64"],
    ["durationSeconds", "uint64"],
  ].map(([name, type]) => ({ name: name as string, type: type as string })),
};

/** The record; refuses one that its analyst has not signed. */
export async function parseRehearsal(value: Json): Promise<Rehearsal> {
  const object = members(value, "the rehearsal", [
    "format", "compose_hash", "recipe_hash", "rows_per_owner", "seed", "duration_seconds", "payload", "analyst", "signature",
  ]);
  const record = {
    composeHash: hash(object["compose_hash"], "compose_hash"),
    recipeHash: hash(object["recipe_hash"], "recipe_hash"),
    rowsPerOwner: integer(object["rows_per_owner"], "rows_per_owner"),
    seed: integer(object["seed"], "seed"),
    seconds: integer(object["duration_seconds"], "duration_seconds"),
    payload: object["payload"] as Json,
    analyst: address(object["analyst"], "analyst"),
  };
  const { composeHash, recipeHash, rowsPerOwner } = record;
  const message = {
    composeHash, recipeHash, outputHash: canonicalHash(record.payload), rowsPerOwner, seed: BigInt(record.seed), durationSeconds: BigInt(record.seconds),
  };
  const signed = hashTypedData({ domain: { name: "Cohort rehearsal", version: "1" }, types: TYPES, primaryType: "Rehearsal", message });
  if ((await recover(signed, hex(object["signature"], "signature"))) !== record.analyst) {
    throw new FormatError("the rehearsal is not signed by the analyst that it names");
  }
  return record;
}
