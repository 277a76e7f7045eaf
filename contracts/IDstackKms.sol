// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The registry for self-hosted use: KMS roots by epoch, allowed images and measurements, registered apps.
/// @notice Compatible with what dstack's tools and auth server call on dstack's own DstackKms. Every
/// DstackApp pins its KMS root itself. Safety rests on its owner for one thing: which CVM images count as genuine.
interface IDstackKms {
    /// dstack's KmsInfo (kms/auth-eth DstackKms.sol), field for field.
    struct KmsInfo {
        bytes k256Pubkey;
        bytes caPubkey;
        bytes quote;
        bytes eventlog;
    }

    error DstackKms_InvalidField(string field);
    error DstackKms_RootUnknown(uint32 epoch);

    /// dstack's event.
    event AppRegistered(address appId);
    event KmsInfoSet(bytes k256Pubkey);
    event GatewayAppIdSet(string gatewayAppId);
    /// `sealingKey` is the X-Wing public key (1216 bytes) that owners seal to; `root` signs for it.
    event RootRegistered(uint32 indexed epoch, address indexed root, bytes sealingKey);
    event RootRetired(uint32 indexed epoch);
    event OsImageHashAdded(bytes32 osImageHash);
    event OsImageHashRemoved(bytes32 osImageHash);
    event KmsAggregatedMrAdded(bytes32 mrAggregated);
    event KmsAggregatedMrRemoved(bytes32 mrAggregated);
    event KmsDeviceAdded(bytes32 deviceId);
    event KmsDeviceRemoved(bytes32 deviceId);
    /// mrSystem of a CVM (dstack: SHA-256 over MRTD, RTMR0 to 2 and the key provider) whose agents may get keys.
    event AgentSystemAdded(bytes32 mrSystem);
    event AgentSystemRemoved(bytes32 mrSystem);
    event GpuGoldenValuesSet(bytes32 listHash);
    /// dstack's audit event, beside each of dstack's own above. `policy` is keccak256 of "registered-app", "kms-info",
    /// "gateway-app-id", "os-image", "kms-aggregated-mr" or "kms-device"; `value` the hash, id or address, for the second
    /// and third keccak256 of the public key or of the text.
    event PolicyChanged(address indexed actor, bytes32 indexed policy, bytes32 indexed value, bool enabled);

    /// Anyone registers an app, before or after it is deployed; confers nothing by itself. Idempotent.
    /// Reverts: InvalidField (zero).
    function registerApp(address appId) external;
    function registeredApps(address appId) external view returns (bool);
    function kmsInfo()
        external
        view
        returns (bytes memory k256Pubkey, bytes memory caPubkey, bytes memory quote, bytes memory eventlog);
    /// Owner only. Informative: an app pins its KMS root itself.
    function setKmsInfo(KmsInfo calldata info) external;
    /// Owner only. The quote alone, as dstack's tools replace it after a restart of the KMS; no event, as there.
    function setKmsQuote(bytes calldata quote) external;
    /// Owner only. The event log alone; no event, as in dstack's.
    function setKmsEventlog(bytes calldata eventlog) external;

    /// `listHash` of the signed list of GPU golden values in force (docs/spec/gpu-evidence.md: SHA-256 of the RFC 8785 bytes of
    /// its `golden`), for owners and auditors to compare with a KMS's list; zero: none is announced.
    function gpuGoldenValues() external view returns (bytes32 listHash);
    /// Owner only.
    function setGpuGoldenValues(bytes32 listHash) external;

    /// dstack's auth server passes it on; empty: no gateway.
    function gatewayAppId() external view returns (string memory);
    /// Owner only.
    function setGatewayAppId(string calldata appId) external;
    /// Zero: this registry deploys no apps. dstack's auth server reads it.
    function appImplementation() external view returns (address);

    /// Owner only. Epochs count up from 0; the latest not retired is the one to seal to.
    /// Reverts: InvalidField (zero root, sealing key not 1216 bytes).
    function registerRoot(address root, bytes calldata sealingKey) external returns (uint32 epoch);
    /// Owner only. A retired epoch's root no longer opens anything; terminal, idempotent. Reverts: RootUnknown.
    function retireRoot(uint32 epoch) external;
    function rootCount() external view returns (uint32);
    /// `sealingKeyHash` is keccak256 of the sealing key; the key itself is in the event. Reverts: RootUnknown.
    function root(uint32 epoch) external view returns (address rootAddress, bytes32 sealingKeyHash, bool retired);

    // Allow-lists. Owner only; zero is refused (InvalidField); adding or removing twice changes nothing.

    function addOsImageHash(bytes32 osImageHash) external;
    function removeOsImageHash(bytes32 osImageHash) external;
    function allowedOsImages(bytes32 osImageHash) external view returns (bool);
    function addKmsAggregatedMr(bytes32 mrAggregated) external;
    function removeKmsAggregatedMr(bytes32 mrAggregated) external;
    function kmsAllowedAggregatedMrs(bytes32 mrAggregated) external view returns (bool);
    function addKmsDevice(bytes32 deviceId) external;
    function removeKmsDevice(bytes32 deviceId) external;
    function kmsAllowedDeviceIds(bytes32 deviceId) external view returns (bool);
    function addAgentSystem(bytes32 mrSystem) external;
    function removeAgentSystem(bytes32 mrSystem) external;
    function allowedAgentSystems(bytes32 mrSystem) external view returns (bool);
}
