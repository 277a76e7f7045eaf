// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// This file imports nothing: Rust reads it with alloy's `sol!` (protocol/src/abi.rs), so the ABI has one source.

/// What one approval covers, whole. `proposalId` is the EIP-712 struct hash of these terms: a signature over
/// them binds every field, and changing any field makes another proposal.
/// EIP-712 type: Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,
/// uint64 deltaPerRun,uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,
/// uint32 round)
struct Terms {
    /// SHA-256 of the exact bytes of app-compose.json, as dstack measures it.
    bytes32 composeHash;
    /// SHA-256 of the RFC 8785 form of the `cohort` section (the recipe) of that file.
    bytes32 recipeHash;
    /// SHA-256 of the RFC 8785 form of the recipe's output schema.
    bytes32 outputSchemaHash;
    /// Privacy loss each run debits, unit 1e-9 (nano-epsilon).
    uint64 epsilonPerRun;
    /// Failure probability each run debits, unit 1e-18.
    uint64 deltaPerRun;
    /// Privacy loss of all runs together, unit 1e-9.
    uint64 epsilonBudget;
    /// Failure probability of all runs together, unit 1e-18.
    uint64 deltaBudget;
    /// Unix time in seconds at which the proposal stops being live; block timestamps decide.
    uint64 expiry;
    /// keccak256 of the ascending device ids (32 bytes each, concatenated) that may run it; zero: any device.
    bytes32 devices;
    /// keccak256 of the ascending mr_system values (dstack: SHA-256 over MRTD, RTMR0 to 2 and the key provider; 32 bytes
    /// each, concatenated) of the CVM images that may run it; zero: any that the KMS's registry lists. It narrows the
    /// registry's list and never widens it.
    bytes32 systems;
    /// The app's era at the time of approval; `revokeAll` starts the next era and so ends all older terms.
    uint32 era;
    /// Free number: the same terms proposed afresh after a revocation carry another round.
    uint32 round;
}

/// One owner's signed approval of terms that stand beside it.
/// EIP-712 type: Approve(address owner,Terms terms,uint64 deadline)Terms(...)
struct SignedApproval {
    /// The owner's current account: an EOA, an EIP-7702 account or an EIP-1271 contract.
    address owner;
    /// Unix seconds after which the signature may no longer be submitted.
    uint64 deadline;
    bytes signature;
}

/// What `approveBySig` verifies. EIP-712 type as above.
struct Approve {
    address owner;
    Terms terms;
    uint64 deadline;
}

/// What `revokeBySig` verifies. EIP-712 type: Revoke(address owner,bytes32 proposalId,uint64 deadline)
struct Revoke {
    address owner;
    bytes32 proposalId;
    uint64 deadline;
}

/// What `revokeAllBySig` verifies. EIP-712 type: RevokeAll(address owner,uint32 era,uint64 deadline)
struct RevokeAll {
    address owner;
    uint32 era;
    uint64 deadline;
}

/// What `approveActionBySig` verifies.
/// EIP-712 type: ApproveAction(address owner,bytes data,bytes32 salt,uint64 configVersion,uint64 deadline)
struct ApproveAction {
    address owner;
    bytes data;
    bytes32 salt;
    uint64 configVersion;
    uint64 deadline;
}

/// A run that a listed analyst asks for. `runId` is its EIP-712 struct hash.
/// EIP-712 type: RunRequest(bytes32 proposalId,uint128 participants,address analyst,bytes32 nonce,uint64 deadline)
struct RunRequest {
    bytes32 proposalId;
    /// Bit i set: the owner with index i takes part.
    uint128 participants;
    address analyst;
    /// Chosen by the analyst, to tell runs apart.
    bytes32 nonce;
    /// Unix seconds after which the run may no longer be opened.
    uint64 deadline;
}

/// The KMS root's statement that `agent` is a key of code measured as (this app, composeHash).
/// EIP-712 type: AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)
struct AgentCertificate {
    address agent;
    bytes32 composeHash;
    /// Unix seconds; the certificate is refused from then on.
    uint64 notAfter;
}

