//! How far each run of this boot is, and who is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use alloy::primitives::Address;
use cohort_attestation::Evidence;
use cohort_protocol::{ids::RunId, release::Refusal, sign_rpc::ResultFile};
use serde::Serialize;

use super::Agent;
use crate::resume::Pending;

/// A finished run.
pub type RunResult = ResultFile<Evidence>;

/// How far a run is. Stages tell what is done, never anything of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for its turn.
    Queued,
    /// `openRun` debits the budget.
    Opening,
    /// Quote, challenge, keys.
    Attesting,
    /// Unsealing, computing, guarding.
    Computing,
    /// The receipt is on its way to the confirmed depth.
    PostingReceipt,
}

/// State of a run as the API shows it.
#[derive(Debug, Clone)]
pub enum RunState {
    /// Under way.
    Running(Stage),
    /// Its receipt is on chain: the result may be read.
    Done(Arc<RunResult>),
    /// It ended without a result.
    Failed(Refusal),
}

/// Runs of this boot, in the order in which they came.
#[derive(Default)]
pub(super) struct Runs {
    states: Vec<(RunId, RunState)>,
    places: BTreeMap<RunId, usize>,
}

impl Runs {
    fn get(&self, id: RunId) -> Option<&RunState> {
        self.states.get(*self.places.get(&id)?).map(|(_, state)| state)
    }

    fn set(&mut self, id: RunId, state: RunState) {
        let next = self.states.len();
        match self.states.get_mut(*self.places.entry(id).or_insert(next)) {
            Some(known) => known.1 = state,
            None => self.states.push((id, state)),
        }
    }
}

/// Some runs, and after which one the next page begins if there are more.
pub type Page = (Vec<(RunId, RunState)>, Option<RunId>);

impl Agent {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// State of a run of this boot.
    pub fn state(&self, id: RunId) -> Option<RunState> {
        self.runs().get(id).cloned()
    }

    /// At most `limit` runs of this boot, in the order in which they came, from the one after `after` on; `None` if that
    /// one is not known.
    pub fn page(&self, after: Option<RunId>, limit: usize) -> Option<Page> {
        let runs = self.runs();
        let first = match after {
            Some(after) => runs.places.get(&after)? + 1,
            None => 0,
        };
        let rest = runs.states.get(first..).unwrap_or_default();
        let page: Vec<_> = rest.iter().take(limit).cloned().collect();
        let next = page.last().map(|(id, _)| *id).filter(|_| rest.len() > page.len());
        Some((page, next))
    }

    /// Tells of every change of any run's state.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Records how far a run is, and tells whoever watches.
    pub(crate) fn set(&self, id: RunId, state: RunState) {
        self.runs().set(id, state);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Registers the run; `false` if this boot knows it already.
    pub fn admit(&self, id: RunId) -> bool {
        let mut runs = self.runs();
        match runs.get(id) {
            Some(RunState::Failed(_)) | None => {
                runs.set(id, RunState::Running(Stage::Queued));
                true
            }
            Some(_) => false,
        }
    }

    pub(super) fn lessor(&self, id: RunId) -> Option<Address> {
        self.lessors.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    pub(super) fn set_lessor(&self, id: RunId, root: Address) {
        self.lessors.lock().unwrap_or_else(PoisonError::into_inner).insert(id, root);
    }

    pub(super) fn signed_before(&self, id: RunId) -> Option<Arc<Pending>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}
