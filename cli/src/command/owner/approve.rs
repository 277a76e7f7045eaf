//! `cohort approve`, `relay`, `reject`, `revoke`: an owner's word, by transaction or by signature.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
};

use alloy::{
    primitives::{Address, Bytes},
    signers::SignerSync,
};
use clap::Args;
use cohort_protocol::{
    abi, eip712,
    ids::{OwnerId, ProposalId},
    recipe::{Language, Recipe},
    terms::Terms,
};
use serde::{Deserialize, Serialize};

use super::terms;
use crate::{
    chain::{self, App},
    config::Settings,
    failure::{Failure, Outcome},
    files::{self, KeyArg},
};

/// Arguments of `cohort approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Terms to approve (made by `cohort terms`).
    #[arg(long)]
    terms: PathBuf,
    /// Which owner approves.
    #[arg(long)]
    owner: OwnerId,
    #[command(flatten)]
    key: KeyArg,
    /// Only sign; somebody else submits the file with `cohort relay`, and this owner needs no gas.
    #[arg(long, requires = "out")]
    sign_only: bool,
    /// Where to write the signature.
    #[arg(long, requires = "sign_only")]
    out: Option<PathBuf>,
    /// Hours for which the signature may be submitted.
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=720))]
    hours: u64,
    /// Do not ask; for scripts.
    #[arg(long)]
    yes: bool,
}

/// Arguments of `cohort relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Signature files of `cohort approve --sign-only`, all for the same terms.
    #[arg(required = true)]
    approvals: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyArg,
}

/// Arguments of `cohort reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Proposal to reject.
    #[arg(long)]
    proposal: ProposalId,
    /// Why, at most 256 bytes; public and permanent: name no person.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    key: KeyArg,
}

/// Arguments of `cohort revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Proposal to stop for good.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    proposal: Option<ProposalId>,
    /// Stop every proposal of this consortium.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    key: KeyArg,
}

/// A signed approval on its way to a relayer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalFile {
    format: String,
    chain_id: u64,
    app: Address,
    terms: Terms,
    /// The owner's account.
    owner: Address,
    deadline: u64,
    signature: Bytes,
}

const APPROVAL_FORMAT: &str = "cohort-approval/1";

/// Approves by transaction, or signs for a relayer.
pub async fn approve(settings: &Settings, args: &ApproveArgs) -> Outcome {
    if let Some(out) = &args.out {
        files::refuse_existing(out)?;
    }
    let (wanted, recipe) = terms::read_terms(settings, &args.terms)?;
    let signer = args.key.signer()?;
    let app = App::connect_with(settings, signer.clone()).await?;
    let owner = app.owner(&args.owner).await?;
    if owner.account != signer.address() {
        return Err(Failure::input(
            format!(
                "the key is for {}, but {} approves with {}",
                signer.address(),
                args.owner,
                owner.account
            ),
            "give the key file of that account",
        ));
    }
    show(&wanted, recipe.as_ref());
    confirm(args.yes, "approve")?;
    let Some(out) = &args.out else {
        return approve_by_transaction(settings, &app, &wanted, &args.owner).await;
    };
    let deadline = terms::now()? + args.hours * 3600;
    let message = abi::Approve { owner: owner.account, terms: wanted.abi(), deadline };
    let digest = eip712::digest(&message, &eip712::app_domain(app.chain_id, app.address()));
    let signature = signer.sign_hash_sync(&digest).map_err(|e| Failure::input(e, "check the key file"))?;
    let file = ApprovalFile {
        format: APPROVAL_FORMAT.to_owned(),
        chain_id: app.chain_id,
        app: app.address(),
        terms: wanted,
        owner: owner.account,
        deadline,
        signature: signature.as_bytes().to_vec().into(),
    };
    files::write_json(out, &file)?;
    println!("{} signed {} -> {}", args.owner, file.terms.proposal_id(), out.display());
    Ok(())
}

async fn approve_by_transaction(settings: &Settings, app: &App, terms: &Terms, owner: &OwnerId) -> Outcome {
    let receipt = chain::transact(app.contract.approve(terms.abi()), "approve").await?;
    report(settings, &format!("{owner} approved"), terms.proposal_id(), receipt.transaction_hash)
}

