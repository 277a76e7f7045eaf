//! Fetching one range of blocks: headers, the logs that they promise, and the older logs of apps that the range registers.
//!
//! A header's hash commits to its block's filter and receipts, so receipts are read where a filter promises logs of ours,
//! and prove them. Where filters are so full that they promise everything, `eth_getLogs` tells which blocks to prove.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::primitives::{Address, B256};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinHandle;

use super::check::{self, Contradiction, PlacedLog};
use crate::{
    event::{AppEvent, ChainEvent, RegistryEvent, UnknownRegistryEvent},
    rpc::{Endpoint, Header, Log, LogFilter, LogsHeader, RpcError},
    size::Size,
    store::NewEvent,
};

/// Most addresses of one `eth_getLogs`.
const MAX_ADDRESSES: usize = 500;
/// Headers, and blocks' receipts, that are asked for together.
const HEADERS_OF_A_REQUEST: usize = 100;
const RECEIPTS_OF_A_REQUEST: usize = 16;
/// Such requests at the same time.
const CONCURRENT_REQUESTS: usize = 4;
/// Headers that are held at the same time while older logs are read.
const HEADERS_AT_ONCE: u64 = 10_000;
/// Logs of up to so many blocks are asked for block by block, by hash: the node answers for that very block or not at all,
/// while a range is answered silently short by a node that has not seen its end.
const BY_HASH_BLOCKS: usize = 4;

/// What to fetch.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) registry: Address,
    pub(super) apps: Arc<Vec<Address>>,
    /// First block of the mirror: where the logs of newly registered apps are read from.
    pub(super) start: u64,
    pub(super) range: RangeInclusive<u64>,
    /// Keep every header of the range, not only those with events.
    pub(super) recent: bool,
}

/// A range that is being fetched; dropping it ends that.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) range: RangeInclusive<u64>,
    task: JoinHandle<Result<Fetched, FetchError>>,
}

impl Ahead {
    /// Begins to fetch a range.
    pub(super) fn begin(endpoint: &Endpoint, reader: &LogReader, plan: Plan) -> Self {
        let (endpoint, reader, range) = (endpoint.clone(), reader.clone(), plan.range.clone());
        let task = tokio::spawn(async move {
            let fetched = fetch(&endpoint, &reader, &plan).await;
            let blocks = plan.range.end().saturating_sub(*plan.range.start()).saturating_add(1);
            if let Err(FetchError::Rpc(error)) = &fetched
                && error.may_be_too_much()
                && blocks > 1
            {
                reader.learn(|size| size.refused(blocks));
            }
            fetched
        });
        Self { range, task }
    }

    /// Waits for it.
    pub(super) async fn fetched(mut self, endpoint: &Endpoint) -> Result<Fetched, FetchError> {
        (&mut self.task).await.map_err(|lost| endpoint.lost(lost))?
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A fetched range, of which every part fits every other.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Hash of the block that it follows.
    pub(super) parent: Option<B256>,
    /// Ascending; the last is the range's end.
    pub(super) headers: Vec<Header>,
    pub(super) events: Vec<NewEvent>,
    /// Apps registered in the range.
    pub(super) newcomers: Vec<Address>,
    /// Blocks that were read again by hash.
    pub(super) reread: u64,
    /// Blocks of which it was told, not proved, what they have of ours.
    pub(super) unproved: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error("{source}")]
    UnknownEvent { block_number: u64, log_index: u64, source: UnknownRegistryEvent },
}

/// Headers by height.
pub(super) type Blocks = BTreeMap<u64, LogsHeader>;

/// Fetches and checks a range.
async fn fetch(endpoint: &Endpoint, reader: &LogReader, plan: &Plan) -> Result<Fetched, FetchError> {
    let last = *plan.range.end();
    let mut addresses = vec![plan.registry];
    addresses.extend_from_slice(&plan.apps);
    let mut blocks = headers(endpoint, plan.range.clone()).await?;
    let mut found = logs_of(endpoint, reader, &blocks, &addresses, plan.recent).await?;

    // Only logs whose blocks are known may decide what else is read.
    let newcomers = newcomers(plan, &found.logs)?;
    if !newcomers.is_empty() {
        before_registration(endpoint, reader, plan, &newcomers, &mut blocks, &mut found).await?;
    }

    let parent = blocks.get(plan.range.start()).map(|first| first.header.parent_hash);
    let Found { logs, reread, unproved } = found;
    let events = decode(plan.registry, logs)?;
    if !plan.recent {
        let with_events: BTreeSet<u64> = events.iter().map(|event| event.block_number).collect();
        blocks.retain(|number, _| *number == last || with_events.contains(number));
    }
    let headers = blocks.into_values().map(|block| block.header).collect();
    Ok(Fetched { parent, headers, events, newcomers, reread, unproved })
}

