// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {Terms} from "../../contracts/IDstackApp.sol";
import {Owners} from "../../contracts/libraries/Owners.sol";
import {Proposals} from "../../contracts/libraries/Proposals.sol";

/// @title One proposal's and one owner's numbers, set at will. A contract of its own: a call of a contract to itself does not
/// see in halmos 0.3.3 what the same frame stored under a mapping.
contract Ledger {
    using Owners for Owners.Registry;
    using Proposals for Proposals.Book;

    address private constant ALICE = address(0xa1);

    Proposals.Book private _book;
    Owners.Registry private _owners;

    function setRuns(uint32 runs) external {
        _book.at["id"].runs = runs;
    }

    function runs() external view returns (uint32) {
        return _book.at["id"].runs;
    }

    function debit(Terms calldata terms) external {
        _book.debit("id", terms);
    }

    function setOwner(uint64[4] calldata b) external {
        _owners.config.activeOwners = 1;
        Owners.Owner storage owner = _owners.at[0];
        (owner.account, owner.budget.epsilonCap, owner.budget.deltaCap) = (ALICE, b[0], b[2]);
        _owners.accounts[ALICE] = Owners.Account(1, b[0] - b[1], b[2] - b[3]);
    }

    function budget() external view returns (Owners.Budget memory caps, Owners.Account memory account) {
        return (_owners.at[0].budget, _owners.accounts[ALICE]);
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
}

/// @title R4 by induction: what holds before one step holds after it, from any numbers.
/// @notice A new proposal has spent nothing and a new owner has committed nothing, so the bounds hold at the start.
contract Budgets is Test {
    Ledger private _ledger;

    function setUp() public {
        _ledger = new Ledger();
    }

    /// P13. A run is debited in full or not opened; what is spent never exceeds the budget.
    function check_R4_SpendingStaysWithinTheBudget(Terms memory t, uint32 runs) public {
        vm.assume(uint256(runs) * t.epsilonPerRun <= t.epsilonBudget && uint256(runs) * t.deltaPerRun <= t.deltaBudget);
        _ledger.setRuns(runs);
        (bool ok,) = address(_ledger).call(abi.encodeCall(Ledger.debit, (t)));
        uint256 after_ = _ledger.runs();
        assert(after_ == uint256(runs) + (ok ? 1 : 0));
        assert(after_ * t.epsilonPerRun <= t.epsilonBudget && after_ * t.deltaPerRun <= t.deltaBudget);
    }

    /// P14. What an owner has committed (b[1] of the cap b[0], b[3] of b[2]) never exceeds its caps, whatever is committed,
    /// released or set: what is left is the cap less what is committed, and never more than the cap.
    function check_R4_CommitmentsStayWithinTheCaps(uint64[4] memory b, uint64 epsilon, uint64 delta, uint8 step)
        public
    {
        vm.assume(b[1] <= b[0] && b[3] <= b[2]);
        _ledger.setOwner(b);
        // Only what was committed is released (`reclaim`).
        if (step == 1) vm.assume(epsilon <= b[1] && delta <= b[3]);
        bool ok;
        if (step == 0) (ok,) = address(_ledger).call(abi.encodeCall(Ledger.commit, (epsilon, delta)));
        else if (step == 1) (ok,) = address(_ledger).call(abi.encodeCall(Ledger.release, (epsilon, delta)));
        else (ok,) = address(_ledger).call(abi.encodeCall(Ledger.setCap, (epsilon, delta)));
        (Owners.Budget memory caps, Owners.Account memory account) = _ledger.budget();
        assert(account.epsilonLeft <= caps.epsilonCap && account.deltaLeft <= caps.deltaCap);
        uint256 committed = caps.epsilonCap - account.epsilonLeft;
        uint256 deltaCommitted = caps.deltaCap - account.deltaLeft;
        if (!ok || step > 1) assert(committed == b[1] && deltaCommitted == b[3]);
        if (ok && step == 0) assert(committed == uint256(b[1]) + epsilon && deltaCommitted == uint256(b[3]) + delta);
        if (ok && step == 1) assert(committed == b[1] - epsilon && deltaCommitted == b[3] - delta);
    }
}
