//! `cohort gpu verify`: what the evidence of a GPU proves, without a run or a KMS around it.

use std::path::PathBuf;

use alloy::primitives::B256;
use clap::Args;
use cohort_attestation::gpu::{self, GpuEvidence, VerifiedGpu};
use cohort_protocol::eip712;

use super::{GoldenArgs, now};
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files::{self, chain_text},
};

/// Arguments of `cohort gpu verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// What `nvattest collect-evidence` printed; with --certificates the hex of one report.
    file: PathBuf,
    /// PEM certificates of the one report.
    #[arg(long, value_name = "FILE")]
    certificates: Option<PathBuf>,
    /// The nonce that every report must answer: 64 hex digits. Without it nothing shows that the evidence is fresh.
    #[arg(long, value_name = "HEX")]
    nonce: Option<B256>,
    /// EIP-155 chain id that the golden values are for.
    #[arg(long, requires = "gpu_golden")]
    chain_id: Option<u64>,
    #[command(flatten)]
    golden: GoldenArgs,
}

/// Verifies each GPU and prints what it is.
pub(super) fn verify(settings: &Settings, args: &VerifyArgs) -> Outcome {
    let policy = args.golden.policy(|| {
        let chain_id = args.chain_id.ok_or_else(|| {
            Failure::input(
                "the golden values are for one chain and registry",
                "give --chain-id and --registry",
            )
        })?;
        Ok(eip712::kms_domain(chain_id, settings.registry()?))
    })?;
    let (evidence, now) = (read(args)?, now()?);
    let mut verified = Vec::with_capacity(evidence.len());
    for (index, one) in evidence.iter().enumerate() {
        let nonce = args.nonce.map_or_else(|| stated_nonce(one), |nonce| nonce.0);
        let refused = |refusal: gpu::GpuRefusal| {
            let code = refusal.code();
            Failure::refused(
                format!("GPU {index}: {} ({code})", chain_text(&refusal)),
                "docs/spec/gpu-evidence.md says what each code means",
            )
        };
        let found = gpu::verify(one, policy.root(), &nonce, now).map_err(refused)?;
        if let Some(golden) = policy.golden() {
            golden.check(&found).map_err(refused)?;
        }
        verified.push(found);
    }
    print(settings, args, &verified, policy.golden().is_some());
    Ok(())
}

fn read(args: &VerifyArgs) -> Outcome<Vec<GpuEvidence>> {
    let unusable = |why: String| {
        let message = format!("{}: {why}", args.file.display());
        Failure::input(message, "give the list of nvattest collect-evidence, or hex with --certificates")
    };
    let bytes = files::read(&args.file)?;
    let evidence = match &args.certificates {
        None => GpuEvidence::from_collected(&bytes),
        Some(path) => {
            let text = String::from_utf8_lossy(&bytes);
            let report = hex::decode(text.trim()).map_err(|error| unusable(error.to_string()))?;
            GpuEvidence::from_report(&report, &files::read(path)?).map(|one| vec![one])
        }
    };
    let evidence = evidence.map_err(|error| unusable(chain_text(&error)))?;
    if evidence.is_empty() {
        return Err(unusable("there is no GPU in it".to_owned()));
    }
    Ok(evidence)
}

/// The nonce as the report states it, where nobody says what it must be.
fn stated_nonce(evidence: &GpuEvidence) -> [u8; 32] {
    evidence.report.get(4..36).and_then(|nonce| nonce.try_into().ok()).unwrap_or_default()
}

fn print(settings: &Settings, args: &VerifyArgs, gpus: &[VerifiedGpu], golden: bool) {
    if settings.json {
        println!(
            "{}",
            serde_json::json!({ "gpus": gpus, "nonce_compared": args.nonce.is_some(), "golden_compared": golden })
        );
        return;
    }
    for (index, gpu) in gpus.iter().enumerate() {
        println!(
            "GPU {index}: {} device {}, driver {}, VBIOS {}, mode {}",
            gpu.platform().as_str(),
            hex::encode(gpu.device_id()),
            gpu.driver_version(),
            gpu.vbios_version(),
            gpu.mode()
        );
    }
    let root = gpus.first().map(|gpu| hex::encode(gpu.root_sha256())).unwrap_or_default();
    println!("verified: signature and certificates up to the root with SHA-256 {root}");
    if args.nonce.is_none() {
        println!("not compared: the nonce (--nonce), so nothing shows that this is fresh");
    }
    if !golden {
        println!(
            "not compared: the measurements (--gpu-golden), so the firmware may be any that NVIDIA's keys sign for"
        );
    }
}
