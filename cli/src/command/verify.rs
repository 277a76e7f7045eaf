//! `cohort verify`: re-checks one result file, line by line, and says what each line rests on.

use std::path::PathBuf;

use alloy::{primitives::Address, sol_types::Eip712Domain};
use clap::Args;
use cohort_agent::{compute, run::RunResult};
use cohort_attestation::{
    Platform, Policy, VerifiedTd,
    gpu::{self, GpuPlatform, GpuPolicy, VerifiedGpu},
};
use cohort_protocol::{compose::AppCompose, eip712, json, recipe::Recipe, sign_rpc};

use super::{gpu::GoldenArgs, verify_chain};
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
};

/// Arguments of `cohort verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The result file of `cohort run`.
    file: PathBuf,
    /// The KMS root that the consortium pins; with --rpc-url it is read from the contract.
    #[arg(long)]
    kms_root: Option<Address>,
    /// Never ask the chain, also where an endpoint is configured.
    #[arg(long)]
    offline: bool,
    /// Accept evidence under this development root (PEM): it proves nothing about any hardware.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_INSECURE_DEV_ATTESTATION_ROOT")]
    insecure_dev_attestation_root: Option<PathBuf>,
    #[command(flatten)]
    golden: GoldenArgs,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// It could not be made with what was given.
    Skipped,
}

/// One line of the report.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Check {
    /// Short stable name.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was compared, with what it rests on.
    pub detail: String,
}

/// The report, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report {
    /// All lines.
    pub checks: Vec<Check>,
}

impl Report {
    /// Adds a line.
    pub fn check(&mut self, name: &'static str, holds: bool, detail: impl Into<String>) {
        let verdict = if holds { Verdict::Ok } else { Verdict::Failed };
        self.checks.push(Check { name, verdict, detail: detail.into() });
    }

    /// Adds a line for what was not checked.
    pub fn skip(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, verdict: Verdict::Skipped, detail: detail.into() });
    }

    /// How many checks failed.
    pub fn failures(&self) -> usize {
        self.checks.iter().filter(|check| check.verdict == Verdict::Failed).count()
    }

    /// The first that failed.
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Failed)
    }

    /// Prints it on standard output.
    pub fn print_lines(&self) {
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Failed => "FAIL",
                Verdict::Skipped => "skip",
            };
            println!("{mark}  {:<18} {}", check.name, check.detail);
        }
    }
}

/// Checks a file and prints the report.
pub async fn run(settings: &Settings, args: &VerifyArgs) -> Outcome {
    let result: RunResult = files::read_json(&args.file, "a result file of cohort run")?;
    if result.format != sign_rpc::FORMAT {
        return Err(Failure::input(
            format!("{} has format {:?}, not {}", args.file.display(), result.format, sign_rpc::FORMAT),
            "use a file of cohort run of this version",
        ));
    }
    let policy = policy(args)?;
    let gpu_policy = args.golden.policy(|| Ok(eip712::kms_domain(result.chain_id, settings.registry()?)))?;
    let mut report = Report::default();
    offline(&result, &policy, &gpu_policy, &mut report);
    let endpoints = if args.offline { &[] } else { settings.rpc_urls_if_any() };
    let anchored = anchors(settings, args, &result, endpoints.is_empty(), &mut report);
    if endpoints.is_empty() {
        report.skip(
            "chain",
            "approvals, budget, receipt and its position: no RPC endpoint is given (--rpc-url)",
        );
    }
    for url in endpoints {
        if let Err(failure) = verify_chain::check(url, &result, &mut report).await {
            report.check("chain", false, failure.message);
        }
    }
    print(settings, &result, &report, anchored)
}

