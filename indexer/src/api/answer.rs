//! The JSON of each answer, field by field; `docs/openapi/indexer.json` is generated from it.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use cohort_protocol::{
    chain::Position,
    decision::Decision,
    ids::{ComposeHash, DatasetId, ProposalId, RunId},
    loss::Epsilon,
    terms::Terms,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    event::{AppEvent, DatasetInfo, Receipt},
    schema as s,
    store::{Bookmark, Recorded, Stamp},
    value::{Delta, Jurisdiction, Name, OwnerSet, grade_names},
    view::{AppState, DatasetState, OwnerState, Positions, ProposalState, RegistryState, RunState},
};

/// A body with the chain and the positions it holds at.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer<T: ToSchema> {
    /// EIP-155 chain id.
    chain_id: u64,
    /// The newest mirrored block; state is as of here.
    #[schema(value_type = s::Position)]
    head: Position,
    /// The block at the configured depth below the head.
    #[schema(value_type = s::Position)]
    confirmed: Position,
    /// The newest block that the chain calls finalized, if an endpoint tells and it is mirrored.
    #[schema(value_type = Option<s::Position>)]
    finalized: Option<Position>,
    #[serde(flatten)]
    body: T,
    /// The entity tag; `None` where the answer depends on more than the positions.
    #[serde(skip)]
    tag: Option<String>,
}

impl<T: Serialize + ToSchema> Answer<T> {
    pub(super) fn new(positions: &Positions, body: T) -> Self {
        Self {
            chain_id: positions.source.chain_id,
            head: positions.head,
            confirmed: positions.confirmed,
            finalized: positions.finalized,
            body,
            tag: Some(positions.tag()),
        }
    }

    /// The same, of something that changes without a new block.
    pub(super) fn untagged(self) -> Self {
        Self { tag: None, ..self }
    }
}

impl<T: Serialize + ToSchema> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let tag = self.tag.as_deref().map(HeaderValue::from_str).and_then(Result::ok);
        let mut response = Json(&self).into_response();
        let caching = if tag.is_some() { "no-cache" } else { "no-store" };
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        if let Some(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// Where the next page starts; `null` at the end.
pub(super) fn next<E>(rows: &[Recorded<E>], limit: u32) -> Option<Bookmark> {
    let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
    rows.last().filter(|_| full).map(|row| row.stamp.into())
}

macro_rules! pages {
    ($($(#[doc = $doc:literal])* $name:ident { $field:ident: $item:ty })*) => {
        $($(#[doc = $doc])*
        #[derive(Debug, Serialize, ToSchema)]
        pub struct $name {
            /// The items of this page.
            pub(super) $field: Vec<$item>,
            /// `after` of the next page; `null` at the end.
            #[schema(value_type = Option<s::Bookmark>)]
            pub(super) next: Option<Bookmark>,
        })*
    };
}

pages! {
    /// Apps in the order of registration.
    Apps { apps: App }
    /// Cohorts in the order of registration.
    Cohorts { cohorts: super::cohort::Cohort }
    /// Proposals in the order of creation.
    Proposals { proposals: Proposal }
    /// Datasets in the order of registration.
    Datasets { datasets: Dataset }
    /// Runs in the order of opening.
    Runs { runs: Run }
    /// Receipts in the order of posting.
    Receipts { receipts: PostedReceipt }
    /// Events in the order of the chain.
    Timeline { events: Recorded<AppEvent> }
}

/// How far the mirror is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// The `DstackKms` that is mirrored.
    #[schema(value_type = s::Address)]
    pub(super) registry: Address,
    /// Whether release decisions are answered.
    pub(super) synced: bool,
    /// Seconds since the mirror last held the chain's newest block.
    pub(super) lag_seconds: Option<u64>,
    /// Number of registered apps.
    pub(super) apps: usize,
    /// Blocks between head and confirmed position.
    pub(super) confirmations: u64,
    /// The indexer's version.
    pub(super) version: &'static str,
    /// Further origins that console pages may ask: RPC endpoints and agents that the operator vouches for.
    pub(super) console_connect: Vec<String>,
}

/// Whether the mirror keeps up with the chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// False with status 503.
    pub(crate) ready: bool,
    /// Height of the newest mirrored block.
    pub(crate) head: Option<u64>,
    /// Height of the newest block that the chain showed.
    pub(crate) chain_head: Option<u64>,
    /// Blocks that the mirror is behind.
    pub(crate) lag_blocks: Option<u64>,
    /// Seconds since the mirror last held the chain's newest block.
    pub(crate) lag_seconds: Option<u64>,
    /// How new blocks are noticed now: `websocket` or `polling`.
    pub(crate) heads_by: &'static str,
    /// The last failure since the mirror last held the newest block.
    pub(crate) last_error: Option<String>,
}

/// The registry.
#[derive(Debug, Serialize, ToSchema)]
pub struct Kms {
    /// The `DstackKms` that is mirrored.
    #[schema(value_type = s::Address)]
    pub(super) registry: Address,
    /// Its state.
    pub(super) kms: RegistryState,
}

/// An owner by index and name; index 255 without a name is the contract, acting for a quorum.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OwnerRef {
    /// Its name.
    #[schema(value_type = Option<s::Label>)]
    owner: Option<Name>,
    /// Its index in bit sets.
    index: u8,
}

impl OwnerRef {
    fn of(state: &AppState, index: u8) -> Self {
        Self { owner: state.owners.get(&index).map(|owner| owner.owner), index }
    }

    fn all(state: &AppState, owners: OwnerSet) -> Vec<Self> {
        owners.indexes().map(|index| Self::of(state, index)).collect()
    }
}

/// An owner's lifetime caps and what its approvals have committed of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnerCaps {
    #[schema(value_type = s::Epsilon)]
    epsilon_cap: Epsilon,
    #[schema(value_type = s::Epsilon)]
    epsilon_committed: Epsilon,
    #[schema(value_type = s::Epsilon)]
    epsilon_left: Epsilon,
    #[schema(value_type = s::Delta)]
    delta_cap: Delta,
    #[schema(value_type = s::Delta)]
    delta_committed: Delta,
    #[schema(value_type = s::Delta)]
    delta_left: Delta,
}

