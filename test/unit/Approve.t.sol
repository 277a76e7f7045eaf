// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

contract ApproveTest is BaseTest {
    function _expectInvalid(Terms memory t, string memory field) private {
        vm.expectRevert(_invalid(field));
        _approve(alice, t);
    }

    function testFuzz_Approve_RevertWhen_CallerIsNoOwner(address caller) public {
        vm.assume(caller != alice.addr && caller != bob.addr && caller != carol.addr && caller != dave.addr);
        Terms memory t = _terms();
        vm.expectRevert(_notAnOwner(caller));
        vm.prank(caller);
        app.approve(t);
    }

    function test_Approve_RevertWhen_CallerIsARevocationKey() public {
        Terms memory t = _terms();
        vm.expectRevert(_notAnOwner(guard.addr));
        _approve(guard, t);
    }

    function testFuzz_Approve_RevertWhen_WrongEra(uint32 era) public {
        vm.assume(era != 0);
        Terms memory t = _terms();
        t.era = era;
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_WrongEra.selector, era, 0));
        _approve(alice, t);
    }

    function test_Approve_RevertWhen_AHashIsZero() public {
        Terms memory t = _terms();
        t.composeHash = 0;
        _expectInvalid(t, "composeHash");
        t = _terms();
        t.recipeHash = 0;
        _expectInvalid(t, "recipeHash");
        t = _terms();
        t.outputSchemaHash = 0;
        _expectInvalid(t, "outputSchemaHash");
    }

    function test_Approve_RevertWhen_ARunCostsNothing() public {
        Terms memory t = _terms();
        t.epsilonPerRun = 0;
        _expectInvalid(t, "epsilonPerRun");
    }

    function test_Approve_RevertWhen_ARunIsDearerThanTheBudget() public {
        Terms memory t = _terms();
        t.epsilonBudget = t.epsilonPerRun - 1;
        _expectInvalid(t, "epsilonBudget");
        t = _terms();
        t.deltaBudget = t.deltaPerRun - 1;
        _expectInvalid(t, "deltaBudget");
        t.epsilonBudget = t.epsilonPerRun;
        t.deltaBudget = t.deltaPerRun;
        _approve(alice, t);
    }

    function testFuzz_Approve_RevertWhen_ExpiryPastOrTooFarAhead(uint64 expiry) public {
        Terms memory t = _terms();
        t.expiry = expiry;
        if (expiry <= START || expiry > START + 400 days) vm.expectRevert(_invalid("expiry"));
        _approve(alice, t);
    }

    function test_Approve_ExpiryBounds() public {
        Terms memory t = _terms();
        t.expiry = START;
        _expectInvalid(t, "expiry");
        t.expiry = START + 400 days + 1;
        _expectInvalid(t, "expiry");
        t.expiry = START + 1;
        _approve(alice, t);
        t.expiry = START + 400 days;
        _approve(alice, t);
    }

    function test_Approve_RevertWhen_Revoked() public {
        Terms memory t = _terms();
        vm.prank(bob.addr);
        app.revoke(_id(t));
        vm.expectRevert(_notLive(_id(t), Decision.ProposalRevoked));
        _approve(alice, t);
    }

    function test_Approve_RevertWhen_Superseded() public {
        Terms memory t = _terms();
        bytes32 older = _live(t);
        t.round = 1;
        _live(t);
        t.round = 0;
        vm.expectRevert(_notLive(older, Decision.ProposalSuperseded));
        _approve(dave, t);
    }

    function test_Approve_RevertWhen_BeyondTheOwnersCap() public {
        vm.prank(alice.addr);
        app.setOwnerCap(3 * EPSILON - 1, 3 * DELTA);
        Terms memory t = _terms();
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 0, 3 * EPSILON - 1, 3 * EPSILON)
        );
        _approve(alice, t);

        vm.prank(alice.addr);
        app.setOwnerCap(3 * EPSILON, 3 * DELTA - 1);
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 0, 3 * DELTA - 1, 3 * DELTA)
        );
        _approve(alice, t);

        vm.prank(alice.addr);
        app.setOwnerCap(3 * EPSILON, 3 * DELTA);
        _approve(alice, t);
        t.round = 1;
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 0, 0, 3 * EPSILON));
        _approve(alice, t);
    }

    function test_Approve_FirstCreatesTheProposal() public {
        Terms memory t = _terms();
        bytes32 id = _id(t);
        vm.expectEmit();
        emit IDstackApp.ProposalCreated(id, t.composeHash, t, 3);
        vm.expectEmit();
        emit IDstackApp.ProposalApproved(id, 1, 1, false);
        assertEq(_approve(alice, t), id);
        _assertDecision(_decision(id), Decision.NoQuorum);
        assertEq(app.currentProposal(t.composeHash), 0);

        (uint128 approvals, uint8 snapshot, bool revoked, bool superseded, uint32 era, uint64 expiry, uint64 runs) =
            app.proposal(id);
        assertEq(approvals, 1);
        assertEq(snapshot, 3);
        assertFalse(revoked);
        assertFalse(superseded);
        assertEq(era, 0);
        assertEq(expiry, t.expiry);
        assertEq(runs, 0);
        (, uint64 committed,, uint64 deltaCommitted) = app.ownerBudget(0);
        assertEq(committed, 3 * EPSILON);
        assertEq(deltaCommitted, 3 * DELTA);
    }

    function test_Approve_QuorumMakesItCurrent() public {
        Terms memory t = _terms();
        bytes32 id = _id(t);
        _approve(alice, t);
        _approve(dave, t);
        _assertDecision(_decision(id), Decision.NoQuorum);
        vm.expectEmit();
        emit IDstackApp.ProposalApproved(id, 4, 13, false);
        vm.expectEmit();
        emit IDstackApp.ProposalActivated(id, t.composeHash, 0);
        _approve(carol, t);
        _assertDecision(_decision(id), Decision.Allow);
        assertEq(app.currentProposal(t.composeHash), id);
        assertTrue(app.allowedComposeHashes(t.composeHash));
    }

    function test_Approve_IsIdempotent() public {
        Terms memory t = _terms();
        _approve(alice, t);
        vm.recordLogs();
        assertEq(_approve(alice, t), _id(t));
        assertEq(vm.getRecordedLogs().length, 0);
        (, uint64 committed,,) = app.ownerBudget(0);
        assertEq(committed, 3 * EPSILON);
    }

    function test_Approve_LateApprovalDoesNotActivateAgain() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.recordLogs();
        _approve(dave, t);
        assertEq(vm.getRecordedLogs().length, 1); // ProposalApproved
        assertEq(app.currentProposal(t.composeHash), id);
        (,,, bool superseded,,,) = app.proposal(id);
        assertFalse(superseded);
    }

    /// R3: superseded is final, whatever comes later.
    function test_Approve_NewQuorumSupersedesTheOlder() public {
        Terms memory t = _terms();
        bytes32 older = _live(t);
        t.round = 1;
        bytes32 newer = _id(t);
        _approve(bob, t);
        _approve(carol, t);
        _assertDecision(_decision(older), Decision.Allow);
        vm.expectEmit();
        emit IDstackApp.ProposalActivated(newer, t.composeHash, older);
        _approve(dave, t);
        _assertDecision(_decision(older), Decision.ProposalSuperseded);
        assertEq(app.currentProposal(t.composeHash), newer);

        vm.prank(alice.addr);
        app.revoke(newer);
        _assertDecision(_decision(older), Decision.ProposalSuperseded);
        assertFalse(app.allowedComposeHashes(t.composeHash));
    }

    /// R3: each field of the terms is part of the id.
    function testFuzz_Approve_AnyOtherTermsAreAnotherProposal(uint8 field, uint32 change) public {
        vm.assume(change != 0);
        Terms memory t = _terms();
        bytes32 id = app.hashTerms(t);
        field = uint8(bound(field, 0, 11));
        if (field == 0) t.composeHash ^= bytes32(uint256(change));
        else if (field == 1) t.recipeHash ^= bytes32(uint256(change));
        else if (field == 2) t.outputSchemaHash ^= bytes32(uint256(change));
        else if (field == 3) t.epsilonPerRun ^= change;
        else if (field == 4) t.deltaPerRun ^= change;
        else if (field == 5) t.epsilonBudget ^= change;
        else if (field == 6) t.deltaBudget ^= change;
        else if (field == 7) t.expiry ^= change;
        else if (field == 8) t.devices ^= bytes32(uint256(change));
        else if (field == 9) t.systems ^= bytes32(uint256(change));
        else if (field == 10) t.era ^= change;
        else t.round ^= change;
        assertNotEq(app.hashTerms(t), id);
        assertEq(app.hashTerms(t), _id(t));
    }

    /// The last second is one before the expiry.
    function test_Approve_ExpiryIsExact() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.warp(t.expiry - 1);
        _assertDecision(_decision(id), Decision.Allow);
        vm.warp(t.expiry);
        _assertDecision(_decision(id), Decision.ProposalExpired);
        assertFalse(app.allowedComposeHashes(t.composeHash));
    }

    /// The id is hashed from the words as they lie in calldata; a narrow field with bits beyond its type is no field.
    function test_Approve_RevertWhen_AFieldHasBitsBeyondItsType() public {
        bytes memory call = abi.encodeCall(IDstackApp.approve, (_terms()));
        uint8[7] memory narrow = [3, 4, 5, 6, 7, 10, 11];
        for (uint256 i = 0; i < narrow.length; ++i) {
            bytes memory dirty = bytes.concat(call);
            dirty[4 + 32 * uint256(narrow[i])] = 0x01;
            vm.prank(alice.addr);
            (bool ok,) = address(app).call(dirty);
            assertFalse(ok);
        }
        vm.prank(alice.addr);
        (bool clean,) = address(app).call(call);
        assertTrue(clean);
    }
}
