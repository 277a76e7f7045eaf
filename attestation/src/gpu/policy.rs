//! Which root GPU evidence must chain to, and the golden values that it must match.

use serde::Serialize;

use super::golden::GoldenValues;

/// SHA-256 of the DER of NVIDIA's `NVIDIA Device Identity CA`.
pub const NVIDIA_DEVICE_ROOT_SHA256: [u8; 32] = [
    0x10, 0x2b, 0xf6, 0x59, 0xd5, 0x41, 0x96, 0x14, 0xc9, 0xd8, 0xe6, 0xae, 0xce, 0xbc, 0x80, 0x45, 0x4e,
    0xb2, 0x6b, 0x1d, 0xf6, 0xa7, 0x69, 0xac, 0x72, 0x0b, 0x9a, 0x69, 0x0b, 0x16, 0x7b, 0x48,
];

/// Which kind of GPU signed the evidence. It is decided by the root that the verifier trusts, never by
/// the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuPlatform {
    /// A GPU whose keys chain to NVIDIA's root.
    Nvidia,
    /// The development platform: real structures, no hardware.
    Development,
}

impl GpuPlatform {
    /// `nvidia` or `development`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Development => "development",
        }
    }
}

/// The one certificate that GPU evidence must chain to, by its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuRoot {
    platform: GpuPlatform,
    sha256: [u8; 32],
}

impl GpuRoot {
    /// NVIDIA's device identity root.
    pub const fn nvidia() -> Self {
        Self { platform: GpuPlatform::Nvidia, sha256: NVIDIA_DEVICE_ROOT_SHA256 }
    }

    /// The root of a development GPU platform (DER). It must call itself `NOT NVIDIA`.
    ///
    /// Exists only under the feature `dev-platform`, so that a production build has no way to hold
    /// such a root.
    #[cfg(feature = "dev-platform")]
    pub fn development(certificate_der: &[u8]) -> Result<Self, DevelopmentGpuRootError> {
        use der::Decode as _;
        let certificate = x509_cert::Certificate::from_der(certificate_der)
            .map_err(|error| DevelopmentGpuRootError::NotACertificate(error.to_string()))?;
        let subject = certificate.tbs_certificate().subject().to_string();
        if !subject.contains("NOT NVIDIA") {
            return Err(DevelopmentGpuRootError::NotMarked { subject });
        }
        let sha256 = super::certificates::fingerprint(certificate_der);
        Ok(Self { platform: GpuPlatform::Development, sha256 })
    }

    /// The kind of GPU this root stands for.
    pub fn platform(&self) -> GpuPlatform {
        self.platform
    }

    /// SHA-256 of the root certificate's DER.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// Without the feature `dev-platform` there is no constructor for a development root:
///
/// ```compile_fail
/// let root = cohort_attestation::gpu::GpuRoot::development(&[]);
/// ```
#[cfg(all(doctest, not(feature = "dev-platform")))]
pub struct NoDevelopmentGpuRoot;

/// Why a certificate is not a development GPU root.
#[cfg(feature = "dev-platform")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevelopmentGpuRootError {
    /// Not DER of an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    NotACertificate(String),
    /// The subject does not contain `NOT NVIDIA`.
    #[error("subject {subject:?} is not marked NOT NVIDIA")]
    NotMarked {
        /// The subject found.
        subject: String,
    },
}

/// What a verifier accepts about GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuPolicy {
    root: GpuRoot,
    golden: Option<GoldenValues>,
    golden_required: bool,
}

impl GpuPolicy {
    /// NVIDIA's root, golden values required and none there yet: refuses every GPU.
    pub fn production() -> Self {
        Self { root: GpuRoot::nvidia(), golden: None, golden_required: true }
    }

    /// Trusts another root. A development root is reachable only under the feature `dev-platform`.
    pub fn with_root(mut self, root: GpuRoot) -> Self {
        self.root = root;
        self
    }

    /// Compares measurements with these values.
    pub fn with_golden(mut self, golden: GoldenValues) -> Self {
        self.golden = Some(golden);
        self
    }

    /// Accepts measurements that were compared with nothing, if there are no golden values. For whoever
    /// checks a result without having the list; what releases anything must not use it.
    pub fn golden_optional(mut self) -> Self {
        self.golden_required = false;
        self
    }

    /// The trusted root.
    pub fn root(&self) -> &GpuRoot {
        &self.root
    }

    /// The golden values, if there are any.
    pub fn golden(&self) -> Option<&GoldenValues> {
        self.golden.as_ref()
    }

    pub(crate) fn golden_is_required(&self) -> bool {
        self.golden_required
    }
}
