//! NVIDIA GPU evidence in, verified claims or a reason for refusal out. Spec: `docs/spec/gpu-evidence.md`.
//!
//! [`verify`] checks one report: a genuine GPU answered this nonce, with this firmware. [`appraise`]
//! is what a release needs: all GPUs of a virtual machine, what the recipe requires, what the quote
//! commits to, the state that measured boot code read, and the golden values.

mod appraise;
mod certificates;
mod evidence;
mod firmware;
mod golden;
mod opaque;
mod policy;
mod refusal;
mod report;
#[cfg(feature = "gpu-rim")]
pub mod rim;
mod state;
mod verify;

pub use appraise::{Appraisal, appraise, appraise_evidence};
pub use certificates::{CertificateError, ChainError};
pub use evidence::{CollectedError, GpuEvidence, MAX_GPUS, evidence_hash};
#[cfg(feature = "dev-platform")]
pub(crate) use firmware::DICE_EXTENSION;
pub use golden::{
    GoldenError, GoldenValues, Manifest, ManifestKind, Measurement, SignedGoldenValues, sign_golden_values,
};
pub use opaque::Mode;
#[cfg(feature = "dev-platform")]
pub use policy::DevelopmentGpuRootError;
pub use policy::{GpuPlatform, GpuPolicy, GpuRoot, NVIDIA_DEVICE_ROOT_SHA256};
pub use refusal::GpuRefusal;
pub use report::ReportError;
pub use state::GpuState;
pub use verify::{VerifiedGpu, verify};

/// SPDM measurement blocks of one report.
pub const BLOCKS: usize = 64;
