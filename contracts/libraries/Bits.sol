// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Sets of owner indexes (0 to 127) in one word.
library Bits {
    /// The set that holds `index` alone; `index` is below 128.
    function single(uint8 index) internal pure returns (uint128) {
        return uint128(1) << index;
    }

    function contains(uint128 set, uint8 index) internal pure returns (bool) {
        return set & single(index) != 0;
    }

    /// The number of members, the same cost for every set: sums over 2, 4, then 8 bits side by side, then all bytes.
    function count(uint128 set) internal pure returns (uint256 x) {
        unchecked {
            x = set;
            x -= (x >> 1) & 0x55555555555555555555555555555555;
            x = (x & 0x33333333333333333333333333333333) + ((x >> 2) & 0x33333333333333333333333333333333);
            x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f;
            x = ((x * 0x01010101010101010101010101010101) >> 120) & 0xff;
        }
    }

    /// The smallest member of a set that is not empty.
    function lowest(uint128 set) internal pure returns (uint8) {
        unchecked {
            // The bits below the lowest member, counted: at most 127.
            return uint8(count((set & (~set + 1)) - 1));
        }
    }
}
