//! Following the chain: ranges of logs while behind, block by block at the head, and back where it reorganises.
//!
//! Nothing an endpoint says is taken alone: headers must hash to their blocks' hashes, follow each other and the mirrored
//! head, and logs must be in the receipts that a header commits to. A contradiction discards the range; the next attempt
//! asks the next endpoint.

mod check;
mod heads;
mod look;
mod range;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::primitives::Address;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

pub use self::check::Contradiction;
use self::look::{Disputes, Looks, Mirrored};
use self::range::{Ahead, FetchError, Fetched, LogReader, Plan};
use crate::{
    config::{Config, HEADER_WINDOW},
    event::UnknownRegistryEvent,
    metrics::Counters,
    rpc::{Endpoint, Header, RpcError},
    store::{Batch, Source, Store, StoreError},
};

/// Ranges that are fetched while one is written.
const RANGES_AHEAD: usize = 2;
/// Blocks applied at once near the head, where every header is read.
const RECENT_BLOCKS: u64 = 64;
/// How long an endpoint may show an older chain than the mirror before the mirror believes that blocks are gone.
const ROLLBACK_PATIENCE: Duration = Duration::from_secs(10);
/// How long an endpoint that failed is not believed to be ahead of the others.
const DISTRUST: Duration = Duration::from_secs(30);
/// Shortest time between two questions for the finalized block.
const FINALIZED_EVERY: Duration = Duration::from_millis(500);
/// An answer to it is waited for this long.
const FINALIZED_PATIENCE: Duration = Duration::from_secs(2);
/// An announced head that is not there yet is looked for again after the first of these, then doubling up to the last: the
/// node that announces is often ahead of the one that is asked, and announcements without end do not ask it without end.
const ANNOUNCED_AGAIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(80)];
/// Longest pause between attempts that fail.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Why following ended for good: going on would mean skipping something.
#[derive(Debug, thiserror::Error)]
pub enum StopReason {
    /// An endpoint is of another chain.
    #[error("RPC endpoint {endpoint} is of chain {have}, not {want}; fix --rpc-url or --chain-id")]
    WrongChain {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// What it says.
        have: u64,
        /// What it should be.
        want: u64,
    },
    /// The database mirrors another chain or registry.
    #[error(transparent)]
    OtherSource(StoreError),
    /// An event of the registry cannot be understood.
    #[error("block {block_number}, log {log_index}: {source}")]
    UnknownEvent {
        /// Its block.
        block_number: u64,
        /// Its place in the block.
        log_index: u64,
        /// Which one.
        source: UnknownRegistryEvent,
    },
}

/// How following goes.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// The source is known and the mirror is of it.
    pub source: Option<Source>,
    /// When the mirror last held the newest block of the chain.
    pub caught_up: Option<Instant>,
    /// Height of the newest block that the chain showed.
    pub chain_head: Option<u64>,
    /// The newest block that the chain calls finalized.
    pub finalized: Option<Header>,
    /// New blocks are noticed over WebSocket, not by polling.
    pub websocket: bool,
    /// The last failure since the mirror was last caught up, or why it is not current although it is.
    pub last_error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Stop(StopReason),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Contradiction(Contradiction),
    #[error(
        "RPC endpoint {endpoint} has no block {number}; give --from-block of the first block that it has"
    )]
    NoStart { endpoint: usize, number: u64 },
}

impl From<FetchError> for StepError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Rpc(error) => error.into(),
            FetchError::Contradiction(contradiction) => Self::Contradiction(contradiction),
            FetchError::UnknownEvent { block_number, log_index, source } => {
                Self::Stop(StopReason::UnknownEvent { block_number, log_index, source })
            }
        }
    }
}

/// Blocks that an endpoint does not have any more, though it has no others in their place. It may be one that lags.
#[derive(Debug, Clone, Copy)]
struct Gone {
    /// The lowest.
    first: Header,
    /// Height of the highest.
    height: u64,
}

enum Progress {
    /// More may be waiting.
    Moved,
    /// The mirror holds the newest block, since just now.
    CaughtUp,
    /// The mirror holds the newest block as before.
    Unchanged,
    /// The chain is not as far as the mirror, or as its first block.
    Waiting,
}

