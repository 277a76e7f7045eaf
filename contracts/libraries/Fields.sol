// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp} from "../IDstackApp.sol";

/// @title The check that a field has a value it may have.
library Fields {
    /// Reverts InvalidField unless `ok`. The name travels as a short literal and becomes a string only on failure:
    /// a string at each call would cost 2 kB of code.
    function check(bool ok, bytes32 name) internal pure {
        if (!ok) revert IDstackApp.DstackApp_InvalidField(text(name));
    }

    /// A short literal as a string: its bytes up to the first zero.
    function text(bytes32 literal) internal pure returns (string memory) {
        uint256 length = 0;
        while (length < 32 && literal[length] != 0) ++length;
        bytes memory whole = abi.encode(literal);
        assembly ("memory-safe") {
            mstore(whole, length)
        }
        return string(whole);
    }
}
