//! A consortium's configuration.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    decision::AppFacts,
    ids::{ComposeHash, ProposalId},
    loss::Epsilon,
};

use crate::{
    event::AppEvent,
    store::{By, Cursor, Kinds, Recorded, Select, Snapshot, Stamp, StoreError},
    value::{Delta, Jurisdiction, Name, OwnerSet},
};

/// Kinds of events that a release decision takes from the configuration.
pub const DECISION_KINDS: &[&str] =
    &["app_created", "owner_added", "owner_removed", "threshold_set", "era_started", "undecodable"];

const CONFIGURATION_KINDS: &[&str] = &[
    "app_created",
    "owner_added",
    "owner_removed",
    "owner_rotation_started",
    "owner_rotated",
    "revoker_set",
    "owner_budget",
    "proposal_created",
    "proposal_approved",
    "threshold_set",
    "analyst_set",
    "kms_root_set",
    "governance_delay_set",
    "successor_announced",
    "era_started",
    "agent_revoked",
    "compose_hash_added",
    "compose_hash_removed",
    "device_added",
    "device_removed",
    "allow_any_device_set",
    "require_tcb_up_to_date_set",
    "undecodable",
];

/// An owner, listed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerState {
    /// Stable institution id.
    pub owner: Name,
    /// Index in bit sets; never given twice.
    pub index: u8,
    /// Approves, registers datasets, revokes.
    pub account: Address,
    /// May only revoke.
    pub revoker: Option<Address>,
    /// The account that the owner is moving to.
    pub pending_account: Option<Address>,
    /// Where it is.
    pub jurisdiction: Jurisdiction,
    /// Bit set of compliance grades.
    pub grades: u16,
    /// Lifetime cap on privacy loss.
    pub epsilon_cap: Epsilon,
    /// Privacy loss that its approvals have committed.
    pub epsilon_committed: Epsilon,
    /// Lifetime cap on failure probability.
    pub delta_cap: Delta,
    /// Failure probability that its approvals have committed.
    pub delta_committed: Delta,
    /// Still listed.
    pub listed: bool,
    /// Since when.
    pub added: Stamp,
}

/// A consortium's configuration as of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppState {
    /// Its first event; `None`: the contract is no `DstackApp`, or not created yet at that block.
    pub created: Option<Stamp>,
    /// An event that does not decode: the contract is no `DstackApp` of this version.
    pub undecodable: Option<Stamp>,
    /// Display name.
    pub name: Option<Name>,
    /// Display sector.
    pub sector: Option<Name>,
    /// Approvals that a new proposal needs.
    pub threshold: u8,
    /// Current era.
    pub era: u32,
    /// Its beginning; what was activated before is over. `None`: that of the app.
    pub era_began: Option<Cursor>,
    /// The KMS root that certifies agents.
    pub kms_root: Option<Address>,
    /// Seconds between a governance quorum and its execution.
    pub governance_delay_seconds: u64,
    /// The app that this one points to as its successor.
    pub successor: Option<Address>,
    /// By index.
    pub owners: BTreeMap<u8, OwnerState>,
    /// What an approval of each proposal commits.
    budgets: BTreeMap<ProposalId, (Epsilon, Delta)>,
    /// Accounts that may ask for runs.
    pub analysts: BTreeSet<Address>,
    /// Receipt keys that an owner stopped.
    pub revoked_agents: BTreeSet<Address>,
    /// Compose hashes allowed for boot only.
    pub boot_compose_hashes: BTreeSet<ComposeHash>,
    /// Devices that may boot.
    pub devices: BTreeSet<B256>,
    /// Any device may boot.
    pub allow_any_device: bool,
    /// Boot needs an up-to-date TCB.
    pub require_tcb_up_to_date: bool,
}