/// Compares the file with what the verifier knows from elsewhere. Without any such anchor everything else shows only
/// that the file agrees with itself: anybody can make a contract and a KMS of their own.
fn anchors(
    settings: &Settings,
    args: &VerifyArgs,
    result: &RunResult,
    offline: bool,
    report: &mut Report,
) -> bool {
    match settings.app_if_any() {
        Some(app) => {
            let detail = format!("the file's contract {} is the one that was given, {app}", result.app);
            report.check("contract", app == result.app, detail);
        }
        None => report.skip("contract", format!("{} is not compared: give --app", result.app)),
    }
    let root = result.binding.kms_root;
    match args.kms_root {
        Some(want) => report.check("kms root", root == want, format!("{root} is the given KMS root {want}")),
        None if offline => {
            report.skip("kms root", format!("{root} is not compared: give --kms-root or --rpc-url"))
        }
        None => {}
    }
    args.kms_root.is_some() || (!offline && settings.app_if_any().is_some())
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

/// Everything that needs no network: arithmetic on the file.
pub fn offline(result: &RunResult, policy: &Policy, gpu_policy: &GpuPolicy, report: &mut Report) {
    let domain = eip712::app_domain(result.chain_id, result.app);
    payload(result, report);
    recipe(result, report);
    signatures(result, &domain, report);
    evidence(result, policy, gpu_policy, report);
    request(result, &domain, report);
}

fn payload(result: &RunResult, report: &mut Report) {
    let hash = json::canonical_hash(&result.payload).ok();
    let detail = format!(
        "SHA-256 of the canonical payload is the receipt's output hash {}",
        result.receipt.output_hash
    );
    report.check("payload", hash == Some(result.receipt.output_hash), detail);
}

fn recipe(result: &RunResult, report: &mut Report) {
    let Some((compose, recipe)) = parse_recipe(result) else {
        report.check("recipe", false, "the file holds an app-compose with a usable recipe");
        return;
    };
    let terms = &result.terms;
    let detail = format!("SHA-256 of the app-compose bytes is the approved {}", terms.compose_hash);
    report.check("compose hash", compose.compose_hash() == terms.compose_hash, detail);
    let same = recipe.recipe_hash() == terms.recipe_hash
        && recipe.output_schema_hash() == terms.output_schema_hash
        && recipe.privacy().epsilon_per_run == terms.epsilon_per_run
        && recipe.privacy().epsilon_budget == terms.epsilon_budget;
    report.check("recipe", same, "recipe, output schema and epsilon in it are the approved ones");
    let fits = compute::guard(&recipe, &result.payload).is_ok();
    report.check("output schema", fits, "the payload is of the registered output type");
    let spent =
        result.receipt.epsilon == terms.epsilon_per_run && result.receipt.delta == terms.delta_per_run;
    let detail = format!("the receipt states epsilon {}, as approved per run", result.receipt.epsilon);
    report.check("privacy loss", spent, detail);
}

fn parse_recipe(result: &RunResult) -> Option<(AppCompose, Recipe)> {
    let compose = AppCompose::parse(result.evidence.app_compose.as_ref()?.as_bytes()).ok()?;
    let recipe = compose.recipe().ok()?;
    Some((compose, recipe))
}

fn signatures(result: &RunResult, domain: &Eip712Domain, report: &mut Report) {
    let certificate = &result.certificate;
    let signer = result.receipt.signer(domain);
    let detail = format!("EIP-712 receipt signed by the agent's key {}", certificate.agent);
    report.check("receipt signature", signer == Some(certificate.agent), detail);
    let root = certificate.signer(domain);
    let bound = root == Some(result.binding.kms_root)
        && certificate.compose_hash == result.terms.compose_hash
        && result.receipt.produced_at < certificate.not_after;
    let detail = format!(
        "the KMS root {} certified that key for this contract and compose hash",
        result.binding.kms_root
    );
    report.check("certificate", bound, detail);
}

fn evidence(result: &RunResult, policy: &Policy, gpu_policy: &GpuPolicy, report: &mut Report) {
    let hash = sign_rpc::evidence_hash(&result.binding, &result.evidence).ok();
    let detail = "the receipt commits to exactly this evidence";
    report.check("evidence", hash == Some(result.receipt.evidence_hash), detail);
    let at = result.receipt.produced_at;
    let expected = result.binding.report_data();
    match cohort_attestation::verify(&result.evidence, policy, &expected, at) {
        Ok(td) => {
            quote(result, &td, report);
            let gpus = gpus(result, &td, gpu_policy, report);
            claimed_platform(result, &td, &gpus, report);
        }
        Err(refusal) => report.check("TDX quote", false, format!("refused: {refusal} ({})", refusal.code())),
    }
}

fn quote(result: &RunResult, td: &VerifiedTd, report: &mut Report) {
    let platform = td.platform().as_str();
    report.check(
        "TDX quote",
        true,
        format!("verified to the {platform} root as of the run, TCB {:?}", td.tcb_status()),
    );
    let measured = td.app_id().as_bytes() == result.app.as_slice()
        && td.compose_hash().as_bytes() == result.terms.compose_hash.as_bytes();
    report.check("measurement", measured, "replayed event log: the CVM ran this app and this compose hash");
    let binding = &result.binding;
    let bound = binding.chain_id == result.chain_id
        && binding.app == result.app
        && binding.run_id == result.receipt.run_id
        && binding.receipt_key == result.certificate.agent;
    report.check(
        "quote binding",
        bound,
        "the quote's report data names this run, this KMS challenge and this receipt key",
    );
}

/// The GPUs that the recipe requires, up to their own root. No line where it requires none and none is there.
fn gpus(result: &RunResult, td: &VerifiedTd, policy: &GpuPolicy, report: &mut Report) -> Vec<VerifiedGpu> {
    const NAME: &str = "GPU evidence";
    let binding = &result.binding;
    let committed = binding.gpu_evidence_hash.map(|hash| hash.0);
    let (nonce, at) = (binding.gpu_nonce(), result.receipt.produced_at);
    let gpus = match gpu::appraise_evidence(&result.evidence, td, committed, &nonce, policy, at) {
        Ok(gpus) => gpus,
        Err(refusal) => {
            report.check(NAME, false, format!("refused: {refusal} ({})", refusal.code()));
            return Vec::new();
        }
    };
    let Some(first) = gpus.first() else { return gpus };
    let detail = format!(
        "{} GPU(s) verified to the {} root as of the run, driver {}, VBIOS {}; the quote commits to this evidence",
        gpus.len(),
        first.platform().as_str(),
        first.driver_version(),
        first.vbios_version()
    );
    report.check(NAME, true, detail);
    match policy.golden() {
        Some(_) => {
            report.check("GPU firmware", true, "every measurement is a golden value of the given list")
        }
        None => report.skip("GPU firmware", "measurements are not compared: give --gpu-golden"),
    }
    gpus
}

/// One development root makes all of it development, as the KMS sees it.
fn claimed_platform(result: &RunResult, td: &VerifiedTd, gpus: &[VerifiedGpu], report: &mut Report) {
    let is_development = gpus.iter().any(|gpu| gpu.platform() == GpuPlatform::Development);
    let platform = if is_development { Platform::Development } else { td.platform() };
    let detail = format!("the file says {}", result.attestation);
    report.check("claimed platform", result.attestation == platform.as_str(), detail);
}

fn request(result: &RunResult, domain: &Eip712Domain, report: &mut Report) {
    let run = &result.run;
    let same = run.run_id() == result.receipt.run_id && run.proposal_id == result.terms.proposal_id();
    report.check(
        "run",
        same,
        format!("run {} was asked for under proposal {}", result.receipt.run_id, run.proposal_id),
    );
    let signer = eip712::recover(eip712::digest(&run.abi(), domain), &run.signature);
    if signer == Some(run.analyst) {
        report.check("request signature", true, format!("by analyst {}", run.analyst));
    } else {
        // The contract checked it when it opened the run; an account that is a contract signs in its own way.
        report.skip(
            "request signature",
            format!("not by an EOA {}: that the run is on chain shows it", run.analyst),
        );
    }
    let inputs = sign_rpc::inputs_hash(&result.inputs);
    let counted = result.inputs.len() == run.participants.count_ones() as usize;
    let holds = inputs == result.receipt.inputs_hash && counted;
    let detail = format!(
        "the receipt commits to these {} dataset ids; whose they are, the chain tells",
        result.inputs.len()
    );
    report.check("inputs", holds, detail);
}

fn print(settings: &Settings, result: &RunResult, report: &Report, anchored: bool) -> Outcome {
    let failures = report.failures();
    let skipped = report.checks.iter().filter(|check| check.verdict == Verdict::Skipped).count();
    if settings.json {
        println!(
            "{}",
            serde_json::json!({ "verified": failures == 0 && anchored, "skipped": skipped, "checks": report.checks })
        );
    } else {
        report.print_lines();
    }
    if failures > 0 {
        return Err(Failure::refused(
            format!("{failures} of {} checks failed: this is not a result to rely on", report.checks.len()),
            "fetch the file again from the agent; if it still fails, tell the owners",
        ));
    }
    if !anchored {
        return Err(Failure::refused(
            "the file agrees with itself, but nothing says that it is of your consortium",
            "give --app with --rpc-url, or --kms-root: as you know them from elsewhere, not from the file",
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
