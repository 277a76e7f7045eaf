// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DstackApp} from "../contracts/DstackApp.sol";
import {DstackAppFactory} from "../contracts/DstackAppFactory.sol";
import {OwnerInfo} from "../contracts/IDstackApp.sol";
import {Inputs} from "./Inputs.sol";

/// @title Deploys one consortium's contract and registers it with a DstackKms, dstack's own or ours, in one transaction.
/// @notice Through the given factory, or one that it deploys first. The deployer keeps no power over it.
contract DeployApp is Inputs {
    /// Time in which any one owner can veto what a quorum has decided.
    uint64 private constant DEFAULT_DELAY_SECONDS = 2 days;

    struct Founding {
        bytes32 name;
        bytes32 sector;
        OwnerInfo[] owners;
        uint8 threshold;
        address kmsRoot;
        address[] analysts;
        uint64 governanceDelaySeconds;
    }

    function run(string calldata inputPath) external returns (DstackApp app) {
        string memory json = vm.readFile(inputPath);
        Founding memory f = _founding(json);
        address kms = _addressOr(json, ".dstackKms", address(0));
        if (kms != address(0) && kms.code.length == 0) revert Input_NoContract(".dstackKms", kms);
        string memory output = _string(json, ".output");

        DstackAppFactory factory = DstackAppFactory(_addressOr(json, ".factory", address(0)));
        bytes32 salt = vm.keyExistsJson(json, ".salt") ? vm.parseJsonBytes32(json, ".salt") : bytes32(0);
        bytes memory code = type(DstackApp).creationCode;
        bytes memory arguments =
            abi.encode(f.name, f.sector, f.owners, f.threshold, f.kmsRoot, f.analysts, f.governanceDelaySeconds);

        vm.startBroadcast();
        if (address(factory) == address(0)) factory = new DstackAppFactory(keccak256(code));
        app = DstackApp(factory.deploy(code, arguments, salt, kms));
        vm.stopBroadcast();

        vm.serializeUint("app", "chainId", block.chainid);
        vm.serializeUint("app", "fromBlock", block.number);
        vm.serializeAddress("app", "factory", address(factory));
        vm.serializeBytes32("app", "codeHash", address(app).codehash);
        _write(vm.serializeAddress("app", "dstackApp", address(app)), output);
    }

    function _founding(string memory json) private view returns (Founding memory f) {
        f.name = _label(json, ".name");
        f.sector = _label(json, ".sector");
        f.threshold = uint8(_uint(json, ".threshold", type(uint8).max));
        f.kmsRoot = _address(json, ".kmsRoot");
        f.analysts = _addresses(json, ".analysts");
        f.governanceDelaySeconds = vm.keyExistsJson(json, ".governanceDelaySeconds")
            ? uint64(_uint(json, ".governanceDelaySeconds", type(uint64).max))
            : DEFAULT_DELAY_SECONDS;
        uint256 count = 0;
        while (vm.keyExistsJson(json, _at(count))) ++count;
        f.owners = new OwnerInfo[](count);
        for (uint256 i = 0; i < count; ++i) {
            f.owners[i] = _owner(json, _at(i));
        }
    }

    function _owner(string memory json, string memory at) private view returns (OwnerInfo memory) {
        return OwnerInfo({
            ownerId: _label(json, string.concat(at, ".ownerId")),
            account: _address(json, string.concat(at, ".account")),
            revoker: _addressOr(json, string.concat(at, ".revoker"), address(0)),
            jurisdiction: _country(json, string.concat(at, ".jurisdiction")),
            grades: _grades(json, string.concat(at, ".grades")),
            epsilonCap: uint64(_uint(json, string.concat(at, ".epsilonCap"), type(uint64).max)),
            deltaCap: uint64(_uint(json, string.concat(at, ".deltaCap"), type(uint64).max))
        });
    }

    function _at(uint256 i) private pure returns (string memory) {
        return string.concat(".owners[", vm.toString(i), "]");
    }
}