/// Logs of ours in a piece of chain.
#[derive(Debug, Default)]
struct Found {
    logs: Vec<PlacedLog>,
    reread: u64,
    unproved: u64,
}

/// The logs of these addresses in these blocks.
async fn logs_of(
    endpoint: &Endpoint,
    reader: &LogReader,
    blocks: &Blocks,
    addresses: &[Address],
    recent: bool,
) -> Result<Found, FetchError> {
    let promising = check::promising(blocks.values(), addresses);
    // Anybody can crowd a block, so that is no reason to believe what is told of a new one.
    let telling = |block: &&LogsHeader| {
        block.receipts_root.is_some() && (recent || !check::crowded(&block.bloom, addresses))
    };
    let (telling, others): (Vec<_>, Vec<_>) = promising.into_iter().partition(telling);
    let mut found = Found { logs: proved(endpoint, &telling, addresses).await?, ..Found::default() };
    if others.is_empty() {
        reader.learn(|size| size.answered(blocks.len() as u64, found.logs.len()));
        return Ok(found);
    }
    let mut told = told(endpoint, reader, blocks, &others, addresses, &mut found.reread).await?;
    let with_logs: BTreeSet<u64> = told.iter().map(|log| log.block_number).collect();
    let provable =
        |block: &&LogsHeader| block.receipts_root.is_some() && with_logs.contains(&block.header.number);
    let (provable, unproved): (Vec<_>, Vec<_>) = others.into_iter().partition(provable);
    let unproved: BTreeSet<u64> = unproved.into_iter().map(|block| block.header.number).collect();
    told.retain(|log| unproved.contains(&log.block_number));
    found.unproved = unproved.len() as u64;
    found.logs.extend(told);
    found.logs.extend(proved(endpoint, &provable, addresses).await?);
    found.logs.sort_by_key(PlacedLog::place);
    Ok(found)
}

/// The logs of blocks as their receipts prove them.
async fn proved(
    endpoint: &Endpoint,
    blocks: &[&LogsHeader],
    addresses: &[Address],
) -> Result<Vec<PlacedLog>, FetchError> {
    let asked: Vec<_> =
        blocks.chunks(RECEIPTS_OF_A_REQUEST).map(|some| some_proved(endpoint, some, addresses)).collect();
    stream::iter(asked).buffered(CONCURRENT_REQUESTS).try_concat().await
}

async fn some_proved(
    endpoint: &Endpoint,
    blocks: &[&LogsHeader],
    addresses: &[Address],
) -> Result<Vec<PlacedLog>, FetchError> {
    let hashes: Vec<B256> = blocks.iter().map(|block| block.header.hash).collect();
    let mut logs = Vec::new();
    for (block, receipts) in blocks.iter().zip(endpoint.receipts(&hashes).await?) {
        let receipts = receipts.ok_or(Contradiction::Changed { number: block.header.number })?;
        logs.extend(check::proved(block, receipts, addresses)?);
    }
    Ok(logs)
}

/// The logs of blocks as `eth_getLogs` tells them, checked as far as hashes and filters go.
async fn told(
    endpoint: &Endpoint,
    reader: &LogReader,
    blocks: &Blocks,
    wanted: &[&LogsHeader],
    addresses: &[Address],
    reread: &mut u64,
) -> Result<Vec<PlacedLog>, FetchError> {
    let wanted: BTreeMap<u64, &LogsHeader> =
        wanted.iter().map(|block| (block.header.number, *block)).collect();
    let (Some(first), Some(last)) = (wanted.keys().next(), wanted.keys().next_back()) else {
        return Ok(Vec::new());
    };
    let range = *first..=*last;
    let logs = if wanted.len() <= BY_HASH_BLOCKS {
        reader.of_blocks(endpoint, wanted.values().map(|block| block.header), addresses).await?
    } else {
        reader.of_range(endpoint, &range, addresses).await?
    };
    let mut logs = check::placed(logs, &range, addresses)?;
    check::of_these_blocks(&logs, blocks)?;
    // What else promises logs is proved.
    let promising = check::promising(blocks.range(range).map(|(_, block)| block), addresses);
    let proved: BTreeSet<u64> = promising.into_iter().map(|block| block.header.number).collect();
    logs.retain(|log| wanted.contains_key(&log.block_number) || !proved.contains(&log.block_number));
    *reread += complete(endpoint, reader, blocks, &wanted, addresses, &mut logs).await?;
    still_there(endpoint, wanted.values().next_back()).await?;
    Ok(logs)
}

