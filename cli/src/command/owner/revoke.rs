//! `cohort revoke`: one owner, one transaction. It never waits for anything but the chain.

use alloy::primitives::Address;
use clap::Args;
use cohort_protocol::ids::{OwnerId, ProposalId};

use super::{confirm, delivery::Delivery, word::Word};
use crate::{
    chain::App,
    config::Settings,
    failure::{self, Failure, Outcome},
    key::Account,
};

/// Arguments of `cohort revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Proposal to stop for good.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    proposal: Option<ProposalId>,
    /// Stop every proposal of this consortium.
    #[arg(long)]
    all: bool,
    /// Which owner revokes, where no key of its own is given here (--export, --import, --dry-run).
    #[arg(long)]
    owner: Option<OwnerId>,
    /// With --owner: its revocation key signs, not its account.
    #[arg(long, requires = "owner")]
    revocation_key: bool,
    #[command(flatten)]
    delivery: Delivery,
}

/// Stops one proposal, or all, for good.
pub async fn revoke(settings: &Settings, args: &RevokeArgs) -> Outcome {
    args.delivery.check()?;
    let own = match args.delivery.signs_here() {
        true => Some(args.delivery.account.open().await?),
        false => None,
    };
    let app = App::connect(settings).await?;
    let account = stopper(args, &app, own.as_ref()).await?;
    let word = match args.proposal {
        Some(id) => Word::Revoke(id),
        None => Word::RevokeAll { era: app.contract.config().call().await.map_err(failure::contract)?.era },
    };
    if args.delivery.decides() {
        show(&word, account);
        confirm::offer(args.delivery.yes, "revoke")?;
    }
    args.delivery.carry_out(settings, app, &word, account, own).await
}

/// The account or revocation key that revokes.
async fn stopper(args: &RevokeArgs, app: &App, own: Option<&Account>) -> Outcome<Address> {
    let key = own.map(Account::address);
    let Some(name) = &args.owner else {
        return key.ok_or_else(|| Failure::input("whose revocation it is, is not said", "give --owner"));
    };
    let owner = app.owner(name).await?;
    let (account, what) = match args.revocation_key {
        true => (owner.revoker, "revocation key"),
        false => (owner.account, "account"),
    };
    if account.is_zero() {
        return Err(Failure::input(format!("{name} has no {what}"), "leave --revocation-key out"));
    }
    match key {
        Some(key) if key != account => Err(Failure::input(
            format!("the key is for {key}, but the {what} of {name} is {account}"),
            "give the key of that account",
        )),
        _ => Ok(account),
    }
}

fn show(word: &Word, account: Address) {
    eprintln!("revokes       {}, as {account}", word.subject());
    eprintln!(
        "stops         every key release, every new run and every receipt, from its block on; nobody can undo it"
    );
    eprintln!("cannot undo   results that were released, and what they spent of the privacy budget");
}
