// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AgentCertificate, Receipt, RunRequest, Terms} from "../../contracts/IDstackApp.sol";

/// @title EIP-712 for the tests, written out field by field from the type strings and independent of the contract's
/// library: a mistake in one does not hide in the other.
library TypedDataTwin {
    string internal constant TERMS =
        "Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,uint64 deltaPerRun,uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,uint32 round)";
    string internal constant APPROVE = "Approve(address owner,Terms terms,uint64 deadline)";
    string internal constant REVOKE = "Revoke(address owner,bytes32 proposalId,uint64 deadline)";
    string internal constant REVOKE_ALL = "RevokeAll(address owner,uint32 era,uint64 deadline)";
    string internal constant RUN_REQUEST =
        "RunRequest(bytes32 proposalId,uint128 participants,address analyst,bytes32 nonce,uint64 deadline)";
    string internal constant CERTIFICATE = "AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)";
    string internal constant RECEIPT =
        "Receipt(bytes32 runId,bytes32 outputHash,bytes32 inputsHash,bytes32 evidenceHash,uint64 epsilon,uint64 delta,uint8 privacyProof,uint64 producedAt)";
    string internal constant ACTION = "Action(bytes data,bytes32 salt,uint64 configVersion)";
    string internal constant APPROVE_ACTION =
        "ApproveAction(address owner,bytes data,bytes32 salt,uint64 configVersion,uint64 deadline)";
    string internal constant DOMAIN =
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

    function typeHash(string memory encoded) internal pure returns (bytes32) {
        return keccak256(bytes(encoded));
    }

    function terms(Terms memory t) internal pure returns (bytes32) {
        bytes memory first = abi.encode(
            typeHash(TERMS), t.composeHash, t.recipeHash, t.outputSchemaHash, t.epsilonPerRun, t.deltaPerRun
        );
        bytes memory second = abi.encode(t.epsilonBudget, t.deltaBudget, t.expiry, t.devices, t.systems, t.era, t.round);
        return keccak256(bytes.concat(first, second));
    }

    function approve(address owner, Terms memory t, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(typeHash(string.concat(APPROVE, TERMS)), owner, terms(t), deadline));
    }

    function revoke(address owner, bytes32 proposalId, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(typeHash(REVOKE), owner, proposalId, deadline));
    }

    function revokeAll(address owner, uint32 era, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(typeHash(REVOKE_ALL), owner, era, deadline));
    }

    function runRequest(RunRequest memory r) internal pure returns (bytes32) {
        return
            keccak256(abi.encode(typeHash(RUN_REQUEST), r.proposalId, r.participants, r.analyst, r.nonce, r.deadline));
    }

    function certificate(AgentCertificate memory c) internal pure returns (bytes32) {
        return keccak256(abi.encode(typeHash(CERTIFICATE), c.agent, c.composeHash, c.notAfter));
    }

    function receipt(Receipt memory r) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                typeHash(RECEIPT),
                r.runId,
                r.outputHash,
                r.inputsHash,
                r.evidenceHash,
                r.epsilon,
                r.delta,
                r.privacyProof,
                r.producedAt
            )
        );
    }

    function action(bytes memory data, bytes32 salt, uint64 configVersion) internal pure returns (bytes32) {
        return keccak256(abi.encode(typeHash(ACTION), keccak256(data), salt, configVersion));
    }

    function approveAction(address owner, bytes memory data, bytes32 salt, uint64 configVersion, uint64 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(typeHash(APPROVE_ACTION), owner, keccak256(data), salt, configVersion, deadline));
    }

    function digest(address app, uint256 chainId, bytes32 structHash) internal pure returns (bytes32) {
        bytes32 separator =
            keccak256(abi.encode(typeHash(DOMAIN), keccak256("DstackApp"), keccak256("1"), chainId, app));
        return keccak256(bytes.concat(hex"1901", separator, structHash));
    }
}
