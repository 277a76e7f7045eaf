//! The app's events in the chain's order, in ranges that the endpoint can answer.

use std::collections::BTreeMap;

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256, keccak256},
    providers::{DynProvider, Provider},
    rpc::types::{Filter, Log},
    sol_types::SolEventInterface,
};
use cohort_protocol::{abi::IDstackApp::IDstackAppEvents, chain::Position};

use super::{Finding, Severity};
use crate::{
    chain::{self, App},
    failure::{self, Failure, Outcome},
};

/// Blocks asked for at once, at most.
const RANGE_MAX: u64 = 100_000;

/// One event, with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Block number.
    pub block: u64,
    /// Place in the block.
    pub log_index: u64,
    /// Block time, Unix seconds.
    pub time: u64,
    /// The transaction that caused it.
    pub transaction: B256,
    /// The event's name in Solidity.
    pub name: &'static str,
    /// What happened.
    pub event: IDstackAppEvents,
}

/// The block at which everything is read.
pub(crate) async fn head(provider: &DynProvider, number: Option<u64>) -> Outcome<Position> {
    let tag = number.map_or(BlockNumberOrTag::Latest, BlockNumberOrTag::Number);
    let block = provider.get_block_by_number(tag).await.map_err(|e| failure::rpc(&e))?;
    let Some(block) = block else {
        let name = number.map_or("the newest block".to_owned(), |number| format!("block {number}"));
        return Err(Failure::unreachable(format!("the endpoint has no {name}"), "check --to-block"));
    };
    let header = block.header;
    Ok(Position { number: header.number, hash: header.hash, timestamp: header.timestamp })
}

/// All events of `app` from `from` (or its deployment) to `to`.
pub(crate) async fn read(
    provider: &DynProvider,
    app: Address,
    from: Option<u64>,
    to: u64,
) -> Outcome<Vec<Entry>> {
    let mut next = match from {
        Some(block) => block,
        None => deployment(provider, app, to).await?,
    };
    let mut span = RANGE_MAX;
    let mut times = BTreeMap::new();
    let mut entries = Vec::new();
    while next <= to {
        let end = next.saturating_add(span - 1).min(to);
        let filter = Filter::new().address(app).from_block(next).to_block(end);
        match provider.get_logs(&filter).await {
            Ok(logs) => {
                for log in ordered(logs, app, next, end)? {
                    entries.push(entry(provider, &log, &mut times).await?);
                }
                span = span.saturating_mul(2).min(RANGE_MAX);
                let Some(after) = end.checked_add(1) else { break };
                next = after;
            }
            // Too many logs or blocks at once: endpoints differ in what they take.
            Err(error) if span > 1 && error.as_error_resp().is_some() => span /= 4,
            Err(error) => return Err(failure::rpc(&error)),
        }
        span = span.max(1);
    }
    Ok(entries)
}

/// The finding about an endpoint that does not answer.
pub(super) const SILENT: &str = "endpoint_silent";

/// What the first endpoint told.
pub(super) struct First<'a> {
    pub(super) app: &'a App,
    pub(super) code_hash: B256,
    pub(super) entries: &'a [Entry],
    pub(super) from: Option<u64>,
    pub(super) to: Position,
}

