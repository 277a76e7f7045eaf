//! `cohort verify`: re-checks one result file, line by line, and says what each line rests on.

use std::path::{Path, PathBuf};

use alloy::primitives::{Address, B256};
use clap::Args;
use cohort_agent::run::RunResult;
use cohort_attestation::Policy;
use cohort_protocol::{eip712, sign_rpc};

use super::gpu::GoldenArgs;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
    verify::{self, Known, Name, Report, Verdict},
};

/// Arguments of `cohort verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The result file of `cohort run`.
    file: PathBuf,
    /// The KMS root that the consortium pins; the contract tells it too, once its block is known.
    #[arg(long)]
    kms_root: Option<Address>,
    /// Hash of the block with the receipt, as known from elsewhere: with it the file's proofs need no endpoint.
    #[arg(long)]
    block_hash: Option<B256>,
    /// keccak256 of the contract's code, as `script/deploy` prints it for a checkout.
    #[arg(long)]
    code_hash: Option<B256>,
    /// mr_system of a CVM image that the terms name by a list's hash; repeat, in ascending order.
    #[arg(long = "system", value_name = "HASH")]
    systems: Vec<B256>,
    /// Device id that the terms name by a list's hash; repeat, in ascending order.
    #[arg(long = "device", value_name = "HASH")]
    devices: Vec<B256>,
    /// Never ask the chain, also where an endpoint is configured.
    #[arg(long)]
    offline: bool,
    /// Only the checks, without what each rests on and does not prove.
    #[arg(long)]
    brief: bool,
    /// Accept evidence under this development root (PEM): it proves nothing about any hardware.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_INSECURE_DEV_ATTESTATION_ROOT")]
    insecure_dev_attestation_root: Option<PathBuf>,
    #[command(flatten)]
    golden: GoldenArgs,
}

/// Reads a result file; another format is refused by its name.
pub fn read_result(path: &Path) -> Outcome<RunResult> {
    let result: RunResult = files::read_json(path, "a result file of cohort run")?;
    if result.format == sign_rpc::FORMAT {
        return Ok(result);
    }
    Err(Failure::input(
        format!("{} has format {:?}, not {}", path.display(), result.format, sign_rpc::FORMAT),
        "use a file of cohort run of this version",
    ))
}

/// Checks a file and prints the report.
pub async fn run(settings: &Settings, args: &VerifyArgs) -> Outcome {
    let mut result = read_result(&args.file)?;
    let known = Known {
        app: settings.app_if_any(),
        code_hash: args.code_hash,
        kms_root: args.kms_root,
        block_hash: args.block_hash,
        systems: args.systems.clone(),
        devices: args.devices.clone(),
        policy: policy(args)?,
        gpu_policy: args.golden.policy(|| Ok(eip712::kms_domain(result.chain_id, settings.registry()?)))?,
    };
    let endpoints = if args.offline { &[] } else { settings.rpc_urls_if_any() };
    let mut report = Report::default();
    let mut missing = None;
    if result.chain.is_none() && !endpoints.is_empty() {
        match verify::online::fetch(endpoints, &result).await {
            Ok(proof) => result.chain = Some(proof),
            Err(failure) => missing = Some(failure.message),
        }
    }
    verify::check_file(&result, &known, &mut report);
    if result.chain.is_none() {
        let why = missing.unwrap_or_else(|| "give --rpc-url, or have them attached".to_owned());
        let detail = format!("approvals, budget and receipt: the file has no proofs of the chain; {why}");
        report.skip(Name::StorageProofs, detail);
    }
    if endpoints.is_empty() {
        report.skip(Name::Chain, "no endpoint is asked: what was revoked since is not known (--rpc-url)");
    }
    for url in endpoints {
        verify::online::check(url, &result, &mut report).await;
    }
    report.settle();
    print(settings, args, &result, &known, &report)
}

#[cfg(feature = "dev")]
fn policy(args: &VerifyArgs) -> Outcome<Policy> {
    let Some(path) = &args.insecure_dev_attestation_root else { return Ok(Policy::production()) };
    let root = crate::dev::attestation_root(path)?;
    eprintln!(
        "warning: {} is a development root: nothing below proves anything about hardware",
        path.display()
    );
    Ok(Policy::production().with_root(root))
}

#[cfg(not(feature = "dev"))]
fn policy(_args: &VerifyArgs) -> Outcome<Policy> {
    Ok(Policy::production())
}

fn print(
    settings: &Settings,
    args: &VerifyArgs,
    result: &RunResult,
    known: &Known,
    report: &Report,
) -> Outcome {
    let (failed, skipped) = (report.count(Verdict::Failed), report.count(Verdict::Skipped));
    let anchored = verify::is_anchored(known, report);
    let on_chain = report.holds(Name::Block) && report.holds(Name::Budget);
    if settings.json {
        let verified = failed == 0 && anchored && on_chain;
        let told = serde_json::json!({ "verified": verified, "skipped": skipped, "checks": report.checks });
        println!("{told}");
    } else {
        report.print_lines(args.brief);
    }
    if failed > 0 {
        return Err(Failure::refused(
            format!("{failed} of {} checks failed: this is not a result to rely on", report.checks.len()),
            "fetch the file again from the agent; if it still fails, tell the owners",
        ));
    }
    if !anchored {
        return Err(Failure::incomplete(
            "the file agrees with itself, but nothing says that it is of your consortium",
            "give --app with --rpc-url or --block-hash, or --kms-root: as you know them from elsewhere, not from the file",
        ));
    }
    if !on_chain {
        return Err(Failure::incomplete(
            "what the file holds is in order, but approvals, budget and receipt are not shown to be on the chain",
            "give --rpc-url, or --block-hash as you know it from elsewhere",
        ));
    }
    if !settings.json {
        let scope = if skipped == 0 { String::new() } else { format!(", {skipped} not made") };
        println!(
            "verified: {} checks hold{scope}; attestation: {}",
            report.checks.len() - skipped,
            result.attestation
        );
    }
    Ok(())
}
