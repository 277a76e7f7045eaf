// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp} from "../IDstackApp.sol";
import {Bits} from "./Bits.sol";
import {Fields} from "./Fields.sol";
import {Owners} from "./Owners.sol";

/// @title Governance actions: calls of the app on itself that a quorum of owners approves.
/// @notice Unknown -> collecting -> scheduled (quorum; the delay runs) -> ready -> done. Any one owner's veto is final
/// at any point before done, and ACTION_GRACE_SECONDS after becoming ready an action lapses. The id contains the
/// configuration's version, so a change of owners or threshold leaves every other action behind.
library Governance {
    using Bits for uint128;

    /// Never zero: between quorum and execution there is time in which any one owner can veto.
    uint64 internal constant MIN_DELAY_SECONDS = 1 hours;
    uint64 internal constant MAX_DELAY_SECONDS = 30 days;
    uint64 internal constant ACTION_GRACE_SECONDS = 14 days;

    struct Action {
        uint128 approvals;
        uint64 readyAt;
        /// The owner whose removal this is, plus one: it cannot veto that. Zero: another action.
        uint8 subjectPlusOne;
        bool vetoed;
        bool done;
    }

    function requireDelay(uint64 delaySeconds) internal pure {
        Fields.check(delaySeconds >= MIN_DELAY_SECONDS && delaySeconds <= MAX_DELAY_SECONDS, "delaySeconds");
    }

    /// Reverts unless `data` calls a function that governance may call.
    function requireAllowed(bytes calldata data) internal pure {
        bytes4 selector = data.length < 4 ? bytes4(0) : bytes4(data[:4]);
        bool allowed = selector == IDstackApp.addOwner.selector || selector == IDstackApp.removeOwner.selector
            || selector == IDstackApp.setThreshold.selector || selector == IDstackApp.setAnalyst.selector
            || selector == IDstackApp.setKmsRoot.selector || selector == IDstackApp.setGovernanceDelay.selector
            || selector == IDstackApp.announceSuccessor.selector || selector == IDstackApp.addComposeHash.selector
            || selector == IDstackApp.removeComposeHash.selector || selector == IDstackApp.addDevice.selector
            || selector == IDstackApp.removeDevice.selector || selector == IDstackApp.setAllowAnyDevice.selector
            || selector == IDstackApp.setRequireTcbUpToDate.selector;
        // The one argument of removeOwner is read on approval already.
        if (selector == IDstackApp.removeOwner.selector && data.length != 36) allowed = false;
        Fields.check(allowed, "data");
    }

    /// An action that is vetoed, done or lapsed collects nothing more.
    function requireCollecting(Action storage self, bytes32 actionId) internal view {
        if (self.vetoed || self.done || _lapsed(self)) revert IDstackApp.DstackApp_ActionNotReady(actionId);
    }

    /// Records one owner's approval; an approval already given is skipped.
    function approve(
        Action storage self,
        Owners.Registry storage owners,
        bytes32 actionId,
        uint8 index,
        bytes calldata data,
        bytes32 salt
    ) internal {
        uint128 approvals = self.approvals;
        if (approvals.contains(index)) return;
        if (approvals == 0 && bytes4(data[:4]) == IDstackApp.removeOwner.selector) {
            self.subjectPlusOne = owners.indexPlusOneOf[bytes32(data[4:])];
        }
        self.approvals = approvals | Bits.single(index);
        emit IDstackApp.ActionApproved(actionId, index, data, salt);
    }

    /// Starts the delay at the moment of quorum.
    function schedule(Action storage self, bytes32 actionId, uint8 threshold, uint64 delay) internal {
        if (self.readyAt != 0 || self.approvals.count() < threshold) return;
        uint64 readyAt = uint64(block.timestamp) + delay;
        self.readyAt = readyAt;
        emit IDstackApp.ActionScheduled(actionId, readyAt);
    }

    function veto(Action storage self, bytes32 actionId, uint8 index, address caller) internal {
        if (self.approvals == 0 || self.done) revert IDstackApp.DstackApp_ActionNotReady(actionId);
        if (self.subjectPlusOne == index + 1) revert IDstackApp.DstackApp_NotAnOwner(caller);
        if (self.vetoed) return;
        self.vetoed = true;
        emit IDstackApp.ActionVetoed(actionId, index);
    }

    /// Marks it done before the call is made, so that it cannot be made twice.
    function finish(Action storage self, bytes32 actionId) internal {
        bool ready =
            self.readyAt != 0 && block.timestamp >= self.readyAt && !self.vetoed && !self.done && !_lapsed(self);
        if (!ready) revert IDstackApp.DstackApp_ActionNotReady(actionId);
        self.done = true;
        emit IDstackApp.ActionExecuted(actionId);
    }

    function _lapsed(Action storage self) private view returns (bool) {
        return self.readyAt != 0 && block.timestamp > uint256(self.readyAt) + ACTION_GRACE_SECONDS;
    }
}
