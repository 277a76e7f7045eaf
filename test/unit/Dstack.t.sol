// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AppBootInfo, Decision, IDstackApp, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// dstack's app authorisation: ERC-165 ids, management calls, the boot decision with its reasons.
contract DstackTest is BaseTest {
    function _boot(bytes32 composeHash) private view returns (AppBootInfo memory b) {
        b.appId = address(app);
        b.composeHash = composeHash;
        b.deviceId = "device";
        b.tcbStatus = "UpToDate";
    }

    function _assertRefused(AppBootInfo memory b, string memory want) private view {
        (bool allowed, string memory reason) = app.isAppAllowed(b);
        assertFalse(allowed);
        assertEq(reason, want);
    }

    function _assertAllowed(AppBootInfo memory b) private view {
        (bool allowed, string memory reason) = app.isAppAllowed(b);
        assertTrue(allowed);
        assertEq(reason, "");
    }

    function test_IsAppAllowed_ReasonsInOrder() public {
        vm.prank(address(app));
        app.setAllowAnyDevice(false);
        AppBootInfo memory b = _boot("compose");
        b.appId = stranger.addr;
        b.tcbStatus = "OutOfDate";
        _assertRefused(b, "App id mismatch");
        b.appId = address(app);
        _assertRefused(b, "TCB status is not up to date");
        b.tcbStatus = "UpToDate";
        _assertRefused(b, "Compose hash not allowed");
        vm.prank(address(app));
        app.addComposeHash("compose");
        _assertRefused(b, "Device not allowed");
        vm.prank(address(app));
        app.addDevice("device");
        _assertAllowed(b);
    }

    function test_IsAppAllowed_TcbRuleCanBeLifted() public {
        vm.startPrank(address(app));
        app.addComposeHash("compose");
        vm.expectEmit();
        emit IDstackApp.RequireTcbUpToDateSet(false);
        app.setRequireTcbUpToDate(false);
        AppBootInfo memory b = _boot("compose");
        b.tcbStatus = "OutOfDate";
        _assertAllowed(b);
    }

    function test_IsAppAllowed_FollowsTheProposal() public {
        Terms memory t = _terms();
        _assertRefused(_boot(t.composeHash), "Compose hash not allowed");
        _live(t);
        _assertAllowed(_boot(t.composeHash));
        vm.prank(dave.addr);
        app.revoke(_id(t));
        _assertRefused(_boot(t.composeHash), "Compose hash not allowed");
    }

    /// Permission to boot opens no dataset.
    function test_AddComposeHash_IsForBootOnly() public {
        vm.expectEmit();
        emit IDstackApp.ComposeHashAdded("compose");
        vm.prank(address(app));
        app.addComposeHash("compose");
        assertTrue(app.allowedComposeHashes("compose"));
        _assertDecision(app.releaseDecision(0, "compose", "hospital-A", 0, 0), Decision.ProposalUnknown);
        vm.expectRevert(_invalid("composeHash"));
        vm.prank(address(app));
        app.addComposeHash(0);
    }

    function test_RemoveComposeHash_RevertWhen_CallerIsNoOwner() public {
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.removeComposeHash("compose");
    }

    function test_RemoveComposeHash_BySelfOrAnyOneOwner() public {
        address[3] memory callers = [address(app), dave.addr, guard.addr];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(address(app));
            app.addComposeHash("compose");
            vm.expectEmit();
            emit IDstackApp.ComposeHashRemoved("compose");
            vm.prank(callers[i]);
            app.removeComposeHash("compose");
            assertFalse(app.allowedComposeHashes("compose"));
        }
    }

    /// Whoever removes a compose hash with dstack's tools means it: the proposal goes too.
    function test_RemoveComposeHash_RevokesTheProposal() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        vm.expectEmit();
        emit IDstackApp.ComposeHashRemoved(t.composeHash);
        vm.expectEmit();
        emit IDstackApp.ProposalRevoked(id, 3, dave.addr);
        vm.prank(dave.addr);
        app.removeComposeHash(t.composeHash);
        _assertDecision(_decision(id), Decision.ProposalRevoked);
        assertFalse(app.allowedComposeHashes(t.composeHash));

        t.round = 1;
        id = _live(t);
        vm.expectEmit();
        emit IDstackApp.ProposalRevoked(id, SELF, address(app));
        vm.prank(address(app));
        app.removeComposeHash(t.composeHash);
    }

    function test_Devices_BySelfAndRemovedByAnyOneOwner() public {
        vm.startPrank(address(app));
        vm.expectRevert(_invalid("deviceId"));
        app.addDevice(0);
        vm.expectEmit();
        emit IDstackApp.DeviceAdded("device");
        app.addDevice("device");
        app.addDevice("other");
        vm.expectEmit();
        emit IDstackApp.DeviceRemoved("other");
        app.removeDevice("other");
        vm.stopPrank();
        assertTrue(app.allowedDeviceIds("device"));
        assertFalse(app.allowedDeviceIds("other"));
        vm.expectRevert(_notAnOwner(stranger.addr));
        vm.prank(stranger.addr);
        app.removeDevice("device");
        vm.prank(guard.addr);
        app.removeDevice("device");
        assertFalse(app.allowedDeviceIds("device"));
    }

    function test_AllowAnyDevice() public {
        vm.expectEmit();
        emit IDstackApp.AllowAnyDeviceSet(false);
        vm.prank(address(app));
        app.setAllowAnyDevice(false);
        assertFalse(app.allowAnyDevice());
    }

    function testFuzz_SupportsInterface_ExactlyThree(bytes4 id) public view {
        bool known = id == 0x01ffc9a7 || id == 0x1e079198 || id == 0x8fd37527;
        assertEq(app.supportsInterface(id), known);
    }

    function test_SupportsInterface() public view {
        assertTrue(app.supportsInterface(0x01ffc9a7));
        assertTrue(app.supportsInterface(0x1e079198));
        assertTrue(app.supportsInterface(0x8fd37527));
        assertFalse(app.supportsInterface(0xffffffff));
        // The epoch-aware interfaces of dstack 0.6.4 and 0.6.5.
        assertFalse(app.supportsInterface(0xd33835bd));
        assertFalse(app.supportsInterface(0xc396c1b0));
        assertEq(IDstackApp.isAppAllowed.selector, bytes4(0x1e079198));
        assertEq(
            IDstackApp.addComposeHash.selector ^ IDstackApp.removeComposeHash.selector ^ IDstackApp.addDevice.selector
                ^ IDstackApp.removeDevice.selector,
            bytes4(0x8fd37527)
        );
    }

    function test_OwnerAndVersion() public view {
        assertEq(app.owner(), address(app));
        assertEq(app.version(), 2);
    }

    /// R6: no way to upgrade, and no owner to hand over.
    function test_NoUpgradeNorOwnership() public {
        bytes[7] memory calls = [
            abi.encodeWithSignature("upgradeToAndCall(address,bytes)", stranger.addr, ""),
            abi.encodeWithSignature("transferOwnership(address)", stranger.addr),
            abi.encodeWithSignature("acceptOwnership()"),
            abi.encodeWithSignature("renounceOwnership()"),
            abi.encodeWithSignature(
                "initialize(address,bool,bool,bool,bytes32,bytes32)", stranger.addr, false, false, true, 0, 0
            ),
            abi.encodeWithSignature("disableUpgrades()"),
            bytes("")
        ];
        address[3] memory callers = [address(this), address(app), alice.addr]; // the deployer, itself, an owner
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 j = 0; j < callers.length; ++j) {
                vm.prank(callers[j]);
                (bool ok,) = address(app).call(calls[i]);
                assertFalse(ok);
            }
        }
    }
}

