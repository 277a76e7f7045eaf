//! The KMS's release log held against the runs on chain, one to one.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use cohort_protocol::{
    abi::IDstackApp::IDstackAppEvents,
    ids::RunId,
    release_log::{Entry, Outcome as Decided},
};
use serde::Serialize;

use super::{Finding, Severity, logs::Entry as ChainEntry};

/// One run, by chain and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunLine {
    /// Which.
    pub run_id: RunId,
    /// Block in which it was opened; absent: it is not on chain.
    pub opened: Option<u64>,
    /// First entry of the log that released its keys.
    pub released: Option<u64>,
    /// Block with its receipt.
    pub receipt: Option<u64>,
}

impl RunLine {
    fn of(run_id: RunId) -> Self {
        Self { run_id, opened: None, released: None, receipt: None }
    }

    /// Opened in block, keys by entry, receipt in block.
    pub fn text(&self) -> String {
        let told = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let Self { run_id, opened, released, receipt } = self;
        format!("{run_id}  {:>9}  {:>6}  {:>9}", told(*opened), told(*released), told(*receipt))
    }
}

/// Releases and runs, side by side.
#[derive(Debug)]
pub struct Matched {
    /// Every run that either knows.
    pub runs: Vec<RunLine>,
    /// Where they differ.
    pub findings: Vec<Finding>,
}

/// Matches releases and runs of `app` one to one.
pub fn compare(entries: &[Entry], events: &[ChainEntry], app: Address) -> Matched {
    let mut runs: BTreeMap<RunId, RunLine> = BTreeMap::new();
    let mut keys: BTreeMap<RunId, &Entry> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut find = |severity, code, text: String, block| {
        findings.push(Finding { severity, code, text, block });
    };
    for entry in entries {
        if entry.record.app != app || entry.record.outcome != Decided::Released {
            continue;
        }
        let run = entry.record.run_id;
        let first = *keys.entry(run).or_insert(entry);
        if first.record.receipt_key != entry.record.receipt_key {
            let text = format!("entry {}: the keys of run {run} went to a second agent", entry.index);
            find(Severity::Violation, "released_twice", text, None);
        }
        let line = runs.entry(run).or_insert_with(|| RunLine::of(run));
        line.released = line.released.or(Some(entry.index));
    }
    for event in events {
        match &event.event {
            IDstackAppEvents::RunOpened(opened) => {
                let run = RunId(opened.runId);
                runs.entry(run).or_insert_with(|| RunLine::of(run)).opened = Some(event.block);
            }
            IDstackAppEvents::ReceiptPosted(posted) => {
                let run = RunId(posted.runId);
                runs.entry(run).or_insert_with(|| RunLine::of(run)).receipt = Some(event.block);
                let Some(release) = keys.get(&run) else { continue };
                if release.record.receipt_key != posted.agent {
                    let text = format!(
                        "run {run} has a receipt of {}, its keys went to {} (entry {})",
                        posted.agent, release.record.receipt_key, release.index
                    );
                    find(Severity::Violation, "receipt_of_another", text, Some(event.block));
                }
            }
            _ => (),
        }
    }
    for line in runs.values() {
        let run = line.run_id;
        match (line.opened, line.released, line.receipt) {
            (None, Some(index), _) => find(
                Severity::Violation,
                "release_without_run",
                format!("entry {index} releases the keys of run {run}, which the chain does not know"),
                None,
            ),
            (_, None, Some(block)) => find(
                Severity::Violation,
                "release_missing",
                format!(
                    "run {run} has a receipt and no release in this log: an entry is missing, or another KMS released"
                ),
                Some(block),
            ),
            (Some(block), None, None) => find(
                Severity::Notice,
                "no_keys_released",
                format!("run {run} was opened and got no keys"),
                Some(block),
            ),
            (_, Some(index), None) => find(
                Severity::Notice,
                "no_receipt",
                format!("run {run} got its keys (entry {index}) and has no receipt"),
                line.opened,
            ),
            _ => (),
        }
    }
    Matched { runs: runs.into_values().collect(), findings }
}
