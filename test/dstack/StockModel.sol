// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AppBootInfo} from "../../contracts/IDstackApp.sol";

/// @title dstack's own DstackApp as far as it decides: one owner, three lists and switches, and the order of its checks.
/// @notice A model for comparison, from dstack's documented behaviour (0.6.0): it looks at TCB status, compose hash and
/// device, in this order, and at nothing else of the boot information.
contract StockApp {
    address public immutable OWNER;
    mapping(bytes32 => bool) public allowedComposeHashes;
    mapping(bytes32 => bool) public allowedDeviceIds;
    bool public allowAnyDevice;
    bool public requireTcbUpToDate;

    event ComposeHashAdded(bytes32 composeHash);
    event ComposeHashRemoved(bytes32 composeHash);
    event DeviceAdded(bytes32 deviceId);
    event DeviceRemoved(bytes32 deviceId);
    event AllowAnyDeviceSet(bool allowAny);
    event RequireTcbUpToDateSet(bool required);

    modifier onlyOwner() {
        require(msg.sender == OWNER);
        _;
    }

    constructor(address owner) {
        OWNER = owner;
    }

    function addComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = true;
        emit ComposeHashAdded(composeHash);
    }

    function removeComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = false;
        emit ComposeHashRemoved(composeHash);
    }

    function addDevice(bytes32 deviceId) external onlyOwner {
        allowedDeviceIds[deviceId] = true;
        emit DeviceAdded(deviceId);
    }

    function removeDevice(bytes32 deviceId) external onlyOwner {
        allowedDeviceIds[deviceId] = false;
        emit DeviceRemoved(deviceId);
    }

    function setAllowAnyDevice(bool allowAny) external onlyOwner {
        allowAnyDevice = allowAny;
        emit AllowAnyDeviceSet(allowAny);
    }

    function setRequireTcbUpToDate(bool required) external onlyOwner {
        requireTcbUpToDate = required;
        emit RequireTcbUpToDateSet(required);
    }

    function isAppAllowed(AppBootInfo calldata boot) external view returns (bool, string memory) {
        bool upToDate = keccak256(bytes(boot.tcbStatus)) == keccak256("UpToDate");
        if (requireTcbUpToDate && !upToDate) return (false, "TCB status is not up to date");
        if (!allowedComposeHashes[boot.composeHash]) return (false, "Compose hash not allowed");
        if (!allowAnyDevice && !allowedDeviceIds[boot.deviceId]) return (false, "Device not allowed");
        return (true, "");
    }
}

/// @title dstack's own DstackKms as far as it decides.
contract StockKms {
    address public immutable OWNER;
    mapping(address => bool) public registeredApps;
    mapping(bytes32 => bool) public allowedOsImages;
    mapping(bytes32 => bool) public kmsAllowedAggregatedMrs;
    mapping(bytes32 => bool) public kmsAllowedDeviceIds;

    modifier onlyOwner() {
        require(msg.sender == OWNER);
        _;
    }

    constructor(address owner) {
        OWNER = owner;
    }

    /// Anyone may.
    function registerApp(address appId) external {
        require(appId != address(0));
        registeredApps[appId] = true;
    }

    function addOsImageHash(bytes32 id) external onlyOwner {
        allowedOsImages[id] = true;
    }

    function removeOsImageHash(bytes32 id) external onlyOwner {
        allowedOsImages[id] = false;
    }

    function addKmsAggregatedMr(bytes32 id) external onlyOwner {
        kmsAllowedAggregatedMrs[id] = true;
    }

    function removeKmsAggregatedMr(bytes32 id) external onlyOwner {
        kmsAllowedAggregatedMrs[id] = false;
    }

    function addKmsDevice(bytes32 id) external onlyOwner {
        kmsAllowedDeviceIds[id] = true;
    }

    function removeKmsDevice(bytes32 id) external onlyOwner {
        kmsAllowedDeviceIds[id] = false;
    }

    function isAppAllowed(AppBootInfo calldata boot) external view returns (bool, string memory) {
        if (!registeredApps[boot.appId]) return (false, "App not registered");
        if (!allowedOsImages[boot.osImageHash]) return (false, "OS image is not allowed");
        if (boot.appId.code.length == 0) return (false, "App not deployed or invalid address");
        return StockApp(boot.appId).isAppAllowed(boot);
    }

    function isKmsAllowed(AppBootInfo calldata boot) external view returns (bool, string memory) {
        bool upToDate = keccak256(bytes(boot.tcbStatus)) == keccak256("UpToDate");
        if (!upToDate) return (false, "TCB status is not up to date");
        if (!allowedOsImages[boot.osImageHash]) return (false, "OS image is not allowed");
        if (!kmsAllowedAggregatedMrs[boot.mrAggregated]) return (false, "Aggregated MR not allowed");
        if (!kmsAllowedDeviceIds[boot.deviceId]) return (false, "KMS is not allowed to boot on this device");
        return (true, "");
    }
}
