// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, OwnerInfo, SignedApproval, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

/// Quorum, delay, veto, execution. What the actions do: SelfCalls.t.sol.
contract GovernanceTest is BaseTest {
    bytes private setAnalyst = abi.encodeCall(IDstackApp.setAnalyst, (stranger.addr, true));

    function _approveAction(Actor memory owner, bytes memory data, bytes32 salt) private returns (bytes32) {
        vm.prank(owner.addr);
        return app.approveAction(data, salt);
    }

    function _veto(Actor memory owner, bytes32 actionId) private {
        vm.prank(owner.addr);
        app.vetoAction(actionId);
    }

    function _actionId(bytes memory data, bytes32 salt) private view returns (bytes32) {
        (,,,, uint64 version,) = app.config();
        return TypedDataTwin.action(data, salt, version);
    }

    function _signed(Actor memory owner, bytes memory data, bytes32 salt) private view returns (SignedApproval memory) {
        (,,,, uint64 version,) = app.config();
        uint64 deadline = START + 1 days;
        bytes32 structHash = TypedDataTwin.approveAction(owner.addr, data, salt, version, deadline);
        return SignedApproval(owner.addr, deadline, _sign(owner, structHash));
    }

    function _threeSigned(bytes memory data, bytes32 salt) private view returns (SignedApproval[] memory list) {
        list = new SignedApproval[](3);
        list[0] = _signed(alice, data, salt);
        list[1] = _signed(bob, data, salt);
        list[2] = _signed(carol, data, salt);
    }

    // ---- approveAction ------------------------------------------------------------------------------------------

    function test_ApproveAction_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        _approveAction(guard, setAnalyst, "salt");
    }

    /// R6: governance cannot act as an owner, nor call anything outside its list.
    function test_ApproveAction_RevertWhen_FunctionIsNotGovernances() public {
        Terms memory t = _terms();
        bytes[] memory calls = new bytes[](10);
        calls[0] = abi.encodeCall(IDstackApp.approve, (t));
        calls[1] = abi.encodeCall(IDstackApp.revoke, ("id"));
        calls[2] = abi.encodeCall(IDstackApp.setOwnerCap, (type(uint64).max, type(uint64).max));
        calls[3] = abi.encodeCall(IDstackApp.startRotation, (stranger.addr));
        calls[4] = abi.encodeCall(IDstackApp.setRevoker, (stranger.addr));
        calls[5] = abi.encodeCall(IDstackApp.executeAction, ("", "salt"));
        calls[6] = "";
        calls[7] = hex"7065cb";
        calls[8] = abi.encodePacked(IDstackApp.removeOwner.selector);
        calls[9] = bytes.concat(abi.encodeCall(IDstackApp.removeOwner, ("hospital-D")), hex"00");
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.expectRevert(_invalid("data"));
            _approveAction(alice, calls[i], "salt");
        }
    }

    function testFuzz_ApproveAction_RevertWhen_SelectorIsUnknown(bytes4 selector) public {
        bytes4[13] memory allowed = [
            IDstackApp.addOwner.selector,
            IDstackApp.removeOwner.selector,
            IDstackApp.setThreshold.selector,
            IDstackApp.setAnalyst.selector,
            IDstackApp.setKmsRoot.selector,
            IDstackApp.setGovernanceDelay.selector,
            IDstackApp.announceSuccessor.selector,
            IDstackApp.addComposeHash.selector,
            IDstackApp.removeComposeHash.selector,
            IDstackApp.addDevice.selector,
            IDstackApp.removeDevice.selector,
            IDstackApp.setAllowAnyDevice.selector,
            IDstackApp.setRequireTcbUpToDate.selector
        ];
        for (uint256 i = 0; i < allowed.length; ++i) {
            vm.assume(selector != allowed[i]);
            _approveAction(alice, abi.encodePacked(allowed[i], bytes32(0)), "salt");
        }
        vm.expectRevert(_invalid("data"));
        _approveAction(alice, abi.encodePacked(selector, bytes32(0)), "salt");
    }

    function test_ApproveAction_RevertWhen_VetoedOrDone() public {
        bytes32 actionId = _approveAction(alice, setAnalyst, "salt");
        _veto(dave, actionId);
        vm.expectRevert(_notReady(actionId));
        _approveAction(bob, setAnalyst, "salt");

        _govern(abi.encodeCall(IDstackApp.announceSuccessor, (relayer)));
        actionId = _actionId(abi.encodeCall(IDstackApp.announceSuccessor, (relayer)), "salt");
        vm.expectRevert(_notReady(actionId));
        _approveAction(dave, abi.encodeCall(IDstackApp.announceSuccessor, (relayer)), "salt");
    }

    function test_ApproveAction_QuorumStartsTheDelay() public {
        bytes32 actionId = _actionId(setAnalyst, "salt");
        vm.expectEmit();
        emit IDstackApp.ActionApproved(actionId, 0, setAnalyst, "salt");
        assertEq(_approveAction(alice, setAnalyst, "salt"), actionId);
        _approveAction(bob, setAnalyst, "salt");
        vm.recordLogs();
        _approveAction(bob, setAnalyst, "salt"); // again: nothing
        assertEq(vm.getRecordedLogs().length, 0);
        skip(5);
        vm.expectEmit();
        emit IDstackApp.ActionScheduled(actionId, START + 5 + DELAY);
        _approveAction(carol, setAnalyst, "salt");
        skip(5);
        vm.recordLogs();
        _approveAction(dave, setAnalyst, "salt"); // a late one does not restart it
        assertEq(vm.getRecordedLogs().length, 1);
        vm.warp(START + 5 + DELAY);
        app.executeAction(setAnalyst, "salt");
    }

    // ---- approveActionBySig -------------------------------------------------------------------------------------

    function test_ApproveActionBySig_RevertWhen_FunctionIsNotGovernances() public {
        SignedApproval[] memory list = _threeSigned("1234", "salt");
        vm.expectRevert(_invalid("data"));
        app.approveActionBySig("1234", "salt", list);
    }

    function test_ApproveActionBySig_RevertWhen_Vetoed() public {
        bytes32 actionId = _approveAction(alice, setAnalyst, "salt");
        _veto(dave, actionId);
        SignedApproval[] memory list = _threeSigned(setAnalyst, "salt");
        vm.expectRevert(_notReady(actionId));
        app.approveActionBySig(setAnalyst, "salt", list);
    }

    function test_ApproveActionBySig_RevertWhen_SignerIsNoOwner() public {
        SignedApproval[] memory list = _threeSigned(setAnalyst, "salt");
        list[1] = _signed(stranger, setAnalyst, "salt");
        vm.expectRevert(_notAnOwner(stranger.addr));
        app.approveActionBySig(setAnalyst, "salt", list);
    }

    function test_ApproveActionBySig_RevertWhen_DeadlinePassed() public {
        SignedApproval[] memory list = _threeSigned(setAnalyst, "salt");
        vm.warp(START + 1 days + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_DeadlinePassed.selector, START + 1 days, START + 1 days + 1)
        );
        app.approveActionBySig(setAnalyst, "salt", list);
    }

    function test_ApproveActionBySig_RevertWhen_SignedForSomethingElse() public {
        SignedApproval[] memory list = _threeSigned(setAnalyst, "salt");
        vm.expectRevert(_badSignature(alice.addr));
        app.approveActionBySig(setAnalyst, "other salt", list);
        vm.expectRevert(_badSignature(alice.addr));
        app.approveActionBySig(abi.encodeCall(IDstackApp.setAnalyst, (relayer, true)), "salt", list);
        // Another configuration: the same words no longer say the same.
        _govern(abi.encodeCall(IDstackApp.setThreshold, (4)));
        vm.expectRevert(_badSignature(alice.addr));
        app.approveActionBySig(setAnalyst, "salt", list);
    }

    function test_ApproveActionBySig_ABatchSchedules() public {
        SignedApproval[] memory list = _threeSigned(setAnalyst, "salt");
        bytes32 actionId = _approveAction(alice, setAnalyst, "salt");
        list[0].signature = ""; // given already, so not looked at
        vm.expectEmit();
        emit IDstackApp.ActionApproved(actionId, 1, setAnalyst, "salt");
        vm.expectEmit();
        emit IDstackApp.ActionApproved(actionId, 2, setAnalyst, "salt");
        vm.expectEmit();
        emit IDstackApp.ActionScheduled(actionId, START + DELAY);
        vm.prank(relayer);
        assertEq(app.approveActionBySig(setAnalyst, "salt", list), actionId);
        skip(DELAY);
        app.executeAction(setAnalyst, "salt");
        assertTrue(app.isAnalyst(stranger.addr));
    }

    // ---- vetoAction ---------------------------------------------------------------------------------------------

    function test_VetoAction_RevertWhen_CallerIsNoOwner() public {
        bytes32 actionId = _approveAction(alice, setAnalyst, "salt");
        vm.expectRevert(_notAnOwner(stranger.addr));
        _veto(stranger, actionId);
    }

    function test_VetoAction_RevertWhen_UnknownOrDone() public {
        bytes32 actionId = _actionId(setAnalyst, "salt");
        vm.expectRevert(_notReady(actionId));
        _veto(dave, actionId);
        _govern(setAnalyst);
        vm.expectRevert(_notReady(actionId));
        _veto(dave, actionId);
    }

    function test_VetoAction_AnyOneOwnerAtAnyTime() public {
        bytes32 actionId = _schedule(setAnalyst, "salt");
        skip(DELAY);
        vm.expectEmit();
        emit IDstackApp.ActionVetoed(actionId, 0);
        _veto(guard, actionId);
        vm.recordLogs();
        _veto(dave, actionId);
        assertEq(vm.getRecordedLogs().length, 0);
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
    }

    /// Else an owner that blocks everything could never be removed. Its revocation key cannot either; another owner can.
    function test_VetoAction_RevertWhen_ItIsTheCallersOwnRemoval() public {
        bytes memory remove = abi.encodeCall(IDstackApp.removeOwner, ("hospital-A"));
        bytes32 actionId = _approveAction(bob, remove, "salt");
        vm.expectRevert(_notAnOwner(alice.addr));
        _veto(alice, actionId);
        vm.expectRevert(_notAnOwner(guard.addr));
        _veto(guard, actionId);
        // Nor by moving to another account.
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
        vm.expectRevert(_notAnOwner(stranger.addr));
        _veto(stranger, actionId);

        _approveAction(carol, remove, "salt");
        _approveAction(dave, remove, "salt");
        skip(DELAY);
        uint256 snapshot = vm.snapshotState();
        app.executeAction(remove, "salt");
        (bool listed,,,) = app.ownerOf("hospital-A");
        assertFalse(listed);
        vm.revertToState(snapshot);
        _veto(dave, actionId);
        vm.expectRevert(_notReady(actionId));
        app.executeAction(remove, "salt");
    }

    // ---- executeAction ------------------------------------------------------------------------------------------

    function test_ExecuteAction_RevertWhen_Unknown() public {
        vm.expectRevert(_notReady(_actionId(setAnalyst, "salt")));
        app.executeAction(setAnalyst, "salt");
    }

    function test_ExecuteAction_RevertWhen_ShortOfQuorum() public {
        _approveAction(alice, setAnalyst, "salt");
        bytes32 actionId = _approveAction(bob, setAnalyst, "salt");
        skip(DELAY);
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
    }

    function test_ExecuteAction_RevertWhen_NotRipe() public {
        bytes32 actionId = _schedule(setAnalyst, "salt");
        skip(DELAY - 1);
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
        skip(1);
        app.executeAction(setAnalyst, "salt");
    }

    function test_ExecuteAction_RevertWhen_Lapsed() public {
        bytes32 actionId = _schedule(setAnalyst, "salt");
        skip(DELAY + 14 days);
        uint256 snapshot = vm.snapshotState();
        app.executeAction(setAnalyst, "salt");
        vm.revertToState(snapshot);
        skip(1);
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
        vm.expectRevert(_notReady(actionId));
        _approveAction(dave, setAnalyst, "salt");
    }

    function test_ExecuteAction_RevertWhen_DoneBefore() public {
        bytes32 actionId = _schedule(setAnalyst, "salt");
        skip(DELAY);
        vm.expectEmit();
        emit IDstackApp.ActionExecuted(actionId);
        vm.expectEmit();
        emit IDstackApp.AnalystSet(stranger.addr, true);
        app.executeAction(setAnalyst, "salt");
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
    }

    /// R3 for governance: approvals were given under other owners or another bar.
    function test_ExecuteAction_RevertWhen_TheConfigurationChanged() public {
        _schedule(setAnalyst, "salt");
        _schedule(abi.encodeCall(IDstackApp.setThreshold, (4)), "salt");
        skip(DELAY);
        app.executeAction(abi.encodeCall(IDstackApp.setThreshold, (4)), "salt");
        bytes32 actionId = _actionId(setAnalyst, "salt");
        vm.expectRevert(_notReady(actionId));
        app.executeAction(setAnalyst, "salt");
    }

    function test_ExecuteAction_AFailingCallGoesThroughAndCanBeRepeated() public {
        bytes memory remove = abi.encodeCall(IDstackApp.removeOwner, ("hospital-X"));
        _schedule(remove, "salt");
        skip(DELAY);
        vm.expectRevert(_invalid("ownerId"));
        app.executeAction(remove, "salt");
        vm.expectRevert(_invalid("ownerId"));
        app.executeAction(remove, "salt");
    }

    function test_ExecuteAction_TheDelayIsThatOfTheQuorumsMoment() public {
        _schedule(setAnalyst, "salt");
        _govern(abi.encodeCall(IDstackApp.setGovernanceDelay, (30 days)));
        app.executeAction(setAnalyst, "salt");
        assertTrue(app.isAnalyst(stranger.addr));
    }
}
