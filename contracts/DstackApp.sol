// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {LowLevelCall} from "@openzeppelin/contracts/utils/LowLevelCall.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {
    AgentCertificate,
    AppBootInfo,
    DatasetInfo,
    Decision,
    IDstackApp,
    OwnerInfo,
    Receipt,
    RunRequest,
    SignedApproval,
    Terms
} from "./IDstackApp.sol";
import {Bits} from "./libraries/Bits.sol";
import {Fields} from "./libraries/Fields.sol";
import {Governance} from "./libraries/Governance.sol";
import {Owners} from "./libraries/Owners.sol";
import {Proposals} from "./libraries/Proposals.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title One consortium's contract. The manual is in IDstackApp; storage and encodings are described here.
/// @notice Entry points authorise, validate, write, emit; the only outside calls are static ones to EIP-1271 owners, and
/// the call on itself that executes a governance action. Storage slots are frozen by test/golden/DstackApp.storage.json,
/// because a key service may prove a decision from them with eth_getProof.
contract DstackApp is IDstackApp, IERC165, IERC5267 {
    using Bits for uint128;
    using Governance for Governance.Action;
    using Owners for Owners.Registry;
    using Proposals for Proposals.Proposal;
    using Proposals for Proposals.Book;
    using TypedData for AgentCertificate;
    using TypedData for Receipt;
    using TypedData for RunRequest;
    using TypedData for Terms;

    struct Run {
        /// While the run is open, its proposal; once it is closed, its receipt's digest.
        bytes32 proposalIdOrDigest;
        uint128 participants;
        /// Zero: no such run.
        uint64 openedAt;
        bool closed;
    }

    struct Dataset {
        bytes32 composeHash;
        bool registered;
        bool superseded;
        uint8 ownerIndex;
    }

    uint256 private constant MAX_REASON_BYTES = 256;
    /// dstack's ERC-165 ids of IAppAuth and IAppAuthBasicManagement. The epoch-aware ids are not claimed.
    bytes4 private constant APP_AUTH_ID = 0x1e079198;
    bytes4 private constant APP_MANAGEMENT_ID = 0x8fd37527;

    Owners.Registry private _owners;
    Proposals.Book private _proposals;

    /// @inheritdoc IDstackApp
    address public kmsRoot;
    uint64 private _governanceDelaySeconds;
    /// @inheritdoc IDstackApp
    bool public allowAnyDevice;
    /// @inheritdoc IDstackApp
    bool public requireTcbUpToDate;

    mapping(bytes32 runId => Run) private _runs;
    mapping(bytes32 datasetId => Dataset) private _datasets;
    mapping(bytes32 actionId => Governance.Action) private _actions;
    mapping(bytes32 composeHash => bool) private _bootOnly;
    /// @inheritdoc IDstackApp
    mapping(bytes32 deviceId => bool) public allowedDeviceIds;
    /// @inheritdoc IDstackApp
    mapping(address analyst => bool) public isAnalyst;
    /// @inheritdoc IDstackApp
    mapping(address agent => bool) public agentRevoked;

    modifier onlySelf() {
        _requireSelf();
        _;
    }

    /// Founding: what a quorum decides later is given here once, by the deployer, who has no power afterwards.
    /// Owners read it back (events, `owners`, `config`) before they approve anything.
    /// Any device may boot at first: boot opens no dataset, and each proposal's terms say which devices get keys.
    constructor(
        bytes32 name,
        bytes32 sector,
        OwnerInfo[] memory founders,
        uint8 threshold,
        address kmsRoot_,
        address[] memory analysts,
        uint64 governanceDelaySeconds
    ) {
        Fields.check(threshold != 0 && threshold <= founders.length, "threshold");
        Fields.check(kmsRoot_ != address(0), "kmsRoot");
        Governance.requireDelay(governanceDelaySeconds);
        emit AppCreated(name, sector, threshold, kmsRoot_, governanceDelaySeconds);
        _owners.config.threshold = threshold;
        kmsRoot = kmsRoot_;
        _governanceDelaySeconds = governanceDelaySeconds;
        for (uint256 i = 0; i < founders.length; ++i) {
            _owners.add(founders[i]);
        }
        for (uint256 i = 0; i < analysts.length; ++i) {
            _setAnalyst(analysts[i], true);
        }
        _setAllowAnyDevice(true);
        _setRequireTcbUpToDate(true);
    }

    // ---- proposals ----------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function approve(Terms calldata terms) external returns (bytes32 proposalId) {
        uint8 index = _owners.requireAccount(msg.sender);
        Owners.Config storage current = _owners.config;
        uint128 before;
        (proposalId, before) = _requireApprovable(terms, current);

        uint128 bit = Bits.single(index);
        if (before & bit != 0) return proposalId;
        _owners.commit(msg.sender, terms.epsilonBudget, terms.deltaBudget);
        _proposals.record(current, terms, proposalId, bit, false);
    }

    /// @inheritdoc IDstackApp
    function approveBySig(Terms calldata terms, SignedApproval[] calldata approvals)
        external
        returns (bytes32 proposalId)
    {
        Owners.Config storage current = _owners.config;
        uint128 before;
        (proposalId, before) = _requireApprovable(terms, current);

        bytes32 domain = TypedData.domainSeparator();
        uint128 added = 0;
        for (uint256 i = 0; i < approvals.length; ++i) {
            SignedApproval calldata approval = approvals[i];
            uint8 index = _owners.requireAccount(approval.owner);
            if ((before | added).contains(index)) continue;
            TypedData.requireInTime(approval.deadline);
            bytes32 structHash = TypedData.hashApprove(approval.owner, proposalId, approval.deadline);
            TypedData.requireSignature(domain, approval.owner, structHash, approval.signature);
            _owners.commit(approval.owner, terms.epsilonBudget, terms.deltaBudget);
            added |= Bits.single(index);
        }
        if (added != 0) _proposals.record(current, terms, proposalId, added, true);
    }

    /// @inheritdoc IDstackApp
    function reject(bytes32 proposalId, string calldata reason) external {
        uint8 index = _owners.requireAccount(msg.sender);
        Fields.check(bytes(reason).length <= MAX_REASON_BYTES, "reason");
        emit ProposalRejected(proposalId, index, reason);
    }

    /// @inheritdoc IDstackApp
    function revoke(bytes32 proposalId) external {
        _revoke(proposalId, _owners.requireStopper(msg.sender), msg.sender);
    }

    /// @inheritdoc IDstackApp
    function revokeBySig(address signer, bytes32 proposalId, uint64 deadline, bytes calldata signature) external {
        uint8 index = _owners.requireStopper(signer);
        TypedData.requireInTime(deadline);
        TypedData.requireSignature(signer, TypedData.hashRevoke(signer, proposalId, deadline), signature);
        _revoke(proposalId, index, signer);
    }

    /// @inheritdoc IDstackApp
    function revokeAll() external {
        _owners.startEra(_owners.requireStopper(msg.sender), msg.sender);
    }

    /// @inheritdoc IDstackApp
    function revokeAllBySig(address signer, uint32 era, uint64 deadline, bytes calldata signature) external {
        uint8 index = _owners.requireStopper(signer);
        if (era != _owners.config.era) revert DstackApp_WrongEra(era, _owners.config.era);
        TypedData.requireInTime(deadline);
        TypedData.requireSignature(signer, TypedData.hashRevokeAll(signer, era, deadline), signature);
        _owners.startEra(index, signer);
    }

    // ---- owners -------------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function startRotation(address newAccount) external {
        _owners.startRotation(_owners.requireAccount(msg.sender), newAccount);
    }

    /// @inheritdoc IDstackApp
    function acceptRotation(bytes32 ownerId) external {
        _owners.acceptRotation(ownerId, msg.sender);
    }

    /// @inheritdoc IDstackApp
    function setRevoker(address revoker) external {
        _owners.setRevoker(_owners.requireAccount(msg.sender), revoker);
    }

    /// @inheritdoc IDstackApp
    function setOwnerCap(uint64 epsilonCap, uint64 deltaCap) external {
        _owners.setCap(_owners.requireAccount(msg.sender), epsilonCap, deltaCap);
    }

    /// @inheritdoc IDstackApp
    function reclaim(Terms calldata terms) external {
        uint8 index = _owners.requireAccount(msg.sender);
        bytes32 proposalId = terms.hash();
        Proposals.Proposal storage p = _proposals.at[proposalId];
        if (!p.approvals.contains(index)) revert DstackApp_OwnerNotApproved(proposalId, index);
        Decision reason = p.decision(_owners.config);
        // Without quorum it may yet come to life.
        if (reason == Decision.Allow || reason == Decision.NoQuorum) {
            revert DstackApp_ProposalNotLive(proposalId, reason);
        }
        uint128 reclaimed = _proposals.reclaimed[proposalId];
        if (reclaimed.contains(index)) return;

        uint64 epsilon = Proposals.left(terms.epsilonBudget, terms.epsilonPerRun, p.runs);
        uint64 delta = Proposals.left(terms.deltaBudget, terms.deltaPerRun, p.runs);
        _proposals.reclaimed[proposalId] = reclaimed | Bits.single(index);
        emit BudgetReclaimed(proposalId, index, epsilon, delta);
        _owners.release(index, epsilon, delta);
    }

    // ---- datasets, runs, receipts -------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function registerDataset(DatasetInfo calldata info) external {
        uint8 index = _owners.requireAccount(msg.sender);
        Fields.check(info.composeHash != 0, "composeHash");
        if (info.datasetId == 0 || _datasets[info.datasetId].registered) {
            revert DstackApp_DatasetRefused(info.datasetId);
        }
        if (info.supersedes != 0) {
            Dataset storage former = _datasets[info.supersedes];
            if (!former.registered || former.superseded || former.ownerIndex != index) {
                revert DstackApp_DatasetRefused(info.supersedes);
            }
            former.superseded = true;
        }
        _datasets[info.datasetId] = Dataset(info.composeHash, true, false, index);
        emit DatasetRegistered(info.datasetId, index, info);
    }

    /// @inheritdoc IDstackApp
    function openRun(Terms calldata terms, RunRequest calldata request, bytes calldata signature)
        external
        returns (bytes32 runId)
    {
        runId = request.hash();
        bytes32 proposalId = terms.hash();
        if (request.proposalId != proposalId) revert DstackApp_RunUnknown(runId);
        TypedData.requireInTime(request.deadline);
        if (!isAnalyst[request.analyst]) revert DstackApp_NotAnAnalyst(request.analyst);
        TypedData.requireSignature(request.analyst, runId, signature);

        Fields.check(request.participants != 0, "participants");
        _requireApprovedBy(proposalId, request.participants);
        if (_runs[runId].openedAt != 0) revert DstackApp_RunExists(runId);

        (uint64 epsilonSpent, uint64 deltaSpent) = _proposals.debit(proposalId, terms);
        _runs[runId] = Run(proposalId, request.participants, uint64(block.timestamp), false);
        emit RunOpened(
            runId,
            proposalId,
            request.analyst,
            request.participants,
            terms.epsilonPerRun,
            terms.deltaPerRun,
            epsilonSpent,
            deltaSpent
        );
    }

    /// @inheritdoc IDstackApp
    function postReceipt(
        Terms calldata terms,
        RunRequest calldata request,
        Receipt calldata receipt,
        bytes calldata signature,
        AgentCertificate calldata certificate,
        bytes calldata kmsSignature
    ) external {
        // The request's hash is the run, the terms' hash its proposal: neither has to be stored for good.
        Run storage r = _runs[receipt.runId];
        bool matches = request.hash() == receipt.runId && request.proposalId == terms.hash();
        if (!matches || r.openedAt == 0) revert DstackApp_RunUnknown(receipt.runId);
        if (certificate.composeHash != terms.composeHash) revert DstackApp_CertificateRefused(certificate.agent);
        bytes32 digest = _requireCertified(receipt, signature, certificate, kmsSignature);

        if (r.closed) {
            bytes32 firstDigest = r.proposalIdOrDigest;
            if (firstDigest == digest) revert DstackApp_ReceiptExists(receipt.runId);
            // A certified key has signed two stories. The record must not depend on the proposal still being live.
            emit ReceiptEquivocation(receipt.runId, certificate.agent, firstDigest, digest);
            return;
        }
        _requireApprovedBy(request.proposalId, request.participants);
        if (receipt.epsilon != terms.epsilonPerRun) {
            revert DstackApp_LossMismatch(receipt.epsilon, terms.epsilonPerRun);
        }
        if (receipt.delta != terms.deltaPerRun) revert DstackApp_LossMismatch(receipt.delta, terms.deltaPerRun);
        Fields.check(receipt.privacyProof <= 1, "privacyProof");

        r.proposalIdOrDigest = digest;
        r.closed = true;
        emit ReceiptPosted(receipt.runId, request.proposalId, certificate.agent, receipt, digest);
    }

    /// @inheritdoc IDstackApp
    function revokeAgent(address agent) external {
        uint8 index = _owners.requireStopper(msg.sender);
        if (agentRevoked[agent]) return;
        agentRevoked[agent] = true;
        emit AgentRevoked(agent, index);
    }

    // ---- governance by quorum -----------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function approveAction(bytes calldata data, bytes32 salt) external returns (bytes32 actionId) {
        uint8 index = _owners.requireAccount(msg.sender);
        Governance.requireAllowed(data);
        actionId = TypedData.hashAction(data, salt, _owners.config.version);
        Governance.Action storage action = _actions[actionId];
        action.requireCollecting(actionId);

        action.approve(_owners, actionId, index, data, salt);
        action.schedule(actionId, _owners.config.threshold, _governanceDelaySeconds);
    }

    /// @inheritdoc IDstackApp
    function approveActionBySig(bytes calldata data, bytes32 salt, SignedApproval[] calldata approvals)
        external
        returns (bytes32 actionId)
    {
        Governance.requireAllowed(data);
        uint64 configVersion = _owners.config.version;
        actionId = TypedData.hashAction(data, salt, configVersion);
        Governance.Action storage action = _actions[actionId];
        action.requireCollecting(actionId);

        for (uint256 i = 0; i < approvals.length; ++i) {
            SignedApproval calldata approval = approvals[i];
            uint8 index = _owners.requireAccount(approval.owner);
            if (action.approvals.contains(index)) continue;
            TypedData.requireInTime(approval.deadline);
            bytes32 structHash =
                TypedData.hashApproveAction(approval.owner, data, salt, configVersion, approval.deadline);
            TypedData.requireSignature(approval.owner, structHash, approval.signature);
            action.approve(_owners, actionId, index, data, salt);
        }
        action.schedule(actionId, _owners.config.threshold, _governanceDelaySeconds);
    }

    /// @inheritdoc IDstackApp
    function vetoAction(bytes32 actionId) external {
        _actions[actionId].veto(actionId, _owners.requireStopper(msg.sender), msg.sender);
    }

    /// @inheritdoc IDstackApp
    function executeAction(bytes calldata data, bytes32 salt) external {
        bytes32 actionId = TypedData.hashAction(data, salt, _owners.config.version);
        _actions[actionId].finish(actionId);
        (bool done, bytes memory reason) = address(this).call(data);
        if (!done) LowLevelCall.bubbleRevert(reason);
    }

    /// @inheritdoc IDstackApp
    function addOwner(OwnerInfo calldata info) external onlySelf {
        _owners.add(info);
    }

    /// @inheritdoc IDstackApp
    function removeOwner(bytes32 ownerId) external onlySelf {
        _owners.remove(ownerId);
    }

    /// @inheritdoc IDstackApp
    function setThreshold(uint8 threshold) external onlySelf {
        _owners.setThreshold(threshold);
    }

    /// @inheritdoc IDstackApp
    function setAnalyst(address analyst, bool listed) external onlySelf {
        _setAnalyst(analyst, listed);
    }

    /// @inheritdoc IDstackApp
    function setKmsRoot(address newRoot) external onlySelf {
        Fields.check(newRoot != address(0), "kmsRoot");
        kmsRoot = newRoot;
        emit KmsRootSet(newRoot);
    }

    /// @inheritdoc IDstackApp
    function setGovernanceDelay(uint64 delaySeconds) external onlySelf {
        Governance.requireDelay(delaySeconds);
        _governanceDelaySeconds = delaySeconds;
        emit GovernanceDelaySet(delaySeconds);
    }

    /// @inheritdoc IDstackApp
    function announceSuccessor(address successor) external onlySelf {
        emit SuccessorAnnounced(successor);
    }

    // ---- views --------------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function releaseDecision(bytes32 proposalId, bytes32 composeHash, bytes32 ownerId, bytes32 datasetId, bytes32 runId)
        external
        view
        returns (Decision)
    {
        Proposals.Proposal storage p = _proposals.at[proposalId];
        Decision reason = p.decision(_owners.config);
        if (reason != Decision.Allow) return reason;
        if (_proposals.current[composeHash] != proposalId) return Decision.ComposeMismatch;
        (bool listed, uint8 index) = _owners.find(ownerId);
        if (!listed) return Decision.NotAnOwner;
        if (!p.approvals.contains(index)) return Decision.OwnerNotApproved;
        Dataset storage d = _datasets[datasetId];
        if (!d.registered || d.ownerIndex != index || d.composeHash != composeHash) return Decision.DatasetUnknown;
        if (d.superseded) return Decision.DatasetSuperseded;
        Run storage r = _runs[runId];
        if (r.closed) return Decision.RunClosed;
        if (r.proposalIdOrDigest != proposalId) return Decision.RunUnknown;
        if (!r.participants.contains(index)) return Decision.OwnerNotInRun;
        return Decision.Allow;
    }

    /// @inheritdoc IDstackApp
    function proposalDecision(bytes32 proposalId) public view returns (Decision) {
        Proposals.Proposal storage p = _proposals.at[proposalId];
        return p.decision(_owners.config);
    }

    /// @inheritdoc IDstackApp
    function hashTerms(Terms calldata terms) external pure returns (bytes32) {
        return terms.hash();
    }

    /// @inheritdoc IDstackApp
    function hashRunRequest(RunRequest calldata request) external pure returns (bytes32) {
        return request.hash();
    }

    /// @inheritdoc IDstackApp
    function hashReceipt(Receipt calldata receipt) external pure returns (bytes32) {
        return receipt.hash();
    }

    /// @inheritdoc IDstackApp
    function proposal(bytes32 proposalId)
        external
        view
        returns (
            uint128 approvals,
            uint8 thresholdSnapshot,
            bool revoked,
            bool superseded,
            uint32 era,
            uint64 expiry,
            uint64 runs
        )
    {
        Proposals.Proposal storage p = _proposals.at[proposalId];
        return (p.approvals, p.thresholdSnapshot, p.revoked, p.superseded, p.era, p.expiry, p.runs);
    }

    /// @inheritdoc IDstackApp
    function currentProposal(bytes32 composeHash) external view returns (bytes32) {
        return _proposals.current[composeHash];
    }

    /// @inheritdoc IDstackApp
    function run(bytes32 runId)
        external
        view
        returns (bytes32 openProposalId, uint128 participants, uint64 openedAt, bytes32 digest)
    {
        Run storage r = _runs[runId];
        (openProposalId, digest) = r.closed ? (bytes32(0), r.proposalIdOrDigest) : (r.proposalIdOrDigest, bytes32(0));
        return (openProposalId, r.participants, r.openedAt, digest);
    }

    /// @inheritdoc IDstackApp
    function dataset(bytes32 datasetId)
        external
        view
        returns (bool registered, bool superseded, uint8 ownerIndex, bytes32 composeHash)
    {
        Dataset storage d = _datasets[datasetId];
        return (d.registered, d.superseded, d.ownerIndex, d.composeHash);
    }

    /// @inheritdoc IDstackApp
    function owners() external view returns (OwnerInfo[] memory list, uint8[] memory indexes) {
        Owners.Config storage current = _owners.config;
        list = new OwnerInfo[](current.ownerCount);
        indexes = new uint8[](current.ownerCount);
        uint256 next = 0;
        for (uint8 index = 0; index < current.nextIndex; ++index) {
            if (!current.activeOwners.contains(index)) continue;
            Owners.Owner storage o = _owners.at[index];
            list[next] = OwnerInfo(
                o.ownerId, o.account, o.revoker, o.jurisdiction, o.grades, o.budget.epsilonCap, o.budget.deltaCap
            );
            indexes[next] = index;
            ++next;
        }
    }

    /// @inheritdoc IDstackApp
    function ownerOf(bytes32 ownerId)
        external
        view
        returns (bool listed, uint8 index, address account, address revoker)
    {
        (listed, index) = _owners.find(ownerId);
        if (!listed) return (false, 0, address(0), address(0));
        Owners.Owner storage o = _owners.at[index];
        return (true, index, o.account, o.revoker);
    }

    /// @inheritdoc IDstackApp
    function ownerBudget(uint8 index)
        external
        view
        returns (uint64 epsilonCap, uint64 epsilonCommitted, uint64 deltaCap, uint64 deltaCommitted)
    {
        return _owners.budgetOf(index);
    }

    /// @inheritdoc IDstackApp
    function config()
        external
        view
        returns (
            uint128 activeOwners,
            uint8 threshold,
            uint8 ownerCount,
            uint32 era,
            uint64 configVersion,
            uint64 governanceDelaySeconds
        )
    {
        Owners.Config storage c = _owners.config;
        return (c.activeOwners, c.threshold, c.ownerCount, c.era, c.version, _governanceDelaySeconds);
    }

    /// @inheritdoc IERC5267
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory domainVersion,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        // Fields 1 to 4 are in use: name, version, chainId, verifyingContract.
        return (0x0f, TypedData.NAME, TypedData.VERSION, block.chainid, address(this), 0, new uint256[](0));
    }

    // ---- dstack -------------------------------------------------------------------------------------------------

    /// @inheritdoc IDstackApp
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason) {
        bytes32 no;
        if (bootInfo.appId != address(this)) {
            no = "App id mismatch";
        } else if (requireTcbUpToDate && keccak256(bytes(bootInfo.tcbStatus)) != keccak256("UpToDate")) {
            no = "TCB status is not up to date";
        } else if (!allowedComposeHashes(bootInfo.composeHash)) {
            no = "Compose hash not allowed";
        } else if (!allowAnyDevice && !allowedDeviceIds[bootInfo.deviceId]) {
            no = "Device not allowed";
        }
        return (no == 0, Fields.text(no));
    }

    /// @inheritdoc IDstackApp
    function allowedComposeHashes(bytes32 composeHash) public view returns (bool) {
        return _bootOnly[composeHash] || proposalDecision(_proposals.current[composeHash]) == Decision.Allow;
    }

    /// @inheritdoc IDstackApp
    function addComposeHash(bytes32 composeHash) external onlySelf {
        Fields.check(composeHash != 0, "composeHash");
        _bootOnly[composeHash] = true;
        emit ComposeHashAdded(composeHash);
        _emitPolicy(keccak256("compose-hash"), composeHash, true);
    }

    /// @inheritdoc IDstackApp
    function removeComposeHash(bytes32 composeHash) external {
        uint8 index = _requireSelfOrStopper();
        _bootOnly[composeHash] = false;
        emit ComposeHashRemoved(composeHash);
        _emitPolicy(keccak256("compose-hash"), composeHash, false);
        bytes32 current = _proposals.current[composeHash];
        if (current != 0) _revoke(current, index, msg.sender);
    }

    /// @inheritdoc IDstackApp
    function addDevice(bytes32 deviceId) external onlySelf {
        Fields.check(deviceId != 0, "deviceId");
        allowedDeviceIds[deviceId] = true;
        emit DeviceAdded(deviceId);
        _emitPolicy(keccak256("device"), deviceId, true);
    }

    /// @inheritdoc IDstackApp
    function removeDevice(bytes32 deviceId) external {
        _requireSelfOrStopper();
        allowedDeviceIds[deviceId] = false;
        emit DeviceRemoved(deviceId);
        _emitPolicy(keccak256("device"), deviceId, false);
    }

    /// @inheritdoc IDstackApp
    function setAllowAnyDevice(bool allowAny) external onlySelf {
        _setAllowAnyDevice(allowAny);
    }

    /// @inheritdoc IDstackApp
    function setRequireTcbUpToDate(bool required) external onlySelf {
        _setRequireTcbUpToDate(required);
    }

    /// @inheritdoc IDstackApp
    function owner() external view returns (address) {
        return address(this);
    }

    /// @inheritdoc IDstackApp
    function version() external pure returns (uint256) {
        return 2;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return
            interfaceId == type(IERC165).interfaceId || interfaceId == APP_AUTH_ID || interfaceId == APP_MANAGEMENT_ID;
    }

    // ---- private ------------------------------------------------------------------------------------------------

    function _requireApprovable(Terms calldata terms, Owners.Config storage current)
        private
        view
        returns (bytes32 proposalId, uint128 approvals)
    {
        if (terms.era != current.era) revert DstackApp_WrongEra(terms.era, current.era);
        Proposals.requireValid(terms);
        proposalId = terms.hash();
        Proposals.Proposal storage p = _proposals.at[proposalId];
        if (p.revoked) revert DstackApp_ProposalNotLive(proposalId, Decision.ProposalRevoked);
        if (p.superseded) revert DstackApp_ProposalNotLive(proposalId, Decision.ProposalSuperseded);
        return (proposalId, p.approvals);
    }

    /// The receipt's signed digest, once the KMS root vouches for the agent and the agent for the receipt.
    function _requireCertified(
        Receipt calldata receipt,
        bytes calldata signature,
        AgentCertificate calldata certificate,
        bytes calldata kmsSignature
    ) private view returns (bytes32) {
        if (block.timestamp >= certificate.notAfter || agentRevoked[certificate.agent]) {
            revert DstackApp_CertificateRefused(certificate.agent);
        }
        TypedData.requireSignature(kmsRoot, certificate.hash(), kmsSignature);
        return TypedData.requireSignature(certificate.agent, receipt.hash(), signature);
    }

    /// The proposal is live, and each of `participants` is listed and has approved it.
    function _requireApprovedBy(bytes32 proposalId, uint128 participants) private view {
        Proposals.Proposal storage p = _proposals.at[proposalId];
        Owners.Config storage current = _owners.config;
        Decision reason = p.decision(current);
        if (reason != Decision.Allow) revert DstackApp_ProposalNotLive(proposalId, reason);
        uint128 missing = participants & ~(p.approvals & current.activeOwners);
        if (missing != 0) revert DstackApp_OwnerNotApproved(proposalId, missing.lowest());
    }

    function _requireSelf() private view {
        if (msg.sender != address(this)) revert DstackApp_OnlySelf(msg.sender);
    }

    function _requireSelfOrStopper() private view returns (uint8) {
        return msg.sender == address(this) ? Owners.SELF_INDEX : _owners.requireStopper(msg.sender);
    }

    function _revoke(bytes32 proposalId, uint8 index, address by) private {
        Proposals.Proposal storage p = _proposals.at[proposalId];
        if (p.revoked) return;
        p.revoked = true;
        emit ProposalRevoked(proposalId, index, by);
    }

    function _setAnalyst(address analyst, bool listed) private {
        Fields.check(analyst != address(0), "analyst");
        isAnalyst[analyst] = listed;
        emit AnalystSet(analyst, listed);
    }

    function _setAllowAnyDevice(bool allowAny) private {
        allowAnyDevice = allowAny;
        emit AllowAnyDeviceSet(allowAny);
        _emitPolicy(keccak256("allow-any-device"), 0, allowAny);
    }

    function _setRequireTcbUpToDate(bool required) private {
        requireTcbUpToDate = required;
        emit RequireTcbUpToDateSet(required);
        _emitPolicy(keccak256("require-tcb-up-to-date"), 0, required);
    }

    /// dstack's audit event beside its older ones.
    function _emitPolicy(bytes32 policy, bytes32 value, bool enabled) private {
        emit PolicyChanged(msg.sender, policy, value, enabled);
    }
}
