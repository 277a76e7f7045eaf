//! JSON of each answer. Field tables are in `docs/spec/indexer-api.md`.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use cohort_protocol::{decision::Decision, ids::ProposalId, loss::Epsilon};
use serde_json::{Map, Value, json};

use crate::{
    event::AppEvent,
    store::{Recorded, Stamp},
    value::{Delta, OwnerSet, grade_names},
    view::{AppState, DatasetState, OwnerState, Positions, ProposalState, RunState},
};

/// A body with the chain and the positions it holds at.
pub(super) struct Answer(Map<String, Value>);

impl Answer {
    pub(super) fn new(positions: &Positions, body: Value) -> Self {
        let mut answer = match body {
            Value::Object(fields) => fields,
            other => Map::from_iter([("body".to_owned(), other)]),
        };
        answer.insert("chain_id".to_owned(), json!(positions.source.chain_id));
        answer.insert("head".to_owned(), json!(positions.head));
        answer.insert("confirmed".to_owned(), json!(positions.confirmed));
        Self(answer)
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A page of items; `next` is where to go on, `null` at the end.
pub(super) fn page_json<E>(name: &str, items: Vec<Value>, rows: &[Recorded<E>], limit: u32) -> Value {
    let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
    let next = rows.last().filter(|_| full).map(|row| row.stamp.cursor);
    let mut page = Map::from_iter([("next".to_owned(), json!(next))]);
    page.insert(name.to_owned(), Value::Array(items));
    Value::Object(page)
}

pub(crate) fn app_json(
    app: Address,
    registered: Stamp,
    state: &AppState,
    datasets: &[Recorded<AppEvent>],
) -> Value {
    let (listed, former): (Vec<_>, Vec<_>) = state.owners.values().partition(|owner| owner.listed);
    let (current, records) = current_datasets(state, datasets);
    json!({
        "app": app,
        "supported": state.supported(),
        "registered": registered,
        "created": state.created,
        "name": state.name,
        "sector": state.sector,
        "threshold": state.threshold,
        "era": state.era,
        "kms_root": state.kms_root,
        "governance_delay_seconds": state.governance_delay_seconds,
        "successor": state.successor,
        "owners": listed.into_iter().map(owner_json).collect::<Vec<_>>(),
        "former_owners": former.into_iter().map(owner_json).collect::<Vec<_>>(),
        "analysts": state.analysts,
        "revoked_agents": state.revoked_agents,
        "boot": {
            "allow_any_device": state.allow_any_device,
            "require_tcb_up_to_date": state.require_tcb_up_to_date,
            "compose_hashes": state.boot_compose_hashes,
            "devices": state.devices,
        },
        "datasets": current,
        "records": records,
    })
}

/// Number of datasets in force, and the records behind them: for each listed owner its largest dataset, since an owner
/// seals the same records afresh for each recipe.
fn current_datasets(state: &AppState, datasets: &[Recorded<AppEvent>]) -> (usize, u64) {
    let registered = || {
        datasets.iter().filter_map(|row| match &row.event {
            AppEvent::DatasetRegistered { owner_index, info, .. } => Some((*owner_index, info)),
            _ => None,
        })
    };
    let replaced: Vec<_> = registered().filter_map(|(_, info)| info.supersedes).collect();
    let active = state.active_owners();
    let current: Vec<_> = registered()
        .filter(|(index, info)| active.contains(*index) && !replaced.contains(&info.dataset_id))
        .collect();
    let mut largest = BTreeMap::<u8, u64>::new();
    for (index, info) in &current {
        let records = largest.entry(*index).or_default();
        *records = info.records.max(*records);
    }
    (current.len(), largest.values().fold(0, |sum, records| sum.saturating_add(*records)))
}

fn owner_json(owner: &OwnerState) -> Value {
    json!({
        "owner": owner.owner,
        "index": owner.index,
        "account": owner.account,
        "revoker": owner.revoker,
        "pending_account": owner.pending_account,
        "jurisdiction": owner.jurisdiction,
        "grades": grade_names(owner.grades),
        "budget": {
            "epsilon_cap": owner.epsilon_cap,
            "epsilon_committed": owner.epsilon_committed,
            "epsilon_left": Epsilon(owner.epsilon_cap.0.saturating_sub(owner.epsilon_committed.0)),
            "delta_cap": owner.delta_cap,
            "delta_committed": owner.delta_committed,
            "delta_left": owner.delta_cap.saturating_sub(owner.delta_committed),
        },
        "added": owner.added,
    })
}

/// An owner index with its name; 255 stands for the contract acting for a quorum and has none.
fn owner_ref(state: &AppState, index: u8) -> Value {
    json!({ "owner": state.owners.get(&index).map(|owner| owner.owner), "index": index })
}

fn owner_refs(state: &AppState, owners: OwnerSet) -> Vec<Value> {
    owners.indexes().map(|index| owner_ref(state, index)).collect()
}

fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut object, more) {
        fields.extend(more);
    }
    object
}

