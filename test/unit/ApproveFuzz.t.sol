// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// Which terms may be approved, for any numbers: exactly those that the interface allows.
contract ApproveFuzzTest is BaseTest {
    function testFuzz_Approve_AcceptsExactlyValidTerms(uint64[4] memory loss, uint64 expiry, uint8 zeroed) public {
        Terms memory t = _terms();
        zeroed %= 8;
        // Half of the time within the owner's caps, else anything.
        bool small = loss[0] % 2 == 0;
        (t.epsilonPerRun, t.deltaPerRun) = (loss[0], loss[1]);
        (t.epsilonBudget, t.deltaBudget) = (loss[2], loss[3]);
        if (small) {
            t.epsilonPerRun %= 100 * EPSILON;
            t.epsilonBudget %= 100 * EPSILON;
            t.deltaPerRun %= 100 * DELTA;
            t.deltaBudget %= 100 * DELTA;
        }
        t.expiry = expiry % 4 == 0 ? expiry : uint64(bound(expiry, START - 1 days, START + 500 days));
        if (zeroed == 1) t.composeHash = 0;
        if (zeroed == 2) t.recipeHash = 0;
        if (zeroed == 3) t.outputSchemaHash = 0;

        bool valid = zeroed == 0 || zeroed > 3;
        valid = valid && t.epsilonPerRun != 0 && t.epsilonPerRun <= t.epsilonBudget && t.deltaPerRun <= t.deltaBudget;
        valid = valid && t.expiry > START && t.expiry <= START + 400 days;
        valid = valid && t.epsilonBudget <= 100 * EPSILON && t.deltaBudget <= 100 * DELTA;
        vm.prank(alice.addr);
        (bool ok,) = address(app).call(abi.encodeCall(app.approve, (t)));
        assertEq(ok, valid);
    }
}
