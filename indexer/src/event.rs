//! The contracts' events as answers tell them: exactly the arguments of `IDstackApp.sol` and
//! `IDstackKms.sol`, under the project's names.
//!
//! Identifiers are `0x` hex, labels are text (or `0x` hex where the word is no label), epsilon and delta are decimal
//! strings, bit sets over owner indexes are arrays of indexes, a zero that means "none" is `null`.

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::{SolEvent, SolEventInterface},
};
use cohort_protocol::{
    abi::{IDstackApp::IDstackAppEvents, IDstackKms::IDstackKmsEvents},
    ids::{ComposeHash, DatasetId, ProposalId, RunId},
    loss::Epsilon,
    terms::Terms,
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::OneOfBuilder},
};

use crate::schema::{self, Shape};
use crate::value::{Delta, Jurisdiction, Name, OwnerSet, nonzero, some_address};

macro_rules! events {
    ($(#[$doc:meta])* $name:ident of $abi:ident {
        $($variant:ident = $kind:literal ($event:ident) { $($field:ident: $type:ty = $value:expr,)* })*
    } and {
        $($other:ident = $other_kind:literal { $($other_field:ident: $other_type:ty,)* })*
    }) => {
        $(#[$doc])*
        // Each variant is the Solidity event of that name, documented there.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(tag = "kind", content = "args")]
        pub enum $name {
            $(#[serde(rename = $kind)] $variant { $($field: $type,)* },)*
            $(#[serde(rename = $other_kind)] $other { $($other_field: $other_type,)* },)*
        }

        impl $name {
            /// The row's `kind`, which is also the JSON tag.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $kind,)*
                    $(Self::$other { .. } => $other_kind,)*
                }
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                OneOfBuilder::new()
                    $(.item(schema::event($kind, &[$((stringify!($field), <$type as Shape>::shape())),*])))*
                    $(.item(schema::event($other_kind, &[$((stringify!($other_field), <$other_type as Shape>::shape())),*])))*
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl From<$abi> for $name {
            fn from(event: $abi) -> Self {
                match event { $($abi::$variant($event) => Self::$variant { $($field: $value,)* },)* }
            }
        }
    };
}

events! {
    /// An event of a consortium's contract.
    AppEvent of IDstackAppEvents {
        AppCreated = "app_created" (e) {
            name: Name = Name(e.name), sector: Name = Name(e.sector), threshold: u8 = e.threshold,
            kms_root: Address = e.kmsRoot, governance_delay_seconds: u64 = e.governanceDelaySeconds,
        }
        OwnerAdded = "owner_added" (e) {
            owner: Name = Name(e.ownerId), account: Address = e.account,
            revoker: Option<Address> = some_address(e.revoker),
            jurisdiction: Jurisdiction = Jurisdiction(e.jurisdiction), grades: u16 = e.grades, index: u8 = e.index,
        }
        OwnerRemoved = "owner_removed" (e) {
            owner: Name = Name(e.ownerId), account: Address = e.account, index: u8 = e.index,
        }
        OwnerRotationStarted = "owner_rotation_started" (e) {
            owner: Name = Name(e.ownerId), account: Address = e.account, new_account: Address = e.newAccount,
        }
        OwnerRotated = "owner_rotated" (e) {
            owner: Name = Name(e.ownerId), old_account: Address = e.oldAccount, new_account: Address = e.newAccount,
            index: u8 = e.index,
        }
        RevokerSet = "revoker_set" (e) {
            owner: Name = Name(e.ownerId), revoker: Option<Address> = some_address(e.revoker),
        }
        OwnerBudget = "owner_budget" (e) {
            index: u8 = e.index, epsilon_cap: Epsilon = Epsilon(e.epsilonCap),
            epsilon_committed: Epsilon = Epsilon(e.epsilonCommitted), delta_cap: Delta = Delta(e.deltaCap),
            delta_committed: Delta = Delta(e.deltaCommitted),
        }
        BudgetReclaimed = "budget_reclaimed" (e) {
            proposal_id: ProposalId = e.proposalId.into(), owner_index: u8 = e.ownerIndex,
            epsilon: Epsilon = Epsilon(e.epsilon), delta: Delta = Delta(e.delta),
        }
        ThresholdSet = "threshold_set" (e) { threshold: u8 = e.threshold, }
        AnalystSet = "analyst_set" (e) { analyst: Address = e.analyst, listed: bool = e.listed, }
        KmsRootSet = "kms_root_set" (e) { kms_root: Address = e.kmsRoot, }
        GovernanceDelaySet = "governance_delay_set" (e) { delay_seconds: u64 = e.delaySeconds, }
        SuccessorAnnounced = "successor_announced" (e) { successor: Address = e.successor, }
        ProposalCreated = "proposal_created" (e) {
            proposal_id: ProposalId = e.proposalId.into(), terms: Terms = Terms::from(&e.terms),
            threshold_snapshot: u8 = e.thresholdSnapshot,
        }
        ProposalApproved = "proposal_approved" (e) {
            proposal_id: ProposalId = e.proposalId.into(), added: OwnerSet = OwnerSet(e.added),
            approvals: OwnerSet = OwnerSet(e.approvals), by_signature: bool = e.bySignature,
        }
        ProposalActivated = "proposal_activated" (e) {
            proposal_id: ProposalId = e.proposalId.into(), compose_hash: ComposeHash = e.composeHash.into(),
            superseded: Option<ProposalId> = nonzero(e.superseded).map(ProposalId),
        }
        ProposalRejected = "proposal_rejected" (e) {
            proposal_id: ProposalId = e.proposalId.into(), owner_index: u8 = e.ownerIndex, reason: String = e.reason,
        }
        ProposalRevoked = "proposal_revoked" (e) {
            proposal_id: ProposalId = e.proposalId.into(), owner_index: u8 = e.ownerIndex, by: Address = e.by,
        }
        EraStarted = "era_started" (e) { era: u32 = e.era, owner_index: u8 = e.ownerIndex, by: Address = e.by, }
        DatasetRegistered = "dataset_registered" (e) {
            dataset_id: DatasetId = e.datasetId.into(), owner_index: u8 = e.ownerIndex,
            info: DatasetInfo = DatasetInfo::from(&e.info),
        }
        RunOpened = "run_opened" (e) {
            run_id: RunId = e.runId.into(), proposal_id: ProposalId = e.proposalId.into(), analyst: Address = e.analyst,
            participants: OwnerSet = OwnerSet(e.participants), epsilon: Epsilon = Epsilon(e.epsilon),
            delta: Delta = Delta(e.delta), epsilon_spent: Epsilon = Epsilon(e.epsilonSpent),
            delta_spent: Delta = Delta(e.deltaSpent),
        }
        ReceiptPosted = "receipt_posted" (e) {
            run_id: RunId = e.runId.into(), proposal_id: ProposalId = e.proposalId.into(), agent: Address = e.agent,
            receipt: Receipt = Receipt::from(&e.receipt), digest: B256 = e.digest,
        }
        ReceiptEquivocation = "receipt_equivocation" (e) {
            run_id: RunId = e.runId.into(), agent: Address = e.agent, first_digest: B256 = e.firstDigest,
            digest: B256 = e.digest,
        }
        AgentRevoked = "agent_revoked" (e) { agent: Address = e.agent, owner_index: u8 = e.ownerIndex, }
        ActionApproved = "action_approved" (e) {
            action_id: B256 = e.actionId, owner_index: u8 = e.ownerIndex, data: Bytes = e.data, salt: B256 = e.salt,
        }
        ActionScheduled = "action_scheduled" (e) { action_id: B256 = e.actionId, ready_at: u64 = e.readyAt, }
        ActionVetoed = "action_vetoed" (e) { action_id: B256 = e.actionId, owner_index: u8 = e.ownerIndex, }
        ActionExecuted = "action_executed" (e) { action_id: B256 = e.actionId, }
        ComposeHashAdded = "compose_hash_added" (e) { compose_hash: ComposeHash = e.composeHash.into(), }
        ComposeHashRemoved = "compose_hash_removed" (e) { compose_hash: ComposeHash = e.composeHash.into(), }
        DeviceAdded = "device_added" (e) { device_id: B256 = e.deviceId, }
        DeviceRemoved = "device_removed" (e) { device_id: B256 = e.deviceId, }
        AllowAnyDeviceSet = "allow_any_device_set" (e) { allow_any: bool = e.allowAny, }
        PolicyChanged = "policy_changed" (e) {
            actor: Address = e.actor, policy: B256 = e.policy, value: B256 = e.value, enabled: bool = e.enabled,
        }
        RequireTcbUpToDateSet = "require_tcb_up_to_date_set" (e) { required: bool = e.required, }
    } and {
        // A log with a signature of ours whose data does not decode: the address is no contract of ours.
        Undecodable = "undecodable" { signature: B256, }
    }
}

events! {
    /// An event of the registry.
    RegistryEvent of IDstackKmsEvents {
        AppRegistered = "app_registered" (e) { app: Address = e.appId, }
        KmsInfoSet = "kms_info_set" (e) { k256_pubkey: Bytes = e.k256Pubkey, }
        GatewayAppIdSet = "gateway_app_id_set" (e) { gateway_app_id: String = e.gatewayAppId, }
        RootRegistered = "root_registered" (e) {
            epoch: u32 = e.epoch, root: Address = e.root, sealing_key: Bytes = e.sealingKey,
        }
        RootRetired = "root_retired" (e) { epoch: u32 = e.epoch, }
        OsImageHashAdded = "os_image_hash_added" (e) { os_image_hash: B256 = e.osImageHash, }
        OsImageHashRemoved = "os_image_hash_removed" (e) { os_image_hash: B256 = e.osImageHash, }
        KmsAggregatedMrAdded = "kms_aggregated_mr_added" (e) { mr_aggregated: B256 = e.mrAggregated, }
        KmsAggregatedMrRemoved = "kms_aggregated_mr_removed" (e) { mr_aggregated: B256 = e.mrAggregated, }
        KmsDeviceAdded = "kms_device_added" (e) { device_id: B256 = e.deviceId, }
        KmsDeviceRemoved = "kms_device_removed" (e) { device_id: B256 = e.deviceId, }
        AgentSystemAdded = "agent_system_added" (e) { mr_system: B256 = e.mrSystem, }
        AgentSystemRemoved = "agent_system_removed" (e) { mr_system: B256 = e.mrSystem, }
        GpuGoldenValuesSet = "gpu_golden_values_set" (e) { list_hash: B256 = e.listHash, }
        PolicyChanged = "policy_changed" (e) {
            actor: Address = e.actor, policy: B256 = e.policy, value: B256 = e.value, enabled: bool = e.enabled,
        }
    } and {
        // OpenZeppelin Ownable2Step, which DstackKms inherits.
        OwnershipTransferStarted = "ownership_transfer_started" { previous_owner: Address, new_owner: Address, }
        OwnershipTransferred = "ownership_transferred" { previous_owner: Address, new_owner: Address, }
    }
}

/// `DatasetInfo` of `IDstackApp.sol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DatasetInfo {
    /// Commitment to envelope and ciphertext.
    #[schema(value_type = schema::Hash)]
    pub dataset_id: DatasetId,
    /// What it is sealed for.
    #[schema(value_type = schema::Hash)]
    pub compose_hash: ComposeHash,
    /// Public label, e.g. `EU-West`.
    #[schema(value_type = schema::Label)]
    pub region: Name,
    /// Public label, e.g. `EHR`.
    #[schema(value_type = schema::Label)]
    pub kind: Name,
    /// Number of records; 0: withheld.
    pub records: u64,
    /// Size of the sealed file in bytes.
    pub size_bytes: u64,
    /// The dataset that this one replaces.
    #[schema(value_type = Option<schema::Hash>)]
    pub supersedes: Option<DatasetId>,
}

impl From<&cohort_protocol::abi::DatasetInfo> for DatasetInfo {
    fn from(info: &cohort_protocol::abi::DatasetInfo) -> Self {
        Self {
            dataset_id: info.datasetId.into(),
            compose_hash: info.composeHash.into(),
            region: Name(info.region),
            kind: Name(info.kind),
            records: info.records,
            size_bytes: info.sizeBytes,
            supersedes: nonzero(info.supersedes).map(DatasetId),
        }
    }
}

/// `Receipt` of `IDstackApp.sol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Receipt {
    /// The run it closes.
    #[schema(value_type = schema::Hash)]
    pub run_id: RunId,
    /// SHA-256 of the RFC 8785 bytes of the output payload.
    #[schema(value_type = schema::Hash)]
    pub output_hash: B256,
    /// keccak256 of the input dataset ids in ascending owner index.
    #[schema(value_type = schema::Hash)]
    pub inputs_hash: B256,
    /// SHA-256 over the attestation evidence.
    #[schema(value_type = schema::Hash)]
    pub evidence_hash: B256,
    /// Privacy loss.
    #[schema(value_type = schema::Epsilon)]
    pub epsilon: Epsilon,
    /// Failure probability.
    #[schema(value_type = schema::Delta)]
    pub delta: Delta,
    /// 0: declared by the recipe's author; 1: proved by the platform.
    pub privacy_proof: u8,
    /// Unix seconds by the agent's clock; informative.
    pub produced_at: u64,
}

impl From<&cohort_protocol::abi::Receipt> for Receipt {
    fn from(receipt: &cohort_protocol::abi::Receipt) -> Self {
        Self {
            run_id: receipt.runId.into(),
            output_hash: receipt.outputHash,
            inputs_hash: receipt.inputsHash,
            evidence_hash: receipt.evidenceHash,
            epsilon: Epsilon(receipt.epsilon),
            delta: Delta(receipt.delta),
            privacy_proof: receipt.privacyProof,
            produced_at: receipt.producedAt,
        }
    }
}

/// An event of either contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ChainEvent {
    /// By the registry.
    Registry(RegistryEvent),
    /// By an app.
    App(Box<AppEvent>),
}

