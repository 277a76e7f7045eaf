// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {IApp} from "../utils/IApp.sol";
import {AgentCertificate, OwnerInfo, Receipt as RunReceipt, RunRequest, Terms} from "../../contracts/IDstackApp.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";

/// The library's functions by themselves, to be placed at the address of the vectors' domain.
contract TypedDataHarness {
    using TypedData for *;

    function terms(Terms calldata t) external pure returns (bytes32) {
        return t.hash();
    }

    function approve(address owner, Terms calldata t, uint64 deadline) external pure returns (bytes32) {
        return TypedData.hashApprove(owner, t.hash(), deadline);
    }

    function revoke(address owner, bytes32 id, uint64 deadline) external pure returns (bytes32) {
        return TypedData.hashRevoke(owner, id, deadline);
    }

    function revokeAll(address owner, uint32 era, uint64 deadline) external pure returns (bytes32) {
        return TypedData.hashRevokeAll(owner, era, deadline);
    }

    function runRequest(RunRequest calldata r) external pure returns (bytes32) {
        return r.hash();
    }

    function certificate(AgentCertificate calldata c) external pure returns (bytes32) {
        return c.hash();
    }

    function receipt(RunReceipt calldata r) external pure returns (bytes32) {
        return r.hash();
    }

    function action(bytes calldata data, bytes32 salt, uint64 version) external pure returns (bytes32) {
        return TypedData.hashAction(data, salt, version);
    }

    function approveAction(address owner, bytes calldata data, bytes32 salt, uint64 version, uint64 deadline)
        external
        pure
        returns (bytes32)
    {
        return TypedData.hashApproveAction(owner, data, salt, version, deadline);
    }

    function requireSignature(address signer, bytes32 structHash, bytes calldata signature)
        external
        view
        returns (bytes32)
    {
        return TypedData.requireSignature(signer, structHash, signature);
    }
}

