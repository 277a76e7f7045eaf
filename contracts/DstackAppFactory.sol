// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackKms} from "./IDstackKms.sol";

/// @title Creates, founds and registers one consortium's DstackApp in one transaction.
/// @notice Founding arguments are part of what CREATE2 hashes, so the address names code and arguments: whoever sends
/// the same call first creates the very same contract, and the later call finds it there and succeeds. Nobody gains
/// anything by being first, and there is no initializer to run before the owners do. It has no owner and no state.
/// The app's creation code is larger than a contract may be, so the caller gives it and its hash is checked.
contract DstackAppFactory {
    /// keccak256 of the creation code of DstackApp (without arguments) that this factory deploys.
    bytes32 public immutable appCreationCodeHash;

    /// The code given is not the one that this factory deploys.
    error DstackAppFactory_WrongCode(bytes32 have, bytes32 want);
    /// There is no contract at the registry's address, or it did not register the app.
    error DstackAppFactory_NotRegistered(address registry, address app);

    /// `argumentsHash` is keccak256 of the ABI-encoded founding arguments. `registry` is zero where none was asked for.
    event AppDeployed(address indexed app, address indexed registry, bytes32 indexed salt, bytes32 argumentsHash);

    constructor(bytes32 appCreationCodeHash_) {
        appCreationCodeHash = appCreationCodeHash_;
    }

    /// Anyone deploys an app founded with `arguments` (the ABI encoding of DstackApp's constructor arguments) and registers
    /// it with `registry`, dstack's own DstackKms or ours; zero: with none. Does not check who the owners are: they read it
    /// back before they approve anything. The same call again changes nothing and returns the same address.
    /// Reverts: WrongCode, NotRegistered, and what DstackApp's constructor reverts with.
    function deploy(bytes calldata creationCode, bytes calldata arguments, bytes32 salt, address registry)
        external
        returns (address app)
    {
        bytes memory initCode = _initCode(creationCode, arguments);
        app = _address(initCode, salt);
        if (app.code.length == 0) {
            assembly ("memory-safe") {
                app := create2(0, add(initCode, 32), mload(initCode), salt)
                if iszero(app) {
                    returndatacopy(0, 0, returndatasize())
                    revert(0, returndatasize())
                }
            }
            emit AppDeployed(app, registry, salt, keccak256(arguments));
        }
        if (registry == address(0)) return app;
        if (registry.code.length == 0) revert DstackAppFactory_NotRegistered(registry, app);
        IDstackKms(registry).registerApp(app);
        if (!IDstackKms(registry).registeredApps(app)) revert DstackAppFactory_NotRegistered(registry, app);
    }

    /// Where `deploy` with the same code, arguments and salt puts the app. Reverts: WrongCode.
    function addressOf(bytes calldata creationCode, bytes calldata arguments, bytes32 salt)
        external
        view
        returns (address)
    {
        return _address(_initCode(creationCode, arguments), salt);
    }

    function _initCode(bytes calldata creationCode, bytes calldata arguments) private view returns (bytes memory) {
        bytes32 have = keccak256(creationCode);
        if (have != appCreationCodeHash) revert DstackAppFactory_WrongCode(have, appCreationCodeHash);
        return bytes.concat(creationCode, arguments);
    }

    function _address(bytes memory initCode, bytes32 salt) private view returns (address) {
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0xff), address(this), salt, keccak256(initCode)));
        return address(uint160(uint256(hash)));
    }
}
