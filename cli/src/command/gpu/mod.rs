//! `cohort gpu`: golden values from NVIDIA's reference manifests, and evidence checked by hand.

mod evidence;
mod rim;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::{primitives::Address, sol_types::Eip712Domain};
use clap::{Args, Subcommand};
use cohort_attestation::gpu::{GoldenValues, GpuPolicy, SignedGoldenValues};

use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files::{self, chain_text},
};

/// `cohort gpu ...`
#[derive(Debug, Subcommand)]
pub enum GpuCommand {
    /// Work on NVIDIA's reference manifests (RIM files).
    #[command(subcommand)]
    Rim(rim::RimCommand),
    /// Check the evidence of GPUs: form, certificate chain, signature, firmware.
    Verify(evidence::VerifyArgs),
}

/// Runs one of them.
pub fn run(settings: &Settings, command: &GpuCommand) -> Outcome {
    match command {
        GpuCommand::Rim(rim::RimCommand::Import(args)) => rim::import(settings, args),
        GpuCommand::Verify(args) => evidence::verify(settings, args),
    }
}

/// Golden values, and whose they must be.
#[derive(Debug, Clone, Args)]
pub struct GoldenArgs {
    /// Signed golden values of GPUs, as `cohort gpu rim import` writes them.
    #[arg(long, value_name = "FILE", requires = "gpu_golden_signer")]
    gpu_golden: Option<PathBuf>,
    /// Whose signature they must have.
    #[arg(long, value_name = "ADDRESS")]
    gpu_golden_signer: Option<Address>,
    /// Accept GPU evidence under this development root (PEM): it proves nothing about any hardware.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_INSECURE_DEV_GPU_ROOT", value_name = "FILE")]
    insecure_dev_gpu_root: Option<PathBuf>,
}

impl GoldenArgs {
    /// The policy that these arguments name. Without golden values measurements are compared with nothing.
    pub fn policy(&self, domain: impl FnOnce() -> Outcome<Eip712Domain>) -> Outcome<GpuPolicy> {
        let mut policy = GpuPolicy::production().golden_optional();
        if let Some((path, signer)) = self.gpu_golden.as_ref().zip(self.gpu_golden_signer) {
            policy = policy.with_golden(read_golden(path, signer, &domain()?)?);
        }
        #[cfg(feature = "dev")]
        if let Some(path) = &self.insecure_dev_gpu_root {
            eprintln!(
                "warning: {} is a development GPU root: it proves nothing about hardware",
                path.display()
            );
            policy = policy.with_root(crate::dev::gpu_root(path)?);
        }
        Ok(policy)
    }
}

fn read_golden(path: &Path, signer: Address, domain: &Eip712Domain) -> Outcome<GoldenValues> {
    SignedGoldenValues::parse(&files::read(path)?).and_then(|signed| signed.verify(signer, domain)).map_err(
        |error| {
            Failure::refused(
                format!("{}: {}", path.display(), chain_text(&error)),
                "use the list that the registry's owner signed, with the signer's address as you know it",
            )
        },
    )
}

/// Unix seconds.
fn now() -> Outcome<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(|since| since.as_secs())
        .map_err(|_| Failure::input("the clock is before 1970", "set the clock"))
}