/// What the agent says it did; signed by the certified key, posted before the output leaves.
/// EIP-712 type: Receipt(bytes32 runId,bytes32 outputHash,bytes32 inputsHash,bytes32 evidenceHash,uint64 epsilon,
/// uint64 delta,uint8 privacyProof,uint64 producedAt)
struct Receipt {
    bytes32 runId;
    /// SHA-256 of the RFC 8785 bytes of the output payload.
    bytes32 outputHash;
    /// keccak256 of the input dataset ids (32 bytes each, concatenated) in ascending owner index.
    bytes32 inputsHash;
    /// SHA-256 over the attestation evidence (docs/spec/sign-rpc.md).
    bytes32 evidenceHash;
    /// Must equal what `openRun` debited, unit 1e-9.
    uint64 epsilon;
    /// Must equal what `openRun` debited, unit 1e-18.
    uint64 delta;
    /// 0: the recipe's author declares the privacy loss; 1: the platform proved it from the recipe.
    uint8 privacyProof;
    /// Unix seconds by the agent's clock; informative.
    uint64 producedAt;
}

/// A sealed dataset as its owner registers it. Only commitments and short public labels.
struct DatasetInfo {
    /// Commitment to envelope and ciphertext (docs/spec/sealed-dataset.md). Nonzero, never reused.
    bytes32 datasetId;
    /// The compose hash it is sealed for.
    bytes32 composeHash;
    /// Short ASCII label, left-aligned, zero-padded: e.g. "EU-West".
    bytes32 region;
    /// Short ASCII label: e.g. "EHR".
    bytes32 kind;
    /// Number of records; 0: withheld.
    uint64 records;
    /// Size of the sealed file in bytes.
    uint64 sizeBytes;
    /// Dataset of the same owner that this one replaces from now on; zero: none.
    bytes32 supersedes;
}

/// An owner as listed on chain.
struct OwnerInfo {
    /// Stable institution id: short ASCII name, left-aligned, zero-padded: e.g. "hospital-A".
    bytes32 ownerId;
    /// Approves, registers datasets, revokes.
    address account;
    /// May only revoke; zero: none. Losing the account key means "cannot approve", never "cannot stop".
    address revoker;
    /// ISO 3166-1 alpha-2 in ASCII: e.g. "CH".
    bytes2 jurisdiction;
    /// Bit set of compliance grades: 1 HIPAA, 2 GDPR, 4 UK-GDPR, 8 PCI, 16 SOC2, 32 FFIEC.
    uint16 grades;
    /// Lifetime cap on privacy loss over all proposals, unit 1e-9; only this owner changes it later.
    uint64 epsilonCap;
    /// Likewise for delta, unit 1e-18.
    uint64 deltaCap;
}

/// dstack's boot information (dstack kms/auth-eth IAppAuth.sol), field for field.
struct AppBootInfo {
    address appId;
    bytes32 composeHash;
    address instanceId;
    bytes32 deviceId;
    bytes32 mrAggregated;
    bytes32 mrSystem;
    bytes32 osImageHash;
    string tcbStatus;
    string[] advisoryIds;
}

/// Why a dataset key may or may not be released. Stable numbers, append only.
enum Decision {
    Allow, // 0
    ProposalUnknown, // 1: nobody has approved it, nor revoked it in advance
    ProposalRevoked, // 2
    ProposalSuperseded, // 3
    EraEnded, // 4: somebody called revokeAll, or the threshold was lowered
    ProposalExpired, // 5
    NoQuorum, // 6
    ComposeMismatch, // 7: the proposal is not the current one for this compose hash
    NotAnOwner, // 8
    OwnerNotApproved, // 9
    DatasetUnknown, // 10: not registered, not this owner's, or sealed for another compose hash
    DatasetSuperseded, // 11
    RunUnknown, // 12: not opened, or open for another proposal
    RunClosed, // 13: its receipt is posted
    OwnerNotInRun // 14
}

