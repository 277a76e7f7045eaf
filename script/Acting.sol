// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {console} from "forge-std/console.sol";

import {DstackApp} from "../contracts/DstackApp.sol";
import {IDstackApp, OwnerInfo} from "../contracts/IDstackApp.sol";
import {Inputs} from "./Inputs.sol";

/// @title What scripts that act on a deployed DstackApp share: the right chain, the right code, a known sender.
/// @notice They refuse before anything is sent, in a sentence and a hint, as `cohort` does.
abstract contract Acting is Inputs {
    /// The inputs cannot be used.
    error Unusable(string what, string hint);
    /// The chain's state says no.
    error Refused(string what, string hint);

    /// The consortium's contract, once chain and code are as expected. One source has one code hash, whatever its inputs.
    function _connect(address at, uint256 chainId) internal view returns (IDstackApp) {
        _requireChain(chainId);
        _requireCode(at);
        if (at.codehash != keccak256(type(DstackApp).runtimeCode)) {
            revert Unusable(
                string.concat("the code at ", vm.toString(at), " is not this checkout's DstackApp"),
                "check out the release that was deployed, and see script/verify"
            );
        }
        return IDstackApp(at);
    }

    function _requireChain(uint256 chainId) internal view {
        if (block.chainid == chainId) return;
        revert Unusable(
            string.concat("the endpoint is chain ", vm.toString(block.chainid), ", not ", vm.toString(chainId)),
            "give the --rpc-url of the chain that the contract is on"
        );
    }

    function _requireCode(address at) internal view {
        if (at.code.length != 0) return;
        revert Unusable(
            string.concat("there is no contract at ", vm.toString(at), " on chain ", vm.toString(block.chainid)),
            "check the address and the --rpc-url"
        );
    }

    /// Starts the broadcast and returns who sends: a wallet given to forge wins over `--sender`.
    function _sender() internal returns (address sender) {
        vm.startBroadcast();
        (, sender,) = vm.readCallers();
    }

    /// The owner whose account sends. With `orRevoker` its revocation key will do.
    function _requireOwner(IDstackApp app, address sender, bool orRevoker) internal view returns (bytes32 ownerId) {
        (OwnerInfo[] memory list,) = app.owners();
        string memory known = "";
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i].account == sender) return list[i].ownerId;
            if (orRevoker && sender != address(0) && list[i].revoker == sender) return list[i].ownerId;
            known = string.concat(known, i == 0 ? "" : ", ", _text(list[i].ownerId), " ", vm.toString(list[i].account));
        }
        revert Refused(
            string.concat(
                vm.toString(sender), " is not an owner's ", orRevoker ? "account or revocation key" : "account"
            ),
            string.concat("send from one of: ", known)
        );
    }

    function _say(string memory label, string memory value) internal pure {
        bytes memory padded = new bytes(14);
        for (uint256 i = 0; i < 14; ++i) {
            padded[i] = i < bytes(label).length ? bytes(label)[i] : bytes1(" ");
        }
        console.log(string.concat(string(padded), value));
    }

    /// A short label as `Inputs._label` reads it.
    function _text(bytes32 label) internal pure returns (string memory) {
        uint256 length = 0;
        while (length < 32 && label[length] != 0) ++length;
        bytes memory text = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            text[i] = label[i];
        }
        return string(text);
    }
}
