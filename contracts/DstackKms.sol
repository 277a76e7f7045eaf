// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {AppBootInfo, IDstackApp} from "./IDstackApp.sol";
import {IDstackKms} from "./IDstackKms.sol";

/// @title The registry for self-hosted use. The manual is in IDstackKms.
/// @notice It holds no secret and opens no data: its owner can refuse service, and every DstackApp pins its KMS root.
contract DstackKms is IDstackKms, IERC165, Ownable2Step {
    struct Root {
        address rootAddress;
        bool retired;
        bytes32 sealingKeyHash;
    }

    /// Bytes of an X-Wing public key.
    uint256 private constant SEALING_KEY_BYTES = 1216;
    /// dstack's ERC-165 id of IAppAuth: it answers `isAppAllowed`.
    bytes4 private constant APP_AUTH_ID = 0x1e079198;

    /// @inheritdoc IDstackKms
    KmsInfo public kmsInfo;
    /// @inheritdoc IDstackKms
    string public gatewayAppId;
    Root[] private _roots;
    /// @inheritdoc IDstackKms
    mapping(address appId => bool) public registeredApps;
    /// @inheritdoc IDstackKms
    mapping(bytes32 osImageHash => bool) public allowedOsImages;
    /// @inheritdoc IDstackKms
    mapping(bytes32 mrAggregated => bool) public kmsAllowedAggregatedMrs;
    /// @inheritdoc IDstackKms
    mapping(bytes32 deviceId => bool) public kmsAllowedDeviceIds;
    /// @inheritdoc IDstackKms
    mapping(bytes32 mrSystem => bool) public allowedAgentSystems;
    /// @inheritdoc IDstackKms
    bytes32 public gpuGoldenValues;

    constructor(address initialOwner) Ownable(initialOwner) {}

    /// @inheritdoc IDstackKms
    function registerApp(address appId) external {
        if (appId == address(0)) revert DstackKms_InvalidField("appId");
        if (registeredApps[appId]) return;
        registeredApps[appId] = true;
        emit AppRegistered(appId);
        _emitPolicy("registered-app", bytes32(uint256(uint160(appId))), true);
    }

    /// @inheritdoc IDstackKms
    function setKmsInfo(KmsInfo calldata info) external onlyOwner {
        kmsInfo = info;
        emit KmsInfoSet(info.k256Pubkey);
        _emitPolicy("kms-info", keccak256(info.k256Pubkey), true);
    }

    /// @inheritdoc IDstackKms
    function setGpuGoldenValues(bytes32 listHash) external onlyOwner {
        gpuGoldenValues = listHash;
        emit GpuGoldenValuesSet(listHash);
    }

    /// @inheritdoc IDstackKms
    function setKmsQuote(bytes calldata quote) external onlyOwner {
        kmsInfo.quote = quote;
    }

    /// @inheritdoc IDstackKms
    function setKmsEventlog(bytes calldata eventlog) external onlyOwner {
        kmsInfo.eventlog = eventlog;
    }

    /// @inheritdoc IDstackKms
    function setGatewayAppId(string calldata appId) external onlyOwner {
        gatewayAppId = appId;
        emit GatewayAppIdSet(appId);
        _emitPolicy("gateway-app-id", keccak256(bytes(appId)), true);
    }

    /// @inheritdoc IDstackKms
    function appImplementation() external pure returns (address) {
        return address(0);
    }

    // ---- roots --------------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackKms
    function registerRoot(address rootAddress, bytes calldata sealingKey) external onlyOwner returns (uint32 epoch) {
        if (rootAddress == address(0)) revert DstackKms_InvalidField("root");
        if (sealingKey.length != SEALING_KEY_BYTES) revert DstackKms_InvalidField("sealingKey");
        epoch = uint32(_roots.length);
        _roots.push(Root(rootAddress, false, keccak256(sealingKey)));
        emit RootRegistered(epoch, rootAddress, sealingKey);
    }

    /// @inheritdoc IDstackKms
    function retireRoot(uint32 epoch) external onlyOwner {
        Root storage r = _root(epoch);
        if (r.retired) return;
        r.retired = true;
        emit RootRetired(epoch);
    }

    /// @inheritdoc IDstackKms
    function rootCount() external view returns (uint32) {
        return uint32(_roots.length);
    }

    /// @inheritdoc IDstackKms
    function root(uint32 epoch) external view returns (address rootAddress, bytes32 sealingKeyHash, bool retired) {
        Root storage r = _root(epoch);
        return (r.rootAddress, r.sealingKeyHash, r.retired);
    }

    // ---- allow-lists --------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackKms
    function addOsImageHash(bytes32 osImageHash) external onlyOwner {
        _set(allowedOsImages, osImageHash, true);
        emit OsImageHashAdded(osImageHash);
        _emitPolicy("os-image", osImageHash, true);
    }

    /// @inheritdoc IDstackKms
    function removeOsImageHash(bytes32 osImageHash) external onlyOwner {
        _set(allowedOsImages, osImageHash, false);
        emit OsImageHashRemoved(osImageHash);
        _emitPolicy("os-image", osImageHash, false);
    }

    /// @inheritdoc IDstackKms
    function addKmsAggregatedMr(bytes32 mrAggregated) external onlyOwner {
        _set(kmsAllowedAggregatedMrs, mrAggregated, true);
        emit KmsAggregatedMrAdded(mrAggregated);
        _emitPolicy("kms-aggregated-mr", mrAggregated, true);
    }

    /// @inheritdoc IDstackKms
    function removeKmsAggregatedMr(bytes32 mrAggregated) external onlyOwner {
        _set(kmsAllowedAggregatedMrs, mrAggregated, false);
        emit KmsAggregatedMrRemoved(mrAggregated);
        _emitPolicy("kms-aggregated-mr", mrAggregated, false);
    }

    /// @inheritdoc IDstackKms
    function addKmsDevice(bytes32 deviceId) external onlyOwner {
        _set(kmsAllowedDeviceIds, deviceId, true);
        emit KmsDeviceAdded(deviceId);
        _emitPolicy("kms-device", deviceId, true);
    }

    /// @inheritdoc IDstackKms
    function removeKmsDevice(bytes32 deviceId) external onlyOwner {
        _set(kmsAllowedDeviceIds, deviceId, false);
        emit KmsDeviceRemoved(deviceId);
        _emitPolicy("kms-device", deviceId, false);
    }

    /// @inheritdoc IDstackKms
    function addAgentSystem(bytes32 mrSystem) external onlyOwner {
        _set(allowedAgentSystems, mrSystem, true);
        emit AgentSystemAdded(mrSystem);
    }

    /// @inheritdoc IDstackKms
    function removeAgentSystem(bytes32 mrSystem) external onlyOwner {
        _set(allowedAgentSystems, mrSystem, false);
        emit AgentSystemRemoved(mrSystem);
    }

    // ---- dstack's questions -------------------------------------------------------------------------------------

    /// May this CVM boot as an app and get the app's own keys? dstack's order of checks and reasons. A revert of the
    /// app goes through to the caller, who must take it as no.
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason) {
        if (!registeredApps[bootInfo.appId]) return (false, "App not registered");
        if (!allowedOsImages[bootInfo.osImageHash]) return (false, "OS image is not allowed");
        if (bootInfo.appId.code.length == 0) return (false, "App not deployed or invalid address");
        return IDstackApp(bootInfo.appId).isAppAllowed(bootInfo);
    }

    /// May this CVM boot as a KMS? dstack's order of checks and reasons.
    function isKmsAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason) {
        if (keccak256(bytes(bootInfo.tcbStatus)) != keccak256("UpToDate")) {
            return (false, "TCB status is not up to date");
        }
        if (!allowedOsImages[bootInfo.osImageHash]) return (false, "OS image is not allowed");
        if (!kmsAllowedAggregatedMrs[bootInfo.mrAggregated]) return (false, "Aggregated MR not allowed");
        if (!kmsAllowedDeviceIds[bootInfo.deviceId]) return (false, "KMS is not allowed to boot on this device");
        return (true, "");
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IERC165).interfaceId || interfaceId == APP_AUTH_ID;
    }

    // ---- private ------------------------------------------------------------------------------------------------

    /// dstack's audit event beside its older ones.
    function _emitPolicy(string memory policy, bytes32 value, bool enabled) private {
        emit PolicyChanged(msg.sender, keccak256(bytes(policy)), value, enabled);
    }

    function _root(uint32 epoch) private view returns (Root storage) {
        if (epoch >= _roots.length) revert DstackKms_RootUnknown(epoch);
        return _roots[epoch];
    }

    function _set(mapping(bytes32 => bool) storage list, bytes32 id, bool allowed) private {
        if (id == 0) revert DstackKms_InvalidField("hash");
        list[id] = allowed;
    }
}
