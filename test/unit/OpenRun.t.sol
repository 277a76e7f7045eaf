// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, RunRequest, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

contract OpenRunTest is BaseTest {
    function test_OpenRun_RevertWhen_RequestIsForOtherTerms() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 7);
        t.epsilonPerRun = 1; // cheaper than approved
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_RunUnknown.selector, TypedDataTwin.runRequest(request))
        );
        app.openRun(t, request, signature);
    }

    function test_OpenRun_RevertWhen_DeadlinePassed() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 7);
        vm.warp(request.deadline + 1);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_DeadlinePassed.selector, request.deadline, request.deadline + 1)
        );
        app.openRun(t, request, signature);
        vm.warp(request.deadline);
        app.openRun(t, request, signature);
    }

    function test_OpenRun_RevertWhen_AnalystIsNotListed() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 7);
        request.analyst = stranger.addr;
        bytes memory signature = _sign(stranger, TypedDataTwin.runRequest(request));
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_NotAnAnalyst.selector, stranger.addr));
        app.openRun(t, request, signature);
    }

    function test_OpenRun_RevertWhen_SignedByAnother() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 7);
        bytes memory signature = _sign(stranger, TypedDataTwin.runRequest(request));
        vm.expectRevert(_badSignature(analyst.addr));
        app.openRun(t, request, signature);
        signature = _sign(analyst, TypedDataTwin.runRequest(request));
        request.participants = 3;
        vm.expectRevert(_badSignature(analyst.addr));
        app.openRun(t, request, signature);
    }

    function _expectNotLive(Terms memory t, Decision decision) private {
        RunRequest memory request = _request(t, 1);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(_notLive(_id(t), decision));
        app.openRun(t, request, signature);
    }

    /// R1, R2: no run without the quorum, nor after a revocation.
    function test_OpenRun_RevertWhen_ProposalIsNotLive() public {
        Terms memory t = _terms();
        _expectNotLive(t, Decision.ProposalUnknown);
        _approve(alice, t);
        _approve(bob, t);
        _expectNotLive(t, Decision.NoQuorum);
        _approve(carol, t);
        uint256 snapshot = vm.snapshotState();

        vm.prank(dave.addr);
        app.revoke(_id(t));
        _expectNotLive(t, Decision.ProposalRevoked);

        vm.revertToState(snapshot);
        vm.prank(dave.addr);
        app.revokeAll();
        _expectNotLive(t, Decision.EraEnded);

        vm.revertToState(snapshot);
        Terms memory next = _terms();
        next.round = 1;
        _live(next);
        _expectNotLive(t, Decision.ProposalSuperseded);

        vm.revertToState(snapshot);
        vm.warp(t.expiry);
        RunRequest memory request = _request(t, 1);
        request.deadline = t.expiry;
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(_notLive(_id(t), Decision.ProposalExpired));
        app.openRun(t, request, signature);
    }

    function test_OpenRun_RevertWhen_NobodyTakesPart() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 0);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(_invalid("participants"));
        app.openRun(t, request, signature);
    }

    /// R1: the quorum cannot speak for an owner that has not approved. The lowest missing index is named.
    function testFuzz_OpenRun_RevertWhen_AParticipantHasNotApproved(uint128 participants) public {
        vm.assume(participants & ~uint128(7) != 0);
        Terms memory t = _terms();
        bytes32 id = _live(t);
        RunRequest memory request = _request(t, participants);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        uint8 missing = 3;
        while ((participants >> missing) & 1 == 0) ++missing;
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerNotApproved.selector, id, missing));
        app.openRun(t, request, signature);
    }

    /// R3: a removed owner's approval stops counting at once.
    function test_OpenRun_RevertWhen_AParticipantWasRemoved() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        _approve(dave, t);
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-D")));
        RunRequest memory request = _request(t, 8);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerNotApproved.selector, id, 3));
        app.openRun(t, request, signature);
    }

    function test_OpenRun_RevertWhen_OpenedBefore() public {
        Terms memory t = _terms();
        _live(t);
        RunRequest memory request = _request(t, 7);
        bytes32 runId = _open(t, request);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_RunExists.selector, runId));
        app.openRun(t, request, signature);
    }

    function _expectExhausted(Terms memory t, uint64 left, uint64 wanted) private {
        RunRequest memory request = _request(t, 7);
        request.nonce = "one too many";
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_BudgetExhausted.selector, _id(t), left, wanted));
        app.openRun(t, request, signature);
    }

    /// R4: three runs fit and not a unit more, whether they ever close or not.
    function test_OpenRun_RevertWhen_BudgetIsExhausted() public {
        Terms memory t = _terms();
        t.deltaBudget = type(uint64).max / 1e4;
        t.epsilonBudget = 4 * EPSILON - 1;
        vm.prank(alice.addr);
        app.setOwnerCap(type(uint64).max, type(uint64).max);
        vm.prank(bob.addr);
        app.setOwnerCap(type(uint64).max, type(uint64).max);
        vm.prank(carol.addr);
        app.setOwnerCap(type(uint64).max, type(uint64).max);
        _live(t);
        RunRequest memory request = _request(t, 7);
        for (uint256 i = 0; i < 3; ++i) {
            request.nonce = bytes32(i);
            _open(t, request);
        }
        _expectExhausted(t, EPSILON - 1, EPSILON);
    }

    function test_OpenRun_RevertWhen_DeltaIsExhausted() public {
        Terms memory t = _terms();
        t.deltaBudget = 2 * DELTA - 1;
        _live(t);
        _open(t, _request(t, 7));
        _expectExhausted(t, DELTA - 1, DELTA);
    }

    function testFuzz_OpenRun_NeverExceedsTheBudget(uint64 perRun, uint64 budget, uint64 delta, uint64 deltaBudget)
        public
    {
        Terms memory t = _terms();
        t.epsilonBudget = uint64(bound(budget, 1, 100 * EPSILON));
        t.epsilonPerRun = uint64(bound(perRun, 1, t.epsilonBudget));
        t.deltaBudget = uint64(bound(deltaBudget, 0, 100 * DELTA));
        t.deltaPerRun = uint64(bound(delta, 0, t.deltaBudget));
        _live(t);
        RunRequest memory request = _request(t, 7);
        uint256 fits = t.epsilonBudget / t.epsilonPerRun;
        if (t.deltaPerRun != 0 && t.deltaBudget / t.deltaPerRun < fits) fits = t.deltaBudget / t.deltaPerRun;
        uint256 runs = 0;
        for (; runs < 5; ++runs) {
            request.nonce = bytes32(runs);
            bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
            try app.openRun(t, request, signature) {}
            catch {
                break;
            }
        }
        assertEq(runs, fits < 5 ? fits : 5);
        (,,,,,, uint64 recorded) = app.proposal(_id(t));
        assertEq(recorded, runs);
        assertLe(runs * t.epsilonPerRun, t.epsilonBudget);
        assertLe(runs * t.deltaPerRun, t.deltaBudget);
    }

    function test_OpenRun_DebitsAndRecords() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        RunRequest memory request = _request(t, 5);
        bytes32 runId = TypedDataTwin.runRequest(request);
        assertEq(app.hashRunRequest(request), runId);
        vm.expectEmit();
        emit IDstackApp.RunOpened(runId, id, analyst.addr, 5, EPSILON, DELTA, EPSILON, DELTA);
        assertEq(_open(t, request), runId);
        (bytes32 proposalId, uint128 participants, uint64 openedAt, bytes32 digest) = app.run(runId);
        assertEq(proposalId, id);
        assertEq(participants, 5);
        assertEq(openedAt, START);
        assertEq(digest, 0);

        request.nonce = "second";
        vm.expectEmit();
        emit IDstackApp.RunOpened(
            TypedDataTwin.runRequest(request), id, analyst.addr, 5, EPSILON, DELTA, 2 * EPSILON, 2 * DELTA
        );
        _open(t, request);
    }
}
