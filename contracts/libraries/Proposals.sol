// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, Terms} from "../IDstackApp.sol";
import {Bits} from "./Bits.sol";
import {Fields} from "./Fields.sol";
import {Owners} from "./Owners.sol";

/// @title Proposals: one approved set of terms each, named by the hash of the terms.
/// @notice Liveness is computed from what is stored, never stored itself. Only an approval can turn a proposal live:
/// revoked, superseded, an ended era and an expiry are final, and the bar within an era only rises.
library Proposals {
    using Bits for uint128;

    /// How far ahead an expiry may lie.
    uint64 internal constant MAX_TERM_SECONDS = 400 days;

    struct Proposal {
        uint128 approvals;
        uint64 expiry;
        uint32 era;
        /// The threshold when the first owner approved; zero: nobody has.
        uint8 thresholdSnapshot;
        bool revoked;
        bool superseded;
        // Second word. Units 1e-9 and 1e-18.
        uint64 epsilonBudget;
        uint64 epsilonSpent;
        uint64 deltaBudget;
        uint64 deltaSpent;
        // Third word: what each run debits, and who has taken back what was not spent.
        uint64 epsilonPerRun;
        uint64 deltaPerRun;
        uint128 reclaimed;
    }

    struct Book {
        mapping(bytes32 proposalId => Proposal) at;
        /// The one that reached quorum last; it may since have been revoked or have expired.
        mapping(bytes32 composeHash => bytes32 proposalId) current;
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
            p.expiry = terms.expiry;
            p.era = terms.era;
            p.epsilonBudget = terms.epsilonBudget;
            p.deltaBudget = terms.deltaBudget;
            p.epsilonPerRun = terms.epsilonPerRun;
            p.deltaPerRun = terms.deltaPerRun;
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

    /// Debits one run; reverts BudgetExhausted with the numbers of the first of epsilon and delta that does not fit.
    function debit(Proposal storage self, bytes32 proposalId) internal {
        uint64 epsilon = self.epsilonPerRun;
        uint64 delta = self.deltaPerRun;
        // What is spent never exceeds its budget, so the differences exist and the sums fit.
        uint64 epsilonLeft = self.epsilonBudget - self.epsilonSpent;
        uint64 deltaLeft = self.deltaBudget - self.deltaSpent;
        if (epsilon > epsilonLeft) revert IDstackApp.DstackApp_BudgetExhausted(proposalId, epsilonLeft, epsilon);
        if (delta > deltaLeft) revert IDstackApp.DstackApp_BudgetExhausted(proposalId, deltaLeft, delta);
        self.epsilonSpent += epsilon;
        self.deltaSpent += delta;
    }
}
