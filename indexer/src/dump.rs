//! A canonical dump: every event, and the state folded from them, as RFC 8785 JSON lines. Two databases that mirror
//! the same chain up to the same block give the same bytes, however they got there.

use std::{collections::BTreeSet, io::Write};

use alloy::primitives::Address;
use cohort_protocol::{
    decision::decide_proposal,
    ids::{DatasetId, ProposalId, RunId},
    json::{CanonicalError, canonical},
};
use serde_json::{Value, json};

use crate::{
    api::{App, Dataset, Proposal, Run},
    event::{AppEvent, RegistryEvent},
    store::{By, Kinds, Recorded, Select, Snapshot, Store, StoreError},
    view::{AppState, DatasetState, ProposalState, RegistryState, RunState},
};

/// Up to here, each integer is a double of its own.
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database mirrors nothing yet.
    #[error("the database mirrors nothing yet; run the indexer first")]
    Empty,
    /// A value has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The output cannot be written.
    #[error("output: {0}")]
    Write(#[from] std::io::Error),
}

/// Writes the dump of a database at its head.
pub async fn dump(store: &Store, out: &mut impl Write) -> Result<(), DumpError> {
    let mut snapshot = store.snapshot().await?;
    let source = snapshot.source().await?.ok_or(DumpError::Empty)?;
    let head = snapshot.head().await?.ok_or(DumpError::Empty)?;
    let (registry, at) = (source.registry, head.number);
    let head_json = json!({ "number": head.number, "hash": head.hash, "timestamp": head.timestamp });
    line(
        out,
        json!({ "format": "cohort-indexer-dump/1", "chain_id": source.chain_id, "registry": registry }),
    )?;
    line(out, json!({ "head": head_json }))?;

    let events: Vec<Recorded<RegistryEvent>> = snapshot.events(everything(registry, at)).await?;
    for row in &events {
        line(out, json!({ "address": registry, "event": row }))?;
    }
    line(out, json!({ "kms": RegistryState::load(&mut snapshot, registry, at).await? }))?;
    let mut seen = BTreeSet::new();
    for row in &events {
        if let RegistryEvent::AppRegistered { app } = row.event
            && app != registry
            && seen.insert(app)
        {
            let events: Vec<Recorded<AppEvent>> = snapshot.events(everything(app, at)).await?;
            for row in &events {
                line(out, json!({ "address": app, "event": row }))?;
            }
            let state = AppState::fold(&events, at);
            let datasets: Vec<_> =
                events.iter().filter(|row| row.event.kind() == "dataset_registered").cloned().collect();
            line(out, json!({ "app": App::of(app, row.stamp, &state, &datasets) }))?;
            for value in parts(&mut snapshot, app, &state, &events, (at, head.timestamp)).await? {
                line(out, value)?;
            }
        }
    }
    Ok(())
}

fn everything(address: Address, at: u64) -> Select<'static> {
    Select::new(address, By::Contract, Kinds::All, at)
}

/// Proposals, datasets and runs of one app, each in the order of its first event.
async fn parts(
    snapshot: &mut Snapshot,
    app: Address,
    state: &AppState,
    events: &[Recorded<AppEvent>],
    (at, time): (u64, u64),
) -> Result<Vec<Value>, StoreError> {
    let mut values = Vec::new();
    let mut seen = BTreeSet::new();
    for row in events {
        let keys = row.event.keys();
        if let Some(id) = keys.proposal_id.filter(|id| seen.insert(("proposal", *id))).map(ProposalId) {
            let proposal = ProposalState::load(snapshot, app, id, at).await?;
            let decision = decide_proposal(&state.facts(time), proposal.facts().as_ref());
            values.push(json!({ "app": app, "proposal": Proposal::of(id, state, &proposal, [decision; 2]) }));
        }
        if let Some(id) = keys.dataset_id.filter(|id| seen.insert(("dataset", *id))).map(DatasetId) {
            let rows = DatasetState::rows(snapshot, app, id, at).await?;
            let dataset = DatasetState::fold(id, &rows, at);
            values.extend(
                dataset.map(|dataset| json!({ "app": app, "dataset": Dataset::of(state, &dataset) })),
            );
        }
        if let Some(id) = keys.run_id.filter(|id| seen.insert(("run", *id))).map(RunId) {
            let run = RunState::load(snapshot, app, id, at).await?;
            values.extend(run.map(|run| json!({ "app": app, "run": Run::of(state, &run) })));
        }
    }
    Ok(values)
}

fn line(out: &mut impl Write, mut value: Value) -> Result<(), DumpError> {
    exact(&mut value);
    out.write_all(&canonical(&value)?)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// RFC 8785 writes numbers as doubles. An integer that has none is told as a string, so that no two states look alike.
fn exact(value: &mut Value) {
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|integer| integer > LARGEST_EXACT) => {
            *value = Value::String(number.to_string());
        }
        Value::Array(items) => items.iter_mut().for_each(exact),
        Value::Object(fields) => fields.values_mut().for_each(exact),
        _ => {}
    }
}