/// Reads the logs of those blocks again, by hash, whose bloom filter promises more than the range gave: nodes cut long
/// answers short, and nodes that lag answer for blocks that they have not indexed yet.
async fn complete(
    endpoint: &Endpoint,
    reader: &LogReader,
    blocks: &Blocks,
    wanted: &BTreeMap<u64, &LogsHeader>,
    addresses: &[Address],
    logs: &mut Vec<PlacedLog>,
) -> Result<u64, FetchError> {
    let doubtful = check::bloomed(logs, wanted, addresses)?;
    let reread = doubtful.len() as u64;
    for number in doubtful {
        let Some(block) = wanted.get(&number) else { continue };
        let again = reader.of_blocks(endpoint, std::iter::once(block.header), addresses).await?;
        let again = check::placed(again, &(number..=number), addresses)?;
        check::of_these_blocks(&again, blocks)?;
        check::bloomed(&again, &BTreeMap::from([(number, *block)]), addresses)?;
        let before = logs.len();
        logs.retain(|log| log.block_number != number);
        let had = before - logs.len();
        if again.len() < had {
            return Err(Contradiction::Changed { number }.into());
        }
        if again.len() > had {
            tracing::warn!(target: "indexer::follow", number, missing = again.len() - had, "a range came without logs");
        }
        logs.extend(again);
    }
    logs.sort_by_key(PlacedLog::place);
    Ok(reread)
}

/// Adds what apps did before they were registered, checked like everything else, and the headers of its blocks.
async fn before_registration(
    endpoint: &Endpoint,
    reader: &LogReader,
    plan: &Plan,
    newcomers: &[Address],
    blocks: &mut Blocks,
    found: &mut Found,
) -> Result<(), FetchError> {
    let last = *plan.range.end();
    let mut next = plan.start;
    let mut before = None;
    while next <= last {
        let range = next..=last.min(next.saturating_add(HEADERS_AT_ONCE - 1));
        next = range.end().saturating_add(1);
        let piece = headers(endpoint, range).await?;
        check::linked(before.as_ref(), piece.values().map(|block| &block.header))?;
        before = piece.values().next_back().map(|block| block.header);
        let older = logs_of(endpoint, reader, &piece, newcomers, false).await?;
        let with_logs: BTreeSet<u64> = older.logs.iter().map(|log| log.block_number).collect();
        blocks.extend(piece.into_iter().filter(|(number, _)| with_logs.contains(number)));
        found.logs.extend(older.logs);
        found.reread += older.reread;
        found.unproved += older.unproved;
    }
    // What is older must lead to the range.
    match (before, blocks.get(&last)) {
        (Some(before), Some(block)) if before == block.header => Ok(()),
        _ => Err(Contradiction::Changed { number: last }.into()),
    }
}

/// The last block must be what it was before its logs were read: then they are of the chain that ends there.
async fn still_there(endpoint: &Endpoint, before: Option<&&LogsHeader>) -> Result<(), FetchError> {
    let Some(before) = before.map(|block| block.header) else { return Ok(()) };
    if endpoint.header(before.number).await? != Some(before) {
        return Err(Contradiction::Changed { number: before.number }.into());
    }
    Ok(())
}

/// The headers of a range, each of which follows the one before.
pub(super) async fn headers(endpoint: &Endpoint, range: RangeInclusive<u64>) -> Result<Blocks, FetchError> {
    let wanted: Vec<u64> = range.collect();
    let asked: Vec<_> =
        wanted.chunks(HEADERS_OF_A_REQUEST).map(|numbers| some_headers(endpoint, numbers)).collect();
    let blocks: Vec<_> = stream::iter(asked).buffered(CONCURRENT_REQUESTS).try_concat().await?;
    let blocks = Blocks::from_iter(blocks);
    check::linked(None, blocks.values().map(|block| &block.header))?;
    Ok(blocks)
}