/// @title One consortium: owners, proposals, privacy budgets, runs, receipts, and dstack's app authorisation.
/// @notice Not upgradeable, no proxy, no admin: `owner()` is the contract itself, which acts only on a quorum.
///
/// Safety rests on: the owners' own keys; the KMS root key pinned here certifying only attested agents; a KMS that
/// asks `releaseDecision` at the newest and at the confirmed block. Liveness rests on: a quorum of owners, any
/// relayer, an analyst. No owner can be outvoted on its own data: its key opens only with its own approval.
interface IDstackApp {
    // ---- errors -------------------------------------------------------------------------------------------------

    /// The caller is none of the owners (nor, where that counts, a revocation key).
    error DstackApp_NotAnOwner(address caller);
    /// Only the contract itself, that is an executed governance action, may call this.
    error DstackApp_OnlySelf(address caller);
    /// A field has a value that is never valid; `field` is its name.
    error DstackApp_InvalidField(string field);
    /// The deadline of a signature has passed.
    error DstackApp_DeadlinePassed(uint64 deadline, uint256 nowSeconds);
    /// The signature is not by `signer` over the given data.
    error DstackApp_BadSignature(address signer);
    /// The proposal is not in a state that allows this; `decision` tells why.
    error DstackApp_ProposalNotLive(bytes32 proposalId, Decision decision);
    /// The owner's approval of this proposal is missing.
    error DstackApp_OwnerNotApproved(bytes32 proposalId, uint8 ownerIndex);
    /// The terms are for another era than the app's current one.
    error DstackApp_WrongEra(uint32 have, uint32 want);
    /// The proposal's own budget does not cover another run.
    /// Numbers of the first of epsilon and delta that falls short.
    error DstackApp_BudgetExhausted(bytes32 proposalId, uint64 epsilonLeft, uint64 epsilonWanted);
    /// Approving would commit more than the owner's lifetime cap allows.
    /// Numbers of the first of epsilon and delta that falls short.
    error DstackApp_OwnerCapExceeded(uint8 ownerIndex, uint64 epsilonLeft, uint64 epsilonWanted);
    /// The analyst is not listed.
    error DstackApp_NotAnAnalyst(address analyst);
    /// The run exists already.
    error DstackApp_RunExists(bytes32 runId);
    /// No such run, or its request does not match.
    error DstackApp_RunUnknown(bytes32 runId);
    /// The run has its receipt already, the same one.
    error DstackApp_ReceiptExists(bytes32 runId);
    /// The receipt's privacy loss differs from what the run debited.
    /// Numbers of the first of epsilon and delta that differs.
    error DstackApp_LossMismatch(uint64 have, uint64 want);
    /// The certificate has ended, was revoked, or is for another compose hash.
    error DstackApp_CertificateRefused(address agent);
    /// The dataset id is taken, or the superseded one is not the caller's.
    error DstackApp_DatasetRefused(bytes32 datasetId);
    /// The governance action is unknown, not ripe, vetoed, done, lapsed, or approved under another configuration.
    error DstackApp_ActionNotReady(bytes32 actionId);

    // ---- events: all state can be rebuilt from these alone -----------------------------------------------------
    // Where an event names an owner's index, 255 stands for the contract itself acting for a quorum.

