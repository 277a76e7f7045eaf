// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, OwnerInfo, RunRequest, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// What a quorum may do, each called as the contract calls itself.
contract SelfCallsTest is BaseTest {
    OwnerInfo private newcomer = _ownerInfo("hospital-E", stranger.addr, address(0), "TR", 0);

    /// R6: nobody but the contract itself, an owner included.
    function testFuzz_SelfCalls_RevertWhen_CallerIsNotTheContract(address caller) public {
        vm.assume(caller != address(app));
        bytes[] memory calls = new bytes[](11);
        calls[0] = abi.encodeCall(IDstackApp.addOwner, (newcomer));
        calls[1] = abi.encodeCall(IDstackApp.removeOwner, ("hospital-A"));
        calls[2] = abi.encodeCall(IDstackApp.setThreshold, (1));
        calls[3] = abi.encodeCall(IDstackApp.setAnalyst, (caller, true));
        calls[4] = abi.encodeCall(IDstackApp.setKmsRoot, (caller));
        calls[5] = abi.encodeCall(IDstackApp.setGovernanceDelay, (0));
        calls[6] = abi.encodeCall(IDstackApp.announceSuccessor, (caller));
        calls[7] = abi.encodeCall(IDstackApp.addComposeHash, ("compose"));
        calls[8] = abi.encodeCall(IDstackApp.addDevice, ("device"));
        calls[9] = abi.encodeCall(IDstackApp.setAllowAnyDevice, (true));
        calls[10] = abi.encodeCall(IDstackApp.setRequireTcbUpToDate, (false));
        address[2] memory callers = [caller, alice.addr];
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 j = 0; j < callers.length; ++j) {
                vm.prank(callers[j]);
                (bool ok, bytes memory reason) = address(app).call(calls[i]);
                assertFalse(ok);
                assertEq(reason, abi.encodeWithSelector(IDstackApp.DstackApp_OnlySelf.selector, callers[j]));
            }
        }
    }

    function _add(OwnerInfo memory info) private {
        vm.prank(address(app));
        app.addOwner(info);
    }

    function _remove(bytes32 ownerId) private {
        vm.prank(address(app));
        app.removeOwner(ownerId);
    }

    function _setThreshold(uint8 threshold) private {
        vm.prank(address(app));
        app.setThreshold(threshold);
    }

    // ---- addOwner -----------------------------------------------------------------------------------------------

    function test_AddOwner_RevertWhen_IdIsZeroOrListed() public {
        OwnerInfo memory info = newcomer;
        info.ownerId = 0;
        vm.expectRevert(_invalid("ownerId"));
        _add(info);
        info.ownerId = "hospital-A";
        vm.expectRevert(_invalid("ownerId"));
        _add(info);
    }

    function test_AddOwner_RevertWhen_AccountIsZeroOrListed() public {
        OwnerInfo memory info = newcomer;
        info.account = address(0);
        vm.expectRevert(_invalid("account"));
        _add(info);
        info.account = bob.addr;
        vm.expectRevert(_invalid("account"));
        _add(info);
    }

    function test_AddOwner_RevertWhen_RevokerIsTakenOrTheAccount() public {
        OwnerInfo memory info = newcomer;
        info.revoker = guard.addr;
        vm.expectRevert(_invalid("revoker"));
        _add(info);
        info.revoker = info.account;
        vm.expectRevert(_invalid("revoker"));
        _add(info);
    }

    function test_AddOwner_RevertWhen_SixtyFourAreListed() public {
        OwnerInfo memory info = newcomer;
        for (uint160 i = 4; i < 64; ++i) {
            info.ownerId = bytes32(uint256(i));
            info.account = address(i + 1000);
            _add(info);
        }
        info.ownerId = "one too many";
        info.account = address(1);
        vm.expectRevert(_invalid("ownerCount"));
        _add(info);
        (,, uint8 count,,,) = app.config();
        assertEq(count, 64);
        (OwnerInfo[] memory list, uint8[] memory indexes) = app.owners();
        assertEq(list.length, 64);
        assertEq(indexes[63], 63);
    }

    /// Indexes are never reused: after 128 there are none left.
    function test_AddOwner_RevertWhen_IndexesAreUsedUp() public {
        OwnerInfo memory info = newcomer;
        for (uint160 i = 4; i < 128; ++i) {
            _add(info);
            (bool listed, uint8 index,,) = app.ownerOf("hospital-E");
            assertTrue(listed);
            assertEq(index, i);
            _remove("hospital-E");
        }
        vm.expectRevert(_invalid("ownerCount"));
        _add(info);
    }

    function test_AddOwner_Lists() public {
        vm.expectEmit();
        emit IDstackApp.OwnerAdded("hospital-E", stranger.addr, address(0), "TR", 0, 4);
        vm.expectEmit();
        emit IDstackApp.OwnerBudget(4, 100 * EPSILON, 0, 100 * DELTA, 0);
        _add(newcomer);
        (uint128 active, uint8 threshold, uint8 count,, uint64 version,) = app.config();
        assertEq(active, 31);
        assertEq(threshold, 3);
        assertEq(count, 5);
        assertEq(version, 5);
    }

    // ---- removeOwner --------------------------------------------------------------------------------------------

    function test_RemoveOwner_RevertWhen_NotListed() public {
        vm.expectRevert(_invalid("ownerId"));
        _remove("hospital-X");
        _remove("hospital-D");
        _setThreshold(2);
        vm.expectRevert(_invalid("ownerId"));
        _remove("hospital-D");
    }

    function test_RemoveOwner_RevertWhen_TooFewWouldRemain() public {
        _remove("hospital-A");
        vm.expectRevert(_invalid("threshold"));
        _remove("hospital-B");
    }

    /// R3: a removed owner's approval stops counting in the same block, and its keys stop working.
    function test_RemoveOwner_ItsApprovalStopsCounting() public {
        bytes32 id = _live(_terms());
        vm.expectEmit();
        emit IDstackApp.OwnerRemoved("hospital-A", alice.addr, 0);
        _remove("hospital-A");
        _assertDecision(_decision(id), Decision.NoQuorum);
        Actor[2] memory gone = [alice, guard];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(_notAnOwner(gone[i].addr));
            vm.prank(gone[i].addr);
            app.revokeAll();
        }
        (uint128 active,, uint8 count,, uint64 version,) = app.config();
        assertEq(active, 14);
        assertEq(count, 3);
        assertEq(version, 5);
        (OwnerInfo[] memory list,) = app.owners();
        assertEq(list.length, 3);
        assertEq(list[0].ownerId, "hospital-B");
    }

    /// R3: it does not revive with the owner's return, whose caps and commitments come back with it.
    function test_RemoveOwner_ReturningRevivesNothing() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.prank(alice.addr);
        app.setOwnerCap(4 * EPSILON, 4 * DELTA);
        OwnerInfo memory info = _founders()[0];
        _remove("hospital-A");
        _add(info);
        _assertDecision(_decision(id), Decision.NoQuorum);
        (, uint8 index,,) = app.ownerOf("hospital-A");
        assertEq(index, 4);
        (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(4);
        assertEq(cap, 4 * EPSILON);
        assertEq(committed, 3 * EPSILON);
        assertEq(deltaCap, 4 * DELTA);
        assertEq(deltaCommitted, 3 * DELTA);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 4, EPSILON, 3 * EPSILON));
        _approve(alice, t);
        vm.prank(guard.addr);
        app.revoke(id);
    }

    // ---- setThreshold -------------------------------------------------------------------------------------------

    function testFuzz_SetThreshold_RevertWhen_OutOfRange(uint8 threshold) public {
        if (threshold == 0 || threshold > 4) vm.expectRevert(_invalid("threshold"));
        _setThreshold(threshold);
    }

    function test_SetThreshold_RaisedCountsAtOnce() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.recordLogs();
        _setThreshold(4);
        assertEq(vm.getRecordedLogs().length, 1);
        _assertDecision(_decision(id), Decision.NoQuorum);
        _approve(dave, t);
        _assertDecision(_decision(id), Decision.Allow);
        (, uint8 threshold,, uint32 era, uint64 version,) = app.config();
        assertEq(threshold, 4);
        assertEq(era, 0);
        assertEq(version, 5);
    }

    /// R3: lowering brings nothing to life, neither what was short of the quorum nor what had fallen short of a raised one.
    function test_SetThreshold_LoweredEndsTheEra() public {
        Terms memory t = _terms();
        _approve(alice, t);
        bytes32 id = _approve(bob, t);
        vm.expectEmit();
        emit IDstackApp.ThresholdSet(2);
        vm.expectEmit();
        emit IDstackApp.EraStarted(1, SELF, address(app));
        _setThreshold(2);
        _assertDecision(_decision(id), Decision.EraEnded);

        t.era = 1;
        _approve(alice, t);
        id = _approve(bob, t);
        _assertDecision(_decision(id), Decision.Allow);
        _setThreshold(3);
        _assertDecision(_decision(id), Decision.NoQuorum);
        _setThreshold(2);
        _assertDecision(_decision(id), Decision.EraEnded);
    }

    function test_SetThreshold_TheSameEndsNothing() public {
        bytes32 id = _live(_terms());
        _setThreshold(3);
        _assertDecision(_decision(id), Decision.Allow);
    }

    // ---- the rest -----------------------------------------------------------------------------------------------

    function test_SetAnalyst_ListsAndUnlists() public {
        vm.startPrank(address(app));
        vm.expectRevert(_invalid("analyst"));
        app.setAnalyst(address(0), true);
        vm.expectEmit();
        emit IDstackApp.AnalystSet(analyst.addr, false);
        app.setAnalyst(analyst.addr, false);
        assertFalse(app.isAnalyst(analyst.addr));
    }

    function test_SetKmsRoot() public {
        vm.startPrank(address(app));
        vm.expectRevert(_invalid("kmsRoot"));
        app.setKmsRoot(address(0));
        vm.expectEmit();
        emit IDstackApp.KmsRootSet(stranger.addr);
        app.setKmsRoot(stranger.addr);
        assertEq(app.kmsRoot(), stranger.addr);
    }

    function test_SetGovernanceDelay() public {
        vm.startPrank(address(app));
        vm.expectRevert(_invalid("delaySeconds"));
        app.setGovernanceDelay(30 days + 1);
        vm.expectEmit();
        emit IDstackApp.GovernanceDelaySet(30 days);
        app.setGovernanceDelay(30 days);
        (,,,,, uint64 delay) = app.config();
        assertEq(delay, 30 days);
    }

    function test_AnnounceSuccessor() public {
        vm.expectEmit();
        emit IDstackApp.SuccessorAnnounced(stranger.addr);
        vm.prank(address(app));
        app.announceSuccessor(stranger.addr);
    }
}
