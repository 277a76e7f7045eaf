//! State as folds over events: what a contract is at a block, computed from its rows up to that block and from
//! nothing else.

pub(crate) mod app;
pub(crate) mod proposal;
mod registry;
pub(crate) mod run;

use cohort_protocol::chain::Position;

pub use self::{
    app::{AppState, DECISION_KINDS, OwnerState},
    proposal::ProposalState,
    registry::{RegistryState, Root},
    run::{DatasetState, RunState},
};
use crate::{
    rpc::Header,
    store::{Snapshot, Source, StoreError},
};

/// The two positions that every answer carries.
#[derive(Debug, Clone, Copy)]
pub struct Positions {
    /// What is mirrored.
    pub source: Source,
    /// The newest mirrored block.
    pub head: Position,
    /// The block at the confirmed depth: `head` minus the configured confirmations, not below block 0.
    pub confirmed: Position,
}

impl Positions {
    /// The positions of a snapshot; `None` until the mirror has reached the chain's newest blocks.
    pub async fn of(snapshot: &mut Snapshot, confirmations: u64) -> Result<Option<Self>, StoreError> {
        let (Some(source), Some(head)) = (snapshot.source().await?, snapshot.head().await?) else {
            return Ok(None);
        };
        let confirmed = snapshot.block(head.number.saturating_sub(confirmations)).await?;
        Ok(confirmed.map(|confirmed| Self { source, head: position(head), confirmed: position(confirmed) }))
    }
}

fn position(header: Header) -> Position {
    Position { number: header.number, hash: header.hash, timestamp: header.timestamp }
}
