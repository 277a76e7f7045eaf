// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DatasetInfo, IDstackApp, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

contract DatasetsTest is BaseTest {
    bytes32 private constant COMPOSE = keccak256("compose");

    function _register(Actor memory owner, DatasetInfo memory info) private {
        vm.prank(owner.addr);
        app.registerDataset(info);
    }

    function _data(bytes32 id) private pure returns (DatasetInfo memory) {
        Terms memory t;
        t.composeHash = COMPOSE;
        return _dataset(id, t);
    }

    function _refused(bytes32 id) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackApp.DstackApp_DatasetRefused.selector, id);
    }

    function test_RegisterDataset_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(guard.addr));
        _register(guard, _data("data"));
    }

    function test_RegisterDataset_RevertWhen_NoComposeHash() public {
        DatasetInfo memory info = _data("data");
        info.composeHash = 0;
        vm.expectRevert(_invalid("composeHash"));
        _register(alice, info);
    }

    function test_RegisterDataset_RevertWhen_NoId() public {
        vm.expectRevert(_refused(0));
        _register(alice, _data(0));
    }

    function test_RegisterDataset_RevertWhen_IdIsTaken() public {
        _register(alice, _data("data"));
        vm.expectRevert(_refused("data"));
        _register(alice, _data("data"));
        vm.expectRevert(_refused("data"));
        _register(bob, _data("data"));
    }

    function test_RegisterDataset_RevertWhen_TheFormerIsNotReplaceable() public {
        _register(alice, _data("data"));
        DatasetInfo memory next = _data("next");
        next.supersedes = "unknown";
        vm.expectRevert(_refused("unknown"));
        _register(alice, next);

        next.supersedes = "data";
        vm.expectRevert(_refused("data"));
        _register(bob, next);

        next.supersedes = "next";
        vm.expectRevert(_refused("next"));
        _register(alice, next);

        next.supersedes = "data";
        _register(alice, next);
        next.datasetId = "third";
        vm.expectRevert(_refused("data"));
        _register(alice, next);
    }

    function test_RegisterDataset_ListsAndSupersedes() public {
        DatasetInfo memory info = _data("data");
        vm.expectEmit();
        emit IDstackApp.DatasetRegistered("data", 1, info);
        _register(bob, info);
        _assertDataset("data", true, false, 1, info.composeHash);

        info.datasetId = "next";
        info.supersedes = "data";
        info.composeHash = keccak256("other compose");
        _register(bob, info);
        _assertDataset("data", true, true, 1, COMPOSE);
        _assertDataset("next", true, false, 1, info.composeHash);
        _assertDataset("none", false, false, 0, 0);
    }

    function _assertDataset(bytes32 id, bool registered, bool superseded, uint8 index, bytes32 composeHash)
        private
        view
    {
        (bool isRegistered, bool isSuperseded, uint8 ownerIndex, bytes32 compose) = app.dataset(id);
        assertEq(isRegistered, registered);
        assertEq(isSuperseded, superseded);
        assertEq(ownerIndex, index);
        assertEq(compose, composeHash);
    }
}