/// Keeps the mirror at the chain's head.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    registry: Address,
    endpoints: Vec<Endpoint>,
    current: usize,
    /// What each endpoint showed when all were last looked at, and when it last failed.
    looks: watch::Receiver<Looks>,
    failed: Vec<Option<Instant>>,
    /// What those looks are for, and what came of them.
    mirrored: watch::Sender<Option<Mirrored>>,
    disputes: Disputes,
    confirmations: u64,
    rewinds: u64,
    /// Blocks that are gone although nothing came in their place.
    gone: Option<Gone>,
    /// The current endpoint's chain id was checked since its last failure.
    verified: bool,
    chain_id: Option<u64>,
    from_block: u64,
    /// First block that is read, and whether an endpoint was seen to have it.
    start: u64,
    started: bool,
    poll: Duration,
    ws_urls: Vec<reqwest::Url>,
    /// A new head was announced.
    wake: Arc<Notify>,
    reader: LogReader,
    /// Registered apps; `None`: read them again.
    apps: Option<Arc<Vec<Address>>>,
    /// Ranges that are being fetched, each following the one before it.
    ahead: VecDeque<Ahead>,
    /// The head that another replica was last seen to have written.
    seen: Option<Header>,
    /// When, and at which height, the finalized block was last asked for.
    finalized_at: Option<(Instant, u64)>,
    /// Since when the chain has been shorter than the mirror.
    shorter_since: Option<Instant>,
    health: watch::Sender<Health>,
    counters: Arc<Counters>,
}

impl Follower {
    /// A follower of the configured chain, and where it reports how it goes.
    pub fn new(
        config: &Config,
        store: Store,
        counters: &Arc<Counters>,
    ) -> Result<(Self, watch::Receiver<Health>), RpcError> {
        let (health, receiver) = watch::channel(Health::default());
        let endpoints: Vec<_> = (1..)
            .zip(&config.rpc_urls)
            .map(|(place, url)| {
                let endpoint = Endpoint::new(place, url.clone())?;
                Ok(endpoint.insecure_unproved(config.insecure_unproved))
            })
            .collect::<Result<_, _>>()?;
        let follower = Self {
            store: store.reserved(),
            registry: config.registry,
            looks: watch::channel(Looks::default()).1,
            failed: vec![None; endpoints.len()],
            mirrored: watch::Sender::default(),
            disputes: Disputes::none(endpoints.len()),
            confirmations: config.confirmations,
            rewinds: 0,
            gone: None,
            endpoints,
            current: 0,
            verified: false,
            chain_id: config.chain_id,
            from_block: config.from_block,
            start: config.from_block.saturating_sub(HEADER_WINDOW),
            started: false,
            poll: config.poll,
            ws_urls: config.ws_urls.clone(),
            wake: Arc::default(),
            reader: LogReader::default(),
            apps: None,
            ahead: VecDeque::new(),
            seen: None,
            finalized_at: None,
            shorter_since: None,
            health,
            counters: counters.clone(),
        };
        Ok((follower, receiver))
    }

    /// Follows until it must stop. Dropping the future at any point leaves the mirror whole.
    pub async fn run(mut self) -> StopReason {
        let heads = heads::listen(std::mem::take(&mut self.ws_urls), self.wake.clone(), self.health.clone());
        let (looks, receiver) = watch::channel(Looks::default());
        self.looks = receiver;
        let (endpoints, store) = (self.endpoints.clone(), self.store.clone());
        let looks = look::around(endpoints, store, self.mirrored.subscribe(), looks);
        tokio::select! {
            reason = self.follow() => reason,
            never = heads => match never {},
            never = looks => match never {},
        }
    }

