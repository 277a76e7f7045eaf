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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// What is mirrored.
    pub source: Source,
    /// The newest mirrored block.
    pub head: Position,
    /// The block at the confirmed depth: `head` minus the configured confirmations, not below block 0.
    pub confirmed: Position,
    /// The newest block that the chain calls finalized, where that is known and not above `head`.
    pub finalized: Option<Position>,
}

impl Positions {
    /// The positions of a snapshot; `None` until the mirror has reached the chain's newest blocks. `finalized` is what
    /// the chain calls so; it is dropped where it is not a block of this mirror.
    pub async fn of(
        snapshot: &mut Snapshot,
        confirmations: u64,
        finalized: Option<Header>,
    ) -> Result<Option<Self>, StoreError> {
        let (Some(source), Some(head)) = (snapshot.source().await?, snapshot.head().await?) else {
            return Ok(None);
        };
        let mut known = None;
        if let Some(finalized) = finalized.filter(|finalized| finalized.number <= head.number) {
            let stored = snapshot.block(finalized.number).await?;
            // Older headers without events are not kept; what is kept must agree.
            known = stored.is_none_or(|stored| stored.hash == finalized.hash).then_some(finalized);
        }
        let confirmed = snapshot.block(head.number.saturating_sub(confirmations)).await?;
        Ok(confirmed.map(|confirmed| Self {
            source,
            head: position(head),
            confirmed: position(confirmed),
            finalized: known.map(position),
        }))
    }

    /// A strong entity tag: answers that depend on nothing but the mirror are the same bytes at the same positions.
    pub fn tag(&self) -> String {
        let finalized = self.finalized.map_or_else(|| "none".to_owned(), |block| block.number.to_string());
        let (head, confirmed) = (hex::encode(self.head.hash), self.confirmed.number);
        format!("\"{}-{head}-{confirmed}-{finalized}\"", env!("CARGO_PKG_VERSION"))
    }
}

fn position(header: Header) -> Position {
    Position { number: header.number, hash: header.hash, timestamp: header.timestamp }
}
