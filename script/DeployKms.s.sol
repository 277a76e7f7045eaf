// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DstackKms} from "../contracts/DstackKms.sol";
import {Inputs} from "./Inputs.sol";

/// @title Deploys the registry, registers the KMS root and the allowed measurements.
/// @notice The sender owns the registry; an `owner` in the input is offered it and takes it with `acceptOwnership`.
contract DeployKms is Inputs {
    function run(string calldata inputPath) external returns (DstackKms kms) {
        string memory json = vm.readFile(inputPath);
        address root = _address(json, ".root");
        bytes memory sealingKey = _bytes(json, ".sealingKey");
        bytes32[] memory mrSystems = _hashes(json, ".mrSystems");
        bytes32[] memory osImageHashes = _hashes(json, ".osImageHashes");
        bytes32[] memory kmsAggregatedMrs = _hashes(json, ".kmsAggregatedMrs");
        bytes32[] memory kmsDevices = _hashes(json, ".kmsDevices");
        address owner = _addressOr(json, ".owner", msg.sender);
        string memory output = _string(json, ".output");

        vm.startBroadcast();
        kms = new DstackKms(msg.sender);
        kms.registerRoot(root, sealingKey);
        for (uint256 i = 0; i < mrSystems.length; ++i) {
            kms.addAgentSystem(mrSystems[i]);
        }
        for (uint256 i = 0; i < osImageHashes.length; ++i) {
            kms.addOsImageHash(osImageHashes[i]);
        }
        for (uint256 i = 0; i < kmsAggregatedMrs.length; ++i) {
            kms.addKmsAggregatedMr(kmsAggregatedMrs[i]);
        }
        for (uint256 i = 0; i < kmsDevices.length; ++i) {
            kms.addKmsDevice(kmsDevices[i]);
        }
        if (owner != msg.sender) kms.transferOwnership(owner);
        vm.stopBroadcast();

        vm.serializeUint("kms", "chainId", block.chainid);
        vm.serializeUint("kms", "fromBlock", block.number);
        _write(vm.serializeAddress("kms", "dstackKms", address(kms)), output);
    }
}
