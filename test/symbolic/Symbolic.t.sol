// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {
    AgentCertificate,
    Decision,
    IDstackApp,
    OwnerInfo,
    Receipt as RunReceipt,
    SignedApproval,
    Terms
} from "../../contracts/IDstackApp.sol";
import {SymbolicBase} from "./SymbolicBase.sol";

/// @title One step from the state of SymbolicBase, for all inputs and all callers.
/// @notice Run by halmos (`make prove`); each property is listed in test/symbolic/README.md with a mutant that it finds.
contract Symbolic is SymbolicBase {
    // ---- R1 -----------------------------------------------------------------------------------------------------

    /// P1. Only an owner itself approves: no call by anybody else adds to the approvals without its signature.
    function check_R1_OnlyTheOwnerApproves(uint8 which, address caller, bytes32[7] memory w) public {
        vm.assume(caller != CAROL && caller != address(app));
        uint128 before = _approvals(id);
        _callAny(which, caller, w);
        assert(_approvals(id) == before);
    }

    /// P2. A signed approval counts for the listed owner that signed it, in time, and for nobody else.
    function check_R1_SignatureCountsForItsOwner(address owner, bytes32 r, bytes32 s, uint8 v, uint64 deadline) public {
        SignedApproval[] memory approvals = new SignedApproval[](1);
        approvals[0] = SignedApproval(owner, deadline, abi.encodePacked(r, s, v));
        uint128 before = _approvals(id);
        (bool ok,) = address(app).call(abi.encodeCall(IDstackApp.approveBySig, (_terms(), approvals)));
        uint128 added = _approvals(id) & ~before;
        assert(!ok || owner == ALICE || owner == BOB || owner == CAROL);
        if (added == 0) return;
        assert(added == 4 && owner == CAROL && deadline >= block.timestamp);
        assert(ecrecover(_digest(keccak256(abi.encode(_approveType(), owner, id, deadline))), v, r, s) == CAROL);
    }

    // ---- R2 -----------------------------------------------------------------------------------------------------

    /// P3. Any owner and any revocation key stops a proposal alone: no release and no new run afterwards.
    function check_R2_AnyOwnerStops(address caller, bool all) public {
        vm.assume(caller == ALICE || caller == BOB || caller == CAROL || caller == GUARD);
        vm.prank(caller);
        bytes memory call = all ? abi.encodeCall(IDstackApp.revokeAll, ()) : abi.encodeCall(IDstackApp.revoke, (id));
        (bool ok,) = address(app).call(call);
        assert(ok);
        assert(app.proposalDecision(id) != Decision.Allow);
        assert(_release() != Decision.Allow);
        assert(!app.allowedComposeHashes("compose"));
    }

    /// P4. A revocation is final, whatever is called afterwards and by whom, the contract itself included.
    function check_R2_RevocationIsFinal(uint8 which, address caller, bytes32[7] memory w) public {
        vm.prank(CAROL);
        app.revoke(id);
        _callAny(which, caller, w);
        assert(app.proposalDecision(id) == Decision.ProposalRevoked);
        assert(_release() == Decision.ProposalRevoked);
    }

    // ---- R3 -----------------------------------------------------------------------------------------------------

    /// P5. The id binds every field of the terms.
    function check_R3_IdBindsTheTerms(Terms memory a, Terms memory b) public view {
        vm.assume(app.hashTerms(a) == app.hashTerms(b));
        assert(a.composeHash == b.composeHash && a.recipeHash == b.recipeHash);
        assert(a.outputSchemaHash == b.outputSchemaHash);
        assert(a.epsilonPerRun == b.epsilonPerRun && a.deltaPerRun == b.deltaPerRun);
        assert(a.epsilonBudget == b.epsilonBudget && a.deltaBudget == b.deltaBudget);
        assert(a.expiry == b.expiry && a.devices == b.devices && a.systems == b.systems);
        assert(a.era == b.era && a.round == b.round);
    }

    /// P6. Live up to the second before the expiry, never from it on.
    function check_R3_ExpiryIsExact(uint64 time) public {
        vm.warp(time);
        assert((app.proposalDecision(id) == Decision.Allow) == (time < EXPIRY));
    }

    /// P7. A removed owner's approval stops counting, and its return under any account does not revive it.
    function check_R3_RemovedOwnerDoesNotCount(bool first, address returned, address revoker) public {
        bytes32 ownerId = first ? bytes32("hospital-A") : bytes32("hospital-B");
        vm.prank(address(app));
        app.removeOwner(ownerId);
        assert(app.proposalDecision(id) == Decision.NoQuorum);
        OwnerInfo memory info = OwnerInfo(ownerId, returned, revoker, "US", 1, 1, 1);
        vm.prank(address(app));
        (bool ok,) = address(app).call(abi.encodeCall(IDstackApp.addOwner, (info)));
        ok;
        assert(app.proposalDecision(id) == Decision.NoQuorum);
        assert(_release() != Decision.Allow);
    }

    /// P8. No change of the threshold brings a proposal to life that was short of its quorum.
    function check_R3_ThresholdRevivesNothing(uint8 threshold) public {
        vm.prank(address(app));
        app.setThreshold(3);
        assert(app.proposalDecision(id) == Decision.NoQuorum);
        vm.prank(address(app));
        (bool ok,) = address(app).call(abi.encodeCall(IDstackApp.setThreshold, (threshold)));
        ok;
        assert(app.proposalDecision(id) != Decision.Allow);
        assert(_release() != Decision.Allow);
    }

    // ---- R5 -----------------------------------------------------------------------------------------------------

    /// P9. A run's receipt, once posted, is never replaced, whoever posts what.
    function check_R5_ReceiptIsPostedOnce(RunReceipt memory second, bytes32 r, bytes32 s, uint8 v, uint64 notAfter)
        public
    {
        uint256 rootKey = 0x4007;
        uint256 agentKey = 0xa9e7;
        vm.prank(address(app));
        app.setKmsRoot(vm.addr(rootKey));
        AgentCertificate memory certificate = AgentCertificate(vm.addr(agentKey), "compose", EXPIRY);
        RunReceipt memory receipt;
        receipt.runId = runId;
        receipt.epsilon = 1;
        bytes memory kmsSignature = _signed(rootKey, _hash(certificate));
        bytes memory signature = _signed(agentKey, app.hashReceipt(receipt));
        app.postReceipt(_terms(), _request(), receipt, signature, certificate, kmsSignature);
        (,,, bytes32 digest) = app.run(runId);
        assert(digest != 0);

        second.runId = runId;
        certificate.notAfter = notAfter;
        bytes memory any = abi.encodePacked(r, s, v);
        bytes memory call =
            abi.encodeCall(IDstackApp.postReceipt, (_terms(), _request(), second, any, certificate, any));
        (bool ok,) = address(app).call(call);
        ok;
        (,,, bytes32 after_) = app.run(runId);
        assert(after_ == digest);
    }

    /// P10. No receipt without a signature of the pinned root and one of the certified key.
    function check_R5_ReceiptNeedsBothSignatures(
        RunReceipt memory receipt,
        AgentCertificate memory certificate,
        bytes32[2] memory r,
        bytes32[2] memory s,
        uint8[2] memory v
    ) public {
        receipt.runId = runId;
        bytes memory call = abi.encodeCall(
            IDstackApp.postReceipt,
            (
                _terms(),
                _request(),
                receipt,
                abi.encodePacked(r[0], s[0], v[0]),
                certificate,
                abi.encodePacked(r[1], s[1], v[1])
            )
        );
        (bool ok,) = address(app).call(call);
        if (!ok) return;
        assert(ecrecover(_digest(_hash(certificate)), v[1], r[1], s[1]) == kmsRoot);
        assert(ecrecover(_digest(app.hashReceipt(receipt)), v[0], r[0], s[0]) == certificate.agent);
        assert(certificate.composeHash == "compose" && certificate.notAfter > block.timestamp);
    }

    // ---- R6 -----------------------------------------------------------------------------------------------------

    /// P11. Who is neither owner, revocation key nor the contract itself moves no decision, no owner and no rule.
    function check_R6_OutsidersMoveNothing(uint8 which, address caller, bytes32[7] memory w) public {
        vm.assume(_isNobody(caller));
        bytes32 before = _state();
        _callAny(which, caller, w);
        assert(_release() == Decision.Allow);
        assert(_state() == before);
    }

    /// P12. One owner alone changes neither owners, threshold, root nor analysts: that takes the contract itself.
    function check_R6_OneOwnerChangesNoRule(uint8 which, address caller, bytes32[7] memory w) public {
        vm.assume(caller != address(app));
        bytes32 before = _rules();
        _callAny(which, caller, w);
        assert(_rules() == before);
    }

    // ---- private ------------------------------------------------------------------------------------------------

    function _approveType() private pure returns (bytes32) {
        return keccak256(
            "Approve(address owner,Terms terms,uint64 deadline)Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,uint64 deltaPerRun,uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,uint32 round)"
        );
    }

    function _hash(AgentCertificate memory c) private pure returns (bytes32) {
        bytes32 typeHash = keccak256("AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)");
        return keccak256(abi.encode(typeHash, c.agent, c.composeHash, c.notAfter));
    }

    function _rules() private view returns (bytes32) {
        (uint128 active, uint8 threshold, uint8 count,, uint64 version, uint64 delay) = app.config();
        return keccak256(
            abi.encode(
                active,
                threshold,
                count,
                version,
                delay,
                app.kmsRoot(),
                app.allowAnyDevice(),
                app.requireTcbUpToDate(),
                app.isAnalyst(address(0xbad))
            )
        );
    }

    function _state() private view returns (bytes32) {
        (,,, uint32 era,,) = app.config();
        return keccak256(abi.encode(_rules(), era, _approvals(id), app.allowedDeviceIds("device")));
    }
}