    /// First event of every app. `name` and `sector` are short ASCII labels.
    event AppCreated(bytes32 name, bytes32 sector, uint8 threshold, address kmsRoot, uint64 governanceDelaySeconds);
    event OwnerAdded(
        bytes32 indexed ownerId,
        address indexed account,
        address revoker,
        bytes2 jurisdiction,
        uint16 grades,
        uint8 index
    );
    event OwnerRemoved(bytes32 indexed ownerId, address indexed account, uint8 index);
    event OwnerRotationStarted(bytes32 indexed ownerId, address indexed account, address indexed newAccount);
    event OwnerRotated(bytes32 indexed ownerId, address indexed oldAccount, address indexed newAccount, uint8 index);
    event RevokerSet(bytes32 indexed ownerId, address indexed revoker);
    /// `...Committed` are totals over the proposals the owner has approved and not reclaimed.
    /// Emitted when a cap or a total changes by anything but an approval: each owner in `added` of ProposalApproved has
    /// committed the epsilonBudget and deltaBudget of that proposal's terms.
    event OwnerBudget(
        uint8 indexed index, uint64 epsilonCap, uint64 epsilonCommitted, uint64 deltaCap, uint64 deltaCommitted
    );
    /// The owner took back what the proposal had not spent; the owner's new totals follow in OwnerBudget.
    event BudgetReclaimed(bytes32 indexed proposalId, uint8 indexed ownerIndex, uint64 epsilon, uint64 delta);
    /// A lower threshold than before is followed by EraStarted.
    event ThresholdSet(uint8 threshold);
    event AnalystSet(address indexed analyst, bool listed);
    event KmsRootSet(address indexed kmsRoot);
    event GovernanceDelaySet(uint64 delaySeconds);
    event SuccessorAnnounced(address indexed successor);

    /// Emitted with the first approval; carries the terms in full.
    event ProposalCreated(
        bytes32 indexed proposalId, bytes32 indexed composeHash, Terms terms, uint8 thresholdSnapshot
    );
    /// `added` and `approvals` are bit sets over owner indexes; `bySignature` tells how the added ones were given.
    event ProposalApproved(bytes32 indexed proposalId, uint128 added, uint128 approvals, bool bySignature);
    /// The quorum is reached: this is now the proposal of its compose hash. `superseded` is terminal; zero: none.
    event ProposalActivated(bytes32 indexed proposalId, bytes32 indexed composeHash, bytes32 superseded);
    event ProposalRejected(bytes32 indexed proposalId, uint8 indexed ownerIndex, string reason);
    /// Terminal, also for a proposal that nobody has approved yet.
    event ProposalRevoked(bytes32 indexed proposalId, uint8 indexed ownerIndex, address by);
    /// All proposals of older eras are over.
    event EraStarted(uint32 era, uint8 indexed ownerIndex, address by);

    event DatasetRegistered(bytes32 indexed datasetId, uint8 indexed ownerIndex, DatasetInfo info);

    /// `...Spent` are the proposal's totals after this run's debit.
    event RunOpened(
        bytes32 indexed runId,
        bytes32 indexed proposalId,
        address indexed analyst,
        uint128 participants,
        uint64 epsilon,
        uint64 delta,
        uint64 epsilonSpent,
        uint64 deltaSpent
    );
    event ReceiptPosted(
        bytes32 indexed runId, bytes32 indexed proposalId, address indexed agent, Receipt receipt, bytes32 digest
    );
    /// A second, different receipt by a certified key for a run that has one: evidence of misbehaviour. Digests are the
    /// EIP-712 digests that the agents signed, here as in ReceiptPosted and `run`.
    event ReceiptEquivocation(bytes32 indexed runId, address indexed agent, bytes32 firstDigest, bytes32 digest);
    event AgentRevoked(address indexed agent, uint8 indexed ownerIndex);

    event ActionApproved(bytes32 indexed actionId, uint8 indexed ownerIndex, bytes data, bytes32 salt);
    event ActionScheduled(bytes32 indexed actionId, uint64 readyAt);
    event ActionVetoed(bytes32 indexed actionId, uint8 indexed ownerIndex);
    event ActionExecuted(bytes32 indexed actionId);

    // ---- proposals ----------------------------------------------------------------------------------------------

    /// Owner approves by transaction; the first approval creates the proposal. Idempotent.
    /// Reverts: NotAnOwner, WrongEra, InvalidField (zero hash, expiry past or more than 400 days ahead, a run dearer than
    /// the budget, zero epsilonPerRun), ProposalNotLive (revoked or superseded), OwnerCapExceeded.
    function approve(Terms calldata terms) external returns (bytes32 proposalId);

