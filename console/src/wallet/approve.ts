// An owner's approval: by signature in the wallet, by a signature made elsewhere, or by transaction. All of them take
// `Reviewed`, which only `review` makes, and that only from bytes that hash to the approved compose hash.
import type { Hex } from "viem";
import { abiTerms, App } from "../chain/app";
import { ChainError } from "../chain/provider";
import type { Approval } from "../format/approval";
import type { Compose } from "../format/recipe";
import { proposalId } from "../format/terms";
import { digest, recover, typedData, type Message, type Place, type Terms } from "../format/typed";
import type { Session } from "./wallets";

/** Terms whose recipe the person has before them. */
export interface Reviewed {
  readonly terms: Terms;
  readonly compose: Compose;
  readonly proven: typeof proof;
}
const proof = Symbol("reviewed");

export type Mismatch = "compose_hash" | "recipe_hash" | "output_schema_hash" | "epsilon" | "delta" | "proposal_id";

/** Compares the bytes with the terms; the first thing that differs, or the reviewed terms. */
export function review(id: Hex, terms: Terms, compose: Compose): Reviewed | Mismatch {
  if (proposalId(terms) !== id) return "proposal_id";
  if (compose.composeHash !== terms.composeHash) return "compose_hash";
  if (compose.recipeHash !== terms.recipeHash) return "recipe_hash";
  if (compose.outputSchemaHash !== terms.outputSchemaHash) return "output_schema_hash";
  if (compose.epsilonPerRun !== terms.epsilonPerRun || compose.epsilonBudget !== terms.epsilonBudget) return "epsilon";
  if (compose.deltaPerRun !== terms.deltaPerRun || compose.deltaBudget !== terms.deltaBudget) return "delta";
  return { terms, compose, proven: proof };
}

const HOUR = 3600;
/** For which a signature may be submitted, as `cohort approve` has it. */
const GOOD_FOR = 72 * HOUR;
/** For which a message that was given out already must still be good to be given out again. */
const AGAIN_FOR = 24 * HOUR;

const now = () => Math.floor(Date.now() / 1000);

export function approveMessage(reviewed: Reviewed, owner: Hex): Message<"Approve"> {
  return { owner, terms: reviewed.terms, deadline: BigInt(now() + GOOD_FOR) };
}

const given = (reviewed: Reviewed, owner: Hex): string => `cohort.given.${proposalId(reviewed.terms)}.${owner}`;

/**
 * The message that was given out for this owner to sign elsewhere, while its signature may come back: signing on another
 * machine takes hours, in which this page is closed and opened again. Null where there is none.
 */
export function givenOut(reviewed: Reviewed, owner: Hex): Message<"Approve"> | null {
  let deadline: number;
  try {
    deadline = Number(localStorage.getItem(given(reviewed, owner)));
  } catch {
    return null;
  }
  return Number.isSafeInteger(deadline) && deadline > now() ? { owner, terms: reviewed.terms, deadline: BigInt(deadline) } : null;
}

/** A message to sign elsewhere: the same one again while there is time for it. */
export function giveOut(reviewed: Reviewed, owner: Hex): Message<"Approve"> {
  const before = givenOut(reviewed, owner);
  if (before && Number(before.deadline) > now() + AGAIN_FOR) return before;
  const message = approveMessage(reviewed, owner);
  try {
    localStorage.setItem(given(reviewed, owner), String(message.deadline));
  } catch {
    // Storage is full or forbidden: the signature must come back before the page is closed.
  }
  return message;
}

/** Some signers write v as 0 or 1. */
const usual = (signature: Hex): Hex =>
  /^0x[0-9a-f]{128}0[01]$/i.test(signature) ? (`${signature.slice(0, 130)}${signature.endsWith("0") ? "1b" : "1c"}` as Hex) : signature;

/** The signature of an owner's key, or one that the owner's contract takes; refuses any other before it goes anywhere. */
export async function accept(
  app: App | null,
  place: Place,
  message: Message<"Approve">,
  raw: Hex,
): Promise<Approval> {
  if (message.deadline * 1000n < BigInt(Date.now())) {
    throw new ChainError({ kind: "reverted", name: "DstackApp_DeadlinePassed", args: [message.deadline] });
  }
  const signature = usual(raw);
  const signer = await recover(digest(place, "Approve", message), signature);
  if (signer !== message.owner) {
    if (!app) throw new ChainError({ kind: "reverted", name: "unverified", args: [message.owner] });
    const { owner, terms, deadline } = message;
    await app.simulate("approveBySig", [abiTerms(terms), [{ owner, deadline, signature }]]);
  }
  const { owner, terms, deadline } = message;
  return { place, terms, owner, deadline: Number(deadline), signature };
}

export async function sign(session: Session, place: Place, reviewed: Reviewed): Promise<Approval> {
  const app = new App(session.wallet.provider, place.app);
  // What the contract would not take, a person need not sign: revoked meanwhile, another era, no budget left.
  await app.simulate("approve", [abiTerms(reviewed.terms)], session.account);
  const message = approveMessage(reviewed, session.account);
  const params = [session.account, typedData(place, "Approve", message)];
  const signature = (await session.wallet.provider.request({ method: "eth_signTypedData_v4", params })) as Hex;
  return accept(app, place, message, signature);
}

/** Submits owners' signatures in one transaction, which `from` pays for. */
export function relay(app: App, approvals: Approval[], from: Hex): Promise<Hex> {
  const batch = approvals.map(({ owner, deadline, signature }) => ({ owner, deadline: BigInt(deadline), signature }));
  const [first] = approvals;
  if (!first) throw new Error("no approval to relay");
  return app.send("approveBySig", [abiTerms(first.terms), batch], from);
}
