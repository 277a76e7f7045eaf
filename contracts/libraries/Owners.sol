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

    /// Stands for the contract itself where an event names an owner's index.
    uint8 internal constant SELF_INDEX = type(uint8).max;
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

    /// Lifetime caps, units 1e-9 and 1e-18, and what was left of them when the owner was removed.
    struct Budget {
        uint64 epsilonCap;
        uint64 deltaCap;
        uint64 epsilonLeft;
        uint64 deltaLeft;
    }

    /// A listed owner's account, in the one word that an approval reads and writes.
    struct Account {
        uint8 indexPlusOne;
        /// What the owner's approvals have not committed yet of its caps.
        uint64 epsilonLeft;
        uint64 deltaLeft;
    }

    struct Registry {
        Config config;
        mapping(uint8 index => Owner) at;
        /// Kept after removal: it leads to the former index and thereby to the budget.
        mapping(bytes32 ownerId => uint8) indexPlusOneOf;
        mapping(address account => Account) accounts;
        mapping(address revoker => uint8) revokerIndexPlusOne;
    }

    // ---- who ----------------------------------------------------------------------------------------------------

    /// The index of the listed owner with this account; reverts NotAnOwner.
    function requireAccount(Registry storage self, address account) internal view returns (uint8) {
        uint8 indexPlusOne = self.accounts[account].indexPlusOne;
        if (indexPlusOne == 0) revert IDstackApp.DstackApp_NotAnOwner(account);
        return indexPlusOne - 1;
    }

    /// The index of the listed owner that `caller` may stop things for: its account or its revocation key.
    function requireStopper(Registry storage self, address caller) internal view returns (uint8) {
        uint8 indexPlusOne = self.accounts[caller].indexPlusOne;
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
        Fields.check(info.account != address(0) && self.accounts[info.account].indexPlusOne == 0, "account");
        Fields.check(config.ownerCount != MAX_OWNERS && index != MAX_INDEXES, "ownerCount");
        _claimRevoker(self, index, info.account, info.revoker);

        Owner storage owner = self.at[index];
        // A returning owner keeps what it has committed and the caps that only it may change.
        owner.budget = self.indexPlusOneOf[info.ownerId] != 0
            ? self.at[formerIndex].budget
            : Budget(info.epsilonCap, info.deltaCap, info.epsilonCap, info.deltaCap);
        owner.ownerId = info.ownerId;
        owner.account = info.account;
        owner.jurisdiction = info.jurisdiction;
        owner.grades = info.grades;
        owner.revoker = info.revoker;
        self.indexPlusOneOf[info.ownerId] = index + 1;
        self.accounts[info.account] = Account(index + 1, owner.budget.epsilonLeft, owner.budget.deltaLeft);
        config.activeOwners |= Bits.single(index);
        config.ownerCount += 1;
        config.nextIndex += 1;
        config.version += 1;
        emit IDstackApp.OwnerAdded(info.ownerId, info.account, info.revoker, info.jurisdiction, info.grades, index);
        _emitBudget(self, index);
    }

    function remove(Registry storage self, bytes32 ownerId) internal {
        (bool listed, uint8 index) = find(self, ownerId);
        Fields.check(listed, "ownerId");
        Config storage config = self.config;
        Fields.check(config.ownerCount != config.threshold, "threshold");

        Owner storage owner = self.at[index];
        address account = owner.account;
        owner.budget.epsilonLeft = self.accounts[account].epsilonLeft;
        owner.budget.deltaLeft = self.accounts[account].deltaLeft;
        delete self.accounts[account];
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
        emit IDstackApp.ThresholdSet(threshold);
        if (lowered) startEra(self, SELF_INDEX, address(this));
    }

    /// Ends every proposal of the present era.
    function startEra(Registry storage self, uint8 index, address by) internal {
        uint32 era = self.config.era + 1;
        self.config.era = era;
        emit IDstackApp.EraStarted(era, index, by);
    }

    // ---- an owner's own settings --------------------------------------------------------------------------------

    /// Zero withdraws a rotation that was started.
    function startRotation(Registry storage self, uint8 index, address newAccount) internal {
        Fields.check(self.accounts[newAccount].indexPlusOne == 0, "newAccount");
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
        Fields.check(self.accounts[caller].indexPlusOne == 0, "newAccount");

        address oldAccount = owner.account;
        self.accounts[caller] = self.accounts[oldAccount];
        delete self.accounts[oldAccount];
        delete owner.pendingAccount;
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
        Account storage account = self.accounts[self.at[index].account];
        uint64 epsilonCommitted = budget.epsilonCap - account.epsilonLeft;
        uint64 deltaCommitted = budget.deltaCap - account.deltaLeft;
        Fields.check(epsilonCap >= epsilonCommitted, "epsilonCap");
        Fields.check(deltaCap >= deltaCommitted, "deltaCap");
        budget.epsilonCap = epsilonCap;
        budget.deltaCap = deltaCap;
        account.epsilonLeft = epsilonCap - epsilonCommitted;
        account.deltaLeft = deltaCap - deltaCommitted;
        _emitBudget(self, index);
    }

    // ---- budgets ------------------------------------------------------------------------------------------------

    /// Reverts OwnerCapExceeded with the numbers of the first of epsilon and delta that does not fit. Emits nothing: the
    /// approval that commits is an event, and names terms that are one.
    function commit(Registry storage self, address account, uint64 epsilon, uint64 delta) internal {
        Account storage a = self.accounts[account];
        uint8 index = a.indexPlusOne - 1;
        a.epsilonLeft = _take(index, a.epsilonLeft, epsilon);
        a.deltaLeft = _take(index, a.deltaLeft, delta);
    }

    function release(Registry storage self, uint8 index, uint64 epsilon, uint64 delta) internal {
        Account storage account = self.accounts[self.at[index].account];
        account.epsilonLeft += epsilon;
        account.deltaLeft += delta;
        _emitBudget(self, index);
    }

    /// Of a listed owner as of now, of a removed one as of its removal.
    function budgetOf(Registry storage self, uint8 index)
        internal
        view
        returns (uint64 epsilonCap, uint64 epsilonCommitted, uint64 deltaCap, uint64 deltaCommitted)
    {
        Budget memory b = self.at[index].budget;
        if (self.config.activeOwners.contains(index)) {
            Account storage account = self.accounts[self.at[index].account];
            (b.epsilonLeft, b.deltaLeft) = (account.epsilonLeft, account.deltaLeft);
        }
        return (b.epsilonCap, b.epsilonCap - b.epsilonLeft, b.deltaCap, b.deltaCap - b.deltaLeft);
    }

    // ---- private ------------------------------------------------------------------------------------------------

    function _take(uint8 index, uint64 left, uint64 wanted) private pure returns (uint64) {
        if (wanted > left) revert IDstackApp.DstackApp_OwnerCapExceeded(index, left, wanted);
        return left - wanted;
    }

    /// A revocation key stands for one owner only, so that whoever revokes can be named.
    function _claimRevoker(Registry storage self, uint8 index, address account, address revoker) private {
        if (revoker == address(0)) return;
        Fields.check(revoker != account && self.revokerIndexPlusOne[revoker] == 0, "revoker");
        self.revokerIndexPlusOne[revoker] = index + 1;
    }

    function _emitBudget(Registry storage self, uint8 index) private {
        (uint64 epsilonCap, uint64 epsilonCommitted, uint64 deltaCap, uint64 deltaCommitted) = budgetOf(self, index);
        emit IDstackApp.OwnerBudget(index, epsilonCap, epsilonCommitted, deltaCap, deltaCommitted);
    }
}
