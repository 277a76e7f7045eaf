// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, Terms} from "../IDstackApp.sol";
import {Bits} from "./Bits.sol";
import {Fields} from "./Fields.sol";
import {Owners} from "./Owners.sol";

/// @title Proposals: one approved set of terms each, named by the hash of the terms.
/// @notice The terms are not stored: whoever needs them gives them, and their hash is the proof. Liveness is computed from what is stored, never stored itself. Only an approval can turn a proposal live:
/// revoked, superseded, an ended era and an expiry are final, and the bar within an era only rises.
library Proposals {
    using Bits for uint128;

    /// How far ahead an expiry may lie.
    uint64 internal constant MAX_TERM_SECONDS = 400 days;

    /// One storage word.
    struct Proposal {
        uint128 approvals;
        uint40 expiry;
        uint32 era;
        /// Every run debits the same, so their number is what is spent.
        uint32 runs;
        /// The threshold when the first owner approved; zero: nobody has.
        uint8 thresholdSnapshot;
        bool revoked;
        bool superseded;
    }

    struct Book {
        mapping(bytes32 proposalId => Proposal) at;
        /// The one that reached quorum last; it may since have been revoked or have expired.
        mapping(bytes32 composeHash => bytes32 proposalId) current;
        /// Who has taken back what the proposal did not spend.
        mapping(bytes32 proposalId => uint128) reclaimed;
    }

    /// Allow, or the first of the reasons 1 to 6 that applies.
    function decision(Proposal storage self, Owners.Config storage config) internal view returns (Decision) {
        if (self.revoked) return Decision.ProposalRevoked;
        if (self.thresholdSnapshot == 0) return Decision.ProposalUnknown;
        if (self.superseded) return Decision.ProposalSuperseded;
        if (self.era != config.era) return Decision.EraEnded;
        if (block.timestamp >= self.expiry) return Decision.ProposalExpired;
        // Not below the snapshot: within an era the threshold only rises.
        if ((self.approvals & config.activeOwners).count() < config.threshold) return Decision.NoQuorum;
        return Decision.Allow;
    }

    /// Reverts on a value that no proposal may have.
    function requireValid(Terms calldata terms) internal view {
        Fields.check(terms.composeHash != 0, "composeHash");
        Fields.check(terms.recipeHash != 0, "recipeHash");
        Fields.check(terms.outputSchemaHash != 0, "outputSchemaHash");
        Fields.check(terms.epsilonPerRun != 0, "epsilonPerRun");
        Fields.check(terms.epsilonPerRun <= terms.epsilonBudget, "epsilonBudget");
        Fields.check(terms.deltaPerRun <= terms.deltaBudget, "deltaBudget");
        Fields.check(terms.expiry > block.timestamp && terms.expiry <= block.timestamp + MAX_TERM_SECONDS, "expiry");
    }

    /// Adds approvals, creates the proposal with the first and makes it the current one when they reach the quorum.
    function record(
        Book storage self,
        Owners.Config storage config,
        Terms calldata terms,
        bytes32 proposalId,
        uint128 added,
        bool bySignature
    ) internal {
        Proposal storage p = self.at[proposalId];
        if (p.thresholdSnapshot == 0) {
            p.thresholdSnapshot = config.threshold;
            // `requireValid` has bounded it.
            p.expiry = uint40(terms.expiry);
            p.era = terms.era;
            emit IDstackApp.ProposalCreated(proposalId, terms.composeHash, terms, config.threshold);
        }
        uint128 approvals = p.approvals | added;
        p.approvals = approvals;
        emit IDstackApp.ProposalApproved(proposalId, added, approvals, bySignature);

        if (decision(p, config) != Decision.Allow) return;
        bytes32 former = self.current[terms.composeHash];
        if (former == proposalId) return;
        self.current[terms.composeHash] = proposalId;
        if (former != 0) self.at[former].superseded = true;
        emit IDstackApp.ProposalActivated(proposalId, terms.composeHash, former);
    }

    /// Debits one run and returns what is spent with it. Reverts BudgetExhausted with the numbers of the first of
    /// epsilon and delta that does not fit. `terms` are those that `proposalId` is the hash of.
    function debit(Book storage self, bytes32 proposalId, Terms calldata terms)
        internal
        returns (uint64 epsilonSpent, uint64 deltaSpent)
    {
        uint32 runs = self.at[proposalId].runs;
        epsilonSpent = terms.epsilonBudget - _take(proposalId, terms.epsilonBudget, terms.epsilonPerRun, runs);
        deltaSpent = terms.deltaBudget - _take(proposalId, terms.deltaBudget, terms.deltaPerRun, runs);
        self.at[proposalId].runs = runs + 1;
    }

    /// What `runs` runs leave of a budget. None is opened that the budget does not cover, so the difference exists.
    function left(uint64 budget, uint64 perRun, uint32 runs) internal pure returns (uint64) {
        return budget - perRun * runs;
    }

    // ---- private ------------------------------------------------------------------------------------------------

    /// What is left after one more run.
    function _take(bytes32 proposalId, uint64 budget, uint64 perRun, uint32 runs) private pure returns (uint64) {
        uint64 before = left(budget, perRun, runs);
        if (perRun > before) revert IDstackApp.DstackApp_BudgetExhausted(proposalId, before, perRun);
        return before - perRun;
    }
}