/// The type hashes against the type strings, and the vectors that other languages run too.
contract Eip712Test is BaseTest {
    TypedDataHarness private harness;
    string private json;

    function setUp() public override {
        super.setUp();
        harness = TypedDataHarness(0x5FbDB2315678afecb367f032d93F642f64180aa3);
        vm.etch(address(harness), address(new TypedDataHarness()).code);
    }

    function test_TypeHashesAreThoseOfTheTypeStrings() public pure {
        assertEq(TypedData.DOMAIN_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.DOMAIN));
        assertEq(TypedData.TERMS_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.TERMS));
        assertEq(
            TypedData.APPROVE_TYPEHASH,
            TypedDataTwin.typeHash(string.concat(TypedDataTwin.APPROVE, TypedDataTwin.TERMS))
        );
        assertEq(TypedData.REVOKE_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.REVOKE));
        assertEq(TypedData.REVOKE_ALL_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.REVOKE_ALL));
        assertEq(TypedData.RUN_REQUEST_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.RUN_REQUEST));
        assertEq(TypedData.CERTIFICATE_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.CERTIFICATE));
        assertEq(TypedData.RECEIPT_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.RECEIPT));
        assertEq(TypedData.ACTION_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.ACTION));
        assertEq(TypedData.APPROVE_ACTION_TYPEHASH, TypedDataTwin.typeHash(TypedDataTwin.APPROVE_ACTION));
    }

    /// ERC-5267 tells wallets the domain that signatures are checked against.
    function test_DomainIsTold() public view {
        (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        ) = app.eip712Domain();
        assertEq(fields, bytes1(0x0f));
        assertEq(name, "DstackApp");
        assertEq(version, "1");
        assertEq(chainId, block.chainid);
        assertEq(verifyingContract, address(app));
        assertEq(salt, 0);
        assertEq(extensions.length, 0);
    }

    // ---- vectors ------------------------------------------------------------------------------------------------

    function _load(string memory name) private {
        json = vm.readFile(string.concat("test/vectors/eip712/", name, ".json"));
    }

    function _u(string memory key) private view returns (uint256) {
        return vm.parseJsonUint(json, string.concat(".message.", key));
    }

    function _b32(string memory key) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(".message.", key));
    }

    function _bytes(string memory key) private view returns (bytes memory) {
        return vm.parseJsonBytes(json, string.concat(".message.", key));
    }

    function _a(string memory key) private view returns (address) {
        return vm.parseJsonAddress(json, string.concat(".message.", key));
    }

    function _termsAt(string memory at) private view returns (Terms memory t) {
        t.composeHash = _b32(string.concat(at, "composeHash"));
        t.recipeHash = _b32(string.concat(at, "recipeHash"));
        t.outputSchemaHash = _b32(string.concat(at, "outputSchemaHash"));
        t.epsilonPerRun = uint64(_u(string.concat(at, "epsilonPerRun")));
        t.deltaPerRun = uint64(_u(string.concat(at, "deltaPerRun")));
        t.epsilonBudget = uint64(_u(string.concat(at, "epsilonBudget")));
        t.deltaBudget = uint64(_u(string.concat(at, "deltaBudget")));
        t.expiry = uint64(_u(string.concat(at, "expiry")));
        t.devices = _b32(string.concat(at, "devices"));
        t.systems = _b32(string.concat(at, "systems"));
        t.era = uint32(_u(string.concat(at, "era")));
        t.round = uint32(_u(string.concat(at, "round")));
    }

    function _assertVector(bytes32 structHash, string memory typeString) private view {
        assertEq(vm.parseJsonString(json, ".typeString"), typeString);
        assertEq(vm.parseJsonBytes32(json, ".typeHash"), keccak256(bytes(typeString)));
        assertEq(structHash, vm.parseJsonBytes32(json, ".structHash"), "struct hash");
        address signer = vm.parseJsonAddress(json, ".signer");
        assertEq(signer, vm.addr(uint256(vm.parseJsonBytes32(json, ".insecureTestKey"))));
        bytes memory signature = vm.parseJsonBytes(json, ".signature");
        bytes32 digest = harness.requireSignature(signer, structHash, signature);
        assertEq(digest, vm.parseJsonBytes32(json, ".digest"), "digest");
        assertEq(digest, TypedDataTwin.digest(address(harness), 31337, structHash));
    }

    function test_Vector_Terms() public {
        _load("terms");
        _assertVector(harness.terms(_termsAt("")), TypedDataTwin.TERMS);
        _load("terms-extreme");
        _assertVector(harness.terms(_termsAt("")), TypedDataTwin.TERMS);
    }

    function test_Vector_Approve() public {
        _load("approve");
        _assertVector(
            harness.approve(_a("owner"), _termsAt("terms."), uint64(_u("deadline"))),
            string.concat(TypedDataTwin.APPROVE, TypedDataTwin.TERMS)
        );
    }

    function test_Vector_Revoke() public {
        _load("revoke");
        _assertVector(harness.revoke(_a("owner"), _b32("proposalId"), uint64(_u("deadline"))), TypedDataTwin.REVOKE);
    }

    function test_Vector_RevokeAll() public {
        _load("revoke-all");
        _assertVector(
            harness.revokeAll(_a("owner"), uint32(_u("era")), uint64(_u("deadline"))), TypedDataTwin.REVOKE_ALL
        );
    }

    function test_Vector_RunRequest() public {
        _load("run-request");
        RunRequest memory r = RunRequest(
            _b32("proposalId"), uint128(_u("participants")), _a("analyst"), _b32("nonce"), uint64(_u("deadline"))
        );
        _assertVector(harness.runRequest(r), TypedDataTwin.RUN_REQUEST);
    }

    function test_Vector_AgentCertificate() public {
        _load("agent-certificate");
        AgentCertificate memory c = AgentCertificate(_a("agent"), _b32("composeHash"), uint64(_u("notAfter")));
        _assertVector(harness.certificate(c), TypedDataTwin.CERTIFICATE);
    }

    function test_Vector_Receipt() public {
        _load("receipt");
        RunReceipt memory r;
        r.runId = _b32("runId");
        r.outputHash = _b32("outputHash");
        r.inputsHash = _b32("inputsHash");
        r.evidenceHash = _b32("evidenceHash");
        r.epsilon = uint64(_u("epsilon"));
        r.delta = uint64(_u("delta"));
        r.privacyProof = uint8(_u("privacyProof"));
        r.producedAt = uint64(_u("producedAt"));
        _assertVector(harness.receipt(r), TypedDataTwin.RECEIPT);
    }

    function test_Vector_Action() public {
        _load("action");
        _assertVector(harness.action(_bytes("data"), _b32("salt"), uint64(_u("configVersion"))), TypedDataTwin.ACTION);
    }

    function test_Vector_ApproveAction() public {
        _load("approve-action");
        bytes32 structHash = harness.approveAction(
            _a("owner"), _bytes("data"), _b32("salt"), uint64(_u("configVersion")), uint64(_u("deadline"))
        );
        _assertVector(structHash, TypedDataTwin.APPROVE_ACTION);
    }
}
