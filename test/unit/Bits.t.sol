// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "forge-std/Test.sol";

import {Bits} from "../../contracts/libraries/Bits.sol";

contract BitsTest is Test {
    function testFuzz_CountAndLowest(uint128 set) public pure {
        uint256 count = 0;
        uint8 lowest = 255;
        for (uint8 i = 128; i > 0; --i) {
            if ((set >> (i - 1)) & 1 == 0) continue;
            ++count;
            lowest = i - 1;
        }
        assertEq(Bits.count(set), count);
        if (set != 0) assertEq(Bits.lowest(set), lowest);
    }

    function test_CountOfAllAndNone() public pure {
        assertEq(Bits.count(0), 0);
        assertEq(Bits.count(type(uint128).max), 128);
    }

    function testFuzz_SingleAndContains(uint8 index, uint128 set) public pure {
        index = uint8(bound(index, 0, 127));
        assertEq(Bits.count(Bits.single(index)), 1);
        assertEq(Bits.lowest(Bits.single(index)), index);
        assertEq(Bits.contains(set, index), (set >> index) & 1 == 1);
    }
}