    /// Anyone relays owners' signatures. An approval already given is skipped; a bad signature reverts the batch.
    function approveBySig(Terms calldata terms, SignedApproval[] calldata approvals)
        external
        returns (bytes32 proposalId);

    /// Owner records that it will not approve, with a reason of at most 256 bytes. Changes no other state.
    /// Reverts: NotAnOwner, InvalidField.
    function reject(bytes32 proposalId, string calldata reason) external;

    /// Any one owner, or its revocation key, stops a proposal for good, known or not. Needs no one else. Idempotent.
    /// Reverts: NotAnOwner.
    function revoke(bytes32 proposalId) external;

    /// The same by signature of the account or the revocation key:
    /// Revoke(address owner,bytes32 proposalId,uint64 deadline).
    /// Reverts: NotAnOwner, DeadlinePassed, BadSignature.
    function revokeBySig(address owner, bytes32 proposalId, uint64 deadline, bytes calldata signature) external;

    /// Any one owner, or its revocation key, ends every proposal of this app: the next era begins.
    function revokeAll() external;

    /// The same by signature: RevokeAll(address owner,uint32 era,uint64 deadline), for the era that it ends.
    /// Reverts: NotAnOwner, WrongEra, DeadlinePassed, BadSignature.
    function revokeAllBySig(address owner, uint32 era, uint64 deadline, bytes calldata signature) external;

    // ---- owners -------------------------------------------------------------------------------------------------

    /// Owner starts moving to another account; that account finishes with `acceptRotation`. Zero withdraws it.
    /// Index, approvals and budget stay: the institution is the same. Pending governance actions stay too, else an
    /// owner could rotate for ever to escape its removal. Reverts: NotAnOwner, InvalidField (an owner's account).
    function startRotation(address newAccount) external;
    function acceptRotation(bytes32 ownerId) external;
    /// Owner names the key that may only stop things: `revoke`, `revokeAll`, `revokeAgent`, `vetoAction`,
    /// `removeComposeHash`, `removeDevice`. One key serves one owner; zero: none. Reverts: NotAnOwner, InvalidField.
    function setRevoker(address revoker) external;
    /// Owner sets its own lifetime caps; not below what is committed.
    function setOwnerCap(uint64 epsilonCap, uint64 deltaCap) external;
    /// Owner takes back what a terminal or expired proposal committed and did not spend. Idempotent.
    /// Reverts: NotAnOwner, OwnerNotApproved, ProposalNotLive (it may still spend: live, or short of its quorum).
    function reclaim(Terms calldata terms) external;

    // ---- datasets, runs, receipts -------------------------------------------------------------------------------

    /// Owner registers a sealed dataset. Does not check the label fields.
    /// Reverts: NotAnOwner, InvalidField (zero compose hash), DatasetRefused.
    function registerDataset(DatasetInfo calldata info) external;

    /// Anyone submits a listed analyst's signed request. Debits the proposal's budget; it never comes back.
    /// Reverts: RunUnknown (request for other terms), DeadlinePassed, NotAnAnalyst, BadSignature, ProposalNotLive,
    /// InvalidField (no participants), OwnerNotApproved, RunExists, BudgetExhausted.
    function openRun(Terms calldata terms, RunRequest calldata request, bytes calldata signature)
        external
        returns (bytes32 runId);

    /// Anyone submits the agent's receipt, beside the request and the terms that the run was opened with; closes the run.
    /// The same receipt again reverts ReceiptExists; another one for a closed run is recorded as equivocation, whatever
    /// has become of the proposal since.
    /// Reverts: RunUnknown (or request or terms are others), CertificateRefused (other compose hash, ended, revoked),
    /// BadSignature, ReceiptExists, ProposalNotLive, OwnerNotApproved (a participant was removed), LossMismatch,
    /// InvalidField (privacyProof). Does not check the hashes in the receipt.
    function postReceipt(
        Terms calldata terms,
        RunRequest calldata request,
        Receipt calldata receipt,
        bytes calldata signature,
        AgentCertificate calldata certificate,
        bytes calldata kmsSignature
    ) external;