/// An owner of a consortium.
#[derive(Debug, Serialize, ToSchema)]
pub struct Owner {
    /// Stable institution id.
    #[schema(value_type = s::Label)]
    owner: Name,
    /// Index in bit sets; never given twice.
    index: u8,
    /// Approves, registers datasets, revokes.
    #[schema(value_type = s::Address)]
    account: Address,
    /// May only revoke.
    #[schema(value_type = Option<s::Address>)]
    revoker: Option<Address>,
    /// The account that the owner is moving to.
    #[schema(value_type = Option<s::Address>)]
    pending_account: Option<Address>,
    /// Where it is.
    #[schema(value_type = s::Jurisdiction)]
    jurisdiction: Jurisdiction,
    /// Compliance grades that the quorum listed it with: `HIPAA`, `GDPR`, `UK-GDPR`, `PCI`, `SOC2`, `FFIEC`, `bit-N`.
    grades: Vec<String>,
    /// Its lifetime privacy budget.
    budget: OwnerCaps,
    /// Since when it is listed.
    added: Stamp,
}

impl Owner {
    fn of(owner: &OwnerState) -> Self {
        Self {
            owner: owner.owner,
            index: owner.index,
            account: owner.account,
            revoker: owner.revoker,
            pending_account: owner.pending_account,
            jurisdiction: owner.jurisdiction,
            grades: grade_names(owner.grades),
            budget: OwnerCaps {
                epsilon_cap: owner.epsilon_cap,
                epsilon_committed: owner.epsilon_committed,
                epsilon_left: Epsilon(owner.epsilon_cap.0.saturating_sub(owner.epsilon_committed.0)),
                delta_cap: owner.delta_cap,
                delta_committed: owner.delta_committed,
                delta_left: owner.delta_cap.saturating_sub(owner.delta_committed),
            },
            added: owner.added,
        }
    }
}

