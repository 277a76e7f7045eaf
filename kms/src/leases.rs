//! Leases: a release is good for its run and for seconds. While its agent computes it asks again, and the whole
//! decision is repeated; there is no new quote, since the receipt key that asks is the attested one.
//!
//! Held in memory only. After a restart a renewal is unknown, and the agent asks for its keys again, with a new quote:
//! the release log then knows that the run is its.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cohort_protocol::ids::RunId;

use crate::{question::Question, release_log::Record};

/// Runs that compute at once. Each is of an attested agent and an opened, paid run.
const HELD_MAX: usize = 1 << 16;

/// What a renewal decides about.
#[derive(Debug, Clone)]
pub struct Held {
    /// The attested question of the release.
    pub question: Arc<Question>,
    /// What the release log says of it.
    pub record: Record,
}

/// The leases that run.
#[derive(Debug)]
pub struct Leases {
    lifetime: Duration,
    held: Mutex<BTreeMap<RunId, (Duration, Held)>>,
}

impl Leases {
    /// Each for this long.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, held: Mutex::default() }
    }

    /// How long one is good.
    pub fn seconds(&self) -> u64 {
        self.lifetime.as_secs()
    }

    /// Starts a run's lease at `now`, the time since the process began. `false` where there are too many: the agent
    /// then has to ask with a quote.
    pub fn start(&self, run: RunId, held: Held, now: Duration) -> bool {
        let mut all = self.all();
        if all.len() >= HELD_MAX {
            all.retain(|_, (until, _)| *until >= now);
        }
        let there_is_room = all.len() < HELD_MAX || all.contains_key(&run);
        if there_is_room {
            all.insert(run, (now + self.lifetime, held));
        }
        there_is_room
    }

    /// The lease of a run, if it has not ended.
    pub fn of(&self, run: RunId, now: Duration) -> Option<Held> {
        let all = self.all();
        all.get(&run).filter(|(until, _)| *until >= now).map(|(_, held)| held.clone())
    }

    /// How many have not ended.
    pub fn count(&self, now: Duration) -> usize {
        self.all().values().filter(|(until, _)| *until >= now).count()
    }

    /// Lets it run on from `now`.
    pub fn extend(&self, run: RunId, now: Duration) {
        if let Some((until, _)) = self.all().get_mut(&run) {
            *until = now + self.lifetime;
        }
    }

    /// Ends it.
    pub fn end(&self, run: RunId) {
        self.all().remove(&run);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, (Duration, Held)>> {
        // Every change is one call: a panic leaves the map whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
