// What is signed: EIP-712 messages over the types that the contract's source declares.
import { hashStruct, hashTypedData, recoverAddress, type Hex } from "viem";
import { types } from "../generated/contract";

export type Types = typeof types;
export type TypeName = keyof Types;

type Value<T> = T extends "bytes32" | "address" | "bytes" ? Hex : T extends TypeName ? Message<T> : bigint;
/** The members of a struct; integers of all sizes are bigints. */
export type Message<N extends TypeName> = { [M in Types[N][number] as M["name"]]: Value<M["type"]> };

export type Terms = Message<"Terms">;

/** Which chain and which contract a signature is for. */
export interface Place {
  chainId: number;
  app: Hex;
}

const DOMAIN = [
  { name: "name", type: "string" },
  { name: "version", type: "string" },
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
] as const;

export function domain(place: Place) {
  return { name: "DstackApp", version: "1", chainId: place.chainId, verifyingContract: place.app } as const;
}

/** The type and the types that its members refer to. */
function closure(name: TypeName): Record<string, readonly { name: string; type: string }[]> {
  const found: Record<string, readonly { name: string; type: string }[]> = { [name]: types[name] };
  for (const member of types[name]) {
    if (member.type in types) Object.assign(found, closure(member.type as TypeName));
  }
  return found;
}

/** viem's own types derive the message's type from constant types; here that is done already, by `Message`. */
type Loose = Record<string, unknown>;
type AnyTypes = Record<string, { name: string; type: string }[]>;

/** EIP-712 hashStruct; ids of proposals and runs are these. */
export function structHash<N extends TypeName>(name: N, message: Message<N>): Hex {
  return hashStruct({ primaryType: name as string, types: closure(name) as AnyTypes, data: message as Loose });
}

/** The 32 bytes that are signed. */
export function digest<N extends TypeName>(place: Place, name: N, message: Message<N>): Hex {
  return hashTypedData<AnyTypes, string>({
    domain: domain(place),
    types: closure(name) as AnyTypes,
    primaryType: name,
    message: message as Loose,
  });
}

/** What `eth_signTypedData_v4` takes, and what a signer without a network imports. Integers are decimal texts. */
export function typedData<N extends TypeName>(place: Place, name: N, message: Message<N>): string {
  const document = {
    domain: domain(place),
    types: { EIP712Domain: DOMAIN, ...closure(name) },
    primaryType: name,
    message,
  };
  return JSON.stringify(document, (_, value: unknown) => (typeof value === "bigint" ? value.toString() : value), 2);
}

/** Half of the group order: signatures with a larger s have a twin and are refused. */
const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/** Who signed it with a key: 65 bytes r, s, v with low s and v 27 or 28. Null where it is none of these. */
export async function recover(digest: Hex, signature: Hex): Promise<Hex | null> {
  if (!/^0x[0-9a-f]{128}1[bc]$/i.test(signature)) return null;
  if (BigInt(`0x${signature.slice(66, 130)}`) > HALF_ORDER) return null;
  try {
    return (await recoverAddress({ hash: digest, signature })).toLowerCase() as Hex;
  } catch {
    return null;
  }
}