/// What a CVM of the app may boot with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Boot {
    /// Any device may boot.
    allow_any_device: bool,
    /// Boot needs an up-to-date TCB.
    require_tcb_up_to_date: bool,
    /// Compose hashes allowed for boot only.
    #[schema(value_type = Vec<s::Hash>)]
    compose_hashes: Vec<ComposeHash>,
    /// Devices that may boot.
    #[schema(value_type = Vec<s::Hash>)]
    devices: Vec<B256>,
}

/// A consortium: one `DstackApp`.
#[derive(Debug, Serialize, ToSchema)]
pub struct App {
    /// Its address, which is the app id.
    #[schema(value_type = s::Address)]
    app: Address,
    /// Whether the contract is a `DstackApp` that this version understands.
    supported: bool,
    /// When the registry named it.
    registered: Stamp,
    /// When it was created.
    created: Option<Stamp>,
    /// Display name.
    #[schema(value_type = Option<s::Label>)]
    name: Option<Name>,
    /// Display sector.
    #[schema(value_type = Option<s::Label>)]
    sector: Option<Name>,
    /// Approvals that a new proposal needs.
    threshold: u8,
    /// Current era.
    era: u32,
    /// The KMS root that certifies agents.
    #[schema(value_type = Option<s::Address>)]
    kms_root: Option<Address>,
    /// Seconds between a governance quorum and its execution.
    governance_delay_seconds: u64,
    /// The app that this one points to as its successor.
    #[schema(value_type = Option<s::Address>)]
    successor: Option<Address>,
    /// Listed owners, by index.
    owners: Vec<Owner>,
    /// Removed owners, by index.
    former_owners: Vec<Owner>,
    /// Accounts that may ask for runs.
    #[schema(value_type = Vec<s::Address>)]
    analysts: Vec<Address>,
    /// Receipt keys that an owner stopped.
    #[schema(value_type = Vec<s::Address>)]
    revoked_agents: Vec<Address>,
    /// What may boot.
    boot: Boot,
    /// Number of datasets in force.
    datasets: usize,
    /// Records behind them: the largest dataset in force of each listed owner.
    records: u64,
}

impl App {
    pub(crate) fn of(
        app: Address,
        registered: Stamp,
        state: &AppState,
        datasets: &[Recorded<AppEvent>],
    ) -> Self {
        let (listed, former): (Vec<_>, Vec<_>) = state.owners.values().partition(|owner| owner.listed);
        let current = CurrentDatasets::of(state, datasets);
        Self {
            app,
            supported: state.supported(),
            registered,
            created: state.created,
            name: state.name,
            sector: state.sector,
            threshold: state.threshold,
            era: state.era,
            kms_root: state.kms_root,
            governance_delay_seconds: state.governance_delay_seconds,
            successor: state.successor,
            owners: listed.into_iter().map(Owner::of).collect(),
            former_owners: former.into_iter().map(Owner::of).collect(),
            analysts: state.analysts.iter().copied().collect(),
            revoked_agents: state.revoked_agents.iter().copied().collect(),
            boot: Boot {
                allow_any_device: state.allow_any_device,
                require_tcb_up_to_date: state.require_tcb_up_to_date,
                compose_hashes: state.boot_compose_hashes.iter().copied().collect(),
                devices: state.devices.iter().copied().collect(),
            },
            datasets: current.datasets.len(),
            records: current.records(),
        }
    }
}

/// The datasets in force: of listed owners, and not replaced.
pub(super) struct CurrentDatasets<'a> {
    /// Owner index and facts.
    pub(super) datasets: Vec<(u8, &'a DatasetInfo)>,
}

impl<'a> CurrentDatasets<'a> {
    pub(super) fn of(state: &AppState, rows: &'a [Recorded<AppEvent>]) -> Self {
        let registered = || {
            rows.iter().filter_map(|row| match &row.event {
                AppEvent::DatasetRegistered { owner_index, info, .. } => Some((*owner_index, info)),
                _ => None,
            })
        };
        let replaced: std::collections::BTreeSet<_> =
            registered().filter_map(|(_, info)| info.supersedes.map(B256::from)).collect();
        let active = state.active_owners();
        let current = registered().filter(|(index, info)| {
            active.contains(*index) && !replaced.contains(&B256::from(info.dataset_id))
        });
        Self { datasets: current.collect() }
    }

