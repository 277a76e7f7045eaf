//! `cohort approve`.

use std::path::PathBuf;

use clap::Args;
use cohort_protocol::ids::OwnerId;

use super::{confirm, delivery::Delivery, review, word::Word};
use crate::{
    chain::App,
    command::terms,
    config::Settings,
    failure::{self, Failure, Outcome},
};

/// Arguments of `cohort approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Terms to approve (made by `cohort terms`).
    #[arg(long, value_name = "FILE")]
    terms: PathBuf,
    /// Which owner approves.
    #[arg(long)]
    owner: OwnerId,
    /// The app-compose file that was approved before, to be told what differs.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    #[command(flatten)]
    delivery: Delivery,
}

/// Approves terms whose recipe is at hand, and no others.
pub async fn approve(settings: &Settings, args: &ApproveArgs) -> Outcome {
    args.delivery.check()?;
    let compose = settings.compose()?;
    let (wanted, recipe) = terms::read_matching(&args.terms, compose)?;
    let app = App::connect(settings).await?;
    let owner = app.owner(&args.owner).await?;
    let own = match args.delivery.signs_here() {
        true => Some(args.delivery.account.open().await?),
        false => None,
    };
    if let Some(key) = own.as_ref().map(crate::key::Account::address).filter(|key| *key != owner.account) {
        return Err(Failure::input(
            format!("the key is for {key}, but {} approves with {}", args.owner, owner.account),
            "give the key of that account; for a Safe: --export, then --import",
        ));
    }
    let word = Word::Approve(Box::new(wanted));
    // The contract's refusal, before anybody reads and decides in vain.
    app.raw(word.call()).from(owner.account).call().await.map_err(failure::contract)?;
    if let Word::Approve(wanted) = &word {
        review::show(&app, wanted, &recipe, compose, &owner, args.previous.as_ref()).await?;
        review::rehearsal(&app, &args.terms, wanted, &recipe).await?;
    }
    if args.delivery.decides() {
        confirm::require(args.delivery.yes, "approve")?;
    }
    args.delivery.carry_out(settings, app, &word, owner.account, own).await
}
