//! The KMS's release log, or those of its replicas, held against the runs on chain, one to one.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    abi::IDstackApp::IDstackAppEvents,
    ids::RunId,
    release_log::{Entry, Outcome as Decided},
};
use serde::Serialize;

use super::{Finding, Severity, logs::Entry as ChainEntry};
use crate::release_log::Log;

/// One run, by chain and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunLine {
    /// Which.
    pub run_id: RunId,
    /// Block in which it was opened; absent: it is not on chain.
    pub opened: Option<u64>,
    /// First entry of the log that released its keys.
    pub released: Option<u64>,
    /// Of which log, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Block with its receipt.
    pub receipt: Option<u64>,
}

impl RunLine {
    fn of(run_id: RunId) -> Self {
        Self { run_id, opened: None, released: None, log: None, receipt: None }
    }

    /// Opened in block, keys by entry, receipt in block.
    pub fn text(&self) -> String {
        let told = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let Self { run_id, opened, released, log, receipt } = self;
        let log = log.as_ref().map(|log| format!("  {log}")).unwrap_or_default();
        format!("{run_id}  {:>9}  {:>6}  {:>9}{log}", told(*opened), told(*released), told(*receipt))
    }
}

/// Where a release log ends.
#[derive(Debug, Serialize)]
pub struct LogEnd {
    /// The file or the KMS that it is from.
    pub name: String,
    /// Number of its entries.
    pub entries: u64,
    /// Hash of the last one: what a signed head names.
    pub hash: B256,
    /// The KMS root that signed this end; absent for a file.
    pub signed_by: Option<Address>,
    /// Bytes of an unfinished last line: what a crash while writing leaves.
    pub torn_bytes: usize,
}

impl LogEnd {
    /// The end of this log.
    pub fn of(log: &Log) -> Self {
        Self {
            name: log.name.clone(),
            entries: log.head.entries,
            hash: log.head.hash,
            signed_by: log.signed.as_ref().map(|signed| signed.root),
            torn_bytes: log.torn_bytes,
        }
    }

    /// In words, after the name.
    pub fn text(&self) -> String {
        let signed = match self.signed_by {
            Some(root) => format!("signed by the KMS root {root}"),
            None => "a copy, whose end nobody signed".to_owned(),
        };
        let torn = match self.torn_bytes {
            0 => String::new(),
            bytes => format!("; {bytes} bytes of an unfinished entry are left out"),
        };
        format!("{} entries, each with its hash, ends in {}, {signed}{torn}", self.entries, self.hash)
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

/// Matches releases and runs of `app` one to one. A run's keys may have come from several replicas, to one agent.
pub fn compare(logs: &[Log], events: &[ChainEntry], chain_id: u64, app: Address) -> Matched {
    let mut runs: BTreeMap<RunId, RunLine> = BTreeMap::new();
    let mut keys: BTreeMap<RunId, Vec<&Entry>> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut find = |severity, code, text: String, block| {
        findings.push(Finding { severity, code, text, block });
    };
    for (log, entry) in logs.iter().flat_map(|log| log.entries.iter().map(move |entry| (log, entry))) {
        let record = &entry.record;
        if (record.chain_id, record.app) != (chain_id, app) || record.outcome != Decided::Released {
            continue;
        }
        let run = entry.record.run_id;
        let releases = keys.entry(run).or_default();
        releases.push(entry);
        if releases.first().is_some_and(|first| first.record.receipt_key != entry.record.receipt_key) {
            let text =
                format!("{}: entry {}: the keys of run {run} went to a second agent", log.name, entry.index);
            find(Severity::Violation, "released_twice", text, None);
        }
        let line = runs.entry(run).or_insert_with(|| RunLine::of(run));
        if line.released.is_none() {
            line.released = Some(entry.index);
            line.log = (logs.len() > 1).then(|| log.name.clone());
        }
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
                let releases = keys.get(&run).map(Vec::as_slice).unwrap_or_default();
                let Some(release) = releases.first() else { continue };
                let evidence = posted.receipt.evidenceHash;
                if !releases.iter().any(|release| release.record.evidence_hash == evidence) {
                    let text = format!(
                        "run {run} has a receipt about evidence {evidence}, for which no entry releases its keys"
                    );
                    find(Severity::Violation, "evidence_without_release", text, Some(event.block));
                }
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
                    "run {run} has a receipt and no release here: an entry is missing, or the log of another replica"
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

    fn log(name: &str, entries: &[Entry]) -> Log {
        let mut log = Log::new(name, &[]);
        log.entries = entries.to_vec();
        log
    }

    fn found(entries: &[Entry], events: &[ChainEntry]) -> Vec<&'static str> {
        compare(&[log("log", entries)], events, 1, APP).findings.iter().map(|finding| finding.code).collect()
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
        // The same address on another chain is another consortium.
        let mut elsewhere = release(1, APP, run(2), 7);
        elsewhere.record.chain_id = 2;
        assert_eq!(found(&[log[0].clone(), elsewhere], &chain), [""; 0]);
        // An entry is missing, is one too many, or names somebody else.
        assert_eq!(found(&[], &chain), ["release_missing"]);
        assert_eq!(found(&[log[0].clone(), release(1, APP, run(2), 7)], &chain), ["release_without_run"]);
        assert_eq!(found(&[log[0].clone(), release(1, APP, run(1), 8)], &chain), ["released_twice"]);
        assert_eq!(found(&[release(0, APP, run(1), 8)], &chain), ["receipt_of_another"]);
        // Not finished: to look at.
        assert_eq!(found(&[], &chain[..1]), ["no_keys_released"]);
        assert_eq!(found(&log, &chain[..1]), ["no_receipt"]);
        let whole = self::log("log", &log);
        let line = compare(&[whole], &chain, 1, APP).runs.remove(0);
        assert_eq!((line.opened, line.released, line.log, line.receipt), (Some(10), Some(0), None, Some(20)));
        // A receipt is about evidence that got the keys, at the first asking or a later one.
        let mut other = release(0, APP, run(1), 7);
        other.record.evidence_hash = B256::repeat_byte(1);
        assert_eq!(found(std::slice::from_ref(&other), &chain), ["evidence_without_release"]);
        assert_eq!(found(&[other, release(1, APP, run(1), 7)], &chain), [""; 0]);
    }

    /// Replicas have a log each: only all of them are whole, and only all of them show a second agent.
    #[test]
    fn logs_of_replicas_are_one() {
        let chain = [opened(run(1)), posted(run(1), 7), opened(run(2)), posted(run(2), 7)];
        let codes = |logs: &[Log]| {
            let found = compare(logs, &chain, 1, APP).findings;
            found.iter().map(|finding| finding.code).collect::<Vec<_>>()
        };
        let a = || log("a", &[release(0, APP, run(1), 7)]);
        let b = || log("b", &[release(0, APP, run(2), 7), release(1, APP, run(1), 7)]);
        assert_eq!(codes(&[a()]), ["release_missing"]);
        assert_eq!(codes(&[a(), b()]), [""; 0]);
        assert_eq!(codes(&[a(), b(), log("c", &[release(0, APP, run(1), 8)])]), ["released_twice"]);
        let runs = compare(&[a(), b()], &chain, 1, APP).runs;
        assert_eq!(runs.iter().map(|run| run.log.as_deref()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
    }
}