async fn some_headers(endpoint: &Endpoint, numbers: &[u64]) -> Result<Vec<(u64, LogsHeader)>, FetchError> {
    let found = numbers.iter().zip(endpoint.headers(numbers).await?);
    let whole = |(number, found): (&u64, Option<LogsHeader>)| {
        found.map(|block| (*number, block)).ok_or(Contradiction::Changed { number: *number })
    };
    Ok(found.map(whole).collect::<Result<_, _>>()?)
}

/// Apps that the registry's logs register and that are not followed yet. The registry itself is no app.
fn newcomers(plan: &Plan, logs: &[PlacedLog]) -> Result<Vec<Address>, FetchError> {
    let mut newcomers = BTreeSet::new();
    for log in logs.iter().filter(|log| log.address == plan.registry) {
        if let RegistryEvent::AppRegistered { app } = registry_event(log)?
            && app != plan.registry
            && !plan.apps.contains(&app)
        {
            newcomers.insert(app);
        }
    }
    Ok(newcomers.into_iter().collect())
}

fn registry_event(log: &PlacedLog) -> Result<RegistryEvent, FetchError> {
    RegistryEvent::decode(&log.topics, &log.data).map_err(|source| FetchError::UnknownEvent {
        block_number: log.block_number,
        log_index: log.log_index,
        source,
    })
}

/// What is stored of the logs: those that are events of ours.
fn decode(registry: Address, logs: Vec<PlacedLog>) -> Result<Vec<NewEvent>, FetchError> {
    let mut events = Vec::with_capacity(logs.len());
    for log in logs {
        let event = if log.address == registry {
            Some(ChainEvent::Registry(registry_event(&log)?))
        } else {
            AppEvent::decode(&log.topics, &log.data).map(|event| ChainEvent::App(Box::new(event)))
        };
        events.extend(event.map(|event| NewEvent {
            block_number: log.block_number,
            log_index: log.log_index,
            transaction_hash: log.transaction_hash,
            address: log.address,
            topics: log.topics,
            data: log.data,
            kind: event.kind(),
            keys: event.keys(),
        }));
    }
    Ok(events)
}

/// Reads logs in pieces as large as the endpoint allows. Clones share what they learn of that.
#[derive(Debug, Clone)]
pub(super) struct LogReader {
    size: Arc<Mutex<Size>>,
}

impl Default for LogReader {
    fn default() -> Self {
        Self { size: Arc::new(Mutex::new(Size::of_ranges())) }
    }
}

impl LogReader {
    /// Blocks that the next piece has; at least 1.
    pub(super) fn size(&self) -> u64 {
        self.learn(|size| size.next())
    }

    fn learn<T>(&self, change: impl FnOnce(&mut Size) -> T) -> T {
        // Numbers only: nothing is left half done by a panic elsewhere.
        change(&mut self.size.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn of_range(
        &self,
        endpoint: &Endpoint,
        range: &RangeInclusive<u64>,
        addresses: &[Address],
    ) -> Result<Vec<Log>, RpcError> {
        let mut logs = Vec::new();
        for some in addresses.chunks(MAX_ADDRESSES) {
            let mut next = *range.start();
            while next <= *range.end() {
                let last = next.saturating_add(self.size() - 1).min(*range.end());
                let asked = (last - next).saturating_add(1);
                match endpoint.logs(&LogFilter::Range(next..=last), some).await {
                    Ok(piece) => {
                        self.learn(|size| size.answered(asked, piece.len()));
                        logs.extend(piece);
                        next = last.saturating_add(1);
                    }
                    Err(error) if last > next && error.may_be_too_much() => {
                        self.learn(|size| size.refused(asked));
                        tracing::debug!(target: "indexer::follow", %error, blocks = self.size(), "smaller range");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(logs)
    }

    async fn of_blocks(
        &self,
        endpoint: &Endpoint,
        blocks: impl Iterator<Item = Header>,
        addresses: &[Address],
    ) -> Result<Vec<Log>, RpcError> {
        let mut logs = Vec::new();
        for block in blocks {
            for some in addresses.chunks(MAX_ADDRESSES) {
                logs.extend(endpoint.logs(&LogFilter::Block(block.hash), some).await?);
            }
        }
        Ok(logs)
    }
}
