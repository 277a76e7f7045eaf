// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {Owners} from "../../contracts/libraries/Owners.sol";
import {Proposals} from "../../contracts/libraries/Proposals.sol";

/// @title R4 by induction: what holds before one step holds after it, from any numbers.
/// @notice A new proposal has spent nothing and a new owner has committed nothing, so the bounds hold at the start.
contract Budgets is Test {
    using Owners for Owners.Registry;
    using Proposals for Proposals.Proposal;

    Proposals.Proposal private _proposal;
    Owners.Registry private _owners;

    function debit() external {
        _proposal.debit("id");
    }

    function commit(uint64 epsilon, uint64 delta) external {
        _owners.commit(0, epsilon, delta);
    }

    function release(uint64 epsilon, uint64 delta) external {
        _owners.release(0, epsilon, delta);
    }

    function setCap(uint64 epsilon, uint64 delta) external {
        _owners.setCap(0, epsilon, delta);
    }

    /// P13. A run is debited in full or not opened; what is spent never exceeds the budget.
    function check_R4_SpendingStaysWithinTheBudget(uint64[3] memory e, uint64[3] memory d) public {
        vm.assume(e[1] <= e[0] && d[1] <= d[0]);
        Proposals.Proposal storage p = _proposal;
        (p.epsilonBudget, p.epsilonSpent, p.epsilonPerRun) = (e[0], e[1], e[2]);
        (p.deltaBudget, p.deltaSpent, p.deltaPerRun) = (d[0], d[1], d[2]);
        (bool ok,) = address(this).call(abi.encodeCall(this.debit, ()));
        assert(p.epsilonSpent <= p.epsilonBudget && p.deltaSpent <= p.deltaBudget);
        assert(uint256(p.epsilonSpent) == uint256(e[1]) + (ok ? e[2] : 0));
        assert(uint256(p.deltaSpent) == uint256(d[1]) + (ok ? d[2] : 0));
        assert(p.epsilonBudget == e[0] && p.deltaBudget == d[0]);
    }

    /// P14. What an owner has committed never exceeds its caps, whatever is committed, released or set.
    function check_R4_CommitmentsStayWithinTheCaps(uint64[4] memory b, uint64 epsilon, uint64 delta, uint8 step)
        public
    {
        vm.assume(b[1] <= b[0] && b[3] <= b[2]);
        Owners.Budget storage budget = _owners.at[0].budget;
        (budget.epsilonCap, budget.epsilonCommitted) = (b[0], b[1]);
        (budget.deltaCap, budget.deltaCommitted) = (b[2], b[3]);
        bool ok;
        if (step == 0) (ok,) = address(this).call(abi.encodeCall(this.commit, (epsilon, delta)));
        else if (step == 1) (ok,) = address(this).call(abi.encodeCall(this.release, (epsilon, delta)));
        else (ok,) = address(this).call(abi.encodeCall(this.setCap, (epsilon, delta)));
        assert(budget.epsilonCommitted <= budget.epsilonCap && budget.deltaCommitted <= budget.deltaCap);
        if (step == 0 && ok) {
            assert(uint256(budget.epsilonCommitted) == uint256(b[1]) + epsilon);
            assert(uint256(budget.deltaCommitted) == uint256(b[3]) + delta);
        }
    }
}