pub(crate) fn proposal_json(
    id: ProposalId,
    state: &AppState,
    proposal: &ProposalState,
    [head, confirmed]: [Decision; 2],
) -> Value {
    let active = state.active_owners();
    let created = proposal.created.as_ref();
    let snapshot = created.map(|(_, threshold, _)| *threshold);
    let signed = OwnerSet(proposal.approvals.0 & active.0);
    let approvals = proposal.approved.iter().map(|(index, approval)| {
        let how = json!({
            "by_signature": approval.by_signature, "counts": signed.contains(*index), "at": approval.stamp,
        });
        with(owner_ref(state, *index), how)
    });
    let rejections = proposal.rejections.iter().map(|rejection| {
        with(
            owner_ref(state, rejection.owner_index),
            json!({ "reason": rejection.reason, "at": rejection.stamp }),
        )
    });
    let revocation = proposal.revocation.map(|revoked| {
        with(owner_ref(state, revoked.owner_index), json!({ "by": revoked.by, "at": revoked.stamp }))
    });
    let superseded_by = proposal.superseded_by.map(|(id, at)| json!({ "proposal_id": id, "at": at }));
    json!({
        "proposal_id": id,
        "terms": created.map(|(terms, ..)| terms),
        "created": created.map(|(.., stamp)| stamp),
        "threshold_snapshot": snapshot,
        "quorum": {
            "signed": signed.0.count_ones(),
            "threshold": snapshot.unwrap_or_default().max(state.threshold),
            "owners": active.0.count_ones(),
        },
        "approvals": approvals.collect::<Vec<_>>(),
        "awaiting": owner_refs(state, OwnerSet(active.0 & !proposal.approvals.0)),
        "activated": proposal.activated,
        "superseded_by": superseded_by,
        "revocation": revocation,
        "rejections": rejections.collect::<Vec<_>>(),
        "budget": created.map(|(terms, ..)| budget_json(terms, proposal)),
        "decision": { "head": head, "confirmed": confirmed },
    })
}

fn budget_json(terms: &cohort_protocol::terms::Terms, proposal: &ProposalState) -> Value {
    let epsilon_left = terms.epsilon_budget.0.saturating_sub(proposal.epsilon_spent.0);
    let delta_left = terms.delta_budget.saturating_sub(proposal.delta_spent.0);
    let by_epsilon = epsilon_left.checked_div(terms.epsilon_per_run.0).unwrap_or(0);
    let runs_left =
        delta_left.checked_div(terms.delta_per_run).map_or(by_epsilon, |runs| runs.min(by_epsilon));
    json!({
        "epsilon_budget": terms.epsilon_budget,
        "epsilon_spent": proposal.epsilon_spent,
        "epsilon_left": Epsilon(epsilon_left),
        "delta_budget": Delta(terms.delta_budget),
        "delta_spent": proposal.delta_spent,
        "delta_left": Delta(delta_left),
        "runs_left": runs_left,
    })
}

pub(crate) fn dataset_json(state: &AppState, dataset: &DatasetState) -> Value {
    let superseded_by = dataset.superseded_by.map(|(id, at)| json!({ "dataset_id": id, "at": at }));
    let fields = json!({ "registered": dataset.registered, "superseded_by": superseded_by });
    with(with(json!(dataset.info), owner_ref(state, dataset.owner_index)), fields)
}

pub(crate) fn run_json(state: &AppState, run: &RunState) -> Value {
    let receipt = run.posted.as_ref().map(|posted| {
        json!({
            "agent": posted.agent, "receipt": posted.receipt, "digest": posted.digest, "posted": posted.stamp,
        })
    });
    let equivocations = run
        .equivocations
        .iter()
        .map(|other| json!({ "agent": other.agent, "digest": other.digest, "at": other.stamp }));
    json!({
        "run_id": run.run_id,
        "proposal_id": run.proposal_id,
        "analyst": run.analyst,
        "participants": owner_refs(state, run.participants),
        "epsilon": run.epsilon,
        "delta": run.delta,
        "opened": run.opened,
        "status": if run.posted.is_some() { "closed" } else { "open" },
        "receipt": receipt,
        "equivocations": equivocations.collect::<Vec<_>>(),
    })
}

pub(super) fn receipt_json(row: &Recorded<AppEvent>) -> Option<Value> {
    match &row.event {
        AppEvent::ReceiptPosted { run_id, proposal_id, agent, receipt, digest } => Some(json!({
            "run_id": run_id, "proposal_id": proposal_id, "agent": agent, "receipt": receipt, "digest": digest,
            "posted": row.stamp,
        })),
        _ => None,
    }
}