    /// For each owner its largest dataset, since an owner seals the same records afresh for each recipe.
    pub(super) fn records(&self) -> u64 {
        let mut largest = BTreeMap::<u8, u64>::new();
        for (index, info) in &self.datasets {
            let records = largest.entry(*index).or_default();
            *records = info.records.max(*records);
        }
        largest.values().fold(0, |sum, records| sum.saturating_add(*records))
    }
}

/// The terms of a proposal.
#[derive(Debug, ToSchema)]
#[schema(as = Terms)]
#[allow(dead_code)] // `cohort_protocol::terms::Terms` is what is serialized
pub struct TermsSchema {
    /// Measured hash of the app-compose file.
    #[schema(value_type = s::Hash)]
    compose_hash: (),
    /// Hash of the recipe inside it.
    #[schema(value_type = s::Hash)]
    recipe_hash: (),
    /// Hash of the schema that outputs must satisfy.
    #[schema(value_type = s::Hash)]
    output_schema_hash: (),
    /// Privacy loss that each run debits.
    #[schema(value_type = s::Epsilon)]
    epsilon_per_run: (),
    /// Failure probability that each run debits.
    #[schema(value_type = s::Delta)]
    delta_per_run: (),
    /// Privacy loss of all runs together.
    #[schema(value_type = s::Epsilon)]
    epsilon_budget: (),
    /// Failure probability of all runs together.
    #[schema(value_type = s::Delta)]
    delta_budget: (),
    /// Unix seconds at which the proposal stops being live.
    expiry: u64,
    /// keccak256 of the ascending device ids that may run it; zero: any.
    #[schema(value_type = s::Hash)]
    devices: (),
    /// keccak256 of the ascending CVM images that may run it; zero: any that the registry lists.
    #[schema(value_type = s::Hash)]
    systems: (),
    /// The app's era that these terms are for.
    era: u32,
    /// Tells otherwise equal terms apart.
    round: u32,
}

/// Where the quorum stands, as in "2 / 4".
#[derive(Debug, Serialize, ToSchema)]
pub struct Quorum {
    /// Listed owners that approved.
    signed: u32,
    /// Approvals that are needed: the larger of the threshold at creation and the current one.
    threshold: u8,
    /// Listed owners.
    owners: u32,
}

/// An owner's approval.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approved {
    #[serde(flatten)]
    owner: OwnerRef,
    /// Given as a signature that somebody relayed, not by the owner's own transaction.
    by_signature: bool,
    /// False for an owner that is no longer listed.
    counts: bool,
    /// When and where.
    at: Stamp,
}

/// An owner's refusal with its reason; changes no other state.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rejected {
    #[serde(flatten)]
    owner: OwnerRef,
    /// In the owner's words.
    reason: String,
    /// When and where.
    at: Stamp,
}

/// The end of a proposal by one owner.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revoked {
    #[serde(flatten)]
    owner: OwnerRef,
    /// The account or revocation key that did it.
    #[schema(value_type = s::Address)]
    by: Address,
    /// When and where.
    at: Stamp,
}

/// The proposal that took this one's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct SupersedingProposal {
    /// Which.
    #[schema(value_type = s::Hash)]
    proposal_id: ProposalId,
    /// When and where.
    at: Stamp,
}

/// The privacy budget of a proposal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Budget {
    #[schema(value_type = s::Epsilon)]
    epsilon_budget: Epsilon,
    #[schema(value_type = s::Epsilon)]
    epsilon_spent: Epsilon,
    #[schema(value_type = s::Epsilon)]
    epsilon_left: Epsilon,
    #[schema(value_type = s::Delta)]
    delta_budget: Delta,
    #[schema(value_type = s::Delta)]
    delta_spent: Delta,
    #[schema(value_type = s::Delta)]
    delta_left: Delta,
    /// How many more runs fit.
    runs_left: u64,
}

/// `proposalDecision` of the contract at both positions.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProposalDecisions {
    #[schema(value_type = s::Decision)]
    head: Decision,
    #[schema(value_type = s::Decision)]
    confirmed: Decision,
}

