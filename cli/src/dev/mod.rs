//! `cohort dev`: the whole system on one machine, with every check real and development roots of trust.
//!
//! Nothing here is an `if` in another part: the same binaries run, only the roots that they are given differ.

mod demo;
mod process;
mod stack;
mod study;
mod transcript;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use cohort_attestation::TrustedRoot;
use cohort_attestation::gpu::{GpuRoot, rim::RimRoot};
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub use process::Process;
pub use stack::{Options, Person, Ran, Stack};
pub use study::{HOSPITALS, Hospital, Study};

use crate::failure::{Failure, Outcome};

/// `cohort dev …`
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Run the heart-disease study of four hospitals, end to end, and show it.
    Demo {
        /// Leave everything running afterwards, until Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// The project's folder, with node_modules installed and the contracts built.
        #[arg(long, default_value = ".")]
        project: PathBuf,
    },
}

/// Runs one of them; Ctrl-C ends it with everything it started.
pub async fn run(command: &DevCommand) -> Outcome {
    let DevCommand::Demo { keep, project } = command;
    tokio::select! {
        outcome = demo::run(project, *keep) => outcome,
        _ = process::interrupted() => {
            eprintln!();
            Err(Failure::refused("stopped", "everything that was started is stopped too"))
        }
    }
}

/// Reads a development platform's root certificate (PEM).
pub fn attestation_root(path: &Path) -> Outcome<TrustedRoot> {
    TrustedRoot::development(&certificate(path)?).map_err(|e| not_a_root(path, &e))
}

/// Reads the root certificate (PEM) of development GPUs.
pub fn gpu_root(path: &Path) -> Outcome<GpuRoot> {
    GpuRoot::development(&certificate(path)?).map_err(|e| not_a_root(path, &e))
}

/// Reads the root certificate (PEM) of development GPUs' manifests.
pub fn rim_root(path: &Path) -> Outcome<RimRoot> {
    RimRoot::development(&certificate(path)?).map_err(|e| not_a_root(path, &e))
}

fn certificate(path: &Path) -> Outcome<CertificateDer<'static>> {
    let pem = std::fs::read_to_string(path).map_err(|e| Failure::read(path, &e))?;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| not_a_root(path, &e))
}

fn not_a_root(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::input(
        format!("{} is not a development root: {error}", path.display()),
        "use a file that dev-guest-agent wrote with --root-file or --gpu-folder",
    )
}
