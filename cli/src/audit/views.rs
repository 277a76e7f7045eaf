//! What the events add up to, held against what the contract answers at the same block.

use std::{collections::BTreeSet, fmt::Debug};

use alloy::{eips::BlockId, primitives::B256};

use super::{Finding, Severity, history::History};
use crate::{
    chain::App,
    failure::{self, Outcome},
};

struct Comparison<'a> {
    made: usize,
    findings: &'a mut Vec<Finding>,
}

impl Comparison<'_> {
    fn same<T: PartialEq + Debug>(&mut self, what: &str, events: T, view: T) {
        self.made += 1;
        if events != view {
            self.findings.push(Finding {
                severity: Severity::Violation,
                code: "view_differs",
                text: format!("{what}: the events say {events:?}, the contract answers {view:?}"),
                block: None,
            });
        }
    }
}

/// Compares everything that has a view; returns how many answers were compared.
pub(super) async fn compare(
    app: &App,
    at: BlockId,
    history: &History,
    findings: &mut Vec<Finding>,
) -> Outcome<usize> {
    let mut c = Comparison { made: 0, findings };
    let contract = &app.contract;
    let config = contract.config().block(at).call().await.map_err(failure::contract)?;
    c.same("listed owners", history.active_owners(), config.activeOwners);
    c.same("threshold", history.threshold, config.threshold);
    c.same("era", history.era, config.era);
    c.same("configuration version", history.config_version, config.version);
    c.same("governance delay", history.governance_delay_seconds, config.governanceDelaySeconds);
    let root = contract.kmsRoot().block(at).call().await.map_err(failure::contract)?;
    c.same("KMS root", history.kms_root, root);
    boot(app, at, history, &mut c).await?;
    owners(app, at, history, &mut c).await?;
    proposals(app, at, history, &mut c).await?;
    for run in &history.runs {
        let view = contract.run(run.run_id).block(at).call().await.map_err(failure::contract)?;
        let digest = run.receipt.as_ref().map_or(B256::ZERO, |receipt| receipt.digest);
        let open = if run.receipt.is_none() { run.proposal_id } else { B256::ZERO };
        let events = (open, run.opened_time, digest);
        c.same(&format!("run {}", run.run_id), events, (view.openProposalId, view.openedAt, view.digest));
    }
    for dataset in history.datasets.values() {
        let view = contract.dataset(dataset.dataset_id).block(at).call().await.map_err(failure::contract)?;
        let events = (true, dataset.superseded, dataset.owner_index, dataset.compose_hash);
        let answer = (view.registered, view.superseded, view.ownerIndex, view.composeHash);
        c.same(&format!("dataset {}", dataset.dataset_id), events, answer);
    }
    Ok(c.made)
}

async fn boot(app: &App, at: BlockId, history: &History, c: &mut Comparison<'_>) -> Outcome {
    let contract = &app.contract;
    let any = contract.allowAnyDevice().block(at).call().await.map_err(failure::contract)?;
    c.same("any device may boot", history.allow_any_device, any);
    let tcb = contract.requireTcbUpToDate().block(at).call().await.map_err(failure::contract)?;
    c.same("up-to-date TCB to boot", history.require_tcb_up_to_date, tcb);
    for device in &history.devices {
        let listed = contract.allowedDeviceIds(*device).block(at).call().await.map_err(failure::contract)?;
        c.same(&format!("device {device}"), true, listed);
    }
    for analyst in &history.analysts {
        let listed = contract.isAnalyst(*analyst).block(at).call().await.map_err(failure::contract)?;
        c.same(&format!("analyst {analyst}"), true, listed);
    }
    for agent in &history.revoked_agents {
        let revoked = contract.agentRevoked(*agent).block(at).call().await.map_err(failure::contract)?;
        c.same(&format!("revoked agent {agent}"), true, revoked);
    }
    Ok(())
}

async fn owners(app: &App, at: BlockId, history: &History, c: &mut Comparison<'_>) -> Outcome {
    let view = app.contract.owners().block(at).call().await.map_err(failure::contract)?;
    let listed: Vec<_> =
        view.indexes.iter().zip(&view.list).map(|(i, o)| (*i, o.account, o.revoker)).collect();
    let events = history.owners.values().filter(|owner| owner.listed);
    let events: Vec<_> = events.map(|owner| (owner.index, owner.account, owner.revoker)).collect();
    c.same("accounts of the owners", events, listed);
    for owner in history.owners.values().filter(|owner| owner.listed) {
        let view = app.contract.ownerBudget(owner.index).block(at).call().await.map_err(failure::contract)?;
        let answer = (view.epsilonCap, view.epsilonCommitted, view.deltaCap, view.deltaCommitted);
        let events = (owner.cap.epsilon.0, owner.summed.epsilon.0, owner.cap.delta, owner.summed.delta);
        c.same(&format!("lifetime budget of {}", owner.owner_id), events, answer);
    }
    Ok(())
}

async fn proposals(app: &App, at: BlockId, history: &History, c: &mut Comparison<'_>) -> Outcome {
    for (id, proposal) in &history.proposals {
        let view = app.contract.proposal(*id).block(at).call().await.map_err(failure::contract)?;
        let name = format!("proposal {id}");
        c.same(&name, proposal.approved(), view.approvals);
        // An unknown one may still have been revoked; nothing else is stored of it.
        c.same(&name, (proposal.revoked, proposal.superseded), (view.revoked, view.superseded));
        let runs = history.runs.iter().filter(|run| run.proposal_id == *id).count();
        c.same(&name, u64::try_from(runs).ok(), Some(view.runs));
        let decision =
            app.contract.proposalDecision(*id).block(at).call().await.map_err(failure::contract)?;
        let decision = cohort_protocol::decision::Decision::try_from(decision as u8).ok();
        c.same(&format!("decision on proposal {id}"), proposal.decision, decision);
    }
    let composes: BTreeSet<B256> = history
        .proposals
        .values()
        .filter_map(|proposal| Some(proposal.terms.as_ref()?.compose_hash.0))
        .collect();
    for compose in composes {
        let view = app.contract.currentProposal(compose).block(at).call().await.map_err(failure::contract)?;
        let events = history.current.get(&compose).copied().unwrap_or_default();
        c.same(&format!("proposal of compose hash {compose}"), events, view);
    }
    Ok(())
}