/// A recipe with its terms, and where its quorum stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Proposal {
    /// EIP-712 struct hash of the terms.
    #[schema(value_type = s::Hash)]
    proposal_id: ProposalId,
    /// `null` while nobody has approved.
    #[schema(value_type = Option<TermsSchema>)]
    terms: Option<Terms>,
    /// When its first owner approved.
    created: Option<Stamp>,
    /// The app's threshold then.
    threshold_snapshot: Option<u8>,
    /// Where the quorum stands.
    quorum: Quorum,
    /// By owner index.
    approvals: Vec<Approved>,
    /// Listed owners that have not approved.
    awaiting: Vec<OwnerRef>,
    /// When it reached its quorum.
    activated: Option<Stamp>,
    /// The proposal that took its place.
    superseded_by: Option<SupersedingProposal>,
    /// The first revocation; terminal.
    revocation: Option<Revoked>,
    /// All rejections.
    rejections: Vec<Rejected>,
    /// `null` while nobody has approved.
    budget: Option<Budget>,
    /// Whether it is live.
    decision: ProposalDecisions,
}

impl Proposal {
    pub(crate) fn of(
        id: ProposalId,
        state: &AppState,
        proposal: &ProposalState,
        [head, confirmed]: [Decision; 2],
    ) -> Self {
        let active = state.active_owners();
        let created = proposal.created.as_ref();
        let snapshot = created.map(|(_, threshold, _)| *threshold);
        let signed = OwnerSet(proposal.approvals.0 & active.0);
        let approvals = proposal.approved.iter().map(|(index, approval)| Approved {
            owner: OwnerRef::of(state, *index),
            by_signature: approval.by_signature,
            counts: signed.contains(*index),
            at: approval.stamp,
        });
        let rejections = proposal.rejections.iter().map(|rejection| Rejected {
            owner: OwnerRef::of(state, rejection.owner_index),
            reason: rejection.reason.clone(),
            at: rejection.stamp,
        });
        Self {
            proposal_id: id,
            terms: created.map(|(terms, ..)| terms.clone()),
            created: created.map(|(.., stamp)| *stamp),
            threshold_snapshot: snapshot,
            quorum: Quorum {
                signed: signed.0.count_ones(),
                threshold: snapshot.unwrap_or_default().max(state.threshold),
                owners: active.0.count_ones(),
            },
            approvals: approvals.collect(),
            awaiting: OwnerRef::all(state, OwnerSet(active.0 & !proposal.approvals.0)),
            activated: proposal.activated,
            superseded_by: proposal
                .superseded_by
                .map(|(proposal_id, at)| SupersedingProposal { proposal_id, at }),
            revocation: proposal.revocation.map(|revoked| Revoked {
                owner: OwnerRef::of(state, revoked.owner_index),
                by: revoked.by,
                at: revoked.stamp,
            }),
            rejections: rejections.collect(),
            budget: created.map(|(terms, ..)| Budget::of(terms, proposal)),
            decision: ProposalDecisions { head, confirmed },
        }
    }
}

impl Budget {
    fn of(terms: &Terms, proposal: &ProposalState) -> Self {
        let epsilon_left = terms.epsilon_budget.0.saturating_sub(proposal.epsilon_spent.0);
        let delta_left = terms.delta_budget.saturating_sub(proposal.delta_spent.0);
        let by_epsilon = epsilon_left.checked_div(terms.epsilon_per_run.0).unwrap_or(0);
        let runs_left =
            delta_left.checked_div(terms.delta_per_run).map_or(by_epsilon, |runs| runs.min(by_epsilon));
        Self {
            epsilon_budget: terms.epsilon_budget,
            epsilon_spent: proposal.epsilon_spent,
            epsilon_left: Epsilon(epsilon_left),
            delta_budget: Delta(terms.delta_budget),
            delta_spent: proposal.delta_spent,
            delta_left: Delta(delta_left),
            runs_left,
        }
    }
}

/// The dataset that took this one's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct SupersedingDataset {
    /// Which.
    #[schema(value_type = s::Hash)]
    dataset_id: DatasetId,
    /// When and where.
    at: Stamp,
}

