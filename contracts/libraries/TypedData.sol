// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {AgentCertificate, IDstackApp, Receipt, RunRequest, Terms} from "../IDstackApp.sol";

/// @title The EIP-712 types of DstackApp and the check of a signature over them.
/// @notice The domain is recomputed on every call: no immutables, so every deployment has one code hash, and a fork
/// with another chain id has another domain.
library TypedData {
    string internal constant NAME = "DstackApp";
    string internal constant VERSION = "1";

    // EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)
    bytes32 internal constant DOMAIN_TYPEHASH = 0x8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f;

    bytes32 internal constant TERMS_TYPEHASH = keccak256(
        "Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,uint64 deltaPerRun,uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,uint32 round)"
    );
    bytes32 internal constant APPROVE_TYPEHASH = keccak256(
        "Approve(address owner,Terms terms,uint64 deadline)Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,uint64 deltaPerRun,uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,uint32 round)"
    );
    bytes32 internal constant REVOKE_TYPEHASH = keccak256("Revoke(address owner,bytes32 proposalId,uint64 deadline)");
    bytes32 internal constant REVOKE_ALL_TYPEHASH = keccak256("RevokeAll(address owner,uint32 era,uint64 deadline)");
    bytes32 internal constant RUN_REQUEST_TYPEHASH =
        keccak256("RunRequest(bytes32 proposalId,uint128 participants,address analyst,bytes32 nonce,uint64 deadline)");
    bytes32 internal constant CERTIFICATE_TYPEHASH =
        keccak256("AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)");
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 runId,bytes32 outputHash,bytes32 inputsHash,bytes32 evidenceHash,uint64 epsilon,uint64 delta,uint8 privacyProof,uint64 producedAt)"
    );
    /// Not signed: names a governance action.
    bytes32 internal constant ACTION_TYPEHASH = keccak256("Action(bytes data,bytes32 salt,uint64 configVersion)");
    bytes32 internal constant APPROVE_ACTION_TYPEHASH =
        keccak256("ApproveAction(address owner,bytes data,bytes32 salt,uint64 configVersion,uint64 deadline)");

    function hash(Terms calldata terms) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := terms
        }
        return _hashWords(TERMS_TYPEHASH, start, 12);
    }

    function hash(RunRequest calldata request) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := request
        }
        return _hashWords(RUN_REQUEST_TYPEHASH, start, 5);
    }

    function hash(AgentCertificate calldata certificate) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := certificate
        }
        return _hashWords(CERTIFICATE_TYPEHASH, start, 3);
    }

    function hash(Receipt calldata receipt) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := receipt
        }
        return _hashWords(RECEIPT_TYPEHASH, start, 8);
    }

    /// keccak256(abi.encode(typeHash, s)) of a struct `s` whose fields are one word each, as it lies in calldata. Does not
    /// refuse a narrow field with bits beyond its type: reading such a field, or logging the struct, does. Copying the words
    /// saves 300 bytes of code and about 700 gas a struct against abi.encode; the tests' own encoder is the plain twin.
    function _hashWords(bytes32 typeHash, uint256 start, uint256 words) private pure returns (bytes32 structHash) {
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            mstore(memory_, typeHash)
            calldatacopy(add(memory_, 32), start, mul(words, 32))
            structHash := keccak256(memory_, add(32, mul(words, 32)))
        }
    }

    /// `proposalId` is the struct hash of the terms, which is what EIP-712 puts in the place of a nested struct.
    function hashApprove(address owner, bytes32 proposalId, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(APPROVE_TYPEHASH, owner, proposalId, deadline));
    }

    function hashRevoke(address owner, bytes32 proposalId, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(REVOKE_TYPEHASH, owner, proposalId, deadline));
    }

    function hashRevokeAll(address owner, uint32 era, uint64 deadline) internal pure returns (bytes32) {
        return keccak256(abi.encode(REVOKE_ALL_TYPEHASH, owner, era, deadline));
    }

    function hashAction(bytes calldata data, bytes32 salt, uint64 configVersion) internal pure returns (bytes32) {
        return keccak256(abi.encode(ACTION_TYPEHASH, keccak256(data), salt, configVersion));
    }

    function hashApproveAction(address owner, bytes calldata data, bytes32 salt, uint64 configVersion, uint64 deadline)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(APPROVE_ACTION_TYPEHASH, owner, keccak256(data), salt, configVersion, deadline));
    }

    /// This contract on this chain. A batch of signatures needs it once.
    function domainSeparator() internal view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256(bytes(NAME)), keccak256(bytes(VERSION)), block.chainid, address(this))
        );
    }

    /// Reverts DeadlinePassed once the clock is beyond `deadline`.
    function requireInTime(uint64 deadline) internal view {
        if (block.timestamp > deadline) revert IDstackApp.DstackApp_DeadlinePassed(deadline, block.timestamp);
    }

    /// Reverts BadSignature unless `signer` signed `structHash`. ecrecover comes first: an EIP-7702 account has code,
    /// but its key signs as before. Then EIP-1271, asked once; an institution that changes its mind later revokes.
    /// Returns the digest that was signed.
    function requireSignature(address signer, bytes32 structHash, bytes calldata signature)
        internal
        view
        returns (bytes32 signed)
    {
        return requireSignature(domainSeparator(), signer, structHash, signature);
    }

    function requireSignature(bytes32 domain, address signer, bytes32 structHash, bytes calldata signature)
        internal
        view
        returns (bytes32 signed)
    {
        signed = MessageHashUtils.toTypedDataHash(domain, structHash);
        // slither-disable-next-line unused-return
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(signed, signature);
        if (err == ECDSA.RecoverError.NoError && recovered == signer) return signed;
        if (SignatureChecker.isValidERC1271SignatureNowCalldata(signer, signed, signature)) return signed;
        revert IDstackApp.DstackApp_BadSignature(signer);
    }
}
