// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, SignedApproval, Terms} from "../contracts/IDstackApp.sol";
import {TermsFile} from "./TermsFile.sol";

/// @title Propose, approve, relay, reject, revoke: an owner's word, by transaction.
/// @notice Called by script/propose and its siblings; what they say, `cohort` says too.
contract Proposals is TermsFile {
    /// The first approval of terms that nobody has approved.
    function propose(address at, uint256 chainId, string calldata termsPath) external {
        IDstackApp app = _connect(at, chainId);
        Terms memory terms = _terms(termsPath);
        bytes32 id = _requireApprovable(app, terms);
        if (app.proposalDecision(id) != Decision.ProposalUnknown) {
            revert Refused(
                string.concat("proposal ", vm.toString(id), " is there already"), "approve it: script/approve"
            );
        }
        _approve(app, terms, id);
    }

    /// A further approval.
    function approve(address at, uint256 chainId, string calldata termsPath) external {
        IDstackApp app = _connect(at, chainId);
        Terms memory terms = _terms(termsPath);
        bytes32 id = _requireApprovable(app, terms);
        if (app.proposalDecision(id) == Decision.ProposalUnknown) {
            revert Refused(
                string.concat("proposal ", vm.toString(id), " is unknown: nobody has proposed these terms"),
                "compare the file with the one that was proposed, or propose it: script/propose"
            );
        }
        _approve(app, terms, id);
    }

    /// Owners' signatures, by anyone's transaction.
    function relay(address at, uint256 chainId, string[] calldata paths) external {
        IDstackApp app = _connect(at, chainId);
        SignedApproval[] memory approvals = new SignedApproval[](paths.length);
        Terms memory terms;
        for (uint256 i = 0; i < paths.length; ++i) {
            Terms memory these;
            (these, approvals[i]) = _approval(paths[i], at);
            if (i == 0) terms = these;
            if (keccak256(abi.encode(these)) != keccak256(abi.encode(terms))) {
                revert Unusable(
                    string.concat(paths[i], " is for other terms than the first file"), "relay one proposal at a time"
                );
            }
            if (approvals[i].deadline < block.timestamp) {
                revert Refused(
                    string.concat("the deadline of ", paths[i], " has passed"), "ask its owner for a new signature"
                );
            }
        }
        bytes32 id = _requireApprovable(app, terms);
        _describe(terms, id);
        _sender();
        app.approveBySig(terms, approvals);
        vm.stopBroadcast();
        _state(app, id);
    }

    function reject(address at, uint256 chainId, bytes32 id, string calldata reason) external {
        IDstackApp app = _connect(at, chainId);
        if (bytes(reason).length > 256) revert Unusable("the reason is longer than 256 bytes", "shorten it");
        if (app.proposalDecision(id) == Decision.ProposalUnknown) {
            revert Refused(string.concat("proposal ", vm.toString(id), " is unknown"), "check the id");
        }
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, false)));
        _say("rejects", vm.toString(id));
        app.reject(id, reason);
        vm.stopBroadcast();
    }

    /// Stops one proposal for good; also one that nobody has approved yet, which it says.
    function revoke(address at, uint256 chainId, bytes32 id) external {
        IDstackApp app = _connectToStop(at, chainId);
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, true)));
        _say("revokes", vm.toString(id));
        Decision decision = app.proposalDecision(id);
        if (decision == Decision.ProposalUnknown) _say("note", "nobody has approved it; it is stopped in advance");
        if (decision == Decision.ProposalRevoked) _say("note", "it is revoked already");
        app.revoke(id);
        vm.stopBroadcast();
        _state(app, id);
    }

    /// Stops all proposals of the consortium.
    function revokeAll(address at, uint256 chainId) external {
        IDstackApp app = _connectToStop(at, chainId);
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, true)));
        (,,, uint32 era,,) = app.config();
        _say("revokes", string.concat("all proposals: era ", vm.toString(era), " ends"));
        app.revokeAll();
        vm.stopBroadcast();
    }

    // ---- private ------------------------------------------------------------------------------------------------

    /// Stopping must not depend on having the right release at hand: any code that answers will do.
    function _connectToStop(address at, uint256 chainId) private view returns (IDstackApp) {
        _requireChain(chainId);
        _requireCode(at);
        return IDstackApp(at);
    }

    function _approve(IDstackApp app, Terms memory terms, bytes32 id) private {
        _describe(terms, id);
        address sender = _sender();
        _say("owner", _text(_requireOwner(app, sender, false)));
        app.approve(terms);
        vm.stopBroadcast();
        _state(app, id);
    }

    function _requireApprovable(IDstackApp app, Terms memory terms) private view returns (bytes32 id) {
        (,,, uint32 era,,) = app.config();
        if (terms.era != era) {
            revert Refused(
                string.concat(
                    "the terms are for era ", vm.toString(terms.era), ", the app is in era ", vm.toString(era)
                ),
                "make the terms afresh: cohort terms"
            );
        }
        if (terms.expiry <= block.timestamp) {
            revert Refused("the terms have expired", "make the terms afresh: cohort terms");
        }
        id = app.hashTerms(terms);
        Decision decision = app.proposalDecision(id);
        if (decision == Decision.ProposalRevoked || decision == Decision.ProposalSuperseded) {
            revert Refused(
                string.concat(
                    "proposal ",
                    vm.toString(id),
                    decision == Decision.ProposalRevoked ? " is revoked" : " is superseded"
                ),
                "the same terms need another round: cohort terms --round"
            );
        }
    }

    function _describe(Terms memory terms, bytes32 id) private view {
        _say("proposal", vm.toString(id));
        _say("compose-hash", vm.toString(terms.composeHash));
        _say(
            "privacy",
            string.concat(
                "epsilon ", _epsilon(terms.epsilonPerRun), " per run, ", _epsilon(terms.epsilonBudget), " in all"
            )
        );
        _say(
            "note", "the recipe is not shown here: compose-hash must be sha256sum of the app-compose file you have read"
        );
        _limit("CVM images", terms.systems, "any that the KMS's registry lists, now or later", "mr_system values");
        _limit("devices", terms.devices, "any", "device ids");
        uint256 hours_ = (terms.expiry - block.timestamp) / 1 hours;
        _say(
            "ends",
            string.concat(
                "at Unix time ",
                vm.toString(terms.expiry),
                ", in ",
                vm.toString(hours_ / 24),
                " days ",
                vm.toString(hours_ % 24),
                " hours"
            )
        );
    }

    function _state(IDstackApp app, bytes32 id) private view {
        (uint128 approvals,,,,,,) = app.proposal(id);
        (uint128 active, uint8 threshold,,,,) = app.config();
        uint256 count = 0;
        for (uint256 left = approvals & active; left != 0; left &= left - 1) {
            ++count;
        }
        string[7] memory words =
            ["live", "unknown", "revoked", "superseded", "of an ended era", "expired", "waiting for more approvals"];
        _say(
            "then",
            string.concat(
                vm.toString(count),
                " of ",
                vm.toString(threshold),
                " approvals, ",
                words[uint256(app.proposalDecision(id))]
            )
        );
    }

    function _limit(string memory label, bytes32 hash, string memory any, string memory ids) private pure {
        _say(label, hash == 0 ? any : string.concat("only the ", ids, " with the list hash ", vm.toString(hash)));
    }

    /// Units of 1e-9 as a decimal.
    function _epsilon(uint64 units) private pure returns (string memory) {
        bytes memory fraction = bytes(vm.toString(1e9 + (units % 1e9)));
        uint256 end = 10;
        while (end > 1 && fraction[end - 1] == "0") --end;
        if (end == 1) return vm.toString(units / 1e9);
        bytes memory kept = new bytes(end - 1);
        for (uint256 i = 1; i < end; ++i) {
            kept[i - 1] = fraction[i];
        }
        return string.concat(vm.toString(units / 1e9), ".", string(kept));
    }
}
