//! Runs and datasets.

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    decision::{DatasetFacts, RunFacts},
    ids::{DatasetId, ProposalId, RunId},
    loss::Epsilon,
};

use crate::{
    event::{AppEvent, DatasetInfo, Receipt},
    store::{By, Kinds, Recorded, Select, Snapshot, Stamp, StoreError},
    value::{Delta, OwnerSet},
};

const RUN_KINDS: &[&str] = &["run_opened", "receipt_posted", "receipt_equivocation"];

/// The receipt that closed a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The key that signed it.
    pub agent: Address,
    /// What it says.
    pub receipt: Receipt,
    /// EIP-712 digest that the agent signed.
    pub digest: B256,
    /// When and where.
    pub stamp: Stamp,
}

/// A second, different receipt of a closed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equivocation {
    /// The key that signed it.
    pub agent: Address,
    /// EIP-712 digest of the second one.
    pub digest: B256,
    /// When and where.
    pub stamp: Stamp,
}

/// A run as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    /// Its identity.
    pub run_id: RunId,
    /// The proposal it was opened under.
    pub proposal_id: ProposalId,
    /// Who asked for it.
    pub analyst: Address,
    /// The owners that take part.
    pub participants: OwnerSet,
    /// Privacy loss that it debited.
    pub epsilon: Epsilon,
    /// Failure probability that it debited.
    pub delta: Delta,
    /// When and where.
    pub opened: Stamp,
    /// What closed it.
    pub posted: Option<Posted>,
    /// Evidence of misbehaviour.
    pub equivocations: Vec<Equivocation>,
}

impl RunState {
    /// The events that [`Self::fold`] needs.
    pub async fn rows(
        snapshot: &mut Snapshot,
        app: Address,
        id: RunId,
        at: u64,
    ) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
        snapshot.events(Select::new(app, By::Run(id.0), Kinds::Any(RUN_KINDS), at)).await
    }

    /// The run as of a block; `None`: not opened.
    pub async fn load(
        snapshot: &mut Snapshot,
        app: Address,
        id: RunId,
        at: u64,
    ) -> Result<Option<Self>, StoreError> {
        Ok(Self::fold(&Self::rows(snapshot, app, id, at).await?, at))
    }

    /// Folds the events of one run, oldest first, ignoring those above block `at`.
    pub fn fold(events: &[Recorded<AppEvent>], at: u64) -> Option<Self> {
        let mut run: Option<Self> = None;
        for Recorded { stamp, event } in events.iter().filter(|row| row.stamp.cursor.block_number <= at) {
            match (event, &mut run) {
                (
                    AppEvent::RunOpened {
                        run_id, proposal_id, analyst, participants, epsilon, delta, ..
                    },
                    None,
                ) => {
                    run = Some(Self {
                        run_id: *run_id,
                        proposal_id: *proposal_id,
                        analyst: *analyst,
                        participants: *participants,
                        epsilon: *epsilon,
                        delta: *delta,
                        opened: *stamp,
                        posted: None,
                        equivocations: Vec::new(),
                    });
                }
                (AppEvent::ReceiptPosted { agent, receipt, digest, .. }, Some(run)) => {
                    let (agent, receipt, digest, stamp) = (*agent, receipt.clone(), *digest, *stamp);
                    run.posted.get_or_insert(Posted { agent, receipt, digest, stamp });
                }
                (AppEvent::ReceiptEquivocation { agent, digest, .. }, Some(run)) => {
                    run.equivocations.push(Equivocation { agent: *agent, digest: *digest, stamp: *stamp });
                }
                _ => {}
            }
        }
        run
    }

    /// What decisions take from it.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            proposal_id: self.proposal_id,
            participants: self.participants.0,
            closed: self.posted.is_some(),
        }
    }
}

/// A registered dataset as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetState {
    /// Index of the owner that registered it.
    pub owner_index: u8,
    /// What the owner says of it.
    pub info: DatasetInfo,
    /// When and where.
    pub registered: Stamp,
    /// The dataset that took its place.
    pub superseded_by: Option<(DatasetId, Stamp)>,
}

impl DatasetState {
    /// The events that [`Self::fold`] needs.
    pub async fn rows(
        snapshot: &mut Snapshot,
        app: Address,
        id: DatasetId,
        at: u64,
    ) -> Result<Vec<Recorded<AppEvent>>, StoreError> {
        let kind = Kinds::One("dataset_registered");
        let mut rows = snapshot.events(Select::new(app, By::Dataset(id.0), kind, at)).await?;
        rows.extend(snapshot.events(Select::new(app, By::Superseded(id.0), kind, at)).await?);
        Ok(rows)
    }

    /// Folds registrations, ignoring those above block `at` and those of unrelated datasets.
    pub fn fold(id: DatasetId, events: &[Recorded<AppEvent>], at: u64) -> Option<Self> {
        let mut dataset: Option<Self> = None;
        let mut superseded_by = None;
        for Recorded { stamp, event } in events.iter().filter(|row| row.stamp.cursor.block_number <= at) {
            if let AppEvent::DatasetRegistered { dataset_id, owner_index, info } = event {
                if *dataset_id == id && dataset.is_none() {
                    let (owner_index, info, registered) = (*owner_index, info.clone(), *stamp);
                    dataset = Some(Self { owner_index, info, registered, superseded_by: None });
                }
                if info.supersedes == Some(id) && superseded_by.is_none() {
                    superseded_by = Some((*dataset_id, *stamp));
                }
            }
        }
        dataset.map(|dataset| Self { superseded_by, ..dataset })
    }

    /// What decisions take from it.
    pub fn facts(&self) -> DatasetFacts {
        DatasetFacts {
            owner_index: self.owner_index,
            compose_hash: self.info.compose_hash,
            superseded: self.superseded_by.is_some(),
        }
    }
}
