//! Following the chain: ranges of logs while behind, block by block at the head, and back where it reorganises.
//!
//! Nothing an endpoint says is taken alone: headers must hash to their blocks' hashes, follow each other and the mirrored
//! head, and logs must be in the receipts that a header commits to. A contradiction discards the range; the next attempt
//! asks the next endpoint.

mod check;
mod heads;
mod look;
mod range;
mod size;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::primitives::Address;
use tokio::sync::{Notify, watch};

pub use self::check::Contradiction;
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
    looks: watch::Receiver<look::Looks>,
    failed: Vec<Option<Instant>>,
    /// The confirmed block, for those looks.
    confirmed: watch::Sender<Option<Header>>,
    confirmations: u64,
    /// The current endpoint's chain id was checked since its last failure.
    verified: bool,
    chain_id: Option<u64>,
    start: u64,
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
            store,
            registry: config.registry,
            looks: watch::channel(look::Looks::new()).1,
            failed: vec![None; endpoints.len()],
            confirmed: watch::Sender::default(),
            confirmations: config.confirmations,
            endpoints,
            current: 0,
            verified: false,
            chain_id: config.chain_id,
            // Headers below the first event: the confirmed position exists from the start.
            start: config.from_block.saturating_sub(HEADER_WINDOW),
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
        let (looks, receiver) = watch::channel(look::Looks::new());
        self.looks = receiver;
        let looks = look::around(self.endpoints.clone(), self.confirmed.subscribe(), looks);
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
            StepError::Store(_) | StepError::Stop(_) => {}
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
        let farther = looks.iter().zip(&self.failed).position(|(look, failed)| {
            look.is_some_and(|look| look.height > tip.number) && !recently(failed)
        });
        farther.filter(|place| *place != self.current)
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
        if !self.store.leads().await? {
            return self.stand_by(tip).await;
        }
        let Some(head) = self.store.head().await? else {
            return if tip.number < self.start {
                Ok(Progress::Waiting)
            } else {
                self.extend(&endpoint, None, tip).await
            };
        };
        if tip.number > head.number {
            self.shorter_since = None;
            return self.extend(&endpoint, Some(head), tip).await;
        }
        match self.store.snapshot().await?.block(tip.number).await? {
            Some(stored) if stored.hash != tip.hash => self.rewind(&endpoint, head).await,
            Some(_) if tip.number == head.number => {
                self.shorter_since = None;
                if let Some(farther) = self.farther(tip) {
                    tracing::warn!(target: "indexer::follow", endpoint = farther + 1, "another endpoint is farther");
                    (self.current, self.verified) = (farther, false);
                    self.forget();
                    return Ok(Progress::Moved);
                }
                self.caught_up(head).await?;
                Ok(Progress::Unchanged)
            }
            _ => self.wait_for_rollback(&endpoint, head).await,
        }
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
        if let Some(head) = head.filter(|_| current) {
            self.caught_up(head).await?;
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
        let finalized = endpoint.finalized().await.ok().flatten();
        self.health.send_if_modified(|health| {
            let changed = health.finalized != finalized;
            health.finalized = finalized;
            changed
        });
    }

    /// The mirror holds what was the newest block when this step began. It is current unless another endpoint has another
    /// block in the place of one that is confirmed: which of them tells the truth is not for the mirror to say.
    async fn caught_up(&mut self, head: Header) -> Result<(), StepError> {
        let mut snapshot = self.store.snapshot().await?;
        let confirmed = snapshot.block(head.number.saturating_sub(self.confirmations)).await?;
        self.confirmed.send_if_modified(|shown| std::mem::replace(shown, confirmed) != confirmed);
        let looks = self.looks.borrow().clone();
        let disputes = (1..).zip(looks).filter_map(|(place, look)| Some((place, look?.disputes?)));
        let mut disputed = None;
        for (place, ours) in disputes {
            if snapshot.block(ours.number).await? == Some(ours) {
                disputed =
                    Some(format!("RPC endpoint {place} has another block {} than the mirror", ours.number));
            }
        }
        self.health.send_modify(|health| {
            if disputed.is_some() && health.last_error != disputed {
                tracing::warn!(target: "indexer::follow", reason = disputed, "not current");
            }
            health.caught_up = disputed.is_none().then(Instant::now);
            health.last_error = disputed;
        });
        Ok(())
    }

    /// The chain is shorter than the mirror but does not contradict it. Usually the endpoint lags; if it stays so,
    /// the blocks above are gone.
    async fn wait_for_rollback(&mut self, endpoint: &Endpoint, head: Header) -> Result<Progress, StepError> {
        let since = *self.shorter_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ROLLBACK_PATIENCE {
            self.shorter_since = None;
            return self.rewind(endpoint, head).await;
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
                Err(Contradiction::Parent { number: next }.into())
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
                self.rewind(endpoint, tip).await
            }
            Err(FetchError::Contradiction(contradiction)) => Err(StepError::Contradiction(contradiction)),
            Err(FetchError::Rpc(error)) => Err(error.into()),
            Err(FetchError::UnknownEvent { block_number, log_index, source }) => {
                Err(StepError::Stop(StopReason::UnknownEvent { block_number, log_index, source }))
            }
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

    /// Takes back the blocks that are not the endpoint's any more. The head is known to be one of them. Blocks of one
    /// chain match up to some height and differ above it, so doubling steps and halving find that height.
    async fn rewind(&mut self, endpoint: &Endpoint, tip: Header) -> Result<Progress, StepError> {
        self.forget();
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
        let keep = self.store.snapshot().await?.block_from_head(matches).await?.map(|block| block.number);
        tracing::warn!(target: "indexer::follow", ?keep, chain_head = tip.number, "chain reorganised, rewinding");
        self.store.rewind(self.registry, keep).await?;
        Counters::add(&self.counters.rewinds, 1);
        Ok(Progress::Moved)
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
