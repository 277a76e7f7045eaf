// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, SignedApproval, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

/// R2: any single owner, one transaction, at once and for good. Also reject and revokeAgent.
contract RevokeTest is BaseTest {
    uint64 private constant DEADLINE = START + 1 days;

    function _revokeSignature(Actor memory signer, bytes32 id) private view returns (bytes memory) {
        return _sign(signer, TypedDataTwin.revoke(signer.addr, id, DEADLINE));
    }

    function _revokeAllSignature(Actor memory signer, uint32 era) private view returns (bytes memory) {
        return _sign(signer, TypedDataTwin.revokeAll(signer.addr, era, DEADLINE));
    }

    // ---- reject -------------------------------------------------------------------------------------------------

    function test_Reject_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        vm.prank(guard.addr);
        app.reject("id", "no");
    }

    function testFuzz_Reject_RevertWhen_ReasonTooLong(uint16 length) public {
        string memory reason = string(new bytes(bound(length, 0, 600)));
        if (bytes(reason).length > 256) vm.expectRevert(_invalid("reason"));
        vm.prank(bob.addr);
        app.reject("id", reason);
    }

    function test_Reject_OnlyRecords() public {
        bytes32 id = _live(_terms());
        vm.expectEmit();
        emit IDstackApp.ProposalRejected(id, 3, "minimum group size too small");
        vm.prank(dave.addr);
        app.reject(id, "minimum group size too small");
        _assertDecision(_decision(id), Decision.Allow);
    }

    // ---- revoke -------------------------------------------------------------------------------------------------

    function testFuzz_Revoke_RevertWhen_CallerIsNoOwner(address caller) public {
        vm.assume(caller != alice.addr && caller != bob.addr && caller != carol.addr && caller != dave.addr);
        vm.assume(caller != guard.addr);
        vm.expectRevert(_notAnOwner(caller));
        vm.prank(caller);
        app.revoke("id");
    }

    function test_Revoke_ByAnOwnerThatNeverApproved() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.expectEmit();
        emit IDstackApp.ProposalRevoked(id, 3, dave.addr);
        vm.prank(dave.addr);
        app.revoke(id);
        _assertDecision(_decision(id), Decision.ProposalRevoked);
        assertFalse(app.allowedComposeHashes(t.composeHash));
        assertEq(app.currentProposal(t.composeHash), id);
    }

    function test_Revoke_ByTheRevocationKey() public {
        bytes32 id = _live(_terms());
        vm.expectEmit();
        emit IDstackApp.ProposalRevoked(id, 0, guard.addr);
        vm.prank(guard.addr);
        app.revoke(id);
        _assertDecision(_decision(id), Decision.ProposalRevoked);
    }

    function test_Revoke_IsIdempotent() public {
        vm.prank(alice.addr);
        app.revoke("id");
        vm.recordLogs();
        vm.prank(bob.addr);
        app.revoke("id");
        assertEq(vm.getRecordedLogs().length, 0);
        (,, bool revoked,,,,) = app.proposal("id");
        assertTrue(revoked);
    }

    /// Approve and revoke commute: in no order does a live proposal come out.
    function testFuzz_Revoke_CommutesWithApprovals(uint8 position, uint8 revoker) public {
        Terms memory t = _terms();
        Actor[4] memory all = [alice, bob, carol, dave];
        position = uint8(bound(position, 0, 3));
        for (uint256 i = 0; i < 3; ++i) {
            if (i == position) {
                vm.prank(all[bound(revoker, 0, 3)].addr);
                app.revoke(_id(t));
            }
            vm.prank(all[i].addr);
            try app.approve(t) {} catch {}
        }
        if (position == 3) {
            vm.prank(all[bound(revoker, 0, 3)].addr);
            app.revoke(_id(t));
        }
        _assertDecision(_decision(_id(t)), Decision.ProposalRevoked);
        assertFalse(app.allowedComposeHashes(t.composeHash));
    }

    /// R2: a fresh round needs fresh approvals of all; the old signatures say another round.
    function test_Revoke_OldSignaturesDoNotCountForAFreshRound() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        SignedApproval[] memory old = _approvals(dave, t);
        vm.prank(alice.addr);
        app.revoke(id);
        t.round = 1;
        vm.expectRevert(_badSignature(dave.addr));
        app.approveBySig(t, old);
        _live(t);
        _assertDecision(_decision(_id(t)), Decision.Allow);
        _assertDecision(_decision(id), Decision.ProposalRevoked);
    }

    // ---- revokeBySig --------------------------------------------------------------------------------------------

    function test_RevokeBySig_RevertWhen_SignerIsNoOwner() public {
        bytes memory signature = _revokeSignature(stranger, "id");
        vm.expectRevert(_notAnOwner(stranger.addr));
        app.revokeBySig(stranger.addr, "id", DEADLINE, signature);
    }

    function test_RevokeBySig_RevertWhen_DeadlinePassed() public {
        bytes memory signature = _revokeSignature(alice, "id");
        vm.warp(DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_DeadlinePassed.selector, DEADLINE, DEADLINE + 1));
        app.revokeBySig(alice.addr, "id", DEADLINE, signature);
        vm.warp(DEADLINE);
        app.revokeBySig(alice.addr, "id", DEADLINE, signature);
    }

    function test_RevokeBySig_RevertWhen_SignedForSomethingElse() public {
        bytes memory signature = _revokeSignature(alice, "id");
        vm.expectRevert(_badSignature(alice.addr));
        app.revokeBySig(alice.addr, "other", DEADLINE, signature);
        vm.expectRevert(_badSignature(alice.addr));
        app.revokeBySig(alice.addr, "id", DEADLINE + 1, signature);
        vm.expectRevert(_badSignature(bob.addr));
        app.revokeBySig(bob.addr, "id", DEADLINE, signature);
    }

    function test_RevokeBySig_ByAccountOrRevocationKey() public {
        bytes32 id = _live(_terms());
        vm.expectEmit();
        emit IDstackApp.ProposalRevoked(id, 2, carol.addr);
        vm.prank(relayer);
        app.revokeBySig(carol.addr, id, DEADLINE, _revokeSignature(carol, id));
        _assertDecision(_decision(id), Decision.ProposalRevoked);

        vm.expectEmit();
        emit IDstackApp.ProposalRevoked("id", 0, guard.addr);
        vm.prank(relayer);
        app.revokeBySig(guard.addr, "id", DEADLINE, _revokeSignature(guard, "id"));
    }

    // ---- revokeAll ----------------------------------------------------------------------------------------------

    function test_RevokeAll_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.revokeAll();
    }

    /// R2: everything ends at once, also what is still collecting, and old terms say another era.
    function test_RevokeAll_EndsEveryProposal() public {
        Terms memory t = _terms();
        bytes32 live = _live(t);
        t.round = 1;
        bytes32 collecting = _approve(alice, t);
        vm.expectEmit();
        emit IDstackApp.EraStarted(1, 3, dave.addr);
        vm.prank(dave.addr);
        app.revokeAll();
        _assertDecision(_decision(live), Decision.EraEnded);
        _assertDecision(_decision(collecting), Decision.EraEnded);
        assertFalse(app.allowedComposeHashes(t.composeHash));

        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_WrongEra.selector, 0, 1));
        _approve(bob, t);
        t.era = 1;
        _live(t);
        _assertDecision(_decision(_id(t)), Decision.Allow);
    }

    function test_RevokeAll_ByTheRevocationKey() public {
        vm.expectEmit();
        emit IDstackApp.EraStarted(1, 0, guard.addr);
        vm.prank(guard.addr);
        app.revokeAll();
    }

    function test_RevokeAllBySig_RevertWhen_SignerIsNoOwner() public {
        bytes memory signature = _revokeAllSignature(stranger, 0);
        vm.expectRevert(_notAnOwner(stranger.addr));
        app.revokeAllBySig(stranger.addr, 0, DEADLINE, signature);
    }

    /// The era makes the signature good for once: nobody can replay it against later proposals.
    function test_RevokeAllBySig_RevertWhen_Replayed() public {
        bytes memory signature = _revokeAllSignature(bob, 0);
        vm.expectEmit();
        emit IDstackApp.EraStarted(1, 1, bob.addr);
        app.revokeAllBySig(bob.addr, 0, DEADLINE, signature);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_WrongEra.selector, 0, 1));
        app.revokeAllBySig(bob.addr, 0, DEADLINE, signature);
        vm.expectRevert(_badSignature(bob.addr));
        app.revokeAllBySig(bob.addr, 1, DEADLINE, signature);
    }

    function test_RevokeAllBySig_RevertWhen_DeadlinePassed() public {
        bytes memory signature = _revokeAllSignature(bob, 0);
        vm.warp(DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_DeadlinePassed.selector, DEADLINE, DEADLINE + 1));
        app.revokeAllBySig(bob.addr, 0, DEADLINE, signature);
    }

    // ---- revokeAgent --------------------------------------------------------------------------------------------

    function test_RevokeAgent_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(agent.addr));
        vm.prank(agent.addr);
        app.revokeAgent(agent.addr);
    }

    function test_RevokeAgent_IsIdempotent() public {
        vm.expectEmit();
        emit IDstackApp.AgentRevoked(agent.addr, 0);
        vm.prank(guard.addr);
        app.revokeAgent(agent.addr);
        assertTrue(app.agentRevoked(agent.addr));
        vm.recordLogs();
        vm.prank(bob.addr);
        app.revokeAgent(agent.addr);
        assertEq(vm.getRecordedLogs().length, 0);
    }
}
