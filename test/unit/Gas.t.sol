// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    IDstackApp,
    OwnerInfo,
    Receipt as RunReceipt,
    RunRequest,
    SignedApproval,
    Terms
} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

/// Gas of whole transactions, intrinsic cost included. Numbers: test/golden/gas; how to accept new ones: foundry.toml.
/// forge-config: default.isolate = true
contract GasTest is BaseTest {
    function _snapshot(string memory name) private {
        vm.snapshotGasLastCall("DstackApp", name);
    }

    function test_Gas_ApproveByTransaction() public {
        Terms memory t = _terms();
        _approve(alice, t);
        _snapshot("approve, first of three (creates)");
        _approve(bob, t);
        _snapshot("approve, second of three");
        _approve(carol, t);
        _snapshot("approve, third of three (activates)");
    }

    function test_Gas_ApproveBySignature() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = new SignedApproval[](3);
        list[0] = _approval(alice, t);
        list[1] = _approval(bob, t);
        list[2] = _approval(carol, t);
        app.approveBySig(t, list);
        _snapshot("approveBySig, three of four at once");
    }

    /// Beside the three: what one signature more costs.
    function test_Gas_ApproveByOneSignatureMore() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = new SignedApproval[](4);
        list[0] = _approval(alice, t);
        list[1] = _approval(bob, t);
        list[2] = _approval(carol, t);
        list[3] = _approval(dave, t);
        app.approveBySig(t, list);
        _snapshot("approveBySig, four of four at once");
    }

    /// R2: stopping costs little enough never to wait.
    function test_Gas_Revoke() public {
        bytes32 id = _live(_terms());
        vm.prank(dave.addr);
        app.revoke(id);
        _snapshot("revoke");
        assertLt(vm.lastCallGas().gasTotalUsed, 33_000);
        vm.prank(dave.addr);
        app.revokeAll();
        _snapshot("revokeAll");
        assertLt(vm.lastCallGas().gasTotalUsed, 33_000);
    }

    function test_Gas_RunAndReceipt() public {
        Terms memory t = _terms();
        _live(t);
        vm.prank(alice.addr);
        app.registerDataset(_dataset("data", t));
        _snapshot("registerDataset");
        RunRequest memory request = _request(t, 7);
        bytes32 runId = _open(t, request);
        _snapshot("openRun, first");
        request.nonce = "second";
        _open(t, request);
        _snapshot("openRun, later");
        _post(_receipt(runId), _certificate(t));
        _snapshot("postReceipt");
    }

    function test_Gas_Governance() public {
        bytes memory data = abi.encodeCall(IDstackApp.setAnalyst, (stranger.addr, true));
        vm.prank(alice.addr);
        app.approveAction(data, "salt");
        _snapshot("approveAction, first");
        vm.prank(bob.addr);
        app.approveAction(data, "salt");
        vm.prank(carol.addr);
        app.approveAction(data, "salt");
        _snapshot("approveAction, last (schedules)");
        skip(DELAY);
        app.executeAction(data, "salt");
        _snapshot("executeAction, setAnalyst");
    }

    /// The same for 4 owners and for 64: no decision loops over owners.
    function test_Gas_ReleaseDecisionDoesNotDependOnTheNumberOfOwners() public {
        uint64 four = _releaseGas();
        _snapshot("releaseDecision, allowed (view)");
        OwnerInfo[] memory many = new OwnerInfo[](64);
        for (uint160 i = 0; i < 64; ++i) {
            many[i] = i < 4 ? _founders()[i] : _ownerInfo(bytes32(uint256(i)), address(i + 1000), address(0), "XX", 0);
        }
        app = _deploy(many, 3);
        assertEq(_releaseGas(), four);
    }

    function _releaseGas() private returns (uint64) {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.prank(alice.addr);
        app.registerDataset(_dataset("data", t));
        bytes32 runId = _open(t, _request(t, 7));
        app.releaseDecision(id, t.composeHash, "hospital-A", "data", runId);
        return vm.lastCallGas().gasTotalUsed;
    }
}
