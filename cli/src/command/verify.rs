//! `cohort verify`: re-checks one result file, line by line, and says what each line rests on.

use std::path::{Path, PathBuf};

use alloy::primitives::{Address, B256};
use clap::Args;
use cohort_agent::run::RunResult;
use cohort_protocol::{eip712, json, sign_rpc};
use serde_json::Value;

use super::gpu::GoldenArgs;
use crate::{
    chain::endpoint_name,
    config::Settings,
    failure::{Failure, Outcome},
    files,
    policy::PolicyArgs,
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
    #[command(flatten)]
    evidence: PolicyArgs,
    #[command(flatten)]
    golden: GoldenArgs,
}

/// Reads a result file: of this format, and written in the one form that it has.
pub fn read_result(path: &Path) -> Outcome<RunResult> {
    let (result, value): (RunResult, Value) =
        files::read_json_with_value(path, "a result file of cohort run")?;
    if result.format != sign_rpc::FORMAT {
        return Err(Failure::input(
            format!("{} has format {:?}, not {}", path.display(), result.format, sign_rpc::FORMAT),
            "use a file of cohort run of this version",
        ));
    }
    let again = serde_json::to_value(&result).map_err(|e| Failure::input(e, "report this"))?;
    match json::first_difference(&value, &again) {
        None => Ok(result),
        Some(place) => Err(Failure::input(
            format!(
                "{} is not as it was written: at {place} the same could be said in two ways",
                path.display()
            ),
            "use the file as cohort run wrote it",
        )),
    }
}

/// Checks a file and prints the report.
pub async fn run(settings: &Settings, args: &VerifyArgs) -> Outcome {
    let mut result = read_result(&args.file)?;
    let known = Known {
        app: settings.app_if_any(),
        registry: settings.registry().ok(),
        code_hash: args.code_hash,
        kms_root: args.kms_root,
        block_hash: args.block_hash,
        systems: args.systems.clone(),
        devices: args.devices.clone(),
        policy: args.evidence.policy("the file's")?,
        gpu_policy: args.golden.policy(|| Ok(eip712::kms_domain(result.chain_id, settings.registry()?)))?,
    };
    let endpoints = if args.offline { &[] } else { settings.rpc_urls_if_any() };
    let missing = complete(&mut result, &known, endpoints).await;
    let mut report = Report::default();
    verify::check_file(&result, &known, &mut report);
    if result.chain.is_none() {
        let why = missing.unwrap_or_else(|| "give --rpc-url, or have them attached".to_owned());
        let detail = format!("approvals, budget and receipt: the file has no proofs of the chain; {why}");
        report.skip(Name::StorageProofs, detail);
    }
    if endpoints.is_empty() {
        report.skip(Name::Chain, "no endpoint is asked: what was revoked since is not known (--rpc-url)");
    }
    let mut silent = Vec::new();
    for url in endpoints {
        if let Err(failure) = verify::online::check(url, &result, &mut report).await {
            silent.push(format!("{}: {}", endpoint_name(url), failure.message));
        }
    }
    report.settle();
    for what in &silent {
        report.skip(Name::Chain, what);
    }
    print(settings, args, &result, &known, &report, silent.len())
}

/// Adds the proofs that the file has not and that endpoints can give; gives back why the file still has none.
async fn complete(result: &mut RunResult, known: &Known, endpoints: &[reqwest::Url]) -> Option<String> {
    if endpoints.is_empty() {
        return None;
    }
    if result.chain.is_none() {
        match verify::online::fetch(endpoints, result).await {
            Ok(proof) => result.chain = Some(proof),
            Err(failure) => return Some(failure.message),
        }
    }
    // A file whose evidence does not hold has no image to ask for.
    let (registry, td) = known.registry.zip(verify::machine(result, &known.policy).ok())?;
    let proof = result.chain.as_mut().filter(|_| result.terms.systems.is_zero());
    if let Some(proof) = proof.filter(|proof| proof.registry.is_none()) {
        // Without it the line about the image stays open, which is said there.
        let _ = verify::online::fetch_registry(endpoints, proof, registry, &td).await;
    }
    None
}

fn print(
    settings: &Settings,
    args: &VerifyArgs,
    result: &RunResult,
    known: &Known,
    report: &Report,
    silent: usize,
) -> Outcome {
    let (failed, skipped) = (report.count(Verdict::Failed), report.count(Verdict::Skipped));
    let anchored = verify::is_anchored(known, report);
    let on_chain = report.holds(Name::Block) && report.holds(Name::Budget);
    if settings.json {
        let verified = failed == 0 && silent == 0 && anchored && on_chain;
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
    if silent > 0 {
        return Err(Failure::unreachable(
            format!("nothing failed, but {silent} of the endpoints did not answer"),
            "try again, or leave out --rpc-url of those that are down",
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
