// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {
    AgentCertificate,
    DatasetInfo,
    Decision,
    IDstackApp,
    OwnerInfo,
    Receipt as RunReceipt,

    // forge-std has a Receipt of its own
    RunRequest,
    SignedApproval,
    Terms
} from "../contracts/IDstackApp.sol";
import {IApp} from "./utils/IApp.sol";
import {TypedDataTwin} from "./utils/TypedDataTwin.sol";

/// @title Named actors and the steps that tests share.
/// @notice Four hospitals of which three make a quorum; hospital-A has a revocation key; governance waits an hour.
abstract contract BaseTest is Test {
    struct Actor {
        address addr;
        uint256 key;
    }

    uint64 internal constant START = 1_800_000_000;
    uint64 internal constant DELAY = 1 hours;
    uint64 internal constant EPSILON = 1_500_000_000;
    uint64 internal constant DELTA = 1e12;
    uint8 internal constant SELF = 255;

    IApp internal app;
    Actor internal alice = _actor("account of hospital-A");
    Actor internal bob = _actor("account of hospital-B");
    Actor internal carol = _actor("account of hospital-C");
    Actor internal dave = _actor("account of hospital-D");
    Actor internal guard = _actor("revocation key of hospital-A");
    Actor internal analyst = _actor("analyst");
    Actor internal kmsRoot = _actor("KMS root");
    Actor internal agent = _actor("agent in the CVM");
    Actor internal stranger = _actor("stranger");
    /// Sends what anyone may send.
    address internal relayer = makeAddr("relayer");

    /// What each run of this test was opened with.
    mapping(bytes32 runId => Terms) internal termsOf;
    mapping(bytes32 runId => RunRequest) internal requestOf;

    function setUp() public virtual {
        vm.warp(START);
        app = _deploy(_founders(), 3);
    }

    // ---- deployment ---------------------------------------------------------------------------------------------

    function _actor(string memory name) internal returns (Actor memory actor) {
        (actor.addr, actor.key) = makeAddrAndKey(name);
    }

    function _ownerInfo(bytes32 ownerId, address account, address revoker, bytes2 jurisdiction, uint16 grades)
        internal
        pure
        returns (OwnerInfo memory)
    {
        return OwnerInfo(ownerId, account, revoker, jurisdiction, grades, 100 * EPSILON, 100 * DELTA);
    }

    function _founders() internal view returns (OwnerInfo[] memory list) {
        list = new OwnerInfo[](4);
        list[0] = _ownerInfo("hospital-A", alice.addr, guard.addr, "US", 1);
        list[1] = _ownerInfo("hospital-B", bob.addr, address(0), "HU", 2);
        list[2] = _ownerInfo("hospital-C", carol.addr, address(0), "CH", 0);
        list[3] = _ownerInfo("hospital-D", dave.addr, address(0), "US", 1);
    }

    function _analysts() internal view returns (address[] memory list) {
        list = new address[](1);
        list[0] = analyst.addr;
    }

    function _deploy(OwnerInfo[] memory founders, uint8 threshold) internal returns (IApp) {
        return _deployWith(
            abi.encode(bytes32("cardio"), bytes32("health"), founders, threshold, kmsRoot.addr, _analysts(), DELAY)
        );
    }

    /// What `new DstackApp(...)` does, with the code from the build.
    function _deployWith(bytes memory arguments) internal returns (IApp) {
        bytes memory code = bytes.concat(vm.getCode("DstackApp.sol:DstackApp"), arguments);
        address created;
        assembly {
            created := create(0, add(code, 0x20), mload(code))
            if iszero(created) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
        return IApp(created);
    }

    // ---- data ---------------------------------------------------------------------------------------------------

    function _terms() internal view returns (Terms memory t) {
        t.composeHash = sha256("app-compose.json");
        t.recipeHash = sha256("recipe");
        t.outputSchemaHash = sha256("schema");
        t.epsilonPerRun = EPSILON;
        t.deltaPerRun = DELTA;
        t.epsilonBudget = 3 * EPSILON;
        t.deltaBudget = 3 * DELTA;
        t.expiry = START + 30 days;
        t.devices = 0;
        t.systems = 0;
        (,,, t.era,,) = app.config();
        t.round = 0;
    }

    function _id(Terms memory t) internal pure returns (bytes32) {
        return TypedDataTwin.terms(t);
    }

    function _request(Terms memory t, uint128 participants) internal view returns (RunRequest memory) {
        return RunRequest(_id(t), participants, analyst.addr, "nonce", START + 1 days);
    }

    function _certificate(Terms memory t) internal view returns (AgentCertificate memory) {
        return AgentCertificate(agent.addr, t.composeHash, START + 1 days);
    }

    function _receipt(bytes32 runId) internal view returns (RunReceipt memory r) {
        r.runId = runId;
        r.outputHash = sha256("output");
        r.inputsHash = keccak256("inputs");
        r.evidenceHash = sha256("evidence");
        r.epsilon = EPSILON;
        r.delta = DELTA;
        r.privacyProof = 1;
        r.producedAt = uint64(block.timestamp);
    }

    function _dataset(bytes32 datasetId, Terms memory t) internal pure returns (DatasetInfo memory d) {
        d.datasetId = datasetId;
        d.composeHash = t.composeHash;
        d.region = "EU-West";
        d.kind = "EHR";
        d.records = 920;
        d.sizeBytes = 1 << 20;
    }

    // ---- signatures ---------------------------------------------------------------------------------------------

    function _sign(Actor memory signer, bytes32 structHash) internal view returns (bytes memory) {
        bytes32 digest = TypedDataTwin.digest(address(app), block.chainid, structHash);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(signer.key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _approval(Actor memory owner, Terms memory t) internal view returns (SignedApproval memory) {
        uint64 deadline = START + 1 days;
        return SignedApproval(owner.addr, deadline, _sign(owner, TypedDataTwin.approve(owner.addr, t, deadline)));
    }

    function _approvals(Actor memory owner, Terms memory t) internal view returns (SignedApproval[] memory list) {
        list = new SignedApproval[](1);
        list[0] = _approval(owner, t);
    }

    // ---- steps --------------------------------------------------------------------------------------------------

    function _approve(Actor memory owner, Terms memory t) internal returns (bytes32) {
        vm.prank(owner.addr);
        return app.approve(t);
    }

    /// Approved by hospital-A, -B and -C: the quorum without hospital-D.
    function _live(Terms memory t) internal returns (bytes32 proposalId) {
        _approve(alice, t);
        _approve(bob, t);
        proposalId = _approve(carol, t);
    }

    function _open(Terms memory t, RunRequest memory request) internal returns (bytes32) {
        bytes32 runId = TypedDataTwin.runRequest(request);
        (termsOf[runId], requestOf[runId]) = (t, request);
        bytes memory signature = _sign(analyst, runId);
        vm.prank(relayer);
        return app.openRun(t, request, signature);
    }

    function _post(RunReceipt memory receipt, AgentCertificate memory certificate) internal {
        bytes memory signature = _sign(agent, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        vm.prank(relayer);
        app.postReceipt(termsOf[receipt.runId], requestOf[receipt.runId], receipt, signature, certificate, kmsSignature);
    }

    /// Takes a governance action through quorum and delay.
    function _govern(bytes memory data) internal {
        _schedule(data, "salt");
        skip(DELAY);
        app.executeAction(data, "salt");
    }

    function _schedule(bytes memory data, bytes32 salt) internal returns (bytes32 actionId) {
        vm.prank(alice.addr);
        app.approveAction(data, salt);
        vm.prank(bob.addr);
        app.approveAction(data, salt);
        vm.prank(carol.addr);
        actionId = app.approveAction(data, salt);
    }

    function _invalid(string memory field) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_InvalidField.selector, field);
    }

    function _notAnOwner(address caller) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_NotAnOwner.selector, caller);
    }

    function _notLive(bytes32 proposalId, Decision decision) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_ProposalNotLive.selector, proposalId, decision);
    }

    function _notReady(bytes32 actionId) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_ActionNotReady.selector, actionId);
    }

    function _badSignature(address signer) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_BadSignature.selector, signer);
    }

    function _decision(bytes32 proposalId) internal view returns (Decision) {
        return app.proposalDecision(proposalId);
    }

    function _assertDecision(Decision have, Decision want) internal pure {
        assertEq(uint256(have), uint256(want), "decision");
    }
}
