//! The audit for a terminal.

use std::fmt::Write as _;

use chrono::DateTime;
use cohort_protocol::text::line as escape;

use super::{
    Audit, Severity,
    history::{Proposal, Run},
};

/// The whole report; what came from the chain is escaped.
pub fn render(audit: &Audit) -> String {
    let mut out = String::new();
    let h = &audit.history;
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("{} ({}): {} on chain {}", escape(&h.name), escape(&h.sector), audit.app, audit.chain_id));
    line(format!(
        "as of block {} {} ({}), from {} events; {} view answers compared",
        audit.block_number,
        audit.block_hash,
        utc(audit.block_time),
        audit.events,
        audit.views_compared
    ));
    line(format!(
        "code {}, KMS root {}, threshold {}, era {}",
        audit.code_hash, h.kms_root, h.threshold, h.era
    ));
    line(format!("asked: {}", escape(audit.endpoints.join(", "))));
    line("\nOwners".to_owned());
    for owner in h.owners.values() {
        let listed = if owner.listed { "" } else { ", removed" };
        line(format!(
            "  {:<16} {} {} committed epsilon {} of {}{listed}",
            escape(&owner.owner_id),
            escape(&owner.jurisdiction),
            owner.account,
            owner.committed.epsilon,
            owner.cap.epsilon
        ));
    }
    line("\nDatasets".to_owned());
    for dataset in h.datasets.values() {
        line(format!(
            "  {} {} {} {}, {} records, {} bytes{}",
            dataset.dataset_id,
            escape(h.owner_name(dataset.owner_index)),
            escape(&dataset.region),
            escape(&dataset.kind),
            dataset.records,
            dataset.size_bytes,
            if dataset.superseded { ", superseded" } else { "" }
        ));
    }
    line("\nProposals".to_owned());
    for proposal in h.proposals.values() {
        line(proposal_text(audit, proposal));
    }
    line("\nRuns".to_owned());
    for run in &h.runs {
        line(run_text(audit, run));
    }
    if let Some(log) = &audit.release_log {
        line(String::new());
        for end in &log.logs {
            line(format!("Release log: {}, {}", escape(&end.name), end.text()));
        }
        line(format!("  {:<66}  {:>9}  {:>6}  {:>9}", "run", "opened", "entry", "receipt"));
        for run in &log.runs {
            line(format!("  {}", escape(run.text())));
        }
    }
    line("\nFindings".to_owned());
    for finding in &audit.findings {
        let mark = match finding.severity {
            Severity::Notice => "note",
            Severity::Violation => "FAIL",
        };
        let block = finding.block.map_or(String::new(), |block| format!(" (block {block})"));
        line(format!("  {mark}  {:<20} {}{block}", finding.code, escape(&finding.text)));
    }
    if audit.findings.is_empty() {
        line("  none".to_owned());
    }
    out
}

fn proposal_text(audit: &Audit, proposal: &Proposal) -> String {
    let h = &audit.history;
    let decision = proposal.decision.map_or("unknown", cohort_protocol::decision::Decision::code);
    let mut text = format!(
        "  {} {decision}: epsilon {} of {} spent",
        proposal.proposal_id, proposal.spent.epsilon, proposal.budget.epsilon
    );
    for approval in &proposal.approvals {
        let how = if approval.by_signature { "by signature" } else { "by transaction" };
        let name = escape(h.owner_name(approval.index));
        let _ = write!(text, "\n    {name:<16} approved {how}, {}", utc(approval.time));
    }
    for (index, reason) in &proposal.rejections {
        let _ = write!(text, "\n    {:<16} rejected: {}", escape(h.owner_name(*index)), escape(reason));
    }
    text
}

fn run_text(audit: &Audit, run: &Run) -> String {
    let h = &audit.history;
    let names: Vec<_> = run.participants.iter().map(|index| escape(h.owner_name(*index))).collect();
    let end = run.receipt.as_ref().map_or("no receipt".to_owned(), |receipt| {
        let proof = if receipt.proved { "proved" } else { "declared" };
        format!("receipt {} by {}, {proof}, output {}", utc(receipt.time), receipt.agent, receipt.output_hash)
    });
    format!(
        "  {} {}: {} for {}, epsilon {}; {end}",
        run.run_id,
        utc(run.opened_time),
        names.join(", "),
        run.analyst,
        run.loss.epsilon
    )
}

/// Unix seconds as UTC.
pub(crate) fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| seconds.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}
