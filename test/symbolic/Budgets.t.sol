// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {Terms} from "../../contracts/IDstackApp.sol";
import {Owners} from "../../contracts/libraries/Owners.sol";
import {Proposals} from "../../contracts/libraries/Proposals.sol";

/// @title R4 by induction: what holds before one step holds after it, from any numbers.
/// @notice A new proposal has spent nothing and a new owner has committed nothing, so the bounds hold at the start.
contract Budgets is Test {
    using Owners for Owners.Registry;
    using Proposals for Proposals.Book;

    address private constant ALICE = address(0xa1);

    Proposals.Book private _book;
    Owners.Registry private _owners;

    function debit(Terms calldata terms) external {
        _book.debit("id", terms);
    }

    function commit(uint64 epsilon, uint64 delta) external {
        _owners.commit(ALICE, epsilon, delta);
    }

    function release(uint64 epsilon, uint64 delta) external {
        _owners.release(0, epsilon, delta);
    }

    function setCap(uint64 epsilon, uint64 delta) external {
        _owners.setCap(0, epsilon, delta);
    }

    /// P13. A run is debited in full or not opened; what is spent never exceeds the budget.
    function check_R4_SpendingStaysWithinTheBudget(Terms memory t, uint32 runs) public {
        vm.assume(uint256(runs) * t.epsilonPerRun <= t.epsilonBudget && uint256(runs) * t.deltaPerRun <= t.deltaBudget);
        _book.at["id"].runs = runs;
        (bool ok,) = address(this).call(abi.encodeCall(this.debit, (t)));
        uint256 after_ = _book.at["id"].runs;
        assert(after_ == uint256(runs) + (ok ? 1 : 0));
        assert(after_ * t.epsilonPerRun <= t.epsilonBudget && after_ * t.deltaPerRun <= t.deltaBudget);
    }

    /// P14. What an owner has committed never exceeds its caps, whatever is committed, released or set: what is left is
    /// the cap less what is committed, and never more than the cap.
    function check_R4_CommitmentsStayWithinTheCaps(uint64[4] memory b, uint64 epsilon, uint64 delta, uint8 step)
        public
    {
        vm.assume(b[1] <= b[0] && b[3] <= b[2]);
        _owners.config.activeOwners = 1;
        _owners.at[0].account = ALICE;
        (_owners.at[0].budget.epsilonCap, _owners.at[0].budget.deltaCap) = (b[0], b[2]);
        Owners.Account storage account = _owners.accounts[ALICE];
        (account.indexPlusOne, account.epsilonLeft, account.deltaLeft) = (1, b[0] - b[1], b[2] - b[3]);
        // Only what was committed is released (`reclaim`).
        if (step == 1) vm.assume(epsilon <= b[1] && delta <= b[3]);
        bool ok;
        if (step == 0) (ok,) = address(this).call(abi.encodeCall(this.commit, (epsilon, delta)));
        else if (step == 1) (ok,) = address(this).call(abi.encodeCall(this.release, (epsilon, delta)));
        else (ok,) = address(this).call(abi.encodeCall(this.setCap, (epsilon, delta)));
        Owners.Budget storage budget = _owners.at[0].budget;
        assert(account.epsilonLeft <= budget.epsilonCap && account.deltaLeft <= budget.deltaCap);
        uint256 committed = budget.epsilonCap - account.epsilonLeft;
        uint256 deltaCommitted = budget.deltaCap - account.deltaLeft;
        if (!ok || step > 1) assert(committed == b[1] && deltaCommitted == b[3]);
        if (ok && step == 0) assert(committed == uint256(b[1]) + epsilon && deltaCommitted == uint256(b[3]) + delta);
        if (ok && step == 1) assert(committed == b[1] - epsilon && deltaCommitted == b[3] - delta);
    }
}