/// A registered dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dataset {
    #[serde(flatten)]
    info: DatasetInfo,
    #[serde(flatten)]
    owner: OwnerRef,
    /// When and where.
    registered: Stamp,
    /// The dataset that took its place.
    superseded_by: Option<SupersedingDataset>,
}

impl Dataset {
    pub(crate) fn of(state: &AppState, dataset: &DatasetState) -> Self {
        Self {
            info: dataset.info.clone(),
            owner: OwnerRef::of(state, dataset.owner_index),
            registered: dataset.registered,
            superseded_by: dataset
                .superseded_by
                .map(|(dataset_id, at)| SupersedingDataset { dataset_id, at }),
        }
    }
}

/// Whether a run has its receipt.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Not yet.
    Open,
    /// Yes.
    Closed,
}

/// The receipt that closed a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunReceipt {
    /// The key that signed it.
    #[schema(value_type = s::Address)]
    agent: Address,
    /// What it says.
    receipt: Receipt,
    /// EIP-712 digest that the agent signed.
    #[schema(value_type = s::Hash)]
    digest: B256,
    /// When and where.
    posted: Stamp,
}

/// A second, different receipt of a closed run: evidence of misbehaviour.
#[derive(Debug, Serialize, ToSchema)]
pub struct OtherReceipt {
    /// The key that signed it.
    #[schema(value_type = s::Address)]
    agent: Address,
    /// EIP-712 digest of the second one.
    #[schema(value_type = s::Hash)]
    digest: B256,
    /// When and where.
    at: Stamp,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub struct Run {
    /// Its identity.
    #[schema(value_type = s::Hash)]
    run_id: RunId,
    /// The proposal it was opened under.
    #[schema(value_type = s::Hash)]
    proposal_id: ProposalId,
    /// Who asked for it.
    #[schema(value_type = s::Address)]
    analyst: Address,
    /// The owners that take part.
    participants: Vec<OwnerRef>,
    /// Privacy loss that it debited.
    #[schema(value_type = s::Epsilon)]
    epsilon: Epsilon,
    /// Failure probability that it debited.
    #[schema(value_type = s::Delta)]
    delta: Delta,
    /// When and where.
    opened: Stamp,
    /// Whether it has its receipt.
    status: RunStatus,
    /// What closed it.
    receipt: Option<RunReceipt>,
    /// Second receipts.
    equivocations: Vec<OtherReceipt>,
}

impl Run {
    pub(crate) fn of(state: &AppState, run: &RunState) -> Self {
        let equivocations = run.equivocations.iter().map(|other| OtherReceipt {
            agent: other.agent,
            digest: other.digest,
            at: other.stamp,
        });
        Self {
            run_id: run.run_id,
            proposal_id: run.proposal_id,
            analyst: run.analyst,
            participants: OwnerRef::all(state, run.participants),
            epsilon: run.epsilon,
            delta: run.delta,
            opened: run.opened,
            status: if run.posted.is_some() { RunStatus::Closed } else { RunStatus::Open },
            receipt: run.posted.as_ref().map(|posted| RunReceipt {
                agent: posted.agent,
                receipt: posted.receipt.clone(),
                digest: posted.digest,
                posted: posted.stamp,
            }),
            equivocations: equivocations.collect(),
        }
    }
}

/// A posted receipt.
#[derive(Debug, Serialize, ToSchema)]
pub struct PostedReceipt {
    /// The run it closed.
    #[schema(value_type = s::Hash)]
    run_id: RunId,
    /// The proposal it was opened under.
    #[schema(value_type = s::Hash)]
    proposal_id: ProposalId,
    #[serde(flatten)]
    receipt: RunReceipt,
}

impl PostedReceipt {
    pub(super) fn of(row: &Recorded<AppEvent>) -> Option<Self> {
        match &row.event {
            AppEvent::ReceiptPosted { run_id, proposal_id, agent, receipt, digest } => Some(Self {
                run_id: *run_id,
                proposal_id: *proposal_id,
                receipt: RunReceipt {
                    agent: *agent,
                    receipt: receipt.clone(),
                    digest: *digest,
                    posted: row.stamp,
                },
            }),
            _ => None,
        }
    }
}