/// dstack's own DstackApp as its published behaviour has it (owner, three allow-lists, two flags), to compare with.
contract StockApp {
    mapping(bytes32 => bool) public allowedComposeHashes;
    mapping(bytes32 => bool) public allowedDeviceIds;
    bool public allowAnyDevice = true;
    bool public requireTcbUpToDate = true;

    function setCompose(bytes32 composeHash, bool allowed) external {
        allowedComposeHashes[composeHash] = allowed;
    }

    function setDevice(bytes32 deviceId, bool allowed) external {
        allowedDeviceIds[deviceId] = allowed;
    }

    function setAllowAnyDevice(bool allowed) external {
        allowAnyDevice = allowed;
    }

    function setRequireTcbUpToDate(bool required) external {
        requireTcbUpToDate = required;
    }

    function isAppAllowed(AppBootInfo calldata b) external view returns (bool, string memory) {
        if (requireTcbUpToDate && keccak256(bytes(b.tcbStatus)) != keccak256("UpToDate")) {
            return (false, "TCB status is not up to date");
        }
        if (!allowedComposeHashes[b.composeHash]) return (false, "Compose hash not allowed");
        if (!allowAnyDevice && !allowedDeviceIds[b.deviceId]) return (false, "Device not allowed");
        return (true, "");
    }
}

