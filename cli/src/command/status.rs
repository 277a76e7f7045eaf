//! `cohort status`: the quorum card of a proposal, as the indexer mirrors it.

use clap::Args;
use cohort_protocol::ids::ProposalId;
use serde_json::Value;

use crate::{config::Settings, failure::Outcome, http::Service};

/// Arguments of `cohort status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Proposal to show.
    #[arg(long)]
    proposal: ProposalId,
}

/// Prints the card.
pub async fn run(settings: &Settings, args: &StatusArgs) -> Outcome {
    let service = Service::new("the indexer", settings.indexer_url()?)?;
    let path = format!("v1/apps/{:#x}/proposals/{}", settings.app()?, args.proposal);
    let card: Value = service.get(&path).await?.ready("the indexer")?;
    println!("{card:#}");
    Ok(())
}