    /// Any one owner, or its revocation key, stops an agent key for good. Idempotent. Reverts: NotAnOwner.
    function revokeAgent(address agent) external;

    // ---- governance by quorum -----------------------------------------------------------------------------------

    /// Owner approves a call of this contract on itself, one of the self-calls below. `actionId` is the EIP-712 struct
    /// hash of Action(bytes data,bytes32 salt,uint64 configVersion): any change of owners or threshold voids what is
    /// pending. At quorum the delay starts, in which any one owner can veto. Idempotent.
    /// Reverts: NotAnOwner, InvalidField (other function), ActionNotReady (vetoed, done, lapsed).
    function approveAction(bytes calldata data, bytes32 salt) external returns (bytes32 actionId);
    /// ApproveAction(address owner,bytes data,bytes32 salt,uint64 configVersion,uint64 deadline)
    function approveActionBySig(bytes calldata data, bytes32 salt, SignedApproval[] calldata approvals)
        external
        returns (bytes32 actionId);
    /// Any one owner, or its revocation key, stops an action that somebody has approved; final. Not its own removal
    /// (NotAnOwner), else it could never be removed. Reverts: ActionNotReady (unknown, done), NotAnOwner.
    function vetoAction(bytes32 actionId) external;
    /// Anyone executes an action from the end of its delay until 14 days later. A revert of the call goes through, and
    /// the action stays ready. Reverts: ActionNotReady.
    function executeAction(bytes calldata data, bytes32 salt) external;

    // Self-calls only (OnlySelf):

    /// At most 64 at once and 128 ever. A returning owner gets another index, so that no former approval revives, and
    /// keeps its former caps and what it has committed. Reverts: InvalidField.
    function addOwner(OwnerInfo calldata owner) external;
    /// Its approvals stop counting at once. Reverts: InvalidField (not listed, or fewer owners than the threshold).
    function removeOwner(bytes32 ownerId) external;
    /// Lowering it ends the era, so that no older proposal comes to life by it. Reverts: InvalidField.
    function setThreshold(uint8 threshold) external;
    /// Lists an analyst, or takes one off the list: no request of theirs opens a run from then on. Runs that are open stay.
    /// Reverts: InvalidField (zero).
    function setAnalyst(address analyst, bool listed) external;
    /// Certificates by the former root are worthless from then on. Reverts: InvalidField (zero).
    function setKmsRoot(address kmsRoot) external;
    /// One hour to 30 days, so that a veto always has time; counts for actions that reach their quorum later.
    /// Reverts: InvalidField.
    function setGovernanceDelay(uint64 delaySeconds) external;
    /// Moves nothing: each owner goes over by approving there.
    function announceSuccessor(address successor) external;

    // ---- views --------------------------------------------------------------------------------------------------

    /// May `ownerId`'s dataset key go to the CVM measured as `composeHash`, for this run? Never reverts.
    /// The reasons are checked in the order of `Decision`'s numbers; the first that applies is returned.
    function releaseDecision(bytes32 proposalId, bytes32 composeHash, bytes32 ownerId, bytes32 datasetId, bytes32 runId)
        external
        view
        returns (Decision decision);

    /// Is the proposal live? Allow, or one of reasons 1 to 6. Never reverts.
    function proposalDecision(bytes32 proposalId) external view returns (Decision decision);

    // The EIP-712 struct hashes, which are the ids.

    function hashTerms(Terms calldata terms) external view returns (bytes32 proposalId);
    function hashRunRequest(RunRequest calldata request) external view returns (bytes32 runId);
    function hashReceipt(Receipt calldata receipt) external view returns (bytes32 structHash);

