//! Why GPU evidence was refused: one variant and one stable code per reason.

use cohort_protocol::recipe::GpuArchitecture;

use super::certificates::ChainError;
use super::evidence::MAX_GPUS;
use super::opaque::Mode;
use super::report::ReportError;

/// The reason for refusing GPU evidence. [`GpuRefusal::code`] is stable; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuRefusal {
    /// The measured app-compose text is absent or says nothing readable about GPUs.
    #[error("what the app requires of GPUs cannot be read from its app-compose text")]
    RequirementUnknown,
    /// The recipe requires GPUs, and there is no evidence of any.
    #[error("the recipe requires {required} GPU(s), and there is no GPU evidence")]
    Missing {
        /// How many.
        required: u32,
    },
    /// There is evidence, and the recipe requires no GPU.
    #[error("there is GPU evidence, and the recipe requires no GPU")]
    Unexpected,
    /// Another number of GPUs.
    #[error("there is evidence of {have} GPU(s), the recipe requires {required}")]
    Count {
        /// Reports received.
        have: usize,
        /// Reports required.
        required: u32,
    },
    /// More than the limit.
    #[error("there is evidence of {have} GPUs, more than {MAX_GPUS}")]
    TooMany {
        /// Reports received.
        have: usize,
    },
    /// The report is longer than the limit.
    #[error("the GPU report has {bytes} bytes")]
    ReportTooLarge {
        /// Length received.
        bytes: usize,
    },
    /// The report's form.
    #[error("the GPU report is malformed")]
    Report(#[source] ReportError),
    /// The certificates.
    #[error("the GPU's certificates are refused")]
    Chain(#[source] ChainError),
    /// The device's certificate is of another chip than the evidence claims.
    #[error("the device is a {device:?}, which is not of the architecture {architecture}")]
    OtherChip {
        /// Name in the device's certificate.
        device: String,
        /// As claimed.
        architecture: GpuArchitecture,
    },
    /// The report's signature.
    #[error("the GPU report's signature does not verify")]
    Signature,
    /// The report answers another nonce.
    #[error("the GPU report answers another nonce: it was made for something else")]
    NonceMismatch,
    /// The leaf certificate has no readable DICE extension.
    #[error("the GPU's leaf certificate does not name its firmware")]
    FirmwareUnknown,
    /// Report and leaf certificate are of different firmware, or the leaf of another device.
    #[error("the GPU report is of other firmware than its certificate")]
    FirmwareMismatch,
    /// One device answered twice.
    #[error("the same GPU is there twice")]
    Duplicate,
    /// The GPU's mode does not protect the links that this number of GPUs has.
    #[error("a GPU is in the mode {mode}, which is not accepted for {gpus} GPU(s)")]
    ModeNotAccepted {
        /// Mode found.
        mode: Mode,
        /// How many GPUs there are.
        gpus: usize,
    },
    /// Measured boot code did not attest the GPUs.
    #[error(
        "the boot log has no gpu-attestation event of a known form: nothing says that confidential computing is on"
    )]
    StateMissing,
    /// Measured boot code found a state that is not accepted.
    #[error("the GPUs' measured state is not accepted: {what}")]
    StateNotAccepted {
        /// What.
        what: &'static str,
    },
    /// The quote commits to other GPU evidence.
    #[error("the quote does not commit to this GPU evidence")]
    EvidenceHashMismatch,
    /// No golden values at all.
    #[error("no golden values for GPUs are configured")]
    GoldenMissing,
    /// No golden values for this version.
    #[error("there are no golden values for {kind} {version}")]
    GoldenUnknown {
        /// `driver` or `vbios`.
        kind: &'static str,
        /// As the report states it.
        version: String,
    },
    /// Driver and VBIOS manifests both list a block.
    #[error("the golden values of driver and VBIOS both list measurement block {block}")]
    GoldenConflict {
        /// SPDM block.
        block: u8,
    },
    /// A measurement is none of its golden values.
    #[error("measurement block {block} ({kind}) is not a golden value")]
    MeasurementMismatch {
        /// SPDM block.
        block: u8,
        /// Whose golden value: `driver` or `vbios`.
        kind: &'static str,
    },
}

impl GpuRefusal {
    /// The stable code of this reason, for clients, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RequirementUnknown => "gpu_requirement_unknown",
            Self::Missing { .. } => "gpu_missing",
            Self::Unexpected => "gpu_unexpected",
            Self::Count { .. } => "gpu_count",
            Self::TooMany { .. } | Self::ReportTooLarge { .. } | Self::Report(_) => "gpu_evidence_malformed",
            Self::Chain(ChainError::Certificate { .. }) => "gpu_certificate_malformed",
            Self::Chain(ChainError::Validity { .. }) => "gpu_certificate_time",
            Self::Chain(ChainError::Root { .. }) => "gpu_root_not_trusted",
            Self::Chain(_) => "gpu_chain",
            Self::OtherChip { .. } => "gpu_architecture",
            Self::Signature => "gpu_signature",
            Self::NonceMismatch => "gpu_nonce_mismatch",
            Self::FirmwareUnknown | Self::FirmwareMismatch => "gpu_firmware_mismatch",
            Self::Duplicate => "gpu_duplicate",
            Self::ModeNotAccepted { .. } => "gpu_mode_not_accepted",
            Self::StateMissing => "gpu_state_missing",
            Self::StateNotAccepted { .. } => "gpu_state_not_accepted",
            Self::EvidenceHashMismatch => "gpu_evidence_hash_mismatch",
            Self::GoldenMissing | Self::GoldenUnknown { .. } => "gpu_golden_missing",
            Self::GoldenConflict { .. } => "gpu_golden_conflict",
            Self::MeasurementMismatch { .. } => "gpu_measurement_mismatch",
        }
    }
}
