//! `cohort audit`: one consortium's whole history from its contract's events, each event re-checked against the rules,
//! and the sums compared with what the contract's views say at the same block. No service of ours takes part.

use std::cmp::Reverse;

use alloy::{
    eips::BlockId,
    primitives::{Address, B256, keccak256},
    providers::Provider,
};
use serde::Serialize;

use crate::{
    chain::{self, App},
    failure::{self, Failure, Outcome},
    release_log::Log,
};

pub mod history;
pub mod html;
mod indexer;
pub mod logs;
pub mod releases;
pub mod text;
mod views;

use history::History;
use releases::{LogEnd, Matched, RunLine};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For a person to look at; nothing is broken by it.
    Notice,
    /// A rule was broken, or the chain's answers do not agree with each other.
    Violation,
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Short stable name.
    pub code: &'static str,
    /// In words.
    pub text: String,
    /// Where it was seen; absent for the state as a whole.
    pub block: Option<u64>,
}

/// The audit of one app at one block.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The consortium's contract.
    pub app: Address,
    /// keccak256 of the code at that address; `script/verify` compares it with a checkout's.
    pub code_hash: B256,
    /// Last block that was read.
    pub block_number: u64,
    /// Its hash: the same block gives the same report.
    pub block_hash: B256,
    /// Its time, Unix seconds.
    pub block_time: u64,
    /// Number of events that were read.
    pub events: usize,
    /// Number of view answers that were compared.
    pub views_compared: usize,
    /// The endpoints that answered, by host and port.
    pub endpoints: Vec<String>,
    /// What was found, most severe first.
    pub findings: Vec<Finding>,
    /// The KMS's release log, or those of its replicas, where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_log: Option<ReleaseLog>,
    /// What happened, and the state that follows from it.
    #[serde(flatten)]
    pub history: History,
}

/// Release logs, as they were matched.
#[derive(Debug, Serialize)]
pub struct ReleaseLog {
    /// Where each ends.
    pub logs: Vec<LogEnd>,
    /// Their releases and the chain's runs, side by side.
    pub runs: Vec<RunLine>,
}

impl Audit {
    /// How many of the endpoints that were to be asked did not answer?
    pub fn silent(&self) -> usize {
        self.findings.iter().filter(|finding| finding.code == logs::SILENT).count()
    }

    /// Did anything break a rule?
    pub fn violations(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Violation).count()
    }
}

/// What the chain's history is held against.
#[derive(Clone, Copy, Default)]
pub struct Against<'a> {
    /// The endpoints: the first one is read, the others' logs must be the same.
    pub endpoints: &'a [reqwest::Url],
    /// An indexer.
    pub indexer: Option<&'a reqwest::Url>,
    /// A KMS's release log, or those of its replicas.
    pub logs: &'a [Log],
}

/// Where the audit reads.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// First block with events of the app; found by the contract's code where absent.
    pub from: Option<u64>,
    /// Last block; the newest where absent.
    pub to: Option<u64>,
}

/// Audits one app by its first endpoint. What that is held against adds findings and changes nothing else.
pub async fn audit(app: &App, range: Range, against: Against<'_>) -> Outcome<Audit> {
    let provider = app.contract.provider();
    let head = logs::head(provider, range.to).await?;
    let at = BlockId::hash(head.hash);
    let code = provider.get_code_at(app.address()).block_id(at).await.map_err(|e| failure::rpc(&e))?;
    if code.is_empty() {
        return Err(Failure::input(
            format!("there is no contract at {} at block {}", app.address(), head.number),
            "check --app, --rpc-url and --to-block",
        ));
    }
    if let Some(from) = range.from.filter(|from| *from > head.number) {
        return Err(Failure::input(
            format!("there is nothing to read from block {from} to block {}", head.number),
            "check --from-block and --to-block",
        ));
    }
    let code_hash = keccak256(&code);
    let entries = logs::read(provider, app.address(), range.from, head.number).await?;
    let mut history = History::new(app.chain_id, app.address());
    let mut findings = Vec::new();
    let mut endpoints = Vec::new();
    let first = logs::First { app, code_hash, entries: &entries, from: range.from, to: head };
    for (index, url) in against.endpoints.iter().enumerate() {
        if index == 0 || first.compare(url, &mut findings).await {
            endpoints.push(chain::endpoint_name(url));
        }
    }
    for entry in &entries {
        history.apply(entry, &mut findings);
    }
    history.close(head.timestamp, &mut findings);
    let views_compared = views::compare(app, at, &history, &mut findings).await?;
    if let Some(url) = against.indexer {
        indexer::compare(url, app.address(), &entries, &history, &mut findings).await?;
    }
    let release_log = (!against.logs.is_empty()).then(|| {
        let Matched { runs, findings: more } =
            releases::compare(against.logs, &entries, app.chain_id, app.address());
        findings.extend(more);
        findings.extend(against.logs.iter().filter_map(|log| foreign(log, app.chain_id, &history)));
        ReleaseLog { logs: against.logs.iter().map(LogEnd::of).collect(), runs }
    });
    findings.sort_by_key(|finding| Reverse(finding.severity));
    Ok(Audit {
        chain_id: app.chain_id,
        app: app.address(),
        code_hash,
        block_number: head.number,
        block_hash: head.hash,
        block_time: head.timestamp,
        events: entries.len(),
        views_compared,
        endpoints,
        findings,
        release_log,
        history,
    })
}

/// A log whose end is signed by a root that this contract never pinned is another KMS's: that it shows no release says nothing.
fn foreign(log: &Log, chain_id: u64, history: &History) -> Option<Finding> {
    let signed = log.signed.as_ref()?;
    if signed.chain_id == chain_id && history.kms_roots.contains(&signed.root) {
        return None;
    }
    let text = format!(
        "the log of {} is signed by {} for chain {}, a root that the contract never pinned",
        log.name, signed.root, signed.chain_id
    );
    Some(Finding { severity: Severity::Violation, code: "log_of_another", text, block: None })
}

#[cfg(test)]
mod tests {
    use alloy::signers::local::PrivateKeySigner;
    use cohort_protocol::release_log::{Head, SignedHead};

    use super::*;

    #[test]
    fn a_log_signed_by_a_root_that_was_never_pinned_is_another_kms_s() {
        let (root, app) = (PrivateKeySigner::random(), Address::repeat_byte(1));
        let mut history = History::new(31337, app);
        let mut log = Log::new("kms", &[]);
        // A copy has no signature to look at.
        assert_eq!(foreign(&log, 31337, &history), None);
        log.signed = Some(SignedHead::issue(&root, 31337, app, Head::empty(), 9).unwrap());
        let code = |history: &History, chain| foreign(&log, chain, history).map(|finding| finding.code);
        assert_eq!(code(&history, 31337), Some("log_of_another"));
        history.kms_roots.insert(root.address());
        assert_eq!(code(&history, 31337), None);
        assert_eq!(code(&history, 1), Some("log_of_another"));
    }
}