/// The same random operations on both, then the same answers.
contract DstackDifferentialTest is BaseTest {
    StockApp private stock = new StockApp();
    string[4] private statuses = ["UpToDate", "OutOfDate", "", "uptodate"];

    function testFuzz_SameAnswersAsStock(uint256[16] calldata operations) public {
        for (uint256 i = 0; i < operations.length; ++i) {
            uint256 seed = operations[i];
            _operate(uint8(seed % 6), bytes32(seed / 8 % 3 + 1), seed & 1 << 40 != 0);
            AppBootInfo memory b;
            b.appId = address(app);
            b.composeHash = bytes32(seed / 64 % 3 + 1);
            b.deviceId = bytes32(seed / 512 % 3 + 1);
            b.tcbStatus = statuses[seed / 4096 % 4];
            (bool have, string memory haveReason) = app.isAppAllowed(b);
            (bool want, string memory wantReason) = stock.isAppAllowed(b);
            assertEq(have, want);
            assertEq(haveReason, wantReason);
            assertEq(app.allowedComposeHashes(b.composeHash), stock.allowedComposeHashes(b.composeHash));
            assertEq(app.allowedDeviceIds(b.deviceId), stock.allowedDeviceIds(b.deviceId));
        }
    }

    function _operate(uint8 operation, bytes32 id, bool flag) private {
        vm.startPrank(address(app));
        if (operation == 0) app.addComposeHash(id);
        else if (operation == 1) app.removeComposeHash(id);
        else if (operation == 2) app.addDevice(id);
        else if (operation == 3) app.removeDevice(id);
        else if (operation == 4) app.setAllowAnyDevice(flag);
        else app.setRequireTcbUpToDate(flag);
        vm.stopPrank();
        if (operation < 2) stock.setCompose(id, operation == 0);
        else if (operation < 4) stock.setDevice(id, operation == 2);
        else if (operation == 4) stock.setAllowAnyDevice(flag);
        else stock.setRequireTcbUpToDate(flag);
    }

    // ---- dstack's audit event -----------------------------------------------------------------------------------

    function _expectPolicy(address actor, string memory policy, bytes32 value, bool enabled) private {
        vm.expectEmit(address(app));
        emit IDstackApp.PolicyChanged(actor, keccak256(bytes(policy)), value, enabled);
    }

    /// One beside each of dstack's events: who, which rule, which value, on or off.
    function test_PolicyChanged_IsThereForEachRule() public {
        vm.startPrank(address(app));
        _expectPolicy(address(app), "compose-hash", "compose", true);
        app.addComposeHash("compose");
        _expectPolicy(address(app), "device", "device", true);
        app.addDevice("device");
        _expectPolicy(address(app), "allow-any-device", 0, false);
        app.setAllowAnyDevice(false);
        _expectPolicy(address(app), "require-tcb-up-to-date", 0, false);
        app.setRequireTcbUpToDate(false);
        vm.stopPrank();
        vm.startPrank(alice.addr);
        _expectPolicy(alice.addr, "compose-hash", "compose", false);
        app.removeComposeHash("compose");
        _expectPolicy(alice.addr, "device", "device", false);
        app.removeDevice("device");
        vm.stopPrank();
    }
}
