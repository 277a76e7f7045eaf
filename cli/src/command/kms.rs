//! `cohort kms`: is this the KMS that the consortium agreed on, and where are its keys?

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::kms_log::{self, LogCommand};
use crate::{
    chain::App,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    report::{Report, Verdict},
    root::{self, EvidenceArgs, KnownRoots, Trust, VerifiedRoot},
};

/// `cohort kms …`
#[derive(Debug, Subcommand)]
pub enum KmsCommand {
    /// Check the KMS's root against contract, registry and the quote of its machine, and remember it.
    Verify(VerifyArgs),
    /// Checks the KMS's release log.
    #[command(subcommand)]
    Log(LogCommand),
}

/// Arguments of `cohort kms verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Write the verified root to this new file, for sealing offline.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take a root that is not the remembered one, after all checks.
    #[arg(long)]
    accept_change: bool,
    /// DCAP collateral (JSON) to judge the quote by, instead of what the KMS gives with it.
    #[arg(long)]
    collateral: Option<PathBuf>,
    #[command(flatten)]
    evidence: EvidenceArgs,
}

/// Runs one of them.
pub async fn run(settings: &Settings, command: KmsCommand) -> Outcome {
    let args = match command {
        KmsCommand::Verify(args) => args,
        KmsCommand::Log(command) => return kms_log::run(settings, &command).await,
    };
    if let Some(out) = &args.out {
        files::refuse_existing(out)?;
    }
    let app = App::connect(settings).await?;
    let known = KnownRoots::of(settings)?;
    let stated = root::stated(settings, &app).await?;
    let statement = &stated.answer.statement;
    let before = known.find(statement.chain_id, statement.registry)?;
    let trust = Trust::new(args.evidence, args.collateral);
    let mut verified = root::verify_machine(&app, &stated.answer, &trust).await?;
    let same = before.as_ref().is_none_or(|record| record.same_root(statement));
    verified.report.check("remembered root", same || args.accept_change, remembered(before.as_ref(), same));
    print(settings, &verified.report, &verified.record)?;
    let failures = verified.report.count(Verdict::Failed);
    match &before {
        Some(record) if !same && !args.accept_change && failures == 1 => {
            return Err(root::changed(record, statement));
        }
        _ if failures > 0 => {
            return Err(Failure::refused(
                format!("{failures} of {} checks failed", verified.report.checks.len()),
                "do not seal to this KMS; tell the consortium",
            ));
        }
        _ => {}
    }
    known.remember(&verified.record)?;
    if let Some(out) = &args.out {
        files::write_json(out, &verified.record)?;
    }
    if !settings.json {
        println!("remembered in {}", known.path().display());
    }
    Ok(())
}

fn remembered(before: Option<&VerifiedRoot>, same: bool) -> String {
    match before {
        None => "none was; this one is from now on".into(),
        Some(record) if same => format!("it is the one of {}", record.day()),
        Some(record) => {
            let was = &record.statement;
            format!("it was {}, epoch {}, key {}, on {}", was.root, was.epoch, was.key_id(), record.day())
        }
    }
}

fn print(settings: &Settings, report: &Report<&'static str>, record: &VerifiedRoot) -> Outcome {
    if settings.json {
        let statement = &record.statement;
        let value = serde_json::json!({
            "verified": report.count(Verdict::Failed) == 0,
            "epoch": statement.epoch,
            "root": statement.root,
            "key_id": statement.key_id(),
            "platform": record.platform,
            "machine": record.machine,
            "checks": report.checks,
        });
        println!("{value}");
        return Ok(());
    }
    report.print_lines(true);
    Ok(())
}