    async fn follow(&mut self) -> StopReason {
        let mut failures = 0u32;
        // Pause until the next look for a head that was announced.
        let mut announced: Option<Duration> = None;
        loop {
            match self.step().await {
                Ok(Progress::Moved) => {
                    failures = 0;
                    continue;
                }
                Ok(Progress::CaughtUp) => announced = None,
                Ok(Progress::Unchanged | Progress::Waiting) => {}
                Err(StepError::Stop(reason)) => return reason,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.fail(&error, failures).await;
                    continue;
                }
            }
            failures = 0;
            let [again, last] = ANNOUNCED_AGAIN;
            if let Some(pause) = announced.filter(|pause| *pause <= last) {
                tokio::time::sleep(pause).await;
                announced = Some(pause * 2);
                continue;
            }
            announced = tokio::select! {
                () = tokio::time::sleep(self.poll) => None,
                () = self.wake.notified() => Some(again),
            };
        }
    }

    /// Notes a failed attempt, and waits before the next one.
    async fn fail(&mut self, error: &StepError, failures: u32) {
        self.count(error);
        tracing::warn!(target: "indexer::follow", %error, failures, "attempt failed");
        self.health.send_modify(|health| health.last_error = Some(error.to_string()));
        if let Some(failed) = self.failed.get_mut(self.current) {
            *failed = Some(Instant::now());
        }
        let rest = self.next_endpoint();
        // The first failure of several endpoints only moves on to the next one.
        let doublings = failures.saturating_sub(1).min(6);
        tokio::time::sleep((self.poll * 2u32.pow(doublings)).min(MAX_BACKOFF).max(rest)).await;
    }

    fn count(&self, error: &StepError) {
        Counters::add(&self.counters.failures, 1);
        match error {
            StepError::Rpc(_) => Counters::add(&self.counters.rpc_failures, 1),
            StepError::Contradiction(_) => Counters::add(&self.counters.contradictions, 1),
            StepError::Store(_) | StepError::Stop(_) | StepError::NoStart { .. } => {}
        }
    }

    /// Moves on to the next endpoint, or past those that want to be left alone. Gives how long even that one does.
    fn next_endpoint(&mut self) -> Duration {
        self.verified = false;
        self.forget();
        let count = self.endpoints.len();
        let others = (1..=count).map(|step| (self.current + step) % count);
        let rested = others.filter_map(|place| Some((self.endpoints.get(place)?.rest(), place)));
        let (rest, next) = rested.min_by_key(|(rest, _)| *rest).unwrap_or_default();
        self.current = next;
        rest
    }

    /// An endpoint that was seen to have a block above this one, while the current one has none.
    fn farther(&self, tip: Header) -> Option<usize> {
        let recently = |failed: &Option<Instant>| failed.is_some_and(|at| at.elapsed() < DISTRUST);
        let looks = self.looks.borrow();
        let mut others = (0..).zip(looks.at.iter().zip(&self.failed));
        let farther = others.find(|(place, (look, failed))| {
            let ahead = look.is_some_and(|look| look.height > tip.number);
            ahead && *place != self.current && !recently(failed) && !self.disputes.of(*place)
        });
        farther.map(|(place, _)| place)
    }

    /// Moves on to an endpoint that is farther, if there is one.
    fn follow_farther(&mut self, tip: Header) -> bool {
        let Some(farther) = self.farther(tip) else { return false };
        tracing::warn!(target: "indexer::follow", endpoint = farther + 1, "another endpoint is farther");
        (self.current, self.verified) = (farther, false);
        self.forget();
        true
    }

    /// What is known of the mirror, and what was asked for because of it, holds no more.
    fn forget(&mut self) {
        self.apps = None;
        self.ahead.clear();
    }

    async fn step(&mut self) -> Result<Progress, StepError> {
        let endpoint = self.verified_endpoint().await?;
        let tip = endpoint.newest().await?;
        self.health.send_modify(|health| health.chain_head = Some(tip.number));
        self.look_at_finalized(&endpoint, tip).await;
        self.find_start(&endpoint, tip).await?;
        if !self.store.leads().await? {
            return self.stand_by(tip).await;
        }
        let Some(head) = self.store.head().await? else {
            if tip.number >= self.start {
                return self.extend(&endpoint, None, tip).await;
            }
            let (have, start) = (tip.number, self.start);
            let reason =
                format!("the chain ends at block {have}, and is read from block {start} on (--from-block)");
            self.health.send_modify(|health| health.last_error = Some(reason));
            return Ok(if self.follow_farther(tip) { Progress::Moved } else { Progress::Waiting });
        };
        if tip.number > head.number {
            self.shorter_since = None;
            return self.extend(&endpoint, Some(head), tip).await;
        }
        match self.store.snapshot().await?.block(tip.number).await? {
            Some(stored) if stored.hash != tip.hash => self.reorganise(&endpoint, head).await,
            Some(_) if tip.number == head.number => {
                self.shorter_since = None;
                if self.follow_farther(tip) {
                    return Ok(Progress::Moved);
                }
                self.caught_up(head).await?;
                Ok(Progress::Unchanged)
            }
            _ => self.wait_for_rollback(&endpoint, head).await,
        }
    }

    /// Some headers below the first event are wanted, so that the confirmed position exists from the start; a chain may have
    /// none there.
    async fn find_start(&mut self, endpoint: &Endpoint, tip: Header) -> Result<(), StepError> {
        if self.started || tip.number < self.from_block {
            return Ok(());
        }
        if endpoint.header(self.start).await?.is_none() {
            if endpoint.header(self.from_block).await?.is_none() {
                return Err(StepError::NoStart { endpoint: endpoint.place(), number: self.from_block });
            }
            self.start = self.from_block;
        }
        self.started = true;
        Ok(())
    }

    /// Another replica follows into the same database. This one looks whether it keeps up.
    async fn stand_by(&mut self, tip: Header) -> Result<Progress, StepError> {
        self.forget();
        let head = self.store.head().await?;
        if self.seen != head {
            self.seen = head;
            self.store.announce();
        }
        let current = match head {
            // A moment ahead of what this endpoint shows is not behind.
            Some(head) if head.number > tip.number => {
                let stored = self.store.snapshot().await?.block(tip.number).await?;
                stored.is_some_and(|stored| stored.hash == tip.hash)
            }
            head => head.is_some_and(|head| head.hash == tip.hash),
        };
        if self.follow_farther(tip) {
            return Ok(Progress::Moved);
        }
        match head.filter(|_| current) {
            Some(head) => self.caught_up(head).await?,
            None => {
                let have = head.map_or_else(|| "nothing".to_owned(), |head| format!("block {}", head.number));
                let place = self.current + 1;
                let reason =
                    format!("the replica that leads has {have}, RPC endpoint {place} block {}", tip.number);
                self.health.send_modify(|health| health.last_error = Some(reason));
            }
        }
        Ok(Progress::Waiting)
    }

    /// What the chain calls finalized is told, and nothing is decided by it; so a node that does not know the word is
    /// not asked again for a while, and no failure.
    async fn look_at_finalized(&mut self, endpoint: &Endpoint, tip: Header) {
        if self
            .finalized_at
            .is_some_and(|(asked, number)| number == tip.number || asked.elapsed() < FINALIZED_EVERY)
        {
            return;
        }
        self.finalized_at = Some((Instant::now(), tip.number));
        let finalized = timeout(FINALIZED_PATIENCE, endpoint.finalized()).await;
        let finalized = finalized.ok().and_then(Result::ok).flatten();
        self.health.send_if_modified(|health| {
            let changed = health.finalized != finalized;
            health.finalized = finalized;
            changed
        });
    }

    /// The mirror holds what was the newest block when this step began. It is current unless there is reason to doubt that
    /// block: who tells the truth is not for the mirror to say.
    async fn caught_up(&mut self, head: Header) -> Result<(), StepError> {
        let doubt = self.doubt(head).await?;
        self.health.send_modify(|health| {
            if doubt.is_some() && health.last_error != doubt {
                tracing::warn!(target: "indexer::follow", reason = doubt, "not current");
            }
            health.caught_up = doubt.is_none().then(Instant::now);
            health.last_error = doubt;
        });
        Ok(())
    }

    async fn doubt(&mut self, head: Header) -> Result<Option<String>, StepError> {
        let mut snapshot = self.store.snapshot().await?;
        if let Some(gone) = self.gone {
            let stored = snapshot.block(gone.first.number).await?;
            let replaced = stored.is_some_and(|stored| stored.hash != gone.first.hash);
            if !replaced && head.number < gone.height {
                let number = gone.first.number;
                return Ok(Some(format!("block {number} is gone, and nothing came in its place yet")));
            }
            self.gone = None;
        }
        let number = head.number.saturating_sub(self.confirmations);
        let mut confirmed = snapshot.block(number).await?;
        drop(snapshot);
        if confirmed.is_none() && number >= self.start && self.store.leads().await? {
            self.fill(head).await?;
            confirmed = self.store.snapshot().await?.block(number).await?;
        }
        let Some(confirmed) = confirmed else {
            return Ok(Some(format!("the confirmed block {number} is not mirrored yet")));
        };
        let mirrored = Mirrored { confirmed, rewinds: self.rewinds };
        self.mirrored.send_if_modified(|shown| shown.replace(mirrored) != Some(mirrored));
        let looks = self.looks.borrow().clone();
        Ok(self.disputes.hear(&looks, &self.store, mirrored).await?)
    }

    /// The chain is shorter than the mirror but does not contradict it. Usually the endpoint lags; if it stays so,
    /// the blocks above are gone.
    async fn wait_for_rollback(&mut self, endpoint: &Endpoint, head: Header) -> Result<Progress, StepError> {
        let since = *self.shorter_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ROLLBACK_PATIENCE {
            self.shorter_since = None;
            let first = self.rewind(endpoint, head).await?;
            self.gone = first.map(|first| Gone { first, height: head.number });
            return Ok(Progress::Moved);
        }
        if self.endpoints.len() > 1 {
            self.next_endpoint();
        }
        Ok(Progress::Waiting)
    }

    async fn verified_endpoint(&mut self) -> Result<Endpoint, StepError> {
        let Some(endpoint) = self.endpoints.get(self.current).cloned() else {
            let reason = "no RPC endpoint is configured".to_owned();
            return Err(RpcError::Transport { endpoint: 0, method: "connect", reason }.into());
        };
        if self.verified {
            return Ok(endpoint);
        }
        let have = endpoint.chain_id().await?;
        let stored = self.store.source().await?.map(|source| source.chain_id);
        let want = *self.chain_id.get_or_insert(stored.unwrap_or(have));
        if have != want {
            return Err(StepError::Stop(StopReason::WrongChain { endpoint: endpoint.place(), have, want }));
        }
        let source = Source { chain_id: have, registry: self.registry };
        self.store.claim(source).await.map_err(|error| match error {
            StoreError::OtherSource { .. } => StepError::Stop(StopReason::OtherSource(error)),
            error => StepError::Store(error),
        })?;
        self.health.send_modify(|health| health.source = Some(source));
        self.verified = true;
        Ok(endpoint)
    }

    /// Applies the next blocks after `head`.
    async fn extend(
        &mut self,
        endpoint: &Endpoint,
        head: Option<Header>,
        tip: Header,
    ) -> Result<Progress, StepError> {
        let next = head.map_or(self.start, |head| head.number.saturating_add(1));
        self.ask_ahead(endpoint, next, tip).await?;
        let Some(ahead) = self.ahead.pop_front() else { return Ok(Progress::Waiting) };
        let last = *ahead.range.end();
        let fetched = ahead.fetched(endpoint).await.and_then(|fetched| match head {
            Some(head) if fetched.parent != Some(head.hash) => {
                Err(FetchError::from(Contradiction::Parent { number: next }))
            }
            _ => Ok(fetched),
        });
        match fetched {
            Ok(Fetched { headers, events, newcomers, reread, unproved, .. }) => {
                if !newcomers.is_empty() {
                    self.forget();
                }
                let (count, before, head) = (events.len() as u64, head, headers.last().copied());
                self.store.apply(&Batch { after: before, headers, events }).await?;
                Counters::add(&self.counters.events_applied, count);
                Counters::add(&self.counters.blocks_applied, (last - next).saturating_add(1));
                Counters::add(&self.counters.blocks_reread, reread);
                Counters::add(&self.counters.blocks_unproved, unproved);
                tracing::debug!(target: "indexer::follow", from = next, to = last, "applied");
                match head {
                    Some(head) if last >= tip.number => self.caught_up(head).await?,
                    _ => return Ok(Progress::Moved),
                }
                Ok(Progress::CaughtUp)
            }
            // A gap among the new headers themselves says nothing about the mirrored head.
            Err(FetchError::Contradiction(Contradiction::Parent { number }))
                if head.is_some() && number == next =>
            {
                self.reorganise(endpoint, tip).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to fetch the ranges from `next` on: one at the head, several while far behind it.
    async fn ask_ahead(&mut self, endpoint: &Endpoint, next: u64, tip: Header) -> Result<(), StepError> {
        if self.ahead.front().is_some_and(|ahead| *ahead.range.start() != next) {
            self.forget();
        }
        let apps = match &self.apps {
            Some(apps) => apps.clone(),
            None => {
                let mut snapshot = self.store.snapshot().await?;
                Arc::new(snapshot.registered_apps(self.registry, next.saturating_sub(1)).await?)
            }
        };
        self.apps = Some(apps.clone());
        let window_start = tip.number.saturating_sub(HEADER_WINDOW);
        let mut next = self.ahead.back().map_or(next, |ahead| ahead.range.end().saturating_add(1));
        while self.ahead.len() <= RANGES_AHEAD {
            let recent = next >= window_start;
            if recent && !self.ahead.is_empty() {
                break;
            }
            let last = match recent {
                true => tip.number.min(next.saturating_add(RECENT_BLOCKS - 1)),
                false => window_start.min(next.saturating_add(self.reader.size() - 1)),
            };
            let (registry, start, apps) = (self.registry, self.start, apps.clone());
            let plan = Plan { registry, apps, start, range: next..=last, recent };
            self.ahead.push_back(Ahead::begin(endpoint, &self.reader, plan));
            if recent {
                break;
            }
            next = last.saturating_add(1);
        }
        Ok(())
    }

    /// Goes back to what the endpoint's chain and the mirror's have in common.
    async fn reorganise(&mut self, endpoint: &Endpoint, tip: Header) -> Result<Progress, StepError> {
        self.rewind(endpoint, tip).await?;
        self.gone = None;
        Ok(Progress::Moved)
    }

    /// Takes back the blocks that are not the endpoint's any more, and gives the lowest of them. The head is known to be one.
    /// Blocks of one chain match up to some height and differ above it, so doubling steps and halving find that height.
    async fn rewind(&mut self, endpoint: &Endpoint, tip: Header) -> Result<Option<Header>, StepError> {
        self.forget();
        self.health.send_modify(|health| health.caught_up = None);
        let count = self.store.snapshot().await?.block_count().await?;
        let (mut differs, mut step) = (0u64, 1u64);
        let mut matches = loop {
            let place = differs.saturating_add(step);
            if place >= count {
                break count; // "before the first block", which nothing contradicts
            }
            if self.same_block(endpoint, place).await? {
                break place;
            }
            (differs, step) = (place, step.saturating_mul(2));
        };
        while matches - differs > 1 {
            let middle = differs + (matches - differs) / 2;
            if self.same_block(endpoint, middle).await? {
                matches = middle;
            } else {
                differs = middle;
            }
        }
        let mut snapshot = self.store.snapshot().await?;
        let keep = snapshot.block_from_head(matches).await?.map(|block| block.number);
        let lowest = snapshot.block_from_head(matches.saturating_sub(1)).await?;
        drop(snapshot);
        tracing::warn!(target: "indexer::follow", ?keep, chain_head = tip.number, "chain reorganised, rewinding");
        self.rewinds += 1;
        self.disputes.rewound(keep);
        self.store.rewind(self.registry, keep).await?;
        Counters::add(&self.counters.rewinds, 1);
        Ok(lowest)
    }

    /// Reads the headers below the head again: a deep reorganisation ends where most of them were forgotten.
    async fn fill(&self, head: Header) -> Result<(), StepError> {
        let Some(endpoint) = self.endpoints.get(self.current) else { return Ok(()) };
        let first = head.number.saturating_sub(HEADER_WINDOW).max(self.start);
        let headers = range::headers(endpoint, first..=head.number).await?;
        let headers: Vec<Header> = headers.into_values().map(|block| block.header).collect();
        if headers.last() != Some(&head) {
            return Err(StepError::Contradiction(Contradiction::Changed { number: head.number }));
        }
        Ok(self.store.fill(head, &headers).await?)
    }

    async fn same_block(&self, endpoint: &Endpoint, place: u64) -> Result<bool, StepError> {
        match self.store.snapshot().await?.block_from_head(place).await? {
            None => Ok(true),
            Some(stored) => {
                let theirs = endpoint.header(stored.number).await?;
                Ok(theirs.is_some_and(|theirs| theirs.hash == stored.hash))
            }
        }
    }
}
