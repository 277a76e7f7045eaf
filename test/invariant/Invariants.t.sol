// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {IApp} from "../utils/IApp.sol";
import {AppBootInfo, Decision, OwnerInfo} from "../../contracts/IDstackApp.sol";
import {Handler} from "./Handler.sol";
import {Shadow} from "./Shadow.sol";

/// The numbers are those of README.md in this folder; 3 and 4 are checked by the handler after each step.
contract InvariantsTest is Test {
    Handler private handler;
    Shadow private shadow;
    IApp private app;
    bytes32 private codeHash;

    function setUp() public {
        handler = new Handler();
        shadow = handler.shadow();
        app = handler.theApp();
        codeHash = address(app).codehash;
        targetContract(address(handler));
        bytes4[] memory views = new bytes4[](9);
        views[0] = handler.shadow.selector;
        views[1] = handler.theApp.selector;
        views[2] = handler.institution.selector;
        views[3] = handler.composeHash.selector;
        views[4] = handler.activations.selector;
        views[5] = handler.runsOpened.selector;
        views[6] = handler.receipts.selector;
        views[7] = handler.governed.selector;
        views[8] = handler.setUp.selector;
        excludeSelector(FuzzSelector(address(handler), views));
    }

    /// Every invariant after every step: one history serves them all.
    function invariant_AllHold() public view {
        _1_eventsRebuildTheState();
        _2_releaseNeedsTheOwnersOwnApprovalAndTheQuorum();
        _5_spendingStaysWithinBudgetsAndCaps();
        _6_oneReceiptPerRun();
        _7_configurationIsSound();
        _8_liveIsCurrent();
        assertEq(address(app).codehash, codeHash, "9: the code changed");
    }

    // ---- 1 ------------------------------------------------------------------------------------------------------

    function _1_eventsRebuildTheState() private view {
        assertEq(shadow.unknownEvents(), 0, "1: an event that the replay does not know");
        _rulesEqual();
        (uint256 owners, uint256 proposals, uint256 runs, uint256 datasets) = shadow.sizes();
        for (uint8 i = 0; i < owners; ++i) {
            _ownerEqual(i);
        }
        for (uint256 i = 0; i < proposals; ++i) {
            _proposalEqual(shadow.proposalIds(i));
        }
        for (uint256 i = 0; i < runs; ++i) {
            _runEqual(shadow.runIds(i));
        }
        for (uint256 i = 0; i < datasets; ++i) {
            bytes32 id = shadow.datasetIds(i);
            Shadow.Dataset memory d = shadow.datasetAt(id);
            (bool registered, bool superseded, uint8 index, bytes32 compose) = app.dataset(id);
            assertEq(
                abi.encode(registered, superseded, index, compose),
                abi.encode(d.registered, d.superseded, d.ownerIndex, d.composeHash),
                "1: dataset"
            );
        }
    }

    function _rulesEqual() private view {
        (uint128 active, uint8 threshold, uint8 count, uint32 era, uint64 version, uint64 delay) = app.config();
        assertEq(active, shadow.activeOwners(), "1: owners");
        assertEq(count, shadow.count(active), "1: owner count");
        assertEq(threshold, shadow.threshold(), "1: threshold");
        assertEq(era, shadow.era(), "1: era");
        assertEq(version, shadow.version(), "1: version");
        assertEq(delay, shadow.delaySeconds(), "1: delay");
        assertEq(app.kmsRoot(), shadow.kmsRoot(), "1: root");
        assertEq(app.allowAnyDevice(), shadow.allowAnyDevice(), "1: any device");
        assertEq(app.requireTcbUpToDate(), shadow.requireTcbUpToDate(), "1: TCB");
        for (uint256 i = 0; i < 3; ++i) {
            assertEq(app.allowedDeviceIds(bytes32(i)), shadow.devices(bytes32(i)), "1: device");
            bytes32 compose = handler.composeHash(i);
            bytes32 current = shadow.current(compose);
            assertEq(app.currentProposal(compose), current, "1: current");
            bool allowed = shadow.bootOnly(compose) || shadow.decision(current) == Decision.Allow;
            assertEq(app.allowedComposeHashes(compose), allowed, "1: compose hash");
        }
        for (uint160 i = 1; i < 5; ++i) {
            assertEq(app.agentRevoked(address(i)), shadow.revokedAgents(address(i)), "1: agent");
        }
        address stranger = vm.addr(uint256(keccak256("stranger")));
        assertEq(app.isAnalyst(stranger), shadow.analysts(stranger), "1: analyst");
    }

    function _ownerEqual(uint8 index) private view {
        Shadow.Owner memory o = shadow.ownerAt(index);
        (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(index);
        assertEq(
            abi.encode(cap, committed, deltaCap, deltaCommitted),
            abi.encode(o.epsilonCap, o.epsilonCommitted, o.deltaCap, o.deltaCommitted),
            "1: budget"
        );
        if (!o.listed) return;
        (bool listed, uint8 at, address account, address revoker) = app.ownerOf(o.ownerId);
        assertEq(abi.encode(listed, at, account, revoker), abi.encode(true, index, o.account, o.revoker), "1: owner");
        (OwnerInfo[] memory list, uint8[] memory indexes) = app.owners();
        uint256 found = 0;
        for (uint256 i = 0; i < list.length; ++i) {
            if (indexes[i] != index) continue;
            ++found;
            assertEq(list[i].ownerId, o.ownerId, "1: owners()");
            assertEq(list[i].jurisdiction, o.jurisdiction, "1: owners()");
            assertEq(list[i].grades, o.grades, "1: owners()");
        }
        assertEq(found, 1, "1: owners()");
    }

    function _proposalEqual(bytes32 id) private view {
        Shadow.Proposal memory p = shadow.proposalAt(id);
        assertEq(uint256(app.proposalDecision(id)), uint256(shadow.decision(id)), "1: decision");
        (bool ok, bytes memory stored) = address(app).staticcall(abi.encodeCall(app.proposal, (id)));
        assertTrue(ok);
        uint256 runs = p.terms.epsilonPerRun == 0 ? 0 : p.epsilonSpent / p.terms.epsilonPerRun;
        bytes memory want =
            abi.encode(p.approvals, p.thresholdSnapshot, p.revoked, p.superseded, p.terms.era, p.terms.expiry, runs);
        assertEq(stored, want, "1: proposal");
    }

    function _runEqual(bytes32 id) private view {
        Shadow.Run memory r = shadow.runAt(id);
        (bytes32 proposalId, uint128 participants, uint64 openedAt, bytes32 digest) = app.run(id);
        assertEq(
            abi.encode(proposalId, participants, openedAt, digest),
            abi.encode(r.digest == 0 ? r.proposalId : bytes32(0), r.participants, r.openedAt, r.digest),
            "1: run"
        );
    }

    // ---- 2 ------------------------------------------------------------------------------------------------------

    function _2_releaseNeedsTheOwnersOwnApprovalAndTheQuorum() private view {
        (uint256 owners,, uint256 runs, uint256 datasets) = shadow.sizes();
        for (uint256 i = 0; i < runs; ++i) {
            bytes32 runId = shadow.runIds(i);
            Shadow.Run memory r = shadow.runAt(runId);
            Shadow.Proposal memory p = shadow.proposalAt(r.proposalId);
            for (uint256 j = 0; j < datasets; ++j) {
                bytes32 datasetId = shadow.datasetIds(j);
                Shadow.Dataset memory d = shadow.datasetAt(datasetId);
                Shadow.Owner memory o = shadow.ownerAt(d.ownerIndex);
                Decision decision = app.releaseDecision(r.proposalId, p.terms.composeHash, o.ownerId, datasetId, runId);
                uint128 bit = uint128(1) << d.ownerIndex;
                bool want = shadow.decision(r.proposalId) == Decision.Allow && o.listed && p.approvals & bit != 0
                    && d.composeHash == p.terms.composeHash && !d.superseded && r.digest == 0
                    && r.participants & bit != 0;
                assertEq(decision == Decision.Allow, want, "2: release");
            }
            // Every participant had approved when the run was opened; approvals are never taken back.
            assertEq(r.participants & ~p.approvals, 0, "2: participants");
            assertLt(shadow.count(r.participants), owners + 1, "2: participants");
        }
    }

    // ---- 5 to 8 -------------------------------------------------------------------------------------------------

    function _5_spendingStaysWithinBudgetsAndCaps() private view {
        (uint256 owners, uint256 proposals, uint256 runs,) = shadow.sizes();
        for (uint256 i = 0; i < proposals; ++i) {
            Shadow.Proposal memory p = shadow.proposalAt(shadow.proposalIds(i));
            (,,,,,, uint64 count) = app.proposal(shadow.proposalIds(i));
            assertLe(count * p.terms.epsilonPerRun, p.terms.epsilonBudget, "5: epsilon budget");
            assertLe(count * p.terms.deltaPerRun, p.terms.deltaBudget, "5: delta budget");
        }
        // By institution: removal and return do not wipe the slate.
        for (uint256 i = 0; i < owners; ++i) {
            bytes32 ownerId = shadow.ownerAt(i).ownerId;
            uint256 spent = 0;
            uint8 latest = 0;
            uint128 bits = 0;
            for (uint8 j = 0; j < owners; ++j) {
                if (shadow.ownerAt(j).ownerId != ownerId) continue;
                bits |= uint128(1) << j;
                latest = j;
            }
            for (uint256 j = 0; j < runs; ++j) {
                Shadow.Run memory r = shadow.runAt(shadow.runIds(j));
                if (r.participants & bits != 0) spent += r.epsilon;
            }
            (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(latest);
            assertLe(spent, committed, "5: an owner's data cost more than it committed");
            assertLe(committed, cap, "5: epsilon cap");
            assertLe(deltaCommitted, deltaCap, "5: delta cap");
        }
    }

    function _6_oneReceiptPerRun() private view {
        (,, uint256 runs,) = shadow.sizes();
        for (uint256 i = 0; i < runs; ++i) {
            Shadow.Run memory r = shadow.runAt(shadow.runIds(i));
            assertLe(r.receipts, 1, "6: two receipts");
            assertEq(r.receipts == 1, r.digest != 0, "6: digest");
        }
    }

    function _7_configurationIsSound() private view {
        (, uint8 threshold, uint8 count,,,) = app.config();
        assertGt(threshold, 0, "7: no threshold");
        assertLe(threshold, count, "7: threshold out of reach");
        assertLe(count, 64, "7: too many owners");
    }

    function _8_liveIsCurrent() private view {
        (, uint256 proposals,,) = shadow.sizes();
        for (uint256 i = 0; i < proposals; ++i) {
            bytes32 id = shadow.proposalIds(i);
            if (app.proposalDecision(id) != Decision.Allow) continue;
            assertEq(app.currentProposal(shadow.terms(id).composeHash), id, "8: live but not current");
        }
    }

    /// The handler does reach what it is for: without this the invariants could hold of nothing.
    function test_HandlerReachesTheInterestingStates() public {
        handler.approveByAll(0);
        handler.registerDataset(0, 0, false);
        handler.openRun(1, 0);
        handler.postReceipt(0, 0);
        handler.postReceipt(0, 1);
        handler.govern(4, 3); // threshold 3
        handler.govern(0, 36); // hospital-A is listed already: refused
        handler.govern(0, 40); // hospital-E joins
        handler.approveByAll(1);
        handler.reclaim(0, 0);
        handler.approveBySig(9, 2);
        assertGt(handler.activations(), 1, "activations");
        assertGt(handler.runsOpened(), 0, "runs");
        assertEq(handler.receipts(), 2, "a receipt and an equivocation");
        assertGt(handler.governed(), 1, "governance");
        invariant_AllHold();
    }
}
