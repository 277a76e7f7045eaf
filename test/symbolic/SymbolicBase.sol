// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {DstackApp} from "../../contracts/DstackApp.sol";
import {DatasetInfo, Decision, IDstackApp, OwnerInfo, RunRequest, Terms} from "../../contracts/IDstackApp.sol";

/// @title The state from which one call is proved for all its inputs and callers.
/// @notice Three owners of which two make a quorum; hospital-A has a revocation key and a dataset; A and B have approved
/// the terms, C has not; a run with A and B is open.
abstract contract SymbolicBase is Test {
    uint64 internal constant START = 1_800_000_000;
    uint64 internal constant EXPIRY = START + 30 days;
    uint256 internal constant ANALYST_KEY = 0xa11a;

    address internal constant ALICE = address(0xa1);
    address internal constant BOB = address(0xb0);
    address internal constant CAROL = address(0xca);
    address internal constant GUARD = address(0x9a);
    bytes32 internal constant DATASET = "dataset of hospital-A";

    DstackApp internal app;
    bytes32 internal id;
    bytes32 internal runId;
    address internal kmsRoot = address(0x4005);

    function setUp() public virtual {
        vm.warp(START);
        OwnerInfo[] memory founders = new OwnerInfo[](3);
        founders[0] = OwnerInfo("hospital-A", ALICE, GUARD, "US", 1, type(uint64).max, type(uint64).max);
        founders[1] = OwnerInfo("hospital-B", BOB, address(0), "HU", 2, type(uint64).max, type(uint64).max);
        founders[2] = OwnerInfo("hospital-C", CAROL, address(0), "CH", 0, type(uint64).max, type(uint64).max);
        address[] memory analysts = new address[](1);
        analysts[0] = vm.addr(ANALYST_KEY);
        app = new DstackApp("cardio", "health", founders, 2, kmsRoot, analysts, 1 hours);

        Terms memory t = _terms();
        vm.prank(ALICE);
        app.approve(t);
        vm.prank(BOB);
        id = app.approve(t);
        DatasetInfo memory d;
        d.datasetId = DATASET;
        d.composeHash = t.composeHash;
        vm.prank(ALICE);
        app.registerDataset(d);

        RunRequest memory request = _request();
        runId = app.openRun(t, request, _signed(ANALYST_KEY, app.hashRunRequest(request)));
    }

    function _request() internal view returns (RunRequest memory) {
        return RunRequest(id, 3, vm.addr(ANALYST_KEY), "nonce", EXPIRY);
    }

    function _terms() internal pure returns (Terms memory t) {
        t.composeHash = "compose";
        t.recipeHash = "recipe";
        t.outputSchemaHash = "schema";
        t.epsilonPerRun = 1;
        t.epsilonBudget = 3;
        t.expiry = EXPIRY;
    }

    function _signed(uint256 key, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, _digest(structHash));
        return abi.encodePacked(r, s, v);
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("DstackApp"),
                keccak256("1"),
                block.chainid,
                address(app)
            )
        );
        return keccak256(bytes.concat(hex"1901", separator, structHash));
    }

    function _release() internal view returns (Decision) {
        return app.releaseDecision(id, "compose", "hospital-A", DATASET, runId);
    }

    function _approvals(bytes32 proposalId) internal view returns (uint128 approvals) {
        (approvals,,,,,,) = app.proposal(proposalId);
    }

    function _isNobody(address caller) internal view returns (bool) {
        return caller != ALICE && caller != BOB && caller != CAROL && caller != GUARD && caller != address(app);
    }

    /// Any entry point that writes and takes no signature, with any words as arguments: `which` chooses it. Functions of
    /// fewer words ignore the rest; those of dynamic length are given their shape.
    function _callAny(uint8 which, address caller, bytes32[7] memory w) internal {
        bytes memory data = "";
        for (uint8 i = 0; i < 22; ++i) {
            if (which == i) data = abi.encodePacked(_fixedSize(i), w);
        }
        if (which == 22) data = abi.encodeCall(IDstackApp.reclaim, (_terms()));
        if (which == 23) data = abi.encodeCall(IDstackApp.approve, (_anyTerms(w)));
        if (which == 24) data = abi.encodeCall(IDstackApp.approve, (_terms()));
        if (which == 25) data = abi.encodeCall(IDstackApp.reject, (w[0], "no"));
        if (which == 26) data = abi.encodeCall(IDstackApp.approveAction, (_removal(w), w[2]));
        if (which == 27) data = abi.encodeCall(IDstackApp.executeAction, (_removal(w), w[2]));
        vm.assume(data.length != 0);
        vm.prank(caller);
        (bool ok,) = address(app).call(data);
        ok;
    }

    function _fixedSize(uint8 i) private pure returns (bytes4) {
        bytes4[22] memory selectors = [
            IDstackApp.revoke.selector,
            IDstackApp.revokeAll.selector,
            IDstackApp.startRotation.selector,
            IDstackApp.acceptRotation.selector,
            IDstackApp.setRevoker.selector,
            IDstackApp.setOwnerCap.selector,
            IDstackApp.registerDataset.selector,
            IDstackApp.revokeAgent.selector,
            IDstackApp.vetoAction.selector,
            IDstackApp.addOwner.selector,
            IDstackApp.removeOwner.selector,
            IDstackApp.setThreshold.selector,
            IDstackApp.setAnalyst.selector,
            IDstackApp.setKmsRoot.selector,
            IDstackApp.setGovernanceDelay.selector,
            IDstackApp.announceSuccessor.selector,
            IDstackApp.addComposeHash.selector,
            IDstackApp.removeComposeHash.selector,
            IDstackApp.addDevice.selector,
            IDstackApp.removeDevice.selector,
            IDstackApp.setAllowAnyDevice.selector,
            IDstackApp.setRequireTcbUpToDate.selector
        ];
        return selectors[i];
    }

    function _anyTerms(bytes32[7] memory w) private pure returns (Terms memory t) {
        t.composeHash = w[0];
        t.recipeHash = w[1];
        t.outputSchemaHash = w[2];
        t.epsilonPerRun = uint64(uint256(w[3]));
        t.epsilonBudget = uint64(uint256(w[4]));
        t.expiry = uint64(uint256(w[5]));
        t.devices = w[6];
        t.systems = w[6];
    }

    function _removal(bytes32[7] memory w) private pure returns (bytes memory) {
        return abi.encodeCall(IDstackApp.removeOwner, (w[0]));
    }
}
