//! The machine: TDX quote, collateral, event log, image, device, GPUs, all as of the run.

use alloy::primitives::B256;
use cohort_agent::run::RunResult;
use cohort_attestation::{
    Platform, Refusal, VerifiedTd,
    gpu::{self, GpuPlatform, VerifiedGpu},
};
use cohort_protocol::{sign_rpc, terms::id_list_hash};

use super::{Known, Name, Report, machine};

/// Gives back the machine, if its evidence holds.
pub(super) fn check(result: &RunResult, known: &Known, report: &mut Report) -> Option<VerifiedTd> {
    let hash = sign_rpc::evidence_hash(&result.binding, &result.evidence).ok();
    let holds = hash == Some(result.receipt.evidence_hash);
    report.check(Name::Evidence, holds, "the receipt commits to exactly this evidence");
    match machine(result, &known.policy) {
        Ok(td) => {
            quote(result, &td, report);
            allowed(result, &td, known, report);
            let gpus = gpus(result, &td, known, report);
            claimed_platform(result, &td, &gpus, report);
            Some(td)
        }
        Err(refusal) => {
            let detail = format!("refused: {refusal} ({})", refusal.code());
            report.check(refused(&refusal), false, detail);
            None
        }
    }
}

/// The check that a refusal belongs to.
fn refused(refusal: &Refusal) -> Name {
    match refusal.code() {
        code if code.starts_with("event_log") || code.starts_with("boot_event") => Name::EventLog,
        code if code.starts_with("collateral") => Name::Collateral,
        "pck_revoked" => Name::Collateral,
        "report_data_mismatch" => Name::QuoteBinding,
        "app_compose_missing" | "compose_hash_mismatch" => Name::Measurement,
        code if code.starts_with("mr_config") => Name::Measurement,
        _ => Name::TdxQuote,
    }
}

fn quote(result: &RunResult, td: &VerifiedTd, report: &mut Report) {
    let platform = td.platform().as_str();
    let detail = format!("verified to the {platform} root as of the run, TCB {:?}", td.tcb_status());
    report.check(Name::TdxQuote, true, detail);
    let detail = format!(
        "the one in the file, evaluation {}, was in force as of the run and until {}",
        td.tcb_evaluation(),
        crate::audit::text::utc(td.collateral_expires_at())
    );
    report.check(Name::Collateral, true, detail);
    report.check(Name::EventLog, true, "replayed: it gives RTMR0 to RTMR3 of the quote, one boot of dstack");
    let measured = td.app_id().as_bytes() == result.app.as_slice()
        && td.compose_hash().as_bytes() == result.terms.compose_hash.as_bytes();
    report.check(Name::Measurement, measured, "by that log the CVM ran this app and this compose hash");
    let binding = &result.binding;
    let bound = binding.chain_id == result.chain_id
        && binding.app == result.app
        && binding.run_id == result.receipt.run_id
        && binding.receipt_key == result.certificate.agent;
    let detail = "the quote's report data names this run, this KMS challenge and this receipt key";
    report.check(Name::QuoteBinding, bound, detail);
}

/// Image and machine are those that the terms name.
fn allowed(result: &RunResult, td: &VerifiedTd, known: &Known, report: &mut Report) {
    let terms = &result.terms;
    let system = B256::from(td.mr_system().0);
    if terms.systems.is_zero() {
        let detail = format!(
            "the terms name none: mr_system {system} was for the registry's owner to list (--registry with --rpc-url)"
        );
        report.skip(Name::CvmImage, detail);
    } else {
        listed(report, Name::CvmImage, terms.systems, system, &known.systems, "mr_system", "--system");
    }
    let device = B256::from(td.device_id().0);
    if terms.devices.is_zero() {
        report.check(Name::Device, true, format!("{device}; the terms allow any"));
    } else {
        listed(report, Name::Device, terms.devices, device, &known.devices, "device", "--device");
    }
}

/// Terms name one id, or a list of which they hold only the hash.
fn listed(report: &mut Report, name: Name, named: B256, id: B256, list: &[B256], what: &str, flag: &str) {
    if id_list_hash(&[id]) == Some(named) {
        report.check(name, true, format!("{what} {id} is the one that the terms name"));
    } else if list.is_empty() {
        let detail = format!("{what} {id}; the terms name a list by its hash {named}: give it with {flag}");
        report.skip(name, detail);
    } else {
        let holds = id_list_hash(list) == Some(named) && list.contains(&id);
        report.check(name, holds, format!("{what} {id} is on the given list, which is the terms' {named}"));
    }
}

/// The GPUs that the recipe requires, up to their own root. No line where it requires none and none is there.
fn gpus(result: &RunResult, td: &VerifiedTd, known: &Known, report: &mut Report) -> Vec<VerifiedGpu> {
    let policy = &known.gpu_policy;
    let binding = &result.binding;
    let committed = binding.gpu_evidence_hash.map(|hash| hash.0);
    let (nonce, at) = (binding.gpu_nonce(), result.receipt.produced_at);
    let gpus = match gpu::appraise_evidence(&result.evidence, td, committed, &nonce, policy, at) {
        Ok(gpus) => gpus,
        Err(refusal) => {
            report.check(Name::GpuEvidence, false, format!("refused: {refusal} ({})", refusal.code()));
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
    report.check(Name::GpuEvidence, true, detail);
    match policy.golden() {
        Some(_) => {
            report.check(Name::GpuFirmware, true, "every measurement is a golden value of the given list");
        }
        None => report.skip(Name::GpuFirmware, "measurements are not compared: give --gpu-golden"),
    }
    gpus
}

/// One development root makes all of it development, as the KMS sees it.
fn claimed_platform(result: &RunResult, td: &VerifiedTd, gpus: &[VerifiedGpu], report: &mut Report) {
    let is_development = gpus.iter().any(|gpu| gpu.platform() == GpuPlatform::Development);
    let platform = if is_development { Platform::Development } else { td.platform() };
    let holds = result.attestation == platform.as_str();
    report.check(Name::ClaimedPlatform, holds, format!("the file says {}", result.attestation));
}
