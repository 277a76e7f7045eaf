//! `cohort status`: the quorum card of a proposal, as the indexer mirrors it.

use clap::Args;
use cohort_protocol::{
    decision::Decision,
    ids::{OwnerId, ProposalId},
    loss::Epsilon,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    http::Service,
};

/// Arguments of `cohort status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Proposal to show.
    #[arg(long)]
    proposal: ProposalId,
}

/// The fields of the indexer's proposal (docs/spec/indexer-api.md) that the card shows.
#[derive(Deserialize)]
struct Card {
    quorum: Quorum,
    approvals: Vec<Approval>,
    awaiting: Vec<Awaited>,
    rejections: Vec<Value>,
    budget: Option<Budget>,
    decision: Decisions,
}

#[derive(Deserialize)]
struct Quorum {
    signed: u32,
    threshold: u32,
    owners: u32,
}

#[derive(Deserialize)]
struct Approval {
    owner: OwnerId,
    by_signature: bool,
    counts: bool,
}

#[derive(Deserialize)]
struct Awaited {
    owner: OwnerId,
}

#[derive(Deserialize)]
struct Budget {
    epsilon_budget: Epsilon,
    epsilon_left: Epsilon,
}

#[derive(Deserialize)]
struct Decisions {
    head: Decision,
    confirmed: Decision,
}

/// Prints the card.
pub async fn run(settings: &Settings, args: &StatusArgs) -> Outcome {
    let service = Service::new("the indexer", settings.indexer_url()?)?;
    let path = format!("v1/apps/{:#x}/proposals/{}", settings.app()?, args.proposal);
    let answer: Value = service.get(&path).await?.ready("the indexer")?;
    if settings.json {
        println!("{answer:#}");
        return Ok(());
    }
    let card: Card = serde_json::from_value(answer).map_err(|e| {
        Failure::unreachable(
            format!("the indexer's answer is not of this version: {e}"),
            "use matching versions",
        )
    })?;
    print(args.proposal, &card);
    Ok(())
}

fn print(id: ProposalId, card: &Card) {
    println!("proposal {id}");
    for approval in &card.approvals {
        let how = if approval.by_signature { "by signature" } else { "by transaction" };
        let counts = if approval.counts { "" } else { ", no longer an owner" };
        println!("  {:<16} signed, {how}{counts}", approval.owner);
    }
    for awaited in &card.awaiting {
        println!("  {:<16} awaiting", awaited.owner);
    }
    let Quorum { signed, threshold, owners } = card.quorum;
    println!("  {signed} / {owners} signed, {threshold} needed; {} rejections", card.rejections.len());
    if let Some(budget) = &card.budget {
        println!("  epsilon {} of {} left", budget.epsilon_left, budget.epsilon_budget);
    }
    let release = match (card.decision.head, card.decision.confirmed) {
        (Decision::Allow, Decision::Allow) => "open to owners that have signed".to_owned(),
        (Decision::Allow, _) => "waiting: approvals must age".to_owned(),
        (Decision::NoQuorum, _) => format!("waiting ({})", Decision::NoQuorum.hint()),
        (reason, _) => format!("refused: {reason} ({})", reason.hint()),
    };
    println!("  key release      {release}");
}
