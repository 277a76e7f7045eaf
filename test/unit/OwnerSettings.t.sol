// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, OwnerInfo, RunRequest, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// What an owner does for itself: account, revocation key, lifetime caps, reclaiming.
contract OwnerSettingsTest is BaseTest {
    // ---- rotation -----------------------------------------------------------------------------------------------

    function test_StartRotation_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        vm.prank(guard.addr);
        app.startRotation(stranger.addr);
    }

    function test_StartRotation_RevertWhen_AccountIsAnOwners() public {
        vm.expectRevert(_invalid("newAccount"));
        vm.prank(alice.addr);
        app.startRotation(bob.addr);
    }

    function test_AcceptRotation_RevertWhen_NotStarted() public {
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-X");
    }

    /// Where no rotation is pending the account to move to is zero, which is no invitation to the zero address.
    function test_AcceptRotation_RevertWhen_CallerIsTheZeroAddress() public {
        vm.expectRevert(_notAnOwner(address(0)));
        vm.prank(address(0));
        app.acceptRotation("hospital-A");
    }

    /// An unknown id must not lead to the owner with index 0.
    function test_AcceptRotation_RevertWhen_IdIsUnknown() public {
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-X");
    }

    function test_AcceptRotation_RevertWhen_CallerIsAnother() public {
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.expectRevert(_notAnOwner(relayer));
        vm.prank(relayer);
        app.acceptRotation("hospital-A");
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-B");
    }

    function test_AcceptRotation_RevertWhen_Withdrawn() public {
        vm.startPrank(alice.addr);
        app.startRotation(stranger.addr);
        app.startRotation(address(0));
        vm.stopPrank();
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
    }

    function test_AcceptRotation_RevertWhen_AccountBecameAnothers() public {
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.prank(bob.addr);
        app.startRotation(stranger.addr);
        vm.startPrank(stranger.addr);
        app.acceptRotation("hospital-B");
        vm.expectRevert(_invalid("newAccount"));
        app.acceptRotation("hospital-A");
    }

    function test_AcceptRotation_RevertWhen_RemovedMeanwhile() public {
        vm.prank(dave.addr);
        app.startRotation(stranger.addr);
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-D")));
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-D");
    }

    function test_AcceptRotation_KeepsIndexApprovalsAndBudget() public {
        bytes32 id = _live(_terms());
        vm.expectEmit();
        emit IDstackApp.OwnerRotationStarted("hospital-A", alice.addr, stranger.addr);
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.expectEmit();
        emit IDstackApp.OwnerRotated("hospital-A", alice.addr, stranger.addr, 0);
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");

        (bool listed, uint8 index, address account, address revoker) = app.ownerOf("hospital-A");
        assertTrue(listed);
        assertEq(index, 0);
        assertEq(account, stranger.addr);
        assertEq(revoker, guard.addr);
        _assertDecision(_decision(id), Decision.Allow);
        vm.expectRevert(_notAnOwner(alice.addr));
        vm.prank(alice.addr);
        app.revoke(id);
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
        vm.prank(stranger.addr);
        app.revoke(id);
    }

    // ---- setRevoker ---------------------------------------------------------------------------------------------

    function test_SetRevoker_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        vm.prank(guard.addr);
        app.setRevoker(stranger.addr);
    }

    function test_SetRevoker_RevertWhen_ItIsTheAccountItself() public {
        vm.expectRevert(_invalid("revoker"));
        vm.prank(bob.addr);
        app.setRevoker(bob.addr);
    }

    function test_SetRevoker_RevertWhen_ItServesAnother() public {
        vm.expectRevert(_invalid("revoker"));
        vm.prank(bob.addr);
        app.setRevoker(guard.addr);
    }

    function test_SetRevoker_ReplacesTheFormer() public {
        vm.startPrank(alice.addr);
        app.setRevoker(guard.addr); // the same again
        vm.expectEmit();
        emit IDstackApp.RevokerSet("hospital-A", stranger.addr);
        app.setRevoker(stranger.addr);
        vm.stopPrank();
        vm.expectRevert(_notAnOwner(guard.addr));
        vm.prank(guard.addr);
        app.revokeAll();
        vm.prank(stranger.addr);
        app.revokeAll();

        vm.prank(alice.addr);
        app.setRevoker(address(0));
        (,,, address revoker) = app.ownerOf("hospital-A");
        assertEq(revoker, address(0));
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.revokeAll();
        vm.expectRevert(_notAnOwner(address(0)));
        vm.prank(address(0));
        app.revokeAll();
    }

    // ---- setOwnerCap --------------------------------------------------------------------------------------------

    function test_SetOwnerCap_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        vm.prank(guard.addr);
        app.setOwnerCap(1, 1);
    }

    function test_SetOwnerCap_RevertWhen_BelowWhatIsCommitted() public {
        _approve(alice, _terms());
        vm.startPrank(alice.addr);
        vm.expectRevert(_invalid("epsilonCap"));
        app.setOwnerCap(3 * EPSILON - 1, 3 * DELTA);
        vm.expectRevert(_invalid("deltaCap"));
        app.setOwnerCap(3 * EPSILON, 3 * DELTA - 1);
        vm.expectEmit();
        emit IDstackApp.OwnerBudget(0, 3 * EPSILON, 3 * EPSILON, 3 * DELTA, 3 * DELTA);
        app.setOwnerCap(3 * EPSILON, 3 * DELTA);
        (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(0);
        assertEq(cap, committed);
        assertEq(deltaCap, deltaCommitted);
    }

    /// R4: what is committed stays so, whatever account the owner moves to, and after its removal.
    function test_AcceptRotation_TakesTheRestOfTheCapsAlong() public {
        Terms memory t = _terms();
        _approve(alice, t);
        vm.prank(alice.addr);
        app.setOwnerCap(4 * EPSILON, 4 * DELTA);
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
        t.round = 1;
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 0, EPSILON, 3 * EPSILON));
        _approve(stranger, t);
        for (uint256 i = 0; i < 2; ++i) {
            (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(0);
            assertEq(abi.encode(cap, committed), abi.encode(4 * EPSILON, 3 * EPSILON));
            assertEq(abi.encode(deltaCap, deltaCommitted), abi.encode(4 * DELTA, 3 * DELTA));
            vm.prank(address(app));
            if (i == 0) app.removeOwner("hospital-A");
        }
    }

    // ---- reclaim ------------------------------------------------------------------------------------------------

    function _reclaim(Actor memory owner, Terms memory t) private {
        vm.prank(owner.addr);
        app.reclaim(t);
    }

    function test_Reclaim_RevertWhen_CallerIsNoOwner() public {
        Terms memory t = _terms();
        vm.expectRevert(_notAnOwner(guard.addr));
        _reclaim(guard, t);
    }

    function test_Reclaim_RevertWhen_OwnerHasNotApproved() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.prank(alice.addr);
        app.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerNotApproved.selector, id, 3));
        _reclaim(dave, t);
    }

    function test_Reclaim_RevertWhen_ItMayStillSpend() public {
        Terms memory t = _terms();
        bytes32 id = _approve(alice, t);
        vm.expectRevert(_notLive(id, Decision.NoQuorum));
        _reclaim(alice, t);
        _approve(bob, t);
        _approve(carol, t);
        vm.expectRevert(_notLive(id, Decision.Allow));
        _reclaim(alice, t);
    }

    function _assertReclaimsTwoRuns(Terms memory t) private {
        bytes32 id = _id(t);
        vm.expectEmit();
        emit IDstackApp.BudgetReclaimed(id, 0, 2 * EPSILON, 2 * DELTA);
        vm.expectEmit();
        emit IDstackApp.OwnerBudget(0, 100 * EPSILON, EPSILON, 100 * DELTA, DELTA);
        _reclaim(alice, t);
        (, uint64 committed,, uint64 deltaCommitted) = app.ownerBudget(0);
        assertEq(committed, EPSILON);
        assertEq(deltaCommitted, DELTA);

        vm.recordLogs();
        _reclaim(alice, t);
        assertEq(vm.getRecordedLogs().length, 0);
        _reclaim(bob, t);
        (, committed,,) = app.ownerBudget(1);
        assertEq(committed, EPSILON);
    }

    /// R4: what one run has spent stays spent; the other two runs come back, once.
    function test_Reclaim_GivesBackWhatWasNotSpent() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        _open(t, _request(t, 1));
        uint256 snapshot = vm.snapshotState();

        vm.prank(dave.addr);
        app.revoke(id);
        _assertReclaimsTwoRuns(t);

        vm.revertToState(snapshot);
        vm.warp(t.expiry);
        _assertReclaimsTwoRuns(t);

        vm.revertToState(snapshot);
        vm.prank(dave.addr);
        app.revokeAll();
        _assertReclaimsTwoRuns(t);

        vm.revertToState(snapshot);
        t.round = 1;
        _approve(bob, t);
        _approve(carol, t);
        _approve(dave, t);
        t.round = 0;
        _reclaim(alice, t);
        (, uint64 committed,,) = app.ownerBudget(0);
        assertEq(committed, EPSILON);
    }
}
