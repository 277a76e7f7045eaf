// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp, OwnerInfo, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// Every state-changing entry point that asks who calls, by every role: Roles.tree. Refused means NotAnOwner or OnlySelf
/// with the caller's address; allowed means anything else, a revert for another reason included.
contract RolesTest is BaseTest {
    uint8 private constant OWNER = 1;
    uint8 private constant KEY = 2;
    uint8 private constant ITSELF = 4;

    struct Entry {
        bytes call;
        uint8 allowed;
    }

    Entry[] private entries;

    function setUp() public override {
        super.setUp();
        Terms memory t = _terms();
        OwnerInfo memory info = _ownerInfo("hospital-E", stranger.addr, address(0), "TR", 0);
        bytes memory action = abi.encodeCall(IDstackApp.setThreshold, (2));
        _add(abi.encodeCall(IDstackApp.approve, (t)), OWNER);
        _add(abi.encodeCall(IDstackApp.reject, ("id", "no")), OWNER);
        _add(abi.encodeCall(IDstackApp.startRotation, (address(99))), OWNER);
        _add(abi.encodeCall(IDstackApp.setRevoker, (address(98))), OWNER);
        _add(abi.encodeCall(IDstackApp.setOwnerCap, (EPSILON, DELTA)), OWNER);
        _add(abi.encodeCall(IDstackApp.reclaim, (_terms())), OWNER);
        _add(abi.encodeCall(IDstackApp.registerDataset, (_dataset("data", t))), OWNER);
        _add(abi.encodeCall(IDstackApp.approveAction, (action, "salt")), OWNER);
        _add(abi.encodeCall(IDstackApp.revoke, ("id")), OWNER | KEY);
        _add(abi.encodeCall(IDstackApp.revokeAll, ()), OWNER | KEY);
        _add(abi.encodeCall(IDstackApp.revokeAgent, (agent.addr)), OWNER | KEY);
        _add(abi.encodeCall(IDstackApp.vetoAction, ("action")), OWNER | KEY);
        _add(abi.encodeCall(IDstackApp.removeComposeHash, ("compose")), OWNER | KEY | ITSELF);
        _add(abi.encodeCall(IDstackApp.removeDevice, ("device")), OWNER | KEY | ITSELF);
        _add(abi.encodeCall(IDstackApp.addOwner, (info)), ITSELF);
        _add(abi.encodeCall(IDstackApp.removeOwner, ("hospital-D")), ITSELF);
        _add(action, ITSELF);
        _add(abi.encodeCall(IDstackApp.setAnalyst, (stranger.addr, true)), ITSELF);
        _add(abi.encodeCall(IDstackApp.setKmsRoot, (stranger.addr)), ITSELF);
        _add(abi.encodeCall(IDstackApp.setGovernanceDelay, (0)), ITSELF);
        _add(abi.encodeCall(IDstackApp.announceSuccessor, (stranger.addr)), ITSELF);
        _add(abi.encodeCall(IDstackApp.addComposeHash, ("compose")), ITSELF);
        _add(abi.encodeCall(IDstackApp.addDevice, ("device")), ITSELF);
        _add(abi.encodeCall(IDstackApp.setAllowAnyDevice, (false)), ITSELF);
        _add(abi.encodeCall(IDstackApp.setRequireTcbUpToDate, (false)), ITSELF);
    }

    function _add(bytes memory call, uint8 allowed) private {
        entries.push(Entry(call, allowed));
    }

    function _assertRole(address caller, uint8 role) private {
        for (uint256 i = 0; i < entries.length; ++i) {
            uint256 snapshot = vm.snapshotState();
            vm.prank(caller);
            (bool ok, bytes memory reason) = address(app).call(entries[i].call);
            bool refused = !ok
                && (keccak256(reason) == keccak256(_notAnOwner(caller))
                    || keccak256(reason)
                        == keccak256(abi.encodeWithSelector(IDstackApp.DstackApp_OnlySelf.selector, caller)));
            assertEq(refused, entries[i].allowed & role == 0, vm.toString(bytes4(entries[i].call)));
            vm.revertToState(snapshot);
        }
    }

    function test_Roles_Owner() public {
        _assertRole(alice.addr, OWNER);
        _assertRole(dave.addr, OWNER);
    }

    function test_Roles_RevocationKey() public {
        _assertRole(guard.addr, KEY);
    }

    function test_Roles_TheContractItself() public {
        _assertRole(address(app), ITSELF);
    }

    function test_Roles_NobodyElse() public {
        _assertRole(analyst.addr, 0);
        _assertRole(kmsRoot.addr, 0);
        _assertRole(agent.addr, 0);
        _assertRole(address(this), 0); // the deployer
        _assertRole(address(0), 0);
    }

    function test_Roles_RemovedOwnerAndItsKey() public {
        _govern(abi.encodeCall(IDstackApp.removeOwner, ("hospital-A")));
        _assertRole(alice.addr, 0);
        _assertRole(guard.addr, 0);
    }

    function test_Roles_RotatedOwner() public {
        vm.prank(alice.addr);
        app.startRotation(stranger.addr);
        _assertRole(stranger.addr, 0); // not before it accepts
        vm.prank(stranger.addr);
        app.acceptRotation("hospital-A");
        _assertRole(alice.addr, 0);
        _assertRole(stranger.addr, OWNER);
    }
}
