// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Vm} from "forge-std/Vm.sol";

import {IApp} from "../utils/IApp.sol";
import {
    AgentCertificate,
    DatasetInfo,
    Decision,
    IDstackApp,
    OwnerInfo,
    Receipt as RunReceipt,
    RunRequest,
    SignedApproval,
    Terms
} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";
import {Shadow} from "./Shadow.sol";

/// @title Random histories of one app. Every call may fail as far as the app is concerned; none may break a rule.
/// @notice Six institutions, eight accounts, two compose hashes with three rounds each, in the current era.
contract Handler is BaseTest {
    Shadow public shadow = new Shadow();
    uint256 private constant ACCOUNTS = 8;
    uint256 private constant INSTITUTIONS = 6;
    uint64 private constant PER_RUN = 5;
    uint64 private constant BUDGET = 12;
    uint64 private constant CAP = 60;

    /// Proposals that were seen revoked, superseded, expired or of an ended era (invariant 3).
    mapping(bytes32 id => bool) private over;
    mapping(bytes32 id => bool) private wasLive;
    uint256 private nonce;
    /// How often the calls that matter went through.
    uint256 public activations;
    uint256 public runsOpened;
    uint256 public receipts;
    uint256 public governed;

    constructor() {
        vm.warp(START);
        vm.recordLogs();
        OwnerInfo[] memory founders = new OwnerInfo[](4);
        for (uint256 i = 0; i < 4; ++i) {
            founders[i] = _info(i, _account(i).addr);
        }
        app = _deploy(founders, 2);
        shadow.replay(vm.getRecordedLogs(), address(app));
    }

    function setUp() public override {}

    function theApp() external view returns (IApp) {
        return app;
    }

    // ---- actors and data ----------------------------------------------------------------------------------------

    function _account(uint256 seed) private pure returns (Actor memory) {
        uint256 key = 1000 + seed % ACCOUNTS;
        return Actor(vm.addr(key), key);
    }

    function _info(uint256 seed, address account) private pure returns (OwnerInfo memory) {
        bytes32 ownerId = bytes32("hospital-") | bytes32((0x41 + seed % INSTITUTIONS) << 176);
        return OwnerInfo(ownerId, account, address(0), "CH", 0, CAP, CAP);
    }

    function institution(uint256 i) external pure returns (bytes32) {
        return _info(i, address(0)).ownerId;
    }

    function composeHash(uint256 i) public pure returns (bytes32) {
        return keccak256(abi.encode("compose", i % 2));
    }

    function _pick(uint256 seed) private view returns (Terms memory t) {
        t = _terms();
        t.composeHash = composeHash(seed);
        t.round = uint32(seed / 2 % 3);
        t.epsilonPerRun = PER_RUN;
        t.epsilonBudget = BUDGET;
        t.deltaPerRun = 1;
        t.deltaBudget = 10;
        t.expiry = uint64(block.timestamp / 10 days + 1 + seed / 6 % 2) * 10 days;
    }

    /// A proposal that somebody has approved, if there is one.
    function _known(uint256 seed) private view returns (Terms memory) {
        (, uint256 count,,) = shadow.sizes();
        if (count == 0) return _pick(seed);
        Terms memory t = shadow.terms(shadow.proposalIds(seed % count));
        return t.composeHash == 0 ? _pick(seed) : t;
    }

    /// A live proposal, if there is one.
    function _someLive(uint256 seed) private view returns (Terms memory) {
        (, uint256 count,,) = shadow.sizes();
        for (uint256 i = 0; i < count; ++i) {
            bytes32 id = shadow.proposalIds((seed % count + i) % count);
            if (wasLive[id]) return shadow.terms(id);
        }
        return _known(seed);
    }

    // ---- steps --------------------------------------------------------------------------------------------------

    function approve(uint256 who, uint256 which, bool known) external {
        Terms memory t = known ? _known(which) : _pick(which);
        _call(_account(who).addr, abi.encodeCall(app.approve, (t)), true);
    }

    function approveBySig(uint256 who, uint256 which) external {
        Terms memory t = _pick(which);
        SignedApproval[] memory list = new SignedApproval[](2);
        for (uint256 i = 0; i < 2; ++i) {
            Actor memory signer = _account(i == 0 ? who : who / ACCOUNTS);
            bytes32 structHash = TypedDataTwin.approve(signer.addr, t, type(uint64).max);
            list[i] = SignedApproval(signer.addr, type(uint64).max, _sign(signer, structHash));
        }
        _call(relayer, abi.encodeCall(app.approveBySig, (t, list)), true);
    }

    /// A whole quorum at once, for depth.
    function approveByAll(uint256 which) public {
        Terms memory t = _pick(which);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            _call(_account(i).addr, abi.encodeCall(app.approve, (t)), true);
        }
    }

    function revoke(uint256 who, uint256 which, uint256 rare) external {
        if (rare % 4 != 0) return;
        bytes32 id = _id(which % 2 == 0 ? _pick(which) : _known(which));
        _call(_account(who).addr, abi.encodeCall(app.revoke, (id)), false);
    }

    function revokeAll(uint256 who, uint256 rare) external {
        if (rare % 16 != 0) return;
        _call(_account(who).addr, abi.encodeCall(app.revokeAll, ()), false);
    }

    function rotate(uint256 who, uint256 to, uint256 institutionSeed) external {
        bytes32 ownerId = _info(institutionSeed, address(0)).ownerId;
        _call(_account(who).addr, abi.encodeCall(app.startRotation, (_account(to).addr)), false);
        _call(_account(to).addr, abi.encodeCall(app.acceptRotation, (ownerId)), false);
    }

    function setRevoker(uint256 who, uint256 revoker) external {
        address key = revoker % 3 == 0 ? address(0) : address(uint160(revoker % 5 + 1));
        _call(_account(who).addr, abi.encodeCall(app.setRevoker, (key)), false);
    }

    function revokeByKey(uint256 revoker, uint256 which, uint256 rare) external {
        if (rare % 4 != 0) return;
        _call(address(uint160(revoker % 5 + 1)), abi.encodeCall(app.revoke, (_id(_pick(which)))), false);
    }

    function setOwnerCap(uint256 who, uint64 epsilon, uint64 delta) external {
        _call(_account(who).addr, abi.encodeCall(app.setOwnerCap, (epsilon % (2 * CAP), delta % (2 * CAP))), false);
    }

    function reclaim(uint256 who, uint256 which) external {
        _call(_account(who).addr, abi.encodeCall(app.reclaim, (_known(which))), false);
    }

    function registerDataset(uint256 who, uint256 which, bool supersede) public {
        DatasetInfo memory info = _dataset(bytes32(++nonce), _pick(which));
        (,,, uint256 count) = shadow.sizes();
        if (supersede && count != 0) info.supersedes = shadow.datasetIds(which % count);
        _call(_account(who).addr, abi.encodeCall(app.registerDataset, (info)), false);
    }

    /// Approvals, dataset and run in a row, for depth.
    function study(uint256 who, uint256 which) external {
        approveByAll(which);
        registerDataset(who, which, false);
        openRun(which | 1, 0);
        openRun(which | 1, 0);
    }

    function openRun(uint256 which, uint128 participants) public {
        Terms memory t = which % 8 == 0 ? _known(which) : _someLive(which);
        Shadow.Proposal memory p = shadow.proposalAt(_id(t));
        // Mostly owners that approved, so that runs do open.
        if (which % 4 != 0) participants = p.approvals & shadow.activeOwners();
        RunRequest memory request =
            RunRequest(_id(t), participants, analyst.addr, bytes32(++nonce % 40), type(uint64).max);
        bytes memory signature = _sign(analyst, TypedDataTwin.runRequest(request));
        if (!_call(relayer, abi.encodeCall(app.openRun, (t, request, signature)), false)) return;
        requestOf[TypedDataTwin.runRequest(request)] = request;
        ++runsOpened;
    }

    function postReceipt(uint256 which, uint256 story) external {
        (,, uint256 count,) = shadow.sizes();
        if (count == 0) return;
        bytes32 runId = shadow.runIds(which % count);
        RunReceipt memory receipt = _receipt(runId);
        receipt.epsilon = PER_RUN;
        receipt.delta = 1;
        receipt.producedAt = 0;
        receipt.outputHash = bytes32(story % 3);
        Terms memory t = shadow.terms(shadow.runAt(runId).proposalId);
        AgentCertificate memory certificate = AgentCertificate(agent.addr, t.composeHash, type(uint64).max);
        bytes memory signature = _sign(agent, TypedDataTwin.receipt(receipt));
        bytes memory kmsSignature = _sign(kmsRoot, TypedDataTwin.certificate(certificate));
        bytes memory data =
            abi.encodeCall(app.postReceipt, (t, requestOf[runId], receipt, signature, certificate, kmsSignature));
        if (_call(relayer, data, false)) ++receipts;
    }

    function revokeAgent(uint256 who, uint256 other) external {
        _call(_account(who).addr, abi.encodeCall(app.revokeAgent, (address(uint160(other % 4 + 1)))), false);
    }

    /// One vote or veto on a governance action, or an attempt to execute it.
    function act(uint256 who, uint256 kind, uint256 seed, uint256 step) external {
        bytes memory data = _data(kind, seed);
        bytes32 salt = bytes32(seed % 3);
        (,,,, uint64 version,) = app.config();
        bytes32 actionId = TypedDataTwin.action(data, salt, version);
        bytes memory call = abi.encodeCall(app.approveAction, (data, salt));
        if (step % 8 == 0) call = abi.encodeCall(app.vetoAction, (actionId));
        if (step % 8 > 5) call = abi.encodeCall(app.executeAction, (data, salt));
        _call(_account(who).addr, call, false);
    }

    /// A governance action taken through, for depth.
    function govern(uint256 kind, uint256 seed) external {
        bytes memory data = _data(kind, seed);
        bytes32 salt = bytes32(++nonce);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            _call(_account(i).addr, abi.encodeCall(app.approveAction, (data, salt)), false);
        }
        skip(DELAY + 10);
        if (_call(relayer, abi.encodeCall(app.executeAction, (data, salt)), false)) ++governed;
    }

    function removeComposeHash(uint256 who, uint256 which, uint256 rare) external {
        if (rare % 8 != 0) return;
        _call(_account(who).addr, abi.encodeCall(app.removeComposeHash, (composeHash(which))), false);
    }

    function wait_(uint256 time) external {
        skip(time % 4 days);
        _observe(false);
    }

    /// The recorder also keeps the events of calls that were undone, so only those of a success are replayed.
    function _call(address sender, bytes memory data, bool approving) private returns (bool ok) {
        vm.prank(sender);
        (ok,) = address(app).call(data);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (ok) shadow.replay(logs, address(app));
        _observe(approving);
    }

    function _data(uint256 kind, uint256 seed) private view returns (bytes memory) {
        kind %= 12;
        if (kind < 2) return abi.encodeCall(IDstackApp.addOwner, (_info(seed, _account(seed / 8).addr)));
        if (kind < 4) return abi.encodeCall(IDstackApp.removeOwner, (_info(seed, address(0)).ownerId));
        if (kind < 6) return abi.encodeCall(IDstackApp.setThreshold, (uint8(seed % 5)));
        if (kind == 6) return abi.encodeCall(IDstackApp.setAnalyst, (stranger.addr, seed % 2 == 0));
        if (kind == 7) return abi.encodeCall(IDstackApp.setGovernanceDelay, (DELAY + uint64(seed % 10) - 3));
        if (kind == 8) return abi.encodeCall(IDstackApp.addComposeHash, (composeHash(seed)));
        if (kind == 9) return abi.encodeCall(IDstackApp.addDevice, (bytes32(seed % 3)));
        if (kind == 10) return abi.encodeCall(IDstackApp.setAllowAnyDevice, (seed % 2 == 0));
        return abi.encodeCall(IDstackApp.setRequireTcbUpToDate, (seed % 2 == 0));
    }

    // ---- after each step ----------------------------------------------------------------------------------------

    /// What must hold between two moments (invariants 3 and 4).
    function _observe(bool approving) private {
        (, uint256 count,,) = shadow.sizes();
        for (uint256 i = 0; i < count; ++i) {
            bytes32 id = shadow.proposalIds(i);
            Decision decision = app.proposalDecision(id);
            bool live = decision == Decision.Allow;
            assertFalse(live && over[id], "3: what was over came back");
            assertFalse(live && !wasLive[id] && !approving, "4: something else than an approval made it live");
            if (live && !wasLive[id]) ++activations;
            wasLive[id] = live;
            if (!live && decision != Decision.NoQuorum && decision != Decision.ProposalUnknown) over[id] = true;
        }
    }
}