impl ChainEvent {
    /// The row's `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry(event) => event.kind(),
            Self::App(event) => event.kind(),
        }
    }

    /// The identifiers that its row is looked up by.
    pub fn keys(&self) -> Keys {
        match self {
            Self::Registry(event) => event.keys(),
            Self::App(event) => event.keys(),
        }
    }
}

/// Identifiers among an event's arguments that rows are looked up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys {
    /// The app that the registry names.
    pub app: Option<Address>,
    /// The proposal it is about.
    pub proposal_id: Option<B256>,
    /// The compose hash it is about.
    pub compose_hash: Option<B256>,
    /// The run it is about.
    pub run_id: Option<B256>,
    /// The dataset it is about.
    pub dataset_id: Option<B256>,
    /// The proposal or dataset that it replaces.
    pub superseded_id: Option<B256>,
}

impl AppEvent {
    /// The identifiers that its row is looked up by.
    pub fn keys(&self) -> Keys {
        let none = Keys::default();
        match self {
            Self::ProposalCreated { proposal_id, terms, .. } => {
                Keys { proposal_id: Some(proposal_id.0), compose_hash: Some(terms.compose_hash.0), ..none }
            }
            Self::ProposalActivated { proposal_id, compose_hash, superseded } => Keys {
                proposal_id: Some(proposal_id.0),
                compose_hash: Some(compose_hash.0),
                superseded_id: superseded.map(B256::from),
                ..none
            },
            Self::ProposalApproved { proposal_id, .. }
            | Self::ProposalRejected { proposal_id, .. }
            | Self::BudgetReclaimed { proposal_id, .. }
            | Self::ProposalRevoked { proposal_id, .. } => Keys { proposal_id: Some(proposal_id.0), ..none },
            Self::DatasetRegistered { dataset_id, info, .. } => Keys {
                dataset_id: Some(dataset_id.0),
                compose_hash: Some(info.compose_hash.0),
                superseded_id: info.supersedes.map(B256::from),
                ..none
            },
            Self::RunOpened { run_id, proposal_id, .. } => {
                Keys { proposal_id: Some(proposal_id.0), run_id: Some(run_id.0), ..none }
            }
            Self::ReceiptPosted { run_id, .. } | Self::ReceiptEquivocation { run_id, .. } => {
                Keys { run_id: Some(run_id.0), ..none }
            }
            Self::ComposeHashAdded { compose_hash } | Self::ComposeHashRemoved { compose_hash } => {
                Keys { compose_hash: Some(compose_hash.0), ..none }
            }
            _ => none,
        }
    }
}

