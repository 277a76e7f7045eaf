// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {DstackKms} from "../../contracts/DstackKms.sol";
import {AppBootInfo, Terms} from "../../contracts/IDstackApp.sol";
import {IDstackKms} from "../../contracts/IDstackKms.sol";
import {BaseTest} from "../BaseTest.sol";

contract DstackKmsTest is BaseTest {
    DstackKms private kms;
    address private operator = makeAddr("operator");
    bytes private sealingKey = new bytes(1216);

    function setUp() public override {
        super.setUp();
        kms = new DstackKms(operator);
    }

    function _invalidKms(string memory field) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDstackKms.DstackKms_InvalidField.selector, field);
    }

    function _boot() private view returns (AppBootInfo memory b) {
        b.appId = address(app);
        b.composeHash = _terms().composeHash;
        b.mrAggregated = "aggregated";
        b.osImageHash = "image";
        b.deviceId = "device";
        b.tcbStatus = "UpToDate";
    }

    function test_RevertWhen_CallerIsNotTheOwner() public {
        bytes[] memory calls = new bytes[](15);
        calls[0] = abi.encodeCall(kms.setKmsInfo, (IDstackKms.KmsInfo("", "", "", "")));
        calls[1] = abi.encodeCall(kms.setGatewayAppId, ("any"));
        calls[2] = abi.encodeCall(kms.registerRoot, (kmsRoot.addr, sealingKey));
        calls[3] = abi.encodeCall(kms.retireRoot, (0));
        calls[4] = abi.encodeCall(kms.addOsImageHash, ("id"));
        calls[5] = abi.encodeCall(kms.removeOsImageHash, ("id"));
        calls[6] = abi.encodeCall(kms.addKmsAggregatedMr, ("id"));
        calls[7] = abi.encodeCall(kms.removeKmsAggregatedMr, ("id"));
        calls[8] = abi.encodeCall(kms.addKmsDevice, ("id"));
        calls[9] = abi.encodeCall(kms.removeKmsDevice, ("id"));
        calls[10] = abi.encodeCall(kms.addAgentSystem, ("id"));
        calls[11] = abi.encodeCall(kms.removeAgentSystem, ("id"));
        calls[12] = abi.encodeCall(kms.setKmsQuote, ("any"));
        calls[13] = abi.encodeCall(kms.setKmsEventlog, ("any"));
        calls[14] = abi.encodeCall(kms.setGpuGoldenValues, ("id"));
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(stranger.addr);
            (bool ok, bytes memory reason) = address(kms).call(calls[i]);
            assertFalse(ok);
            assertEq(reason, abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, stranger.addr));
        }
    }

    function test_Ownership_MovesInTwoSteps() public {
        vm.prank(operator);
        kms.transferOwnership(stranger.addr);
        assertEq(kms.owner(), operator);
        vm.prank(stranger.addr);
        kms.acceptOwnership();
        assertEq(kms.owner(), stranger.addr);
    }

    // ---- apps ---------------------------------------------------------------------------------------------------

    function test_RegisterApp_RevertWhen_Zero() public {
        vm.expectRevert(_invalidKms("appId"));
        kms.registerApp(address(0));
    }

    function test_RegisterApp_ByAnyone() public {
        vm.expectEmit();
        emit IDstackKms.AppRegistered(address(app));
        vm.prank(stranger.addr);
        kms.registerApp(address(app));
        assertTrue(kms.registeredApps(address(app)));
        vm.recordLogs();
        kms.registerApp(address(app));
        assertEq(vm.getRecordedLogs().length, 0);
    }

    // ---- roots --------------------------------------------------------------------------------------------------

    function test_RegisterRoot_RevertWhen_Malformed() public {
        vm.startPrank(operator);
        vm.expectRevert(_invalidKms("root"));
        kms.registerRoot(address(0), sealingKey);
        vm.expectRevert(_invalidKms("sealingKey"));
        kms.registerRoot(kmsRoot.addr, new bytes(1215));
        vm.expectRevert(_invalidKms("sealingKey"));
        kms.registerRoot(kmsRoot.addr, new bytes(1217));
    }

    function test_Roots_CountUpAndRetire() public {
        vm.startPrank(operator);
        vm.expectEmit();
        emit IDstackKms.RootRegistered(0, kmsRoot.addr, sealingKey);
        assertEq(kms.registerRoot(kmsRoot.addr, sealingKey), 0);
        assertEq(kms.registerRoot(stranger.addr, sealingKey), 1);
        assertEq(kms.rootCount(), 2);
        vm.expectEmit();
        emit IDstackKms.RootRetired(0);
        kms.retireRoot(0);
        vm.recordLogs();
        kms.retireRoot(0);
        assertEq(vm.getRecordedLogs().length, 0);
        (address root, bytes32 keyHash, bool retired) = kms.root(0);
        assertEq(root, kmsRoot.addr);
        assertEq(keyHash, keccak256(sealingKey));
        assertTrue(retired);
        (root,, retired) = kms.root(1);
        assertEq(root, stranger.addr);
        assertFalse(retired);
        vm.expectRevert(abi.encodeWithSelector(IDstackKms.DstackKms_RootUnknown.selector, 2));
        kms.retireRoot(2);
        vm.expectRevert(abi.encodeWithSelector(IDstackKms.DstackKms_RootUnknown.selector, 2));
        kms.root(2);
    }

    // ---- lists --------------------------------------------------------------------------------------------------

    function test_Lists_RevertWhen_Zero() public {
        vm.startPrank(operator);
        vm.expectRevert(_invalidKms("hash"));
        kms.addOsImageHash(0);
        vm.expectRevert(_invalidKms("hash"));
        kms.addKmsAggregatedMr(0);
        vm.expectRevert(_invalidKms("hash"));
        kms.addKmsDevice(0);
        vm.expectRevert(_invalidKms("hash"));
        kms.addAgentSystem(0);
    }

    function testFuzz_Lists_AddAndRemove(bytes32 id) public {
        vm.assume(id != 0);
        vm.startPrank(operator);
        vm.expectEmit();
        emit IDstackKms.OsImageHashAdded(id);
        kms.addOsImageHash(id);
        assertTrue(kms.allowedOsImages(id));
        vm.expectEmit();
        emit IDstackKms.OsImageHashRemoved(id);
        kms.removeOsImageHash(id);
        assertFalse(kms.allowedOsImages(id));

        vm.expectEmit();
        emit IDstackKms.KmsAggregatedMrAdded(id);
        kms.addKmsAggregatedMr(id);
        assertTrue(kms.kmsAllowedAggregatedMrs(id));
        vm.expectEmit();
        emit IDstackKms.KmsAggregatedMrRemoved(id);
        kms.removeKmsAggregatedMr(id);
        assertFalse(kms.kmsAllowedAggregatedMrs(id));

        vm.expectEmit();
        emit IDstackKms.KmsDeviceAdded(id);
        kms.addKmsDevice(id);
        assertTrue(kms.kmsAllowedDeviceIds(id));
        vm.expectEmit();
        emit IDstackKms.KmsDeviceRemoved(id);
        kms.removeKmsDevice(id);
        assertFalse(kms.kmsAllowedDeviceIds(id));

        vm.expectEmit();
        emit IDstackKms.AgentSystemAdded(id);
        kms.addAgentSystem(id);
        assertTrue(kms.allowedAgentSystems(id));
        vm.expectEmit();
        emit IDstackKms.AgentSystemRemoved(id);
        kms.removeAgentSystem(id);
        assertFalse(kms.allowedAgentSystems(id));
    }

    function test_KmsInfo() public {
        vm.startPrank(operator);
        vm.expectEmit();
        emit IDstackKms.KmsInfoSet("k256");
        kms.setKmsInfo(IDstackKms.KmsInfo("k256", "ca", "quote", "log"));
        (bytes memory k256, bytes memory ca, bytes memory quote, bytes memory eventlog) = kms.kmsInfo();
        assertEq(k256, "k256");
        assertEq(ca, "ca");
        assertEq(quote, "quote");
        assertEq(eventlog, "log");
        vm.expectEmit();
        emit IDstackKms.GatewayAppIdSet("any");
        kms.setGatewayAppId("any");
        assertEq(kms.gatewayAppId(), "any");
        assertEq(kms.appImplementation(), address(0));
    }

    // ---- dstack's questions -------------------------------------------------------------------------------------

    function _assertApp(AppBootInfo memory b, bool want, string memory wantReason) private view {
        (bool allowed, string memory reason) = kms.isAppAllowed(b);
        assertEq(allowed, want);
        assertEq(reason, wantReason);
    }

    function test_IsAppAllowed_ReasonsInOrder() public {
        AppBootInfo memory b = _boot();
        _assertApp(b, false, "App not registered");
        kms.registerApp(address(app));
        _assertApp(b, false, "OS image is not allowed");
        vm.prank(operator);
        kms.addOsImageHash("image");
        _assertApp(b, false, "Compose hash not allowed");
        _live(_terms());
        _assertApp(b, true, "");
        vm.etch(address(app), "");
        _assertApp(b, false, "App not deployed or invalid address");
    }

    function test_IsAppAllowed_ARevertOfTheAppGoesThrough() public {
        vm.prank(operator);
        kms.addOsImageHash("image");
        AppBootInfo memory b = _boot();
        b.appId = address(this); // a contract that cannot answer
        kms.registerApp(address(this));
        vm.expectRevert();
        kms.isAppAllowed(b);
    }

    function _assertKms(AppBootInfo memory b, bool want, string memory wantReason) private view {
        (bool allowed, string memory reason) = kms.isKmsAllowed(b);
        assertEq(allowed, want);
        assertEq(reason, wantReason);
    }

    function test_IsKmsAllowed_ReasonsInOrder() public {
        AppBootInfo memory b = _boot();
        b.tcbStatus = "OutOfDate";
        _assertKms(b, false, "TCB status is not up to date");
        b.tcbStatus = "UpToDate";
        _assertKms(b, false, "OS image is not allowed");
        vm.startPrank(operator);
        kms.addOsImageHash("image");
        _assertKms(b, false, "Aggregated MR not allowed");
        kms.addKmsAggregatedMr("aggregated");
        _assertKms(b, false, "KMS is not allowed to boot on this device");
        kms.addKmsDevice("device");
        _assertKms(b, true, "");
    }

    function test_SelectorsAreDstacks() public pure {
        assertEq(IDstackKms.registerApp.selector, bytes4(0x17a1d80f));
        assertEq(IDstackKms.kmsInfo.selector, bytes4(0x09177063));
        assertEq(DstackKms.isAppAllowed.selector, bytes4(0x1e079198));
        assertEq(DstackKms.isKmsAllowed.selector, bytes4(0xe067ec9d));
    }

    // ---- dstack's surface ---------------------------------------------------------------------------------------

    function test_SupportsInterface_OnlyWhatItHas() public view {
        assertTrue(kms.supportsInterface(0x01ffc9a7));
        assertTrue(kms.supportsInterface(0x1e079198));
        // The invalid id, dstack's management of one app, and its epoch-aware interfaces.
        assertFalse(kms.supportsInterface(0xffffffff));
        assertFalse(kms.supportsInterface(0x8fd37527));
        assertFalse(kms.supportsInterface(0xd33835bd));
        assertFalse(kms.supportsInterface(0xc396c1b0));
    }

    function test_GpuGoldenValues_AreSetAndTold() public {
        vm.prank(operator);
        vm.expectEmit(address(kms));
        emit IDstackKms.GpuGoldenValuesSet("list");
        kms.setGpuGoldenValues("list");
        assertEq(kms.gpuGoldenValues(), "list");
    }

    function test_KmsInfo_QuoteAndEventLogAreReplacedAlone() public {
        vm.startPrank(operator);
        kms.setKmsInfo(IDstackKms.KmsInfo("key", "ca", "quote", "log"));
        kms.setKmsQuote("other quote");
        kms.setKmsEventlog("other log");
        (bytes memory key, bytes memory ca, bytes memory quote, bytes memory log) = kms.kmsInfo();
        assertEq(abi.encode(key, ca, quote, log), abi.encode("key", "ca", "other quote", "other log"));
    }

    function _expectPolicy(address actor, string memory policy, bytes32 value, bool enabled) private {
        vm.expectEmit(address(kms));
        emit IDstackKms.PolicyChanged(actor, keccak256(bytes(policy)), value, enabled);
    }

    function test_PolicyChanged_IsThereForEachRule() public {
        _expectPolicy(address(this), "registered-app", bytes32(uint256(uint160(address(app)))), true);
        kms.registerApp(address(app));
        vm.startPrank(operator);
        _expectPolicy(operator, "kms-info", keccak256("key"), true);
        kms.setKmsInfo(IDstackKms.KmsInfo("key", "", "", ""));
        _expectPolicy(operator, "gateway-app-id", keccak256("gateway"), true);
        kms.setGatewayAppId("gateway");
        _expectPolicy(operator, "os-image", "id", true);
        kms.addOsImageHash("id");
        _expectPolicy(operator, "os-image", "id", false);
        kms.removeOsImageHash("id");
        _expectPolicy(operator, "kms-aggregated-mr", "id", true);
        kms.addKmsAggregatedMr("id");
        _expectPolicy(operator, "kms-aggregated-mr", "id", false);
        kms.removeKmsAggregatedMr("id");
        _expectPolicy(operator, "kms-device", "id", true);
        kms.addKmsDevice("id");
        _expectPolicy(operator, "kms-device", "id", false);
        kms.removeKmsDevice("id");
    }
}
