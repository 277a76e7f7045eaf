// `cohort-approval/1`: a signed approval on its way to a relayer; `cohort relay` takes the same file.
import type { Hex } from "viem";
import { address, hex } from "./hex";
import { FormatError, integer, members, parseJson } from "./json";
import { parseTerms, termsJson } from "./terms";
import type { Place, Terms } from "./typed";

const FORMAT = "cohort-approval/1";

export interface Approval {
  place: Place;
  terms: Terms;
  /** The owner's account. */
  owner: Hex;
  /** Unix seconds. */
  deadline: number;
  signature: Hex;
}

export function approvalFile(approval: Approval): string {
  const { place, terms, owner, deadline, signature } = approval;
  const file = {
    format: FORMAT,
    chain_id: place.chainId,
    app: place.app,
    terms: termsJson(terms),
    owner,
    deadline,
    signature,
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

export function parseApproval(source: string): Approval {
  const keys = ["format", "chain_id", "app", "terms", "owner", "deadline", "signature"];
  const file = members(parseJson(source), "the approval", keys);
  if (file["format"] !== FORMAT) throw new FormatError(`the format is not ${FORMAT}`);
  return {
    place: { chainId: integer(file["chain_id"], "chain_id"), app: address(file["app"], "app") },
    terms: parseTerms(file["terms"]),
    owner: address(file["owner"], "owner"),
    deadline: integer(file["deadline"], "deadline"),
    signature: hex(file["signature"], "signature"),
  };
}
