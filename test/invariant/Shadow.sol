// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Vm} from "forge-std/Vm.sol";

import {DatasetInfo, Decision, IDstackApp, Receipt as RunReceipt, Terms} from "../../contracts/IDstackApp.sol";

/// @title An app's state rebuilt from its events alone, as an indexer does it (R7).
/// @notice Written from the interface's descriptions, naively and with loops, and independent of the contract's libraries.
contract Shadow {
    struct Owner {
        bytes32 ownerId;
        address account;
        address revoker;
        bytes2 jurisdiction;
        uint16 grades;
        bool listed;
        uint64 epsilonCap;
        uint64 epsilonCommitted;
        uint64 deltaCap;
        uint64 deltaCommitted;
    }

    struct Proposal {
        Terms terms;
        uint128 approvals;
        uint8 thresholdSnapshot;
        bool revoked;
        bool superseded;
        uint64 epsilonSpent;
        uint64 deltaSpent;
        uint128 reclaimed;
    }

    struct Run {
        bytes32 proposalId;
        uint128 participants;
        uint64 openedAt;
        uint64 epsilon;
        uint64 delta;
        bytes32 digest;
        uint256 receipts;
    }

    struct Dataset {
        bool registered;
        bool superseded;
        uint8 ownerIndex;
        bytes32 composeHash;
    }

    struct Action {
        uint128 approvals;
        uint64 readyAt;
        bool vetoed;
        bool done;
    }

    uint8 public threshold;
    uint32 public era;
    uint64 public version;
    uint64 public delaySeconds;
    address public kmsRoot;
    bool public allowAnyDevice;
    bool public requireTcbUpToDate;
    Owner[] public owners;
    mapping(bytes32 => Proposal) public proposals;
    bytes32[] public proposalIds;
    mapping(bytes32 => bytes32) public current;
    mapping(bytes32 => Run) public runs;
    bytes32[] public runIds;
    mapping(bytes32 => Dataset) public datasets;
    bytes32[] public datasetIds;
    mapping(bytes32 => bool) public bootOnly;
    mapping(bytes32 => bool) public devices;
    mapping(address => bool) public analysts;
    mapping(address => bool) public revokedAgents;
    mapping(bytes32 => Action) public actions;
    uint256 public unknownEvents;

    // ---- replay -------------------------------------------------------------------------------------------------

    function replay(Vm.Log[] calldata logs, address app) external {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != app) continue;
            bool known = _owner(logs[i]) || _proposal(logs[i]) || _run(logs[i]) || _rule(logs[i]) || _action(logs[i]);
            if (!known) ++unknownEvents;
        }
    }

    function _owner(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == IDstackApp.OwnerAdded.selector) {
            Owner storage o = owners.push();
            uint8 index;
            o.ownerId = log.topics[1];
            o.account = _address(log.topics[2]);
            (o.revoker, o.jurisdiction, o.grades, index) = abi.decode(log.data, (address, bytes2, uint16, uint8));
            o.listed = true;
            require(index == owners.length - 1, "an index was skipped or reused");
            ++version;
        } else if (topic == IDstackApp.OwnerRemoved.selector) {
            owners[abi.decode(log.data, (uint8))].listed = false;
            ++version;
        } else if (topic == IDstackApp.OwnerRotated.selector) {
            uint8 index = abi.decode(log.data, (uint8));
            require(owners[index].account == _address(log.topics[2]), "rotated from another account");
            owners[index].account = _address(log.topics[3]);
        } else if (topic == IDstackApp.RevokerSet.selector) {
            owners[_indexOf(log.topics[1])].revoker = _address(log.topics[2]);
        } else if (topic == IDstackApp.OwnerBudget.selector) {
            Owner storage o = owners[uint256(log.topics[1])];
            (o.epsilonCap, o.epsilonCommitted, o.deltaCap, o.deltaCommitted) =
                abi.decode(log.data, (uint64, uint64, uint64, uint64));
        } else {
            return topic == IDstackApp.OwnerRotationStarted.selector;
        }
        return true;
    }

    function _proposal(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        bytes32 id = log.topics.length > 1 ? log.topics[1] : bytes32(0);
        Proposal storage p = proposals[id];
        if (topic == IDstackApp.ProposalCreated.selector) {
            require(p.thresholdSnapshot == 0, "created twice");
            (p.terms, p.thresholdSnapshot) = abi.decode(log.data, (Terms, uint8));
            _track(id);
        } else if (topic == IDstackApp.ProposalApproved.selector) {
            (uint128 added, uint128 approvals,) = abi.decode(log.data, (uint128, uint128, bool));
            p.approvals |= added;
            require(p.approvals == approvals, "an approval is missing");
            // Each of these owners has committed what the terms may spend.
            for (uint8 i = 0; i < owners.length; ++i) {
                if (added & (uint128(1) << i) == 0) continue;
                owners[i].epsilonCommitted += p.terms.epsilonBudget;
                owners[i].deltaCommitted += p.terms.deltaBudget;
            }
        } else if (topic == IDstackApp.ProposalActivated.selector) {
            bytes32 superseded = abi.decode(log.data, (bytes32));
            require(current[log.topics[2]] == superseded, "superseded another one");
            if (superseded != 0) proposals[superseded].superseded = true;
            current[log.topics[2]] = id;
        } else if (topic == IDstackApp.ProposalRevoked.selector) {
            require(!p.revoked, "revoked twice");
            p.revoked = true;
            _track(id);
        } else if (topic == IDstackApp.BudgetReclaimed.selector) {
            uint128 bit = uint128(1) << uint8(uint256(log.topics[2]));
            require(p.reclaimed & bit == 0, "reclaimed twice");
            p.reclaimed |= bit;
        } else if (topic == IDstackApp.EraStarted.selector) {
            uint32 next = abi.decode(_head(log.data), (uint32));
            require(next == era + 1, "an era was skipped");
            era = next;
        } else {
            return topic == IDstackApp.ProposalRejected.selector;
        }
        return true;
    }

    function _run(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == IDstackApp.DatasetRegistered.selector) {
            DatasetInfo memory info = abi.decode(log.data, (DatasetInfo));
            datasets[info.datasetId] = Dataset(true, false, uint8(uint256(log.topics[2])), info.composeHash);
            if (info.supersedes != 0) datasets[info.supersedes].superseded = true;
            datasetIds.push(info.datasetId);
        } else if (topic == IDstackApp.RunOpened.selector) {
            Run storage r = runs[log.topics[1]];
            require(r.proposalId == 0, "opened twice");
            r.proposalId = log.topics[2];
            r.openedAt = uint64(block.timestamp);
            Proposal storage p = proposals[r.proposalId];
            uint64 epsilonSpent;
            uint64 deltaSpent;
            (r.participants, r.epsilon, r.delta, epsilonSpent, deltaSpent) =
                abi.decode(log.data, (uint128, uint64, uint64, uint64, uint64));
            p.epsilonSpent += r.epsilon;
            p.deltaSpent += r.delta;
            require(p.epsilonSpent == epsilonSpent && p.deltaSpent == deltaSpent, "a debit is missing");
            runIds.push(log.topics[1]);
        } else if (topic == IDstackApp.ReceiptPosted.selector) {
            Run storage r = runs[log.topics[1]];
            require(r.proposalId == log.topics[2], "a receipt for another proposal");
            (, r.digest) = abi.decode(log.data, (RunReceipt, bytes32));
            ++r.receipts;
        } else if (topic == IDstackApp.ReceiptEquivocation.selector) {
            (bytes32 first, bytes32 second) = abi.decode(log.data, (bytes32, bytes32));
            require(runs[log.topics[1]].digest == first && first != second, "no equivocation");
        } else if (topic == IDstackApp.AgentRevoked.selector) {
            revokedAgents[_address(log.topics[1])] = true;
        } else {
            return false;
        }
        return true;
    }

    function _rule(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == IDstackApp.AppCreated.selector) {
            (,, threshold, kmsRoot, delaySeconds) = abi.decode(log.data, (bytes32, bytes32, uint8, address, uint64));
        } else if (topic == IDstackApp.ThresholdSet.selector) {
            threshold = abi.decode(log.data, (uint8));
            ++version;
        } else if (topic == IDstackApp.AnalystSet.selector) {
            analysts[_address(log.topics[1])] = abi.decode(log.data, (bool));
        } else if (topic == IDstackApp.KmsRootSet.selector) {
            kmsRoot = _address(log.topics[1]);
        } else if (topic == IDstackApp.GovernanceDelaySet.selector) {
            delaySeconds = abi.decode(log.data, (uint64));
        } else if (topic == IDstackApp.ComposeHashAdded.selector) {
            bootOnly[abi.decode(log.data, (bytes32))] = true;
        } else if (topic == IDstackApp.ComposeHashRemoved.selector) {
            bootOnly[abi.decode(log.data, (bytes32))] = false;
        } else if (topic == IDstackApp.DeviceAdded.selector) {
            devices[abi.decode(log.data, (bytes32))] = true;
        } else if (topic == IDstackApp.DeviceRemoved.selector) {
            devices[abi.decode(log.data, (bytes32))] = false;
        } else if (topic == IDstackApp.AllowAnyDeviceSet.selector) {
            allowAnyDevice = abi.decode(log.data, (bool));
        } else if (topic == IDstackApp.RequireTcbUpToDateSet.selector) {
            requireTcbUpToDate = abi.decode(log.data, (bool));
        } else if (topic == IDstackApp.PolicyChanged.selector) {
            // It only repeats the ones before it, and must agree with them.
            bool enabled = abi.decode(log.data, (bool));
            if (log.topics[2] == keccak256("compose-hash")) require(bootOnly[log.topics[3]] == enabled, "policy");
            else if (log.topics[2] == keccak256("device")) require(devices[log.topics[3]] == enabled, "policy");
            else if (log.topics[2] == keccak256("allow-any-device")) require(allowAnyDevice == enabled, "policy");
            else require(requireTcbUpToDate == enabled, "policy");
        } else {
            return topic == IDstackApp.SuccessorAnnounced.selector;
        }
        return true;
    }

    /// Also the rules of governance that no view shows.
    function _action(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        Action storage a = actions[log.topics[1]];
        if (topic == IDstackApp.ActionApproved.selector) {
            require(!a.vetoed && !a.done, "approved after its end");
            a.approvals |= uint128(1) << uint8(uint256(log.topics[2]));
        } else if (topic == IDstackApp.ActionScheduled.selector) {
            require(a.readyAt == 0, "scheduled twice");
            require(count(a.approvals & activeOwners()) >= threshold, "scheduled without quorum");
            a.readyAt = abi.decode(log.data, (uint64));
            require(a.readyAt == block.timestamp + delaySeconds, "scheduled without delay");
        } else if (topic == IDstackApp.ActionVetoed.selector) {
            require(!a.done, "vetoed when done");
            a.vetoed = true;
        } else if (topic == IDstackApp.ActionExecuted.selector) {
            require(!a.done && !a.vetoed, "executed twice or after a veto");
            require(a.readyAt != 0 && block.timestamp >= a.readyAt, "executed before its time");
            a.done = true;
        } else {
            return false;
        }
        return true;
    }

    function _track(bytes32 id) private {
        for (uint256 i = 0; i < proposalIds.length; ++i) {
            if (proposalIds[i] == id) return;
        }
        proposalIds.push(id);
    }

    function _address(bytes32 topic) private pure returns (address) {
        return address(uint160(uint256(topic)));
    }

    function _head(bytes calldata data) private pure returns (bytes memory) {
        return data[:32];
    }

    function _indexOf(bytes32 ownerId) private view returns (uint256) {
        for (uint256 i = owners.length; i > 0; --i) {
            if (owners[i - 1].ownerId == ownerId) return i - 1;
        }
        revert("no such owner");
    }

    // ---- what follows from it -----------------------------------------------------------------------------------

    function activeOwners() public view returns (uint128 set) {
        for (uint256 i = 0; i < owners.length; ++i) {
            if (owners[i].listed) set |= uint128(1) << uint8(i);
        }
    }

    function count(uint128 set) public pure returns (uint256 n) {
        for (; set != 0; set >>= 1) {
            n += set & 1;
        }
    }

    /// As the interface words it, with the snapshot: approvals of listed owners >= max(snapshot, threshold).
    function decision(bytes32 id) public view returns (Decision) {
        Proposal storage p = proposals[id];
        if (p.revoked) return Decision.ProposalRevoked;
        if (p.thresholdSnapshot == 0) return Decision.ProposalUnknown;
        if (p.superseded) return Decision.ProposalSuperseded;
        if (p.terms.era < era) return Decision.EraEnded;
        if (block.timestamp >= p.terms.expiry) return Decision.ProposalExpired;
        uint256 bar = p.thresholdSnapshot > threshold ? p.thresholdSnapshot : threshold;
        if (count(p.approvals & activeOwners()) < bar) return Decision.NoQuorum;
        return Decision.Allow;
    }

    function terms(bytes32 id) external view returns (Terms memory) {
        return proposals[id].terms;
    }

    function ownerAt(uint256 index) external view returns (Owner memory) {
        return owners[index];
    }

    function proposalAt(bytes32 id) external view returns (Proposal memory) {
        return proposals[id];
    }

    function runAt(bytes32 id) external view returns (Run memory) {
        return runs[id];
    }

    function datasetAt(bytes32 id) external view returns (Dataset memory) {
        return datasets[id];
    }

    function sizes() external view returns (uint256 ownerSlots, uint256 proposalCount, uint256 runCount, uint256 data) {
        return (owners.length, proposalIds.length, runIds.length, datasetIds.length);
    }
}