/// Submits owners' signatures in one transaction.
pub async fn relay(settings: &Settings, args: &RelayArgs) -> Outcome {
    let signer = args.key.signer()?;
    let app = App::connect_with(settings, signer).await?;
    let mut batch = Vec::with_capacity(args.approvals.len());
    let mut wanted: Option<Terms> = None;
    for path in &args.approvals {
        let file: ApprovalFile = files::read_json(path, "a signature of cohort approve --sign-only")?;
        check_approval(&app, path, &file)?;
        if wanted.as_ref().is_some_and(|terms| *terms != file.terms) {
            return Err(Failure::input(
                format!("{} is for other terms than the first file", path.display()),
                "relay one proposal at a time",
            ));
        }
        batch.push(abi::SignedApproval {
            owner: file.owner,
            deadline: file.deadline,
            signature: file.signature,
        });
        wanted = Some(file.terms);
    }
    let Some(terms) = wanted else { return Err(Failure::input("no signature is given", "name the files")) };
    let receipt = chain::transact(app.contract.approveBySig(terms.abi(), batch), "relay approvals").await?;
    report(settings, "relayed", terms.proposal_id(), receipt.transaction_hash)
}

fn check_approval(app: &App, path: &std::path::Path, file: &ApprovalFile) -> Outcome {
    if file.format != APPROVAL_FORMAT {
        return Err(Failure::input(
            format!("{} has format {:?}, not {APPROVAL_FORMAT}", path.display(), file.format),
            "use a file of cohort approve --sign-only of this version",
        ));
    }
    if file.chain_id != app.chain_id || file.app != app.address() {
        return Err(Failure::input(
            format!(
                "{} is for chain {} and contract {}, not for chain {} and {}",
                path.display(),
                file.chain_id,
                file.app,
                app.chain_id,
                app.address()
            ),
            "an approval is good for one chain and one contract",
        ));
    }
    Ok(())
}

/// Records that an owner will not approve.
pub async fn reject(settings: &Settings, args: &RejectArgs) -> Outcome {
    if args.reason.len() > 256 {
        return Err(Failure::input("the reason is longer than 256 bytes", "shorten it"));
    }
    let app = App::connect_with(settings, args.key.signer()?).await?;
    let call = app.contract.reject(args.proposal.0, args.reason.clone());
    let receipt = chain::transact(call, "reject").await?;
    report(settings, "rejected", args.proposal, receipt.transaction_hash)
}

/// Stops one proposal, or all, for good.
pub async fn revoke(settings: &Settings, args: &RevokeArgs) -> Outcome {
    let app = App::connect_with(settings, args.key.signer()?).await?;
    let receipt = match args.proposal {
        Some(id) => chain::transact(app.contract.revoke(id.0), "revoke").await?,
        None => chain::transact(app.contract.revokeAll(), "revoke").await?,
    };
    let scope = args.proposal.map_or("all proposals".to_owned(), |id| format!("proposal {id}"));
    if settings.json {
        println!(
            "{}",
            serde_json::json!({ "revoked": scope, "transaction": receipt.transaction_hash, "gas": receipt.gas_used })
        );
    } else {
        println!("revoked {scope}");
        println!("transaction {}, {} gas", receipt.transaction_hash, receipt.gas_used);
        println!(
            "from this block on: no key, no new run, no receipt. What a run has already released stays released."
        );
    }
    Ok(())
}

fn report(settings: &Settings, what: &str, id: ProposalId, transaction: alloy::primitives::B256) -> Outcome {
    if settings.json {
        println!("{}", serde_json::json!({ "proposal_id": id, "transaction": transaction }));
    } else {
        println!("{what} proposal {id}");
        println!("transaction {transaction}");
    }
    Ok(())
}

/// What is about to be approved, in words and as hashes.
fn show(wanted: &Terms, recipe: Option<&Recipe>) {
    match recipe {
        Some(recipe) => eprintln!("{}", recipe.explain(Language::English)),
        None => eprintln!(
            "cohort: no app-compose file is given, so only hashes can be shown; --compose shows the recipe"
        ),
    }
    eprintln!("proposal      {}", wanted.proposal_id());
    eprintln!("compose-hash  {}", wanted.compose_hash);
    eprintln!("privacy       epsilon {} per run, {} in all", wanted.epsilon_per_run, wanted.epsilon_budget);
    for line in terms::limits(wanted) {
        eprintln!("{line}");
    }
    eprintln!("ends          {}", date(wanted.expiry));
}

/// Unix seconds as people read them.
fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    date.map_or_else(
        || format!("{seconds} (Unix time)"),
        |date| date.format("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

fn confirm(yes: bool, verb: &str) -> Outcome {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::input(
            format!("will not {verb} without a yes"),
            "answer on a terminal, or give --yes",
        ));
    }
    eprint!("{verb} this? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::input(e, "answer y or n"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::refused("nothing was signed", "read the recipe, then decide"))
}
