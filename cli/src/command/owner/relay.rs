//! `cohort relay`: owners' signatures, by anybody's transaction.

use std::path::PathBuf;

use alloy::{primitives::Bytes, sol_types::SolCall};
use clap::Args;
use cohort_protocol::abi::{self, IDstackApp::approveBySigCall};

use super::{delivery, file::Signed, word::Word};
use crate::{
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    key::AccountArg,
};

/// Arguments of `cohort relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Files of `cohort approve --sign-only`, all for the same terms, or one of `cohort revoke --sign-only`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    account: AccountArg,
    /// Only simulate: say what would be sent, and what it costs.
    #[arg(long)]
    dry_run: bool,
}

/// Submits signatures in one transaction.
pub async fn relay(settings: &Settings, args: &RelayArgs) -> Outcome {
    let account = args.account.open().await?;
    let from = account.address();
    let app = App::connect_with(settings, account).await?;
    let mut signed = Vec::with_capacity(args.files.len());
    for path in &args.files {
        let file = Signed::read(path, &app)?;
        let same = signed.first().is_none_or(|first: &Signed| first.word == file.word);
        if !same {
            return Err(Failure::input(
                format!("{} is for other terms than the first file", path.display()),
                "relay one proposal at a time",
            ));
        }
        signed.push(file);
    }
    let (word, data) = batch(signed)?;
    if args.dry_run {
        return delivery::rehearse(settings, &app, data, from).await;
    }
    delivery::submit(settings, &app, data, &word, "relayed").await
}

/// One call for all of them.
fn batch(signed: Vec<Signed>) -> Outcome<(Word, Bytes)> {
    let more = signed.len() > 1;
    let Some(first) = signed.first() else {
        return Err(Failure::input("no signature is given", "name the files"));
    };
    let word = first.word.clone();
    let Word::Approve(terms) = &word else {
        if more {
            return Err(Failure::input("one revocation stops it already", "relay one file"));
        }
        let data = word.call_by_signature(first.owner, first.deadline, first.signature.clone());
        return Ok((word, data));
    };
    let approvals = signed
        .into_iter()
        .map(|Signed { owner, deadline, signature, .. }| abi::SignedApproval { owner, deadline, signature })
        .collect();
    let data = approveBySigCall { terms: terms.abi(), approvals }.abi_encode().into();
    Ok((word, data))
}
