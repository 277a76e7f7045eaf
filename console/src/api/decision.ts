// What the contract's decision about a proposal means for what is shown.
import type { Proposal, Run } from "./types";

/** Decisions that approvals, or time, can still turn into `allow`. */
export const isOpen = (decision: string): boolean => ["allow", "no_quorum", "proposal_unknown"].includes(decision);

export const proposalTone = (decision: string) => (decision === "allow" ? "good" : isOpen(decision) ? "wait" : "bad");

/** Whether a run without a receipt can still get one. */
export const canClose = (proposals: Proposal[], run: Run): boolean =>
  proposals.some((it) => it.proposal_id === run.proposal_id && it.decision.head === "allow");

/** The proposal to look at first: a live one, else one that still collects approvals, else the newest. */
export function leading(proposals: Proposal[]): Proposal | null {
  const newest = [...proposals].reverse();
  return (
    newest.find(({ decision }) => decision.head === "allow") ??
    newest.find(({ decision }) => decision.head === "no_quorum") ??
    newest[0] ??
    null
  );
}
