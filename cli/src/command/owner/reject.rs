//! `cohort reject`: an owner's no, on record. The contract takes it by transaction only, so a signer elsewhere is
//! given the transaction itself.

use std::path::PathBuf;

use alloy::{primitives::Bytes, sol_types::SolCall};
use clap::Args;
use cohort_protocol::{
    abi::IDstackApp::rejectCall,
    ids::{OwnerId, ProposalId},
};
use serde_json::json;

use super::{confirm, delivery, unsigned};
use crate::{
    chain::{self, App},
    config::Settings,
    failure::{self, Failure, Outcome},
    files,
    key::{Account, AccountArg},
};

/// Bytes of a reason that the contract takes.
const REASON_LIMIT: usize = 256;

/// Arguments of `cohort reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Proposal to reject.
    #[arg(long)]
    proposal: ProposalId,
    /// Why, at most 256 bytes; public and permanent: name no person.
    #[arg(long)]
    reason: String,
    /// Which owner rejects, where no key of its own is given here (--export, --import, --dry-run).
    #[arg(long)]
    owner: Option<OwnerId>,
    #[command(flatten)]
    account: AccountArg,
    /// Write the unsigned transaction for a signer elsewhere; needs no key here, and gas on the owner's account.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["import", "dry_run"], requires = "owner")]
    export: Option<PathBuf>,
    /// The transaction signed elsewhere: 0x hex, or a file with it. It is checked, then submitted.
    #[arg(long, value_name = "TRANSACTION", conflicts_with = "dry_run", requires = "owner")]
    import: Option<String>,
    /// Only simulate: say what would be sent, and what it costs.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; for scripts.
    #[arg(long)]
    yes: bool,
}

/// Records that an owner will not approve.
pub async fn reject(settings: &Settings, args: &RejectArgs) -> Outcome {
    if args.reason.len() > REASON_LIMIT {
        return Err(Failure::input(format!("the reason is longer than {REASON_LIMIT} bytes"), "shorten it"));
    }
    args.export.iter().try_for_each(|path| files::refuse_existing(path))?;
    let elsewhere = args.export.is_some() || args.import.is_some();
    let own = match !elsewhere && (!args.dry_run || args.account.is_given()) {
        true => Some(args.account.open().await?),
        false => None,
    };
    let app = App::connect(settings).await?;
    let listed = match &args.owner {
        Some(name) => Some(app.owner(name).await?.account),
        None => None,
    };
    let from = listed
        .or(own.as_ref().map(Account::address))
        .ok_or_else(|| Failure::input("whose rejection it is, is not said", "give --owner"))?;
    if let Some(key) = own.as_ref().map(Account::address).filter(|key| *key != from) {
        return Err(Failure::input(
            format!("the key is for {key}, but that owner's account is {from}"),
            "give the key of that account",
        ));
    }
    let data: Bytes =
        rejectCall { proposalId: args.proposal.0, reason: args.reason.clone() }.abi_encode().into();
    if args.dry_run {
        return delivery::rehearse(settings, &app, data, from).await;
    }
    app.raw(data.clone()).from(from).call().await.map_err(failure::contract)?;
    if let Some(path) = &args.export {
        return unsigned::write(settings, &app, data, from, path).await;
    }
    eprintln!("rejects       proposal {}, as {from}", args.proposal);
    eprintln!("reason        {:?}, public and permanent; it stops nothing by itself", args.reason);
    confirm::offer(args.yes, "reject")?;
    let receipt = match (&args.import, own) {
        (Some(signed), _) => unsigned::submit(&app, &data, from, signed).await?,
        (None, Some(own)) => chain::transact(app.paid_by(settings, own)?.raw(data), "reject").await?,
        (None, None) => return Err(Failure::input("no key is given", "give --key-file")),
    };
    if settings.json {
        println!("{}", json!({ "proposal_id": args.proposal, "transaction": receipt.transaction_hash }));
    } else {
        println!("rejected proposal {}", args.proposal);
        println!("transaction {}", receipt.transaction_hash);
    }
    Ok(())
}
