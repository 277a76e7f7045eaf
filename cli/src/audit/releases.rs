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

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use cohort_protocol::{
        abi::{IDstackApp, Receipt},
        chain::Position,
        ids::{ComposeHash, ProposalId},
        release_log::Record,
    };

    use super::*;

    const APP: Address = Address::repeat_byte(1);

    fn run(byte: u8) -> RunId {
        RunId(B256::repeat_byte(byte))
    }

    /// The log's entry that releases the run's keys to `agent`.
    fn release(index: u64, app: Address, run_id: RunId, agent: u8) -> Entry {
        let record = Record {
            outcome: Decided::Released,
            code: "allow".to_owned(),
            reason: None,
            chain_id: 1,
            app,
            kms_root: Address::ZERO,
            challenge: B256::ZERO,
            proposal_id: ProposalId(B256::ZERO),
            run_id,
            compose_hash: ComposeHash(B256::ZERO),
            receipt_key: Address::repeat_byte(agent),
            encryption_key_hash: B256::ZERO,
            evidence_hash: B256::ZERO,
            platform: "intel".to_owned(),
            tcb_status: "UpToDate".to_owned(),
            device_id: B256::ZERO,
            instance_id: None,
            mr_system: B256::ZERO,
            mr_aggregated: B256::ZERO,
            datasets: Vec::new(),
            heads: vec![Position { number: 1, hash: B256::ZERO, timestamp: 1 }],
            confirmed: None,
            not_after: None,
        };
        Entry { index, previous: B256::ZERO, record, time: 1 }
    }

    fn event(block: u64, event: IDstackAppEvents) -> ChainEntry {
        ChainEntry { block, log_index: 0, time: 1, transaction: B256::ZERO, name: "", event }
    }

    fn opened(run_id: RunId) -> ChainEntry {
        let opened = IDstackApp::RunOpened {
            runId: run_id.0,
            proposalId: B256::ZERO,
            analyst: Address::ZERO,
            participants: 1,
            epsilon: 1,
            delta: 0,
            epsilonSpent: 1,
            deltaSpent: 0,
        };
        event(10, IDstackAppEvents::RunOpened(opened))
    }

    fn posted(run_id: RunId, agent: u8) -> ChainEntry {
        let receipt = Receipt {
            runId: run_id.0,
            outputHash: B256::ZERO,
            inputsHash: B256::ZERO,
            evidenceHash: B256::ZERO,
            epsilon: 1,
            delta: 0,
            privacyProof: 1,
            producedAt: 1,
        };
        let posted = IDstackApp::ReceiptPosted {
            runId: run_id.0,
            proposalId: B256::ZERO,
            agent: Address::repeat_byte(agent),
            receipt,
            digest: B256::ZERO,
        };
        event(20, IDstackAppEvents::ReceiptPosted(posted))
    }

    fn found(entries: &[Entry], events: &[ChainEntry]) -> Vec<&'static str> {
        compare(entries, events, APP).findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn releases_and_runs_match_one_to_one_or_it_is_told() {
        let chain = [opened(run(1)), posted(run(1), 7)];
        let log = [release(0, APP, run(1), 7)];
        assert_eq!(found(&log, &chain), [""; 0]);
        // The same agent may ask again; another consortium's releases are its own business.
        let more =
            [release(0, APP, run(1), 7), release(1, APP, run(1), 7), release(2, Address::ZERO, run(9), 7)];
        assert_eq!(found(&more, &chain), [""; 0]);
        // An entry is missing, is one too many, or names somebody else.
        assert_eq!(found(&[], &chain), ["release_missing"]);
        assert_eq!(found(&[log[0].clone(), release(1, APP, run(2), 7)], &chain), ["release_without_run"]);
        assert_eq!(found(&[log[0].clone(), release(1, APP, run(1), 8)], &chain), ["released_twice"]);
        assert_eq!(found(&[release(0, APP, run(1), 8)], &chain), ["receipt_of_another"]);
        // Not finished: to look at.
        assert_eq!(found(&[], &chain[..1]), ["no_keys_released"]);
        assert_eq!(found(&log, &chain[..1]), ["no_receipt"]);
        let line = &compare(&log, &chain, APP).runs[0];
        assert_eq!((line.opened, line.released, line.receipt), (Some(10), Some(0), Some(20)));
    }
}
