//! One proposal: its terms, approvals, end, and what it has spent.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use cohort_protocol::{decision::ProposalFacts, ids::ProposalId, loss::Epsilon, terms::Terms};

use crate::{
    event::AppEvent,
    store::{By, Kinds, Recorded, Select, Snapshot, Stamp, StoreError},
    value::{Delta, OwnerSet},
};

const KINDS: &[&str] =
    &["proposal_created", "proposal_approved", "proposal_activated", "proposal_rejected", "proposal_revoked"];

/// Kinds of events about a proposal that a release decision reads.
pub(crate) const DECISION_KINDS: &[&str] = &["proposal_created", "proposal_approved", "proposal_revoked"];

/// An owner's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// Given as a signature that somebody relayed, not by the owner's own transaction.
    pub by_signature: bool,
    /// When and where.
    pub stamp: Stamp,
}

/// An owner's refusal with its reason; changes no other state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Who.
    pub owner_index: u8,
    /// In the owner's words.
    pub reason: String,
    /// When and where.
    pub stamp: Stamp,
}

/// The end of a proposal by one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Who.
    pub owner_index: u8,
    /// The account or revocation key that did it.
    pub by: Address,
    /// When and where.
    pub stamp: Stamp,
}

/// A proposal as of a block. All empty for one that nobody has approved or revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProposalState {
    /// Its terms, the threshold when it was created, and when that was.
    pub created: Option<(Terms, u8, Stamp)>,
    /// Bit set of the owners that approved, removed ones included.
    pub approvals: OwnerSet,
    /// How each approval was given, by owner index.
    pub approved: BTreeMap<u8, Approval>,
    /// When it reached its quorum.
    pub activated: Option<Stamp>,
    /// The proposal that took its place.
    pub superseded_by: Option<(ProposalId, Stamp)>,
    /// The first revocation.
    pub revocation: Option<Revocation>,
    /// All rejections.
    pub rejections: Vec<Rejection>,
    /// Privacy loss of its runs so far.
    pub epsilon_spent: Epsilon,
    /// Failure probability of its runs so far.
    pub delta_spent: Delta,
}

impl ProposalState {
    /// The events that [`Self::fold`] needs.
    pub async fn rows(
        snapshot: &mut Snapshot,
        app: Address,
        id: ProposalId,
        at: u64,
    ) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
        let mut rows = snapshot.events(Select::new(app, By::Proposal(id.0), Kinds::Any(KINDS), at)).await?;
        rows.extend(superseding(snapshot, app, id.0, at).await?);
        let runs = Select::new(app, By::Proposal(id.0), Kinds::One("run_opened"), at);
        rows.extend(snapshot.events(runs.newest()).await?);
        Ok(rows)
    }

    /// The proposal as of a block.
    pub async fn load(
        snapshot: &mut Snapshot,
        app: Address,
        id: ProposalId,
        at: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self::fold(id, &Self::rows(snapshot, app, id, at).await?, at))
    }

    /// Folds events, ignoring those above block `at` and those of other proposals.
    pub fn fold(id: ProposalId, events: &[Recorded<AppEvent>], at: u64) -> Self {
        let mut state = Self::default();
        for Recorded { stamp, event } in events {
            if stamp.cursor.block_number <= at {
                state.apply(id, *stamp, event);
            }
        }
        state
    }

    fn apply(&mut self, id: ProposalId, stamp: Stamp, event: &AppEvent) {
        match event {
            AppEvent::ProposalCreated { proposal_id, terms, threshold_snapshot } if *proposal_id == id => {
                self.created = Some((terms.clone(), *threshold_snapshot, stamp));
            }
            AppEvent::ProposalApproved { proposal_id, added, approvals, by_signature }
                if *proposal_id == id =>
            {
                self.approvals = *approvals;
                for index in added.indexes() {
                    self.approved.entry(index).or_insert(Approval { by_signature: *by_signature, stamp });
                }
            }
            AppEvent::ProposalActivated { proposal_id, superseded, .. } => {
                if *proposal_id == id {
                    self.activated = self.activated.or(Some(stamp));
                }
                if *superseded == Some(id) {
                    self.superseded_by = self.superseded_by.or(Some((*proposal_id, stamp)));
                }
            }
            AppEvent::ProposalRejected { proposal_id, owner_index, reason } if *proposal_id == id => {
                let (owner_index, reason) = (*owner_index, reason.clone());
                self.rejections.push(Rejection { owner_index, reason, stamp });
            }
            AppEvent::ProposalRevoked { proposal_id, owner_index, by } if *proposal_id == id => {
                let revocation = Revocation { owner_index: *owner_index, by: *by, stamp };
                self.revocation = self.revocation.or(Some(revocation));
            }
            AppEvent::RunOpened { proposal_id, epsilon_spent, delta_spent, .. } if *proposal_id == id => {
                self.epsilon_spent = *epsilon_spent;
                self.delta_spent = *delta_spent;
            }
            _ => {}
        }
    }

    /// Whether any event names it.
    pub fn known(&self) -> bool {
        self.created.is_some() || self.revocation.is_some() || !self.rejections.is_empty()
    }

    /// What decisions take from it; `None` where nothing is known.
    pub fn facts(&self) -> Option<ProposalFacts> {
        let terms = self.created.as_ref().map(|(terms, threshold, _)| (terms, *threshold));
        (terms.is_some() || self.revocation.is_some()).then(|| ProposalFacts {
            created: terms.is_some(),
            revoked: self.revocation.is_some(),
            superseded: self.superseded_by.is_some(),
            era: terms.map_or(0, |(terms, _)| terms.era),
            expiry: terms.map_or(0, |(terms, _)| terms.expiry),
            approvals: self.approvals.0,
            threshold_snapshot: terms.map_or(0, |(_, threshold)| threshold),
        })
    }
}

/// The activations that ended a proposal.
pub(crate) async fn superseding(
    snapshot: &mut Snapshot,
    app: Address,
    id: B256,
    at: u64,
) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
    snapshot.events(Select::new(app, By::Superseded(id), Kinds::One("proposal_activated"), at)).await
}
