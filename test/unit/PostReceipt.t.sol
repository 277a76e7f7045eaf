// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    AgentCertificate,
    Decision,
    IDstackApp,
    Receipt as RunReceipt,
    RunRequest,
    Terms
} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

/// R5: only for an open run, once, by a key that the KMS root certified for this app and compose hash.
contract PostReceiptTest is BaseTest {
    Terms private t;
    bytes32 private id;
    bytes32 private runId;

    function setUp() public override {
        super.setUp();
        t = _terms();
        id = _live(t);
        runId = _open(t, _request(t, 7));
    }

    function _postSigned(
        RunReceipt memory receipt,
        Actor memory signer,
        AgentCertificate memory certificate,
        Actor memory root
    ) private {
        bytes memory signature = _sign(signer, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(root, TypedDataTwin.certificate(certificate));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    function _expectPostRevert(RunReceipt memory receipt, AgentCertificate memory certificate, bytes memory reason)
        private
    {
        bytes memory signature = _sign(agent, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        vm.expectRevert(reason);
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    function _refused() private view returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_CertificateRefused.selector, agent.addr);
    }

    function test_PostReceipt_RevertWhen_NoSuchRun() public {
        _expectPostRevert(
            _receipt("run"),
            _certificate(t),
            abi.encodeWithSelector(IDstackApp.DstackApp_RunUnknown.selector, bytes32("run"))
        );
    }

    function test_PostReceipt_RevertWhen_TheRunWasNotOpened() public {
        RunRequest memory request = _request(t, 7);
        request.nonce = "never opened";
        bytes32 never = TypedDataTwin.runRequest(request);
        (termsOf[never], requestOf[never]) = (t, request);
        _expectPostRevert(
            _receipt(never), _certificate(t), abi.encodeWithSelector(IDstackApp.DstackApp_RunUnknown.selector, never)
        );
    }

    /// The request and the terms beside the receipt are those of the run, whatever anybody would rather say.
    function test_PostReceipt_RevertWhen_RequestOrTermsAreOthers() public {
        bytes memory unknown = abi.encodeWithSelector(IDstackApp.DstackApp_RunUnknown.selector, runId);
        requestOf[runId].participants = 3;
        _expectPostRevert(_receipt(runId), _certificate(t), unknown);
        requestOf[runId] = _request(t, 7);
        termsOf[runId].epsilonPerRun = 1;
        _expectPostRevert(_receipt(runId), _certificate(t), unknown);
        termsOf[runId] = t;
        _post(_receipt(runId), _certificate(t));
    }

    /// R3: a removed owner's approval stops counting at once, also for a run whose keys are out.
    function test_PostReceipt_RevertWhen_AParticipantWasRemoved() public {
        _approve(dave, t);
        RunRequest memory request = _request(t, 8);
        request.nonce = "with dave";
        bytes32 withDave = _open(t, request);
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-D")));
        _expectPostRevert(
            _receipt(withDave),
            _certificate(t),
            abi.encodeWithSelector(IDstackApp.DstackApp_OwnerNotApproved.selector, id, 3)
        );
    }

    function test_PostReceipt_RevertWhen_CertificateHasEnded() public {
        AgentCertificate memory certificate = _certificate(t);
        RunReceipt memory receipt = _receipt(runId);
        vm.warp(certificate.notAfter);
        _expectPostRevert(receipt, certificate, _refused());
        vm.warp(certificate.notAfter - 1);
        _post(receipt, certificate);
    }

    function test_PostReceipt_RevertWhen_AgentIsRevoked() public {
        vm.prank(dave.addr);
        app.revokeAgent(agent.addr);
        _expectPostRevert(_receipt(runId), _certificate(t), _refused());
    }

    function test_PostReceipt_RevertWhen_CertifiedByAnother() public {
        RunReceipt memory receipt = _receipt(runId);
        AgentCertificate memory certificate = _certificate(t);
        bytes memory signature = _sign(agent, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(alice, TypedDataTwin.certificate(certificate));
        vm.expectRevert(_badSignature(kmsRoot.addr));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    /// A certificate made longer, or made out to another key, is another certificate.
    function test_PostReceipt_RevertWhen_CertificateIsAltered() public {
        RunReceipt memory receipt = _receipt(runId);
        AgentCertificate memory certificate = _certificate(t);
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        bytes memory signature = _sign(stranger, TypedDataTwin.receipt(receipt));
        certificate.agent = stranger.addr;
        vm.expectRevert(_badSignature(kmsRoot.addr));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
        certificate.agent = agent.addr;
        certificate.notAfter += 1;
        signature = _sign(agent, TypedDataTwin.receipt(receipt));
        vm.expectRevert(_badSignature(kmsRoot.addr));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    function test_PostReceipt_RevertWhen_RootWasReplaced() public {
        _govern(abi.encodeCall(IDstackApp.setKmsRoot, (stranger.addr)));
        _expectPostRevert(_receipt(runId), _certificate(t), _badSignature(stranger.addr));
        _postSigned(_receipt(runId), agent, _certificate(t), stranger);
    }

    function test_PostReceipt_RevertWhen_SignedByAnother() public {
        RunReceipt memory receipt = _receipt(runId);
        AgentCertificate memory certificate = _certificate(t);
        bytes memory signature = _sign(stranger, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        vm.expectRevert(_badSignature(agent.addr));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    function test_PostReceipt_RevertWhen_AnyFieldIsAltered() public {
        AgentCertificate memory certificate = _certificate(t);
        bytes memory signature = _sign(agent, TypedDataTwin.receipt(_receipt(runId)));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        for (uint256 field = 0; field < 7; ++field) {
            RunReceipt memory receipt = _receipt(runId);
            if (field == 0) receipt.outputHash ^= bytes32(uint256(1));
            else if (field == 1) receipt.inputsHash ^= bytes32(uint256(1));
            else if (field == 2) receipt.evidenceHash ^= bytes32(uint256(1));
            else if (field == 3) receipt.epsilon ^= 1;
            else if (field == 4) receipt.delta ^= 1;
            else if (field == 5) receipt.privacyProof ^= 1;
            else receipt.producedAt ^= 1;
            vm.expectRevert(_badSignature(agent.addr));
            app.postReceipt(
                termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature
            );
        }
    }

    function test_PostReceipt_RevertWhen_ThePostedOneComesAgain() public {
        _post(_receipt(runId), _certificate(t));
        _expectPostRevert(
            _receipt(runId), _certificate(t), abi.encodeWithSelector(IDstackApp.DstackApp_ReceiptExists.selector, runId)
        );
    }

    /// Evidence of two stories is recorded even when the proposal is long dead, and the first one stays.
    function test_PostReceipt_RecordsEquivocation() public {
        RunReceipt memory receipt = _receipt(runId);
        bytes32 first = TypedDataTwin.digest(address(app), block.chainid, TypedDataTwin.receipt(receipt));
        _post(receipt, _certificate(t));
        vm.prank(dave.addr);
        app.revoke(id);
        receipt.outputHash = keccak256("another story");
        bytes32 second = TypedDataTwin.digest(address(app), block.chainid, TypedDataTwin.receipt(receipt));
        vm.expectEmit();
        emit IDstackApp.ReceiptEquivocation(runId, agent.addr, first, second);
        _post(receipt, _certificate(t));
        (bytes32 proposalId,,, bytes32 digest) = app.run(runId);
        assertEq(proposalId, 0);
        assertEq(digest, first);
    }

    function test_PostReceipt_RevertWhen_EquivocationIsNotByACertifiedKey() public {
        _post(_receipt(runId), _certificate(t));
        RunReceipt memory receipt = _receipt(runId);
        receipt.outputHash = 0;
        AgentCertificate memory certificate = _certificate(t);
        bytes memory signature = _sign(stranger, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        vm.expectRevert(_badSignature(agent.addr));
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    /// A second story counts only by code of the run's own recipe, also when another proposal is the current one by now.
    function test_PostReceipt_RevertWhen_EquivocationIsByOtherCode() public {
        _post(_receipt(runId), _certificate(t));
        Terms memory other = _terms();
        other.composeHash = keccak256("other compose");
        _live(other);
        RunReceipt memory receipt = _receipt(runId);
        receipt.outputHash = keccak256("another story");
        _expectPostRevert(receipt, _certificate(other), _refused());
        Terms memory next = _terms();
        next.round = 1;
        _live(next);
        bytes32 first = TypedDataTwin.digest(address(app), block.chainid, TypedDataTwin.receipt(_receipt(runId)));
        bytes32 second = TypedDataTwin.digest(address(app), block.chainid, TypedDataTwin.receipt(receipt));
        vm.expectEmit();
        emit IDstackApp.ReceiptEquivocation(runId, agent.addr, first, second);
        _post(receipt, _certificate(t));
    }

    /// R2: what was revoked before its receipt yields nothing.
    function test_PostReceipt_RevertWhen_ProposalIsNotLive() public {
        uint256 snapshot = vm.snapshotState();
        vm.prank(dave.addr);
        app.revoke(id);
        _expectPostRevert(_receipt(runId), _certificate(t), _notLive(id, Decision.ProposalRevoked));
        vm.revertToState(snapshot);
        vm.prank(dave.addr);
        app.revokeAll();
        _expectPostRevert(_receipt(runId), _certificate(t), _notLive(id, Decision.EraEnded));
        vm.revertToState(snapshot);
        Terms memory next = _terms();
        next.round = 1;
        _live(next);
        _expectPostRevert(_receipt(runId), _certificate(t), _notLive(id, Decision.ProposalSuperseded));
        vm.revertToState(snapshot);
        vm.warp(t.expiry);
        AgentCertificate memory certificate = _certificate(t);
        certificate.notAfter = t.expiry + 1;
        _expectPostRevert(_receipt(runId), certificate, _notLive(id, Decision.ProposalExpired));
    }

    /// Code of this app's other recipe is certified too, but not for this run.
    function test_PostReceipt_RevertWhen_CertificateIsForAnotherComposeHash() public {
        Terms memory other = _terms();
        other.composeHash = keccak256("other compose");
        _live(other);
        _expectPostRevert(_receipt(runId), _certificate(other), _refused());
        other.composeHash = keccak256("never approved");
        _expectPostRevert(_receipt(runId), _certificate(other), _refused());
    }

    function test_PostReceipt_RevertWhen_LossDiffersFromTheDebit() public {
        RunReceipt memory receipt = _receipt(runId);
        receipt.epsilon = EPSILON - 1;
        bytes4 mismatch = IDstackApp.DstackApp_LossMismatch.selector;
        _expectPostRevert(receipt, _certificate(t), abi.encodeWithSelector(mismatch, EPSILON - 1, EPSILON));
        receipt.epsilon = EPSILON;
        receipt.delta = DELTA + 1;
        _expectPostRevert(receipt, _certificate(t), abi.encodeWithSelector(mismatch, DELTA + 1, DELTA));
    }

    function testFuzz_PostReceipt_RevertWhen_PrivacyProofIsUndefined(uint8 privacyProof) public {
        RunReceipt memory receipt = _receipt(runId);
        receipt.privacyProof = privacyProof;
        if (privacyProof > 1) _expectPostRevert(receipt, _certificate(t), _invalid("privacyProof"));
        else _post(receipt, _certificate(t));
    }

    function test_PostReceipt_ClosesTheRun() public {
        RunReceipt memory receipt = _receipt(runId);
        assertEq(app.hashReceipt(receipt), TypedDataTwin.receipt(receipt));
        bytes32 digest = TypedDataTwin.digest(address(app), block.chainid, TypedDataTwin.receipt(receipt));
        vm.expectEmit();
        emit IDstackApp.ReceiptPosted(runId, id, agent.addr, receipt, digest);
        _post(receipt, _certificate(t));
        (bytes32 proposalId,, uint64 openedAt, bytes32 stored) = app.run(runId);
        assertEq(proposalId, 0);
        assertEq(openedAt, START);
        assertEq(stored, digest);
    }
}
