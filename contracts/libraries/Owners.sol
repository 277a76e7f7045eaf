// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp, OwnerInfo} from "../IDstackApp.sol";
import {Bits} from "./Bits.sol";
import {Fields} from "./Fields.sol";

/// @title The owners of one app: who they are, which index each has, what each has committed of its lifetime cap.
/// @notice An index is given once and never again, so a bit set anywhere means the same owner for ever; a removed owner
/// that comes back gets another index, and nothing it approved before revives. No function here loops over owners.
library Owners {
    using Bits for uint128;

    uint8 internal constant MAX_OWNERS = 64;
    uint8 internal constant MAX_INDEXES = 128;

    /// One storage word, read by every decision.
    struct Config {
        uint128 activeOwners;
        uint8 threshold;
        uint8 ownerCount;
        uint8 nextIndex;
        uint32 era;
        /// Number of OwnerAdded, OwnerRemoved and ThresholdSet events so far.
        uint64 version;
    }

    struct Owner {
        bytes32 ownerId;
        address account;
        bytes2 jurisdiction;
        uint16 grades;
        address revoker;
        address pendingAccount;
        Budget budget;
    }

    /// Lifetime caps and what is committed against them; units 1e-9 and 1e-18.
    struct Budget {
        uint64 epsilonCap;
        uint64 epsilonCommitted;
        uint64 deltaCap;
        uint64 deltaCommitted;
    }

    struct Registry {
        Config config;
        mapping(uint8 index => Owner) at;
        /// Kept after removal: it leads to the former index and thereby to the budget.
        mapping(bytes32 ownerId => uint8) indexPlusOneOf;
        mapping(address account => uint8) accountIndexPlusOne;
        mapping(address revoker => uint8) revokerIndexPlusOne;
    }

    // ---- who ----------------------------------------------------------------------------------------------------

    /// The index of the listed owner with this account; reverts NotAnOwner.
    function requireAccount(Registry storage self, address account) internal view returns (uint8) {
        uint8 indexPlusOne = self.accountIndexPlusOne[account];
        if (indexPlusOne == 0) revert IDstackApp.DstackApp_NotAnOwner(account);
        return indexPlusOne - 1;
    }

    /// The index of the listed owner that `caller` may stop things for: its account or its revocation key.
    function requireStopper(Registry storage self, address caller) internal view returns (uint8) {
        uint8 indexPlusOne = self.accountIndexPlusOne[caller];
        if (indexPlusOne == 0) indexPlusOne = self.revokerIndexPlusOne[caller];
        if (indexPlusOne == 0) revert IDstackApp.DstackApp_NotAnOwner(caller);
        return indexPlusOne - 1;
    }

    function find(Registry storage self, bytes32 ownerId) internal view returns (bool listed, uint8 index) {
        uint8 indexPlusOne = self.indexPlusOneOf[ownerId];
        if (indexPlusOne == 0) return (false, 0);
        index = indexPlusOne - 1;
        listed = self.config.activeOwners.contains(index);
    }

    // ---- membership ---------------------------------------------------------------------------------------------

    function add(Registry storage self, OwnerInfo memory info) internal {
        Config storage config = self.config;
        uint8 index = config.nextIndex;
        (bool listed, uint8 formerIndex) = find(self, info.ownerId);
        Fields.check(info.ownerId != 0 && !listed, "ownerId");
        Fields.check(info.account != address(0) && self.accountIndexPlusOne[info.account] == 0, "account");
        Fields.check(config.ownerCount != MAX_OWNERS && index != MAX_INDEXES, "ownerCount");
        _claimRevoker(self, index, info.account, info.revoker);

        Owner storage owner = self.at[index];
        // A returning owner keeps what it has committed and the caps that only it may change.
        owner.budget = self.indexPlusOneOf[info.ownerId] != 0
            ? self.at[formerIndex].budget
            : Budget(info.epsilonCap, 0, info.deltaCap, 0);
        owner.ownerId = info.ownerId;
        owner.account = info.account;
        owner.jurisdiction = info.jurisdiction;
        owner.grades = info.grades;
        owner.revoker = info.revoker;
        self.indexPlusOneOf[info.ownerId] = index + 1;
        self.accountIndexPlusOne[info.account] = index + 1;
        config.activeOwners |= Bits.single(index);
        config.ownerCount += 1;
        config.nextIndex += 1;
        config.version += 1;
        emit IDstackApp.OwnerAdded(info.ownerId, info.account, info.revoker, info.jurisdiction, info.grades, index);
        _emitBudget(index, owner.budget);
    }

    function remove(Registry storage self, bytes32 ownerId) internal {
        (bool listed, uint8 index) = find(self, ownerId);
        Fields.check(listed, "ownerId");
        Config storage config = self.config;
        Fields.check(config.ownerCount != config.threshold, "threshold");

        Owner storage owner = self.at[index];
        address account = owner.account;
        delete self.accountIndexPlusOne[account];
        delete self.revokerIndexPlusOne[owner.revoker];
        delete owner.pendingAccount;
        config.activeOwners &= ~Bits.single(index);
        config.ownerCount -= 1;
        config.version += 1;
        emit IDstackApp.OwnerRemoved(ownerId, account, index);
    }

    /// Lowering it ends the era, so that what stood below the higher bar cannot come to stand above the lower one.
    function setThreshold(Registry storage self, uint8 threshold) internal {
        Config storage config = self.config;
        Fields.check(threshold != 0 && threshold <= config.ownerCount, "threshold");
        bool lowered = threshold < config.threshold;
        config.threshold = threshold;
        config.version += 1;
        if (lowered) config.era += 1;
        emit IDstackApp.ThresholdSet(threshold);
        if (lowered) emit IDstackApp.EraStarted(config.era, type(uint8).max, address(this));
    }

    // ---- an owner's own settings --------------------------------------------------------------------------------

    /// Zero withdraws a rotation that was started.
    function startRotation(Registry storage self, uint8 index, address newAccount) internal {
        Fields.check(self.accountIndexPlusOne[newAccount] == 0, "newAccount");
        Owner storage owner = self.at[index];
        owner.pendingAccount = newAccount;
        emit IDstackApp.OwnerRotationStarted(owner.ownerId, owner.account, newAccount);
    }

    /// The institution stays the same: index, approvals and budget go with it.
    function acceptRotation(Registry storage self, bytes32 ownerId, address caller) internal {
        (bool listed, uint8 index) = find(self, ownerId);
        Owner storage owner = self.at[index];
        bool invited = listed && caller != address(0) && owner.pendingAccount == caller;
        if (!invited) revert IDstackApp.DstackApp_NotAnOwner(caller);
        // It may have become another owner's account since.
        Fields.check(self.accountIndexPlusOne[caller] == 0, "newAccount");

        address oldAccount = owner.account;
        delete self.accountIndexPlusOne[oldAccount];
        delete owner.pendingAccount;
        self.accountIndexPlusOne[caller] = index + 1;
        owner.account = caller;
        emit IDstackApp.OwnerRotated(ownerId, oldAccount, caller, index);
    }

    function setRevoker(Registry storage self, uint8 index, address revoker) internal {
        Owner storage owner = self.at[index];
        delete self.revokerIndexPlusOne[owner.revoker];
        _claimRevoker(self, index, owner.account, revoker);
        owner.revoker = revoker;
        emit IDstackApp.RevokerSet(owner.ownerId, revoker);
    }

    function setCap(Registry storage self, uint8 index, uint64 epsilonCap, uint64 deltaCap) internal {
        Budget storage budget = self.at[index].budget;
        Fields.check(epsilonCap >= budget.epsilonCommitted, "epsilonCap");
        Fields.check(deltaCap >= budget.deltaCommitted, "deltaCap");
        budget.epsilonCap = epsilonCap;
        budget.deltaCap = deltaCap;
        _emitBudget(index, budget);
    }

    // ---- budgets ------------------------------------------------------------------------------------------------

    /// Reverts OwnerCapExceeded with the numbers of the first of epsilon and delta that does not fit.
    function commit(Registry storage self, uint8 index, uint64 epsilon, uint64 delta) internal {
        Budget storage budget = self.at[index].budget;
        // What is committed never exceeds its cap, so the differences exist.
        if (epsilon > budget.epsilonCap - budget.epsilonCommitted) {
            revert IDstackApp.DstackApp_OwnerCapExceeded(index, budget.epsilonCap - budget.epsilonCommitted, epsilon);
        }
        if (delta > budget.deltaCap - budget.deltaCommitted) {
            revert IDstackApp.DstackApp_OwnerCapExceeded(index, budget.deltaCap - budget.deltaCommitted, delta);
        }
        budget.epsilonCommitted += epsilon;
        budget.deltaCommitted += delta;
        _emitBudget(index, budget);
    }

    function release(Registry storage self, uint8 index, uint64 epsilon, uint64 delta) internal {
        Budget storage budget = self.at[index].budget;
        budget.epsilonCommitted -= epsilon;
        budget.deltaCommitted -= delta;
        _emitBudget(index, budget);
    }

    // ---- private ------------------------------------------------------------------------------------------------

    /// A revocation key stands for one owner only, so that whoever revokes can be named.
    function _claimRevoker(Registry storage self, uint8 index, address account, address revoker) private {
        if (revoker == address(0)) return;
        Fields.check(revoker != account && self.revokerIndexPlusOne[revoker] == 0, "revoker");
        self.revokerIndexPlusOne[revoker] = index + 1;
    }

    function _emitBudget(uint8 index, Budget storage budget) private {
        emit IDstackApp.OwnerBudget(
            index, budget.epsilonCap, budget.epsilonCommitted, budget.deltaCap, budget.deltaCommitted
        );
    }
}
