// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IApp} from "../utils/IApp.sol";
import {IDstackApp, OwnerInfo} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

contract ConstructorTest is BaseTest {
    function _new(OwnerInfo[] memory founders, uint8 threshold, address root, uint64 delay) private returns (IApp) {
        return
            _deployWith(abi.encode(bytes32("cardio"), bytes32("health"), founders, threshold, root, _analysts(), delay));
    }

    function test_Constructor_RevertWhen_ThresholdIsZero() public {
        vm.expectRevert(_invalid("threshold"));
        _new(_founders(), 0, kmsRoot.addr, DELAY);
    }

    function test_Constructor_RevertWhen_ThresholdExceedsOwners() public {
        vm.expectRevert(_invalid("threshold"));
        _new(_founders(), 5, kmsRoot.addr, DELAY);
    }

    function test_Constructor_RevertWhen_NoKmsRoot() public {
        vm.expectRevert(_invalid("kmsRoot"));
        _new(_founders(), 3, address(0), DELAY);
    }

    function test_Constructor_RevertWhen_DelayTooLong() public {
        vm.expectRevert(_invalid("delaySeconds"));
        _new(_founders(), 3, kmsRoot.addr, 30 days + 1);
        _new(_founders(), 3, kmsRoot.addr, 30 days);
    }

    function test_Constructor_RevertWhen_DelayTooShort() public {
        vm.expectRevert(_invalid("delaySeconds"));
        _new(_founders(), 3, kmsRoot.addr, 1 hours - 1);
        _new(_founders(), 3, kmsRoot.addr, 1 hours);
    }

    function test_Constructor_RevertWhen_AnalystIsZero() public {
        vm.expectRevert(_invalid("analyst"));
        _deployWith(
            abi.encode(bytes32("cardio"), bytes32("health"), _founders(), 3, kmsRoot.addr, new address[](1), DELAY)
        );
    }

    function test_Constructor_RevertWhen_AnOwnerIsListedTwice() public {
        OwnerInfo[] memory founders = _founders();
        founders[3].ownerId = founders[0].ownerId;
        vm.expectRevert(_invalid("ownerId"));
        _new(founders, 3, kmsRoot.addr, DELAY);

        founders = _founders();
        founders[3].account = founders[0].account;
        vm.expectRevert(_invalid("account"));
        _new(founders, 3, kmsRoot.addr, DELAY);
    }

    function test_Constructor_ListsWhatItWasGiven() public view {
        (uint128 active, uint8 threshold, uint8 count, uint32 era, uint64 version, uint64 delay) = app.config();
        assertEq(active, 0xf);
        assertEq(threshold, 3);
        assertEq(count, 4);
        assertEq(era, 0);
        assertEq(version, 4);
        assertEq(delay, DELAY);
        assertEq(app.kmsRoot(), kmsRoot.addr);
        assertTrue(app.isAnalyst(analyst.addr));
        assertFalse(app.isAnalyst(stranger.addr));
        assertTrue(app.allowAnyDevice());
        assertTrue(app.requireTcbUpToDate());

        (OwnerInfo[] memory list, uint8[] memory indexes) = app.owners();
        OwnerInfo[] memory founders = _founders();
        assertEq(list.length, 4);
        for (uint8 i = 0; i < 4; ++i) {
            assertEq(keccak256(abi.encode(list[i])), keccak256(abi.encode(founders[i])));
            assertEq(indexes[i], i);
        }
        (bool listed, uint8 index, address account, address revoker) = app.ownerOf("hospital-A");
        assertTrue(listed);
        assertEq(index, 0);
        assertEq(account, alice.addr);
        assertEq(revoker, guard.addr);
        (listed,,,) = app.ownerOf("hospital-X");
        assertFalse(listed);
        (uint64 cap, uint64 committed, uint64 deltaCap, uint64 deltaCommitted) = app.ownerBudget(2);
        assertEq(cap, 100 * EPSILON);
        assertEq(committed, 0);
        assertEq(deltaCap, 100 * DELTA);
        assertEq(deltaCommitted, 0);
    }

    function test_Constructor_EmitsAllOfItsState() public {
        vm.expectEmit();
        emit IDstackApp.AppCreated("cardio", "health", 3, kmsRoot.addr, DELAY);
        vm.expectEmit();
        emit IDstackApp.OwnerAdded("hospital-A", alice.addr, guard.addr, "US", 1, 0);
        vm.expectEmit();
        emit IDstackApp.OwnerBudget(0, 100 * EPSILON, 0, 100 * DELTA, 0);
        vm.expectEmit();
        emit IDstackApp.OwnerAdded("hospital-B", bob.addr, address(0), "HU", 2, 1);
        vm.expectEmit();
        emit IDstackApp.AnalystSet(analyst.addr, true);
        vm.expectEmit();
        emit IDstackApp.AllowAnyDeviceSet(true);
        vm.expectEmit();
        emit IDstackApp.RequireTcbUpToDateSet(true);
        _deploy(_founders(), 3);
    }

    /// R6: one source has one code hash, whoever deploys it with whatever owners. So there is no hidden immutable.
    function test_Constructor_CodeDoesNotDependOnInputs() public {
        OwnerInfo[] memory one = new OwnerInfo[](1);
        one[0] = _ownerInfo("lab", stranger.addr, address(0), "TR", 0);
        vm.chainId(8453);
        IApp other = _deployWith(abi.encode(bytes32("x"), bytes32("y"), one, 1, stranger.addr, new address[](0), DELAY));
        assertEq(address(other).codehash, address(app).codehash);
    }

    function test_Constructor_CodeFitsTheLimit() public view {
        assertLe(address(app).code.length, 24_576);
    }

    /// R6: nothing that could move the code: no DELEGATECALL, CALLCODE or SELFDESTRUCT among the instructions.
    function test_Constructor_CodeCannotBeReplaced() public view {
        bytes memory code = address(app).code;
        for (uint256 i = 0; i < code.length; ++i) {
            uint8 op = uint8(code[i]);
            assertTrue(op != 0xf4 && op != 0xf2 && op != 0xff, "forbidden instruction");
            if (op >= 0x60 && op <= 0x7f) i += op - 0x5f;
        }
    }
}
