//! Fetching one range of blocks: headers, logs, and the older logs of apps that the range registers.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use alloy::{primitives::Address, rpc::types::Log};
use tokio::task::JoinSet;

use super::check::{self, Contradiction, PlacedLog};
use crate::{
    event::{AppEvent, RegistryEvent, UnknownRegistryEvent},
    rpc::{Endpoint, Header, LogFilter, RpcError},
    store::{ChainEvent, NewEvent},
};

/// Blocks of the first `eth_getLogs`; doubled after each success, halved after each refusal.
const FIRST_SIZE: u64 = 500;
/// Most blocks of one `eth_getLogs`.
const MAX_SIZE: u64 = 10_000;
/// Most addresses of one `eth_getLogs`.
const MAX_ADDRESSES: usize = 500;
/// Headers asked for at the same time.
const CONCURRENT_HEADERS: usize = 8;
/// Up to so many blocks, logs are asked for block by block, by hash: the node answers for that very block or not at
/// all, while a range is answered silently short by a node that has not seen its end.
const BY_HASH_BLOCKS: usize = 4;

/// What to fetch.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) registry: Address,
    pub(super) apps: &'a [Address],
    /// First block of the mirror: where the logs of newly registered apps are read from.
    pub(super) start: u64,
    /// The mirrored head, which the range must follow.
    pub(super) after: Option<Header>,
    pub(super) range: RangeInclusive<u64>,
    /// Keep every header of the range, not only those with events.
    pub(super) recent: bool,
}

/// A fetched and checked range.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Ascending; the last is the range's end.
    pub(super) headers: Vec<Header>,
    pub(super) events: Vec<NewEvent>,
    /// Apps registered in the range.
    pub(super) newcomers: Vec<Address>,
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

/// Fetches and checks a range.
pub(super) async fn fetch(
    endpoint: &Endpoint,
    reader: &mut LogReader,
    plan: &Plan<'_>,
) -> Result<Fetched, FetchError> {
    let (first, last) = (*plan.range.start(), *plan.range.end());
    let mut blocks = BTreeMap::new();
    let ends = if plan.recent { plan.range.clone().collect() } else { BTreeSet::from([first, last]) };
    add_headers(endpoint, &mut blocks, ends).await?;
    if plan.recent {
        check::linked(plan.after.as_ref(), &blocks.values().copied().collect::<Vec<_>>())?;
    } else if let Some(header) = blocks.get(&first) {
        check::linked(plan.after.as_ref(), std::slice::from_ref(header))?;
    }

    let mut addresses = vec![plan.registry];
    addresses.extend_from_slice(plan.apps);
    let by_hash = plan.recent && blocks.len() <= BY_HASH_BLOCKS;
    let logs = if by_hash {
        reader.of_blocks(endpoint, blocks.values(), &addresses).await?
    } else {
        reader.of_range(endpoint, &plan.range, &addresses).await?
    };
    let mut logs = check::placed(logs, &plan.range, &addresses)?;

    // Only logs whose blocks are proved may decide what else is read.
    add_headers(endpoint, &mut blocks, logs.iter().map(|log| log.block_number).collect()).await?;
    check::of_these_blocks(&logs, &blocks)?;
    let newcomers = newcomers(plan, &logs)?;
    if !newcomers.is_empty() {
        let range = plan.start..=last;
        let older = reader.of_range(endpoint, &range, &newcomers).await?;
        let older = check::placed(older, &range, &newcomers)?;
        add_headers(endpoint, &mut blocks, older.iter().map(|log| log.block_number).collect()).await?;
        check::of_these_blocks(&older, &blocks)?;
        logs.extend(older);
    }
    still_there(endpoint, blocks.get(&last), last).await?;

    let events = decode(plan.registry, &logs)?;
    Ok(Fetched { headers: blocks.into_values().collect(), events, newcomers })
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
    blocks: &mut BTreeMap<u64, Header>,
    wanted: BTreeSet<u64>,
) -> Result<(), FetchError> {
    let mut wanted =
        wanted.into_iter().filter(|number| !blocks.contains_key(number)).collect::<Vec<_>>().into_iter();
    let mut asked = JoinSet::new();
    let mut found = Vec::new();
    loop {
        while asked.len() < CONCURRENT_HEADERS
            && let Some(number) = wanted.next()
        {
            let endpoint = endpoint.clone();
            asked.spawn(async move { (number, endpoint.header(number).await) });
        }
        match asked.join_next().await {
            None => break,
            Some(Ok((number, header))) => found.push(header?.ok_or(Contradiction::Changed { number })?),
            // A task is lost only if the runtime is shutting down.
            Some(Err(lost)) => {
                let reason = lost.to_string();
                let (endpoint, method) = (endpoint.place(), "eth_getBlockByNumber");
                return Err(RpcError::Transport { endpoint, method, reason }.into());
            }
        }
    }
    blocks.extend(found.into_iter().map(|header| (header.number, header)));
    Ok(())
}

/// Apps that the registry's logs register and that are not followed yet. The registry itself is no app.
fn newcomers(plan: &Plan<'_>, logs: &[PlacedLog]) -> Result<Vec<Address>, FetchError> {
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

fn decode(registry: Address, logs: &[PlacedLog]) -> Result<Vec<NewEvent>, FetchError> {
    let mut events = Vec::with_capacity(logs.len());
    for log in logs {
        let event = if log.address == registry {
            Some(ChainEvent::Registry(registry_event(log)?))
        } else {
            AppEvent::decode(&log.topics, &log.data).map(|event| ChainEvent::App(Box::new(event)))
        };
        events.extend(event.map(|event| NewEvent {
            block_number: log.block_number,
            log_index: log.log_index,
            transaction_hash: log.transaction_hash,
            address: log.address,
            event,
        }));
    }
    Ok(events)
}

/// Reads logs in pieces as large as the endpoint allows.
#[derive(Debug)]
pub(super) struct LogReader {
    size: u64,
}

impl Default for LogReader {
    fn default() -> Self {
        Self { size: FIRST_SIZE }
    }
}

impl LogReader {
    /// Blocks that the next piece has; at least 1.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    async fn of_range(
        &mut self,
        endpoint: &Endpoint,
        range: &RangeInclusive<u64>,
        addresses: &[Address],
    ) -> Result<Vec<Log>, RpcError> {
        let mut logs = Vec::new();
        for some in addresses.chunks(MAX_ADDRESSES) {
            let mut next = *range.start();
            while next <= *range.end() {
                let last = next.saturating_add(self.size - 1).min(*range.end());
                match endpoint.logs(&LogFilter::Range(next..=last), some).await {
                    Ok(piece) => {
                        logs.extend(piece);
                        self.size = self.size.saturating_mul(2).min(MAX_SIZE);
                        next = last.saturating_add(1);
                    }
                    Err(error) if last > next && error.may_be_too_much() => {
                        self.size = ((last - next).saturating_add(1) / 2).max(1);
                        tracing::debug!(target: "indexer::follow", %error, blocks = self.size, "smaller range");
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
        blocks: impl Iterator<Item = &Header>,
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
