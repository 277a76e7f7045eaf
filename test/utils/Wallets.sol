// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title An EIP-1271 wallet that follows one key, as an institution's Safe would.
contract ContractWallet {
    address public immutable KEY;

    constructor(address key) {
        KEY = key;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        return ECDSA.recover(hash, signature) == KEY ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @title Wallets that answer EIP-1271 wrongly.
contract BrokenWallet {
    enum Fault {
        Reverts,
        ReturnsNothing,
        ReturnsShort,
        ReturnsOther
    }

    Fault public immutable FAULT;

    constructor(Fault fault) {
        FAULT = fault;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        if (FAULT == Fault.Reverts) revert();
        if (FAULT == Fault.ReturnsNothing) return "";
        if (FAULT == Fault.ReturnsShort) return hex"1626ba7e";
        return abi.encode(bytes4(0x12345678));
    }
}
