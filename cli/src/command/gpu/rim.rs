//! `cohort gpu rim import`: NVIDIA's manifests in, one signed list of golden values out.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cohort_attestation::gpu::rim::{self, RimRoot};
use cohort_attestation::gpu::{GoldenValues, Manifest, sign_golden_values};
use cohort_protocol::eip712;

use super::now;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files::{self, chain_text},
    key::KeyArg,
};

/// `cohort gpu rim ...`
#[derive(Debug, Subcommand)]
pub enum RimCommand {
    /// Check manifests up to NVIDIA's root and sign the golden values in them, for the KMS.
    Import(ImportArgs),
}

/// Arguments of `cohort gpu rim import`. The registry is the global `--registry`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Manifests of drivers and VBIOS versions, as NVIDIA publishes them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to write the signed list.
    #[arg(long)]
    out: PathBuf,
    /// EIP-155 chain id of the registry that the list is for.
    #[arg(long)]
    chain_id: u64,
    #[command(flatten)]
    key: KeyArg,
    /// Check the signers' certificates as of this second (Unix) instead of now: accepts signers that have ended.
    #[arg(long, value_name = "SECONDS")]
    insecure_rim_time: Option<u64>,
    /// Accept manifests under this development root (PEM) instead of NVIDIA's.
    #[cfg(feature = "dev")]
    #[arg(long, value_name = "FILE")]
    insecure_dev_rim_root: Option<PathBuf>,
}

impl ImportArgs {
    #[cfg(feature = "dev")]
    fn root(&self) -> Outcome<RimRoot> {
        self.insecure_dev_rim_root.as_deref().map_or(Ok(RimRoot::nvidia()), crate::dev::rim_root)
    }

    #[cfg(not(feature = "dev"))]
    fn root(&self) -> Outcome<RimRoot> {
        Ok(RimRoot::nvidia())
    }
}

/// Reads, checks, signs, writes.
pub(super) fn import(settings: &Settings, args: &ImportArgs) -> Outcome {
    let registry = settings.registry()?;
    let signer = args.key.signer()?;
    let root = args.root()?;
    let now = args.insecure_rim_time.map_or_else(now, Ok)?;
    if args.insecure_rim_time.is_some() {
        eprintln!("warning: signers are checked as of {now} (Unix seconds), not as of now");
    }
    let read = |path: &PathBuf| {
        rim::read(&files::read(path)?, &root, now).map_err(|error| {
            Failure::refused(
                format!("{}: {}", path.display(), chain_text(&error)),
                "fetch the manifest again from NVIDIA's RIM service; a signer that has ended has a newer one",
            )
        })
    };
    let manifests = args.files.iter().map(read).collect::<Outcome<Vec<Manifest>>>()?;
    let refused = |error| Failure::input(chain_text(&error), "give each driver and each VBIOS version once");
    let golden = GoldenValues::new(manifests).map_err(refused)?;
    let hash = golden.hash().map_err(refused)?;
    let domain = eip712::kms_domain(args.chain_id, registry);
    let signed = sign_golden_values(golden, &signer, &domain).map_err(refused)?;
    files::write_json(&args.out, &signed)?;
    if settings.json {
        println!("{}", serde_json::json!({ "list_hash": hash, "signer": signed.signer, "out": args.out }));
        return Ok(());
    }
    for manifest in signed.golden.manifests() {
        let (kind, blocks) = (manifest.kind.as_str(), manifest.measurements.len());
        println!("{kind:<6} {}: {blocks} measurements, RIM {}", manifest.version, manifest.tag_id);
    }
    println!("{}: list {hash}, signed by {}", args.out.display(), signed.signer);
    Ok(())
}