    /// Zeroes for an unknown proposal; only `revoked` for one that was revoked before anyone approved it. The budgets are
    /// in the terms (ProposalCreated); each of the `runs` has debited epsilonPerRun and deltaPerRun from them.
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
        );
    /// The proposal that has reached quorum for this compose hash; zero: none.
    function currentProposal(bytes32 composeHash) external view returns (bytes32 proposalId);
    /// `openedAt` is zero for an unknown run. `digest` is zero while the run is open, `openProposalId` from then on: the
    /// run id is the hash of the request, which names the proposal for good.
    function run(bytes32 runId)
        external
        view
        returns (bytes32 openProposalId, uint128 participants, uint64 openedAt, bytes32 digest);
    function dataset(bytes32 datasetId)
        external
        view
        returns (bool registered, bool superseded, uint8 ownerIndex, bytes32 composeHash);
    /// All listed owners, by index.
    function owners() external view returns (OwnerInfo[] memory list, uint8[] memory indexes);
    function ownerOf(bytes32 ownerId) external view returns (bool listed, uint8 index, address account, address revoker);
    function ownerBudget(uint8 index)
        external
        view
        returns (uint64 epsilonCap, uint64 epsilonCommitted, uint64 deltaCap, uint64 deltaCommitted);
    /// `version` is the number of OwnerAdded, OwnerRemoved and ThresholdSet events so far.
    function config()
        external
        view
        returns (
            uint128 activeOwners,
            uint8 threshold,
            uint8 ownerCount,
            uint32 era,
            uint64 version,
            uint64 governanceDelaySeconds
        );
    function kmsRoot() external view returns (address);
    function isAnalyst(address account) external view returns (bool);
    function agentRevoked(address agent) external view returns (bool);

    // ---- dstack (IAppAuth, IAppAuthBasicManagement) -------------------------------------------------------------

    event ComposeHashAdded(bytes32 composeHash);
    event ComposeHashRemoved(bytes32 composeHash);
    event DeviceAdded(bytes32 deviceId);
    event DeviceRemoved(bytes32 deviceId);
    event AllowAnyDeviceSet(bool allowAny);
    event RequireTcbUpToDateSet(bool required);
    /// dstack's audit event, beside each of the ones above. `policy` is keccak256 of "compose-hash", "device",
    /// "allow-any-device" or "require-tcb-up-to-date"; `value` the hash or id, zero for the last two. `actor` is this
    /// contract for what a quorum decided.
    event PolicyChanged(address indexed actor, bytes32 indexed policy, bytes32 indexed value, bool enabled);

    /// dstack's boot gate. It never opens a dataset key: that is `releaseDecision`. Reasons, in this order: "App id
    /// mismatch", then dstack's own "TCB status is not up to date", "Compose hash not allowed", "Device not allowed".
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason);
    /// True while a proposal for it is live, or the quorum allowed it for boot only.
    function allowedComposeHashes(bytes32 composeHash) external view returns (bool);
    function allowedDeviceIds(bytes32 deviceId) external view returns (bool);
    function allowAnyDevice() external view returns (bool);
    function requireTcbUpToDate() external view returns (bool);
    /// Self only. Reverts: InvalidField (zero).
    function addComposeHash(bytes32 composeHash) external;
    /// Self, or any one owner or its revocation key. Also revokes the current proposal for it, so that it is not allowed
    /// afterwards. Reverts: NotAnOwner.
    function removeComposeHash(bytes32 composeHash) external;
    /// Self only. Reverts: InvalidField (zero).
    function addDevice(bytes32 deviceId) external;
    /// Self, or any one owner or its revocation key. Reverts: NotAnOwner.
    function removeDevice(bytes32 deviceId) external;
    /// Self only.
    function setAllowAnyDevice(bool allowAny) external;
    /// Self only.
    function setRequireTcbUpToDate(bool required) external;
    /// This contract's own address: it governs itself.
    function owner() external view returns (address);
    function version() external pure returns (uint256);
}
