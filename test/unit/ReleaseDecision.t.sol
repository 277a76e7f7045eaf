// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DatasetInfo, Decision, IDstackApp, RunRequest, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// R1 as the KMS asks it: each reason in the order of its number, each hidden by the ones before it.
contract ReleaseDecisionTest is BaseTest {
    Terms private t;
    bytes32 private id;
    bytes32 private runId;

    /// hospital-B has approved, registered a dataset and takes part in an open run.
    function setUp() public override {
        super.setUp();
        t = _terms();
        id = _live(t);
        vm.prank(bob.addr);
        app.registerDataset(_dataset("data-B", t));
        runId = _open(t, _request(t, 6));
    }

    function _decide() private view returns (Decision) {
        return app.releaseDecision(id, t.composeHash, "hospital-B", "data-B", runId);
    }

    function test_ReleaseDecision_Allow() public view {
        _assertDecision(_decide(), Decision.Allow);
    }

    function test_ReleaseDecision_ProposalUnknown() public view {
        _assertDecision(
            app.releaseDecision("none", t.composeHash, "hospital-B", "data-B", runId), Decision.ProposalUnknown
        );
    }

    /// R2: in the same block.
    function test_ReleaseDecision_ProposalRevoked() public {
        vm.prank(dave.addr);
        app.revoke(id);
        _assertDecision(_decide(), Decision.ProposalRevoked);
    }

    function test_ReleaseDecision_ProposalSuperseded() public {
        Terms memory next = _terms();
        next.round = 1;
        _live(next);
        _assertDecision(_decide(), Decision.ProposalSuperseded);
    }

    function test_ReleaseDecision_EraEnded() public {
        vm.prank(guard.addr);
        app.revokeAll();
        _assertDecision(_decide(), Decision.EraEnded);
    }

    function test_ReleaseDecision_ProposalExpired() public {
        vm.warp(t.expiry);
        _assertDecision(_decide(), Decision.ProposalExpired);
    }

    function test_ReleaseDecision_NoQuorum() public {
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-A")));
        _assertDecision(_decide(), Decision.NoQuorum);
    }

    function test_ReleaseDecision_ComposeMismatch() public view {
        _assertDecision(app.releaseDecision(id, "other", "hospital-B", "data-B", runId), Decision.ComposeMismatch);
    }

    function test_ReleaseDecision_NotAnOwner() public {
        _assertDecision(app.releaseDecision(id, t.composeHash, "none", "data-B", runId), Decision.NotAnOwner);
        _approve(dave, t);
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-B")));
        _assertDecision(_decide(), Decision.NotAnOwner);
    }

    /// R1: hospital-D has not approved; the quorum of the others does not matter.
    function test_ReleaseDecision_OwnerNotApproved() public {
        vm.prank(dave.addr);
        app.registerDataset(_dataset("data-D", t));
        _assertDecision(
            app.releaseDecision(id, t.composeHash, "hospital-D", "data-D", runId), Decision.OwnerNotApproved
        );
    }

    function test_ReleaseDecision_DatasetUnknown() public {
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "none", runId), Decision.DatasetUnknown);
        vm.prank(carol.addr);
        app.registerDataset(_dataset("data-C", t));
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "data-C", runId), Decision.DatasetUnknown);
        DatasetInfo memory other = _dataset("other", t);
        other.composeHash = "other";
        vm.prank(bob.addr);
        app.registerDataset(other);
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "other", runId), Decision.DatasetUnknown);
        // The empty dataset is nobody's, the first owner's included.
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-A", 0, runId), Decision.DatasetUnknown);
    }

    function test_ReleaseDecision_DatasetSuperseded() public {
        DatasetInfo memory next = _dataset("data-B2", t);
        next.supersedes = "data-B";
        vm.prank(bob.addr);
        app.registerDataset(next);
        _assertDecision(_decide(), Decision.DatasetSuperseded);
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "data-B2", runId), Decision.Allow);
    }

    function test_ReleaseDecision_RunUnknown() public {
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "data-B", "none"), Decision.RunUnknown);
        Terms memory other = _terms();
        other.composeHash = "other";
        _live(other);
        bytes32 otherRun = _open(other, _request(other, 7));
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "data-B", otherRun), Decision.RunUnknown);
    }

    function test_ReleaseDecision_RunClosed() public {
        _post(_receipt(runId), _certificate(t));
        _assertDecision(_decide(), Decision.RunClosed);
    }

    function test_ReleaseDecision_OwnerNotInRun() public {
        vm.prank(alice.addr);
        app.registerDataset(_dataset("data-A", t));
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-A", "data-A", runId), Decision.OwnerNotInRun);
    }

    /// Two reasons at once: the smaller number is told.
    function test_ReleaseDecision_TheFirstReasonWins() public {
        bytes32[5] memory wrong = [bytes32("none"), "none", "none", "none", "none"];
        _assertDecision(app.releaseDecision(wrong[0], wrong[1], wrong[2], wrong[3], wrong[4]), Decision.ProposalUnknown);
        _assertDecision(app.releaseDecision(id, wrong[1], wrong[2], wrong[3], wrong[4]), Decision.ComposeMismatch);
        _assertDecision(app.releaseDecision(id, t.composeHash, wrong[2], wrong[3], wrong[4]), Decision.NotAnOwner);
        _assertDecision(
            app.releaseDecision(id, t.composeHash, "hospital-D", wrong[3], wrong[4]), Decision.OwnerNotApproved
        );
        _assertDecision(
            app.releaseDecision(id, t.composeHash, "hospital-A", wrong[3], wrong[4]), Decision.DatasetUnknown
        );
        _assertDecision(app.releaseDecision(id, t.composeHash, "hospital-B", "data-B", wrong[4]), Decision.RunUnknown);

        vm.prank(dave.addr);
        app.revokeAll();
        vm.warp(t.expiry);
        _assertDecision(_decide(), Decision.EraEnded);
        vm.prank(dave.addr);
        app.revoke(id);
        _assertDecision(_decide(), Decision.ProposalRevoked);
    }

    function testFuzz_ReleaseDecision_NeverRevertsNorAllowsAnythingElse(
        bytes32 proposalId,
        bytes32 composeHash,
        bytes32 ownerId,
        bytes32 datasetId,
        bytes32 run,
        uint8 right
    ) public view {
        if (right & 1 != 0) proposalId = id;
        if (right & 2 != 0) composeHash = t.composeHash;
        if (right & 4 != 0) ownerId = "hospital-B";
        if (right & 8 != 0) datasetId = "data-B";
        if (right & 16 != 0) run = runId;
        bool all = right & 31 == 31;
        Decision decision = app.releaseDecision(proposalId, composeHash, ownerId, datasetId, run);
        assertEq(decision == Decision.Allow, all);
    }
}
