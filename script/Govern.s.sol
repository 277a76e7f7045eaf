// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp} from "../contracts/IDstackApp.sol";
import {Acting} from "./Acting.sol";

/// @title Governance by quorum: approve a call of the app on itself, veto it, execute it after its delay.
/// @notice `data` is that call, as script/govern encodes it from an action file and prints it.
contract Govern is Acting {
    function approve(address at, uint256 chainId, bytes calldata data, bytes32 salt) external {
        IDstackApp app = _connect(at, chainId);
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, false)));
        _say("action", vm.toString(app.approveAction(data, salt)));
        vm.stopBroadcast();
    }

    function veto(address at, uint256 chainId, bytes32 actionId) external {
        IDstackApp app = _connect(at, chainId);
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, true)));
        _say("vetoes", vm.toString(actionId));
        app.vetoAction(actionId);
        vm.stopBroadcast();
    }

    /// Anyone may, from the end of the delay on.
    function execute(address at, uint256 chainId, bytes calldata data, bytes32 salt) external {
        IDstackApp app = _connect(at, chainId);
        _sender();
        app.executeAction(data, salt);
        vm.stopBroadcast();
    }
}
