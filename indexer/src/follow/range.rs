//! Fetching one range of blocks: headers, logs, and the older logs of apps that the range registers.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::primitives::{Address, B256, Bloom};
use tokio::task::{JoinHandle, JoinSet};

use super::{
    check::{self, Contradiction, PlacedLog},
    size::Size,
};
use crate::{
    event::{AppEvent, ChainEvent, RegistryEvent, UnknownRegistryEvent},
    rpc::{BloomedHeader, Endpoint, Header, Log, LogFilter, RpcError},
    store::NewEvent,
};

/// Most addresses of one `eth_getLogs`.
const MAX_ADDRESSES: usize = 500;
/// Headers of one request.
const HEADERS_OF_A_REQUEST: usize = 100;
/// Requests for headers at the same time.
const CONCURRENT_REQUESTS: usize = 4;
/// Headers that are held at the same time while older logs are read.
const HEADERS_AT_ONCE: u64 = 10_000;
/// Up to so many blocks, logs are asked for block by block, by hash: the node answers for that very block or not at
/// all, while a range is answered silently short by a node that has not seen its end.
const BY_HASH_BLOCKS: u64 = 4;

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
        Self { range, task: tokio::spawn(async move { fetch(&endpoint, &reader, &plan).await }) }
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

/// Headers by height, with their bloom filters while they are needed.
#[derive(Debug, Default)]
struct Blocks {
    headers: BTreeMap<u64, Header>,
    blooms: BTreeMap<u64, Bloom>,
}

/// Fetches and checks a range.
async fn fetch(endpoint: &Endpoint, reader: &LogReader, plan: &Plan) -> Result<Fetched, FetchError> {
    let last = *plan.range.end();
    let mut addresses = vec![plan.registry];
    addresses.extend_from_slice(&plan.apps);
    let few = plan.range.end().saturating_sub(*plan.range.start()) < BY_HASH_BLOCKS;
    let mut blocks = Blocks::default();
    let logs = if plan.recent && few {
        add_headers(endpoint, &mut blocks, plan.range.clone()).await?;
        check::linked(None, blocks.headers.values())?;
        reader.of_blocks(endpoint, blocks.headers.values().copied(), &addresses).await?
    } else {
        let headers = add_headers(endpoint, &mut blocks, plan.range.clone());
        let logs = async { Ok(reader.of_range(endpoint, &plan.range, &addresses).await?) };
        let ((), logs) = tokio::try_join!(headers, logs)?;
        check::linked(None, blocks.headers.values())?;
        logs
    };
    let mut logs = check::placed(logs, &plan.range, &addresses)?;
    check::of_these_blocks(&logs, &blocks.headers)?;
    let reread = complete(endpoint, reader, &blocks, &addresses, &mut logs).await?;

    // Only logs whose blocks are proved may decide what else is read.
    let newcomers = newcomers(plan, &logs)?;
    if !newcomers.is_empty() {
        logs.extend(before_registration(endpoint, reader, plan, &newcomers, &mut blocks).await?);
    }
    still_there(endpoint, blocks.headers.get(&last), last).await?;

    let parent = blocks.headers.get(plan.range.start()).map(|first| first.parent_hash);
    let events = decode(plan.registry, logs)?;
    if !plan.recent {
        let with_events: BTreeSet<u64> = events.iter().map(|event| event.block_number).collect();
        blocks.headers.retain(|number, _| *number == last || with_events.contains(number));
    }
    Ok(Fetched { parent, headers: blocks.headers.into_values().collect(), events, newcomers, reread })
}

/// Reads the logs of those blocks again, by hash, whose bloom filter promises more than the range gave: nodes cut long
/// answers short, and nodes that lag answer for blocks that they have not indexed yet.
async fn complete(
    endpoint: &Endpoint,
    reader: &LogReader,
    blocks: &Blocks,
    addresses: &[Address],
    logs: &mut Vec<PlacedLog>,
) -> Result<u64, FetchError> {
    let doubtful = check::bloomed(logs, &blocks.blooms, addresses)?;
    let reread = doubtful.len() as u64;
    for number in doubtful {
        let Some(header) = blocks.headers.get(&number) else { continue };
        let again = reader.of_blocks(endpoint, std::iter::once(*header), addresses).await?;
        let again = check::placed(again, &(number..=number), addresses)?;
        check::of_these_blocks(&again, &blocks.headers)?;
        check::bloomed(&again, &BTreeMap::from([(number, bloom_of(blocks, number))]), addresses)?;
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

fn bloom_of(blocks: &Blocks, number: u64) -> Bloom {
    blocks.blooms.get(&number).copied().unwrap_or_default()
}

/// What apps did before they were registered, checked like everything else.
async fn before_registration(
    endpoint: &Endpoint,
    reader: &LogReader,
    plan: &Plan,
    newcomers: &[Address],
    blocks: &mut Blocks,
) -> Result<Vec<PlacedLog>, FetchError> {
    let last = *plan.range.end();
    let mut found = Vec::new();
    let mut next = plan.start;
    while next <= last {
        let range = next..=last.min(next.saturating_add(HEADERS_AT_ONCE - 1));
        let older = reader.of_range(endpoint, &range, newcomers).await?;
        let mut older = check::placed(older, &range, newcomers)?;
        let mut piece = Blocks::default();
        add_headers(endpoint, &mut piece, range.clone()).await?;
        check::linked(None, piece.headers.values())?;
        check::of_these_blocks(&older, &piece.headers)?;
        complete(endpoint, reader, &piece, newcomers, &mut older).await?;
        for log in &older {
            if let Some(header) = piece.headers.get(&log.block_number) {
                blocks.headers.insert(log.block_number, *header);
            }
        }
        found.extend(older);
        next = range.end().saturating_add(1);
    }
    Ok(found)
}

/// The range's end must be what it was before its logs were read: then they are of the chain that ends there.
async fn still_there(endpoint: &Endpoint, before: Option<&Header>, number: u64) -> Result<(), FetchError> {
    let now = endpoint.header(number).await?;
    if before.is_none() || now.as_ref() != before {
        return Err(Contradiction::Changed { number }.into());
    }
    Ok(())
}

async fn add_headers(
    endpoint: &Endpoint,
    blocks: &mut Blocks,
    range: RangeInclusive<u64>,
) -> Result<(), FetchError> {
    let wanted: Vec<u64> = range.collect();
    let mut pieces = wanted.chunks(HEADERS_OF_A_REQUEST);
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < CONCURRENT_REQUESTS
            && let Some(numbers) = pieces.next()
        {
            let (endpoint, numbers) = (endpoint.clone(), numbers.to_vec());
            asked.spawn(async move {
                let headers = endpoint.headers(&numbers).await;
                (numbers, headers)
            });
        }
        let Some(answer) = asked.join_next().await else { break };
        // A task is lost only if the runtime is shutting down.
        let (numbers, headers) = answer.map_err(|lost| endpoint.lost(lost))?;
        let headers = headers?;
        for (number, found) in numbers.iter().zip(headers) {
            let BloomedHeader { header, bloom } = found.ok_or(Contradiction::Changed { number: *number })?;
            blocks.headers.insert(*number, header);
            blocks.blooms.insert(*number, bloom);
        }
    }
    Ok(())
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
#[derive(Debug, Clone, Default)]
pub(super) struct LogReader {
    size: Arc<Mutex<Size>>,
}

impl LogReader {
    /// Blocks that the next piece has; at least 1.
    pub(super) fn size(&self) -> u64 {
        self.learn(|size| size.blocks())
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
