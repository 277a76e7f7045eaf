//! An indexer's answers, held against the chain's: it may be late, but what it tells must have happened.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use cohort_protocol::{chain::Position, loss::Epsilon};
use serde::Deserialize;

use super::{Finding, Severity, history::History, logs::Entry};
use crate::{failure::Outcome, http::Service};

const PAGE: usize = 500;

/// The parts of docs/spec/indexer-api.md that are compared.
#[derive(Deserialize)]
struct Timeline {
    head: Position,
    events: Vec<Event>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    cursor: String,
    kind: String,
    block: Position,
    transaction_hash: B256,
}

#[derive(Deserialize)]
struct Proposal {
    approvals: Vec<serde_json::Value>,
    budget: Option<Budget>,
}

#[derive(Deserialize)]
struct Budget {
    epsilon_spent: Epsilon,
}

/// Compares event by event, and each proposal's approvals and debits where the indexer is as far as the audit.
pub(super) async fn compare(
    url: &reqwest::Url,
    app: Address,
    entries: &[Entry],
    history: &History,
    findings: &mut Vec<Finding>,
) -> Outcome {
    let service = Service::new("the indexer", url)?;
    let mut add = |severity, text: String, block| {
        findings.push(Finding { severity, code: "indexer", text, block });
    };
    let mut told: BTreeMap<String, Event> = BTreeMap::new();
    let mut head = 0;
    let mut after = String::new();
    loop {
        let path = format!("v1/apps/{app:#x}/timeline?limit={PAGE}{after}");
        let page: Timeline = service.get(&path).await?.ready("the indexer")?;
        head = page.head.number.max(head);
        let before = told.len();
        told.extend(page.events.into_iter().map(|event| (event.cursor.clone(), event)));
        match page.next {
            Some(cursor) if !cursor.is_empty() && told.len() > before => after = format!("&after={cursor}"),
            // Pages without an end tell nothing new either.
            _ => break,
        }
    }
    let last = entries.last().map_or(0, |entry| entry.block);
    if head < last {
        add(Severity::Notice, format!("the indexer stands at block {head}, before the last event"), None);
    }
    for entry in entries.iter().filter(|entry| entry.block <= head) {
        let cursor = format!("{}:{}", entry.block, entry.log_index);
        let kind = snake_case(entry.name);
        match told.remove(&cursor) {
            Some(event)
                if event.kind == kind
                    && event.block.timestamp == entry.time
                    && event.transaction_hash == entry.transaction => {}
            Some(event) => {
                let text = format!(
                    "the indexer tells {} at {cursor}, of transaction {} and time {}, where the chain has {kind} of {} and {}",
                    event.kind, event.transaction_hash, event.block.timestamp, entry.transaction, entry.time
                );
                add(Severity::Violation, text, Some(entry.block));
            }
            None => {
                let text = format!("the indexer does not tell {kind} at {cursor}");
                add(Severity::Violation, text, Some(entry.block));
            }
        }
    }
    // Later events than the audit read are none of its business.
    for (cursor, event) in told.iter().filter(|(_, event)| event.block.number <= last) {
        let text = format!("the indexer tells {} at {cursor}, which the chain does not have", event.kind);
        add(Severity::Violation, text, Some(event.block.number));
    }
    if head >= last {
        proposals(&service, app, history, &mut add).await?;
    }
    Ok(())
}

async fn proposals(
    service: &Service<'_>,
    app: Address,
    history: &History,
    add: &mut impl FnMut(Severity, String, Option<u64>),
) -> Outcome {
    for (id, ours) in &history.proposals {
        let path = format!("v1/apps/{app:#x}/proposals/{id}");
        let theirs: Proposal = service.get(&path).await?.ready("the indexer")?;
        let spent = theirs.budget.map_or(Epsilon(0), |budget| budget.epsilon_spent);
        if theirs.approvals.len() != ours.approvals.len() || spent != ours.spent.epsilon {
            let text = format!(
                "the indexer tells {} approvals and epsilon {spent} spent of proposal {id}; the chain has {} and {}",
                theirs.approvals.len(),
                ours.approvals.len(),
                ours.spent.epsilon
            );
            add(Severity::Violation, text, None);
        }
    }
    Ok(())
}

/// `RunOpened` as the indexer names it: `run_opened`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}
