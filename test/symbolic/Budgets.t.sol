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

    // Not constants: the compiler would compute the storage slots of constant keys, and halmos takes such a slot for
    // another one than that which the same key gives at run time.
    bytes32 private _id = "id";
    address private _alice = address(0xa1);
    uint8 private _index = 0;

    Proposals.Book private _book;
    Owners.Registry private _owners;

    function debit(Terms calldata terms) external {
        _book.debit(_id, terms);
    }

    function commit(uint64 epsilon, uint64 delta) external {
        _owners.commit(_alice, epsilon, delta);
    }

    function release(uint64 epsilon, uint64 delta) external {
        _owners.release(_index, epsilon, delta);
    }

    function setCap(uint64 epsilon, uint64 delta) external {
        _owners.setCap(_index, epsilon, delta);
    }

    /// P13. A run is debited in full or not opened; what is spent never exceeds the budget. With one run more, (runs + 1) x loss
    /// is spent, which stands here as runs x loss + loss, so that the solver need not multiply.
    function check_R4_SpendingStaysWithinTheBudget(Terms memory t, uint32 runs) public {
        (uint256 epsilon, uint256 delta) = (_product(t.epsilonPerRun, runs), _product(t.deltaPerRun, runs));
        vm.assume(epsilon <= t.epsilonBudget && delta <= t.deltaBudget);
        _book.at[_id].runs = runs;
        (bool ok,) = address(this).call(abi.encodeCall(this.debit, (t)));
        assert(_book.at[_id].runs == uint256(runs) + (ok ? 1 : 0));
        if (ok) assert(epsilon + t.epsilonPerRun <= t.epsilonBudget && delta + t.deltaPerRun <= t.deltaBudget);
    }

    /// P14. What an owner has committed never exceeds its caps, whatever is committed, released or set: what is left is
    /// the cap less what is committed, and never more than the cap.
    function check_R4_CommitmentsStayWithinTheCaps(uint64[4] memory b, uint64 epsilon, uint64 delta, uint8 step)
        public
    {
        vm.assume(b[1] <= b[0] && b[3] <= b[2]);
        _owners.config.activeOwners = 1;
        _owners.at[_index].account = _alice;
        (_owners.at[_index].budget.epsilonCap, _owners.at[_index].budget.deltaCap) = (b[0], b[2]);
        Owners.Account storage account = _owners.accounts[_alice];
        (account.indexPlusOne, account.epsilonLeft, account.deltaLeft) = (1, b[0] - b[1], b[2] - b[3]);
        // Only what was committed is released (`reclaim`).
        if (step == 1) vm.assume(epsilon <= b[1] && delta <= b[3]);
        bool ok;
        if (step == 0) (ok,) = address(this).call(abi.encodeCall(this.commit, (epsilon, delta)));
        else if (step == 1) (ok,) = address(this).call(abi.encodeCall(this.release, (epsilon, delta)));
        else (ok,) = address(this).call(abi.encodeCall(this.setCap, (epsilon, delta)));
        Owners.Budget storage budget = _owners.at[_index].budget;
        assert(account.epsilonLeft <= budget.epsilonCap && account.deltaLeft <= budget.deltaCap);
        uint256 committed = budget.epsilonCap - account.epsilonLeft;
        uint256 deltaCommitted = budget.deltaCap - account.deltaLeft;
        if (!ok || step > 1) assert(committed == b[1] && deltaCommitted == b[3]);
        if (ok && step == 0) assert(committed == uint256(b[1]) + epsilon && deltaCommitted == uint256(b[3]) + delta);
        if (ok && step == 1) assert(committed == b[1] - epsilon && deltaCommitted == b[3] - delta);
    }

    /// Of 64 and 32 bits: it cannot overflow.
    function _product(uint64 loss, uint32 runs) private pure returns (uint256) {
        unchecked {
            return uint256(loss) * runs;
        }
    }
}