impl First<'_> {
    /// Holds another endpoint's answers to the same questions against it. One that does not answer has said nothing, good
    /// or bad: that is noted, and no reason to have no report.
    pub(super) async fn compare(&self, url: &reqwest::Url, findings: &mut Vec<Finding>) -> bool {
        let name = chain::endpoint_name(url);
        let mut add = |severity, code, text, block| findings.push(Finding { severity, code, text, block });
        match self.differences(url).await {
            Ok(differences) => {
                for (what, block) in differences {
                    let text = format!("{name} {what}");
                    add(Severity::Violation, "endpoints_differ", text, Some(block));
                }
                true
            }
            Err(failure) => {
                let text = format!("{name} was not compared: {}", failure.message);
                add(Severity::Notice, SILENT, text, None);
                false
            }
        }
    }

    /// In words, each with its block.
    async fn differences(&self, url: &reqwest::Url) -> Outcome<Vec<(String, u64)>> {
        let provider = chain::reader(url)?;
        let number = self.to.number;
        if head(&provider, Some(number)).await?.hash != self.to.hash {
            let text = format!("has another block {number}: one of the endpoints is on a fork");
            return Ok(vec![(text, number)]);
        }
        let mut differences = Vec::new();
        let code = provider.get_code_at(self.app.address()).number(number).await;
        let code_hash = keccak256(code.map_err(|e| failure::rpc(&e))?);
        if code_hash != self.code_hash {
            differences.push((format!("tells another code of the contract: {code_hash}"), number));
        }
        let theirs = read(&provider, self.app.address(), self.from, number).await?;
        let missing = |of: &[Entry], among: &[Entry]| of.iter().find(|entry| !among.contains(entry)).cloned();
        for (entry, what) in [
            (missing(self.entries, &theirs), "does not tell"),
            (missing(&theirs, self.entries), "alone tells"),
        ] {
            if let Some(Entry { name: event, block, log_index, .. }) = entry {
                differences.push((format!("{what} {event} (log {log_index})"), block));
            }
        }
        Ok(differences)
    }
}

/// The block that brought the contract, by halving: a contract that cannot destroy itself has code ever after. An endpoint
/// that keeps no old states has the logs all the same: then everything after what it could tell is read.
async fn deployment(provider: &DynProvider, app: Address, to: u64) -> Outcome<u64> {
    let (mut low, mut high) = (0, to);
    while low < high {
        let middle = low + (high - low) / 2;
        match provider.get_code_at(app).number(middle).await {
            Ok(code) if code.is_empty() => low = middle + 1,
            Ok(_) => high = middle,
            Err(error) if error.as_error_resp().is_some() => {
                eprintln!(
                    "cohort: the endpoint does not know the state of block {middle}: logs are read from block {low}; \
                     --from-block, a block before the app was deployed, is quicker"
                );
                break;
            }
            Err(error) => return Err(failure::rpc(&error)),
        }
    }
    Ok(low)
}

/// What was asked for, in the chain's order; anything else is an endpoint that cannot be relied on.
fn ordered(mut logs: Vec<Log>, app: Address, from: u64, to: u64) -> Outcome<Vec<Log>> {
    let place = |log: &Log| Some((log.block_number?, log.log_index?));
    let fits = |log: &Log| {
        log.address() == app
            && !log.removed
            && place(log).is_some_and(|(block, _)| (from..=to).contains(&block))
    };
    if !logs.iter().all(fits) {
        return Err(Failure::unreachable(
            format!("the endpoint answered other logs than those of {app} in blocks {from} to {to}"),
            "use another endpoint",
        ));
    }
    logs.sort_by_key(place);
    if logs.windows(2).any(|pair| matches!(pair, [a, b] if place(a) == place(b))) {
        return Err(Failure::unreachable(
            format!("the endpoint repeats logs in blocks {from} to {to}"),
            "use another endpoint",
        ));
    }
    Ok(logs)
}

async fn entry(provider: &DynProvider, log: &Log, times: &mut BTreeMap<u64, u64>) -> Outcome<Entry> {
    let block = log.block_number.unwrap_or_default();
    let selector = log.topic0().copied().unwrap_or_default();
    let event = IDstackAppEvents::decode_log(&log.inner).map_err(|_| {
        Failure::input(
            format!(
                "{} has an event in block {block} that is none of a DstackApp's: {selector}",
                log.address()
            ),
            "check --app, and use the version of cohort that fits the contract",
        )
    })?;
    let time = match (log.block_timestamp, times.get(&block)) {
        (Some(time), _) | (None, Some(&time)) => time,
        (None, None) => head(provider, Some(block)).await?.timestamp,
    };
    times.insert(block, time);
    let transaction = log.transaction_hash.unwrap_or_default();
    let log_index = log.log_index.unwrap_or_default();
    let name = IDstackAppEvents::name_by_selector(selector.0).unwrap_or("unknown");
    Ok(Entry { block, log_index, time, transaction, name, event: event.data })
}
