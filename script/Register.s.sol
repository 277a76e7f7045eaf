// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DstackKms} from "../contracts/DstackKms.sol";
import {DatasetInfo, IDstackApp} from "../contracts/IDstackApp.sol";
import {TermsFile} from "./TermsFile.sol";

/// @title Registers a sealed dataset at its consortium, or a consortium at a DstackKms, dstack's own or ours.
contract Register is TermsFile {
    /// `card` is a file of `cohort inspect --json`, which has checked the sealed file.
    function registerDataset(
        address at,
        uint256 chainId,
        string calldata card,
        string calldata region,
        string calldata kind,
        bytes32 supersedes
    ) external {
        IDstackApp app = _connect(at, chainId);
        (DatasetInfo memory info, bytes32 owner) = _card(card, at);
        info.region = _labelOf("region", region);
        info.kind = _labelOf("kind", kind);
        info.supersedes = supersedes;

        address sender = _sender();
        bytes32 ownerId = _requireOwner(app, sender, false);
        if (ownerId != owner) {
            revert Refused(
                string.concat(card, " belongs to ", _text(owner), ", but the sender is ", _text(ownerId)),
                "send from the account of its owner"
            );
        }
        (bool registered,,,) = app.dataset(info.datasetId);
        if (registered) {
            revert Refused(
                string.concat("dataset ", vm.toString(info.datasetId), " is registered already"), "none needed"
            );
        }
        _say("owner", _text(ownerId));
        _say("dataset", vm.toString(info.datasetId));
        _say("compose-hash", vm.toString(info.composeHash));
        _say("public", string.concat(region, ", ", kind, ", ", vm.toString(info.records), " records"));
        app.registerDataset(info);
        vm.stopBroadcast();
    }

    /// Anyone may; it confers nothing by itself.
    function registerApp(address at, uint256 chainId, address registry) external {
        _connect(at, chainId);
        _requireCode(registry);
        DstackKms kms = DstackKms(registry);
        if (kms.registeredApps(at)) {
            revert Refused(string.concat(vm.toString(at), " is registered already"), "none needed");
        }
        _say("app", vm.toString(at));
        _say("registry", vm.toString(registry));
        _sender();
        kms.registerApp(at);
        vm.stopBroadcast();
    }

    // ---- private ------------------------------------------------------------------------------------------------

    function _card(string calldata path, address at) private view returns (DatasetInfo memory info, bytes32 owner) {
        string memory json = _json(path);
        if (
            _whole(json, ".chain_id", type(uint256).max, path) != block.chainid
                || vm.parseJsonAddress(json, ".analysis_app_id") != at
        ) {
            revert Unusable(
                string.concat(path, " is sealed for another chain or contract"), "seal the data for this study"
            );
        }
        info.datasetId = _word(json, ".dataset_id", path);
        info.composeHash = _word(json, ".analysis_compose_hash", path);
        if (vm.keyExistsJson(json, ".rows")) info.records = uint64(_whole(json, ".rows", type(uint64).max, path));
        info.sizeBytes = uint64(_whole(json, ".sealed_bytes", type(uint64).max, path));
        owner = _label(json, ".owner");
    }
}