impl AppState {
    /// The events that [`Self::fold`] needs.
    pub async fn rows(
        snapshot: &mut Snapshot,
        app: Address,
        at: u64,
    ) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
        snapshot.events(Select::new(app, By::Contract, Kinds::Any(CONFIGURATION_KINDS), at)).await
    }

    /// The configuration as of a block.
    pub async fn load(snapshot: &mut Snapshot, app: Address, at: u64) -> Result<Self, StoreError> {
        Ok(Self::fold(&Self::rows(snapshot, app, at).await?, at))
    }

    /// Folds events, oldest first, ignoring those above block `at`.
    pub fn fold(events: &[Recorded<AppEvent>], at: u64) -> Self {
        let mut state = Self::default();
        for Recorded { stamp, event } in events {
            if stamp.cursor.block_number <= at {
                state.apply(*stamp, event);
            }
        }
        state
    }

    fn apply(&mut self, stamp: Stamp, event: &AppEvent) {
        match event {
            AppEvent::AppCreated { name, sector, threshold, kms_root, governance_delay_seconds } => {
                self.created = Some(stamp);
                self.name = Some(*name);
                self.sector = Some(*sector);
                self.threshold = *threshold;
                self.kms_root = Some(*kms_root);
                self.governance_delay_seconds = *governance_delay_seconds;
            }
            AppEvent::ThresholdSet { threshold } => self.threshold = *threshold,
            AppEvent::EraStarted { era, .. } => (self.era, self.era_began) = (*era, Some(stamp.cursor)),
            AppEvent::KmsRootSet { kms_root } => self.kms_root = Some(*kms_root),
            AppEvent::GovernanceDelaySet { delay_seconds } => self.governance_delay_seconds = *delay_seconds,
            AppEvent::SuccessorAnnounced { successor } => self.successor = Some(*successor),
            AppEvent::AllowAnyDeviceSet { allow_any } => self.allow_any_device = *allow_any,
            AppEvent::RequireTcbUpToDateSet { required } => self.require_tcb_up_to_date = *required,
            AppEvent::AnalystSet { analyst, listed } => put(&mut self.analysts, *analyst, *listed),
            AppEvent::AgentRevoked { agent, .. } => put(&mut self.revoked_agents, *agent, true),
            AppEvent::ComposeHashAdded { compose_hash } => {
                put(&mut self.boot_compose_hashes, *compose_hash, true)
            }
            AppEvent::ComposeHashRemoved { compose_hash } => {
                put(&mut self.boot_compose_hashes, *compose_hash, false)
            }
            AppEvent::DeviceAdded { device_id } => put(&mut self.devices, *device_id, true),
            AppEvent::DeviceRemoved { device_id } => put(&mut self.devices, *device_id, false),
            AppEvent::Undecodable { .. } => self.undecodable = self.undecodable.or(Some(stamp)),
            _ => self.apply_owner(stamp, event),
        }
    }

    fn apply_owner(&mut self, stamp: Stamp, event: &AppEvent) {
        match event {
            AppEvent::OwnerAdded { owner, account, revoker, jurisdiction, grades, index } => {
                let state = OwnerState {
                    owner: *owner,
                    index: *index,
                    account: *account,
                    revoker: *revoker,
                    pending_account: None,
                    jurisdiction: *jurisdiction,
                    grades: *grades,
                    epsilon_cap: Epsilon::default(),
                    epsilon_committed: Epsilon::default(),
                    delta_cap: Delta::default(),
                    delta_committed: Delta::default(),
                    listed: true,
                    added: stamp,
                };
                self.owners.insert(*index, state);
            }
            AppEvent::OwnerRemoved { index, .. } => {
                if let Some(owner) = self.owners.get_mut(index) {
                    owner.listed = false;
                    owner.pending_account = None;
                }
            }
            AppEvent::OwnerRotationStarted { owner, new_account, .. } => {
                if let Some(owner) = self.listed_mut(owner) {
                    owner.pending_account = (!new_account.is_zero()).then_some(*new_account);
                }
            }
            AppEvent::OwnerRotated { index, new_account, .. } => {
                if let Some(owner) = self.owners.get_mut(index) {
                    owner.account = *new_account;
                    owner.pending_account = None;
                }
            }
            AppEvent::RevokerSet { owner, revoker } => {
                if let Some(owner) = self.listed_mut(owner) {
                    owner.revoker = *revoker;
                }
            }
            AppEvent::ProposalCreated { proposal_id, terms, .. } => {
                let budget = (terms.epsilon_budget, Delta(terms.delta_budget));
                self.budgets.insert(*proposal_id, budget);
            }
            AppEvent::ProposalApproved { proposal_id, added, .. } => self.commit(*proposal_id, *added),
            AppEvent::OwnerBudget { index, epsilon_cap, epsilon_committed, delta_cap, delta_committed } => {
                if let Some(owner) = self.owners.get_mut(index) {
                    owner.epsilon_cap = *epsilon_cap;
                    owner.epsilon_committed = *epsilon_committed;
                    owner.delta_cap = *delta_cap;
                    owner.delta_committed = *delta_committed;
                }
            }
            _ => {}
        }
    }

    /// Each owner that approves commits what the terms may spend; the contract has checked it against the cap.
    fn commit(&mut self, proposal: ProposalId, added: OwnerSet) {
        let Some((epsilon, delta)) = self.budgets.get(&proposal).copied() else { return };
        for owner in self.owners.values_mut().filter(|owner| added.contains(owner.index)) {
            owner.epsilon_committed = Epsilon(owner.epsilon_committed.0.saturating_add(epsilon.0));
            owner.delta_committed = Delta(owner.delta_committed.0.saturating_add(delta.0));
        }
    }

    fn listed_mut(&mut self, name: &Name) -> Option<&mut OwnerState> {
        self.owners.values_mut().find(|owner| owner.listed && owner.owner == *name)
    }

    /// Whether the contract is a `DstackApp` that this version understands.
    pub fn supported(&self) -> bool {
        self.created.is_some() && self.undecodable.is_none()
    }

    /// The listed owners, by index.
    pub fn listed(&self) -> impl Iterator<Item = &OwnerState> {
        self.owners.values().filter(|owner| owner.listed)
    }

    /// Bit set of the listed owners.
    pub fn active_owners(&self) -> OwnerSet {
        OwnerSet(self.listed().fold(0, |set, owner| set | OwnerSet::of(owner.index).0))
    }

    /// Index of a listed owner.
    pub fn owner_index(&self, name: Name) -> Option<u8> {
        self.listed().find(|owner| owner.owner == name).map(|owner| owner.index)
    }

    /// What decisions take from the configuration, at a block's time (Unix seconds).
    pub fn facts(&self, block_time: u64) -> AppFacts {
        AppFacts {
            active_owners: self.active_owners().0,
            threshold: self.threshold,
            era: self.era,
            block_time,
        }
    }
}

/// Puts a value into a set or takes it out.
pub(super) fn put<T: Ord>(set: &mut BTreeSet<T>, value: T, present: bool) {
    if present {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}