alloy::sol! {
    event OwnershipTransferStarted(address indexed previousOwner, address indexed newOwner);
    event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);
}

/// A log of the registry that is no event of `IDstackKms.sol` or Ownable2Step. Nothing may be skipped there, so the
/// indexer stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the registry emitted an event that this version does not know (signature {0:?}); upgrade the indexer"
)]
pub struct UnknownRegistryEvent(pub Option<B256>);

impl RegistryEvent {
    /// The identifiers that its row is looked up by.
    pub fn keys(&self) -> Keys {
        let app = match self {
            Self::AppRegistered { app } => Some(*app),
            _ => None,
        };
        Keys { app, ..Keys::default() }
    }

    /// Decodes a log of the registry.
    pub fn decode(topics: &[B256], data: &[u8]) -> Result<Self, UnknownRegistryEvent> {
        let signature = topics.first().copied();
        let unknown = |_| UnknownRegistryEvent(signature);
        if signature == Some(OwnershipTransferStarted::SIGNATURE_HASH) {
            let e = OwnershipTransferStarted::decode_raw_log(topics, data).map_err(unknown)?;
            Ok(Self::OwnershipTransferStarted { previous_owner: e.previousOwner, new_owner: e.newOwner })
        } else if signature == Some(OwnershipTransferred::SIGNATURE_HASH) {
            let e = OwnershipTransferred::decode_raw_log(topics, data).map_err(unknown)?;
            Ok(Self::OwnershipTransferred { previous_owner: e.previousOwner, new_owner: e.newOwner })
        } else {
            IDstackKmsEvents::decode_raw_log(topics, data).map(Self::from).map_err(unknown)
        }
    }
}

impl AppEvent {
    /// Decodes a log of a registered app. Anybody can register any contract: signatures that are not ours are `None`,
    /// and data that does not fit a signature of ours is [`AppEvent::Undecodable`], so that no app can stop the mirror.
    pub fn decode(topics: &[B256], data: &[u8]) -> Option<Self> {
        let signature = *topics.first()?;
        if !IDstackAppEvents::SELECTORS.contains(&signature.0) {
            return None;
        }
        let decoded = IDstackAppEvents::decode_raw_log(topics, data).map(Self::from);
        Some(decoded.unwrap_or(Self::Undecodable { signature }))
    }
}
