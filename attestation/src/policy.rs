//! What a verifier accepts, written down: the trusted root and the states of a platform.

use std::collections::BTreeSet;
use std::time::Duration;

use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy, TcbStatus};
use serde::Serialize;

use crate::refusal::Refusal;

/// SHA-384 of the public key point of Intel's SGX Root CA: what dcap-qvl calls the root key id.
pub const INTEL_ROOT_KEY_ID: [u8; 48] = [
    0x46, 0xe4, 0x03, 0xbd, 0x34, 0xf0, 0x5a, 0x3f, 0x28, 0x17, 0xab, 0x9b, 0xad, 0xca, 0xac, 0xc7, 0xff,
    0xc9, 0x8e, 0x0f, 0x26, 0x10, 0x08, 0xcd, 0x30, 0xda, 0xe9, 0x36, 0xca, 0xce, 0x18, 0xd5, 0xdc, 0xf5,
    0x8e, 0xef, 0x31, 0x46, 0x36, 0x13, 0xde, 0x15, 0x70, 0xd5, 0x16, 0x20, 0x09, 0x93,
];

/// Which kind of machine signed the evidence. It is decided by the root that the verifier trusts,
/// never by the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// A machine whose quoting keys chain to Intel's root.
    Intel,
    /// The development platform: real structures, no hardware, no confidentiality.
    Development,
}

impl Platform {
    /// `intel` or `development`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intel => "intel",
            Self::Development => "development",
        }
    }
}

/// The one certificate authority that evidence must chain to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot(Root);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    Intel,
    #[cfg(feature = "dev-platform")]
    Development {
        der: Vec<u8>,
        key_id: [u8; 48],
    },
}

impl TrustedRoot {
    /// Intel's SGX Root CA, as compiled into dcap-qvl.
    pub fn intel() -> Self {
        Self(Root::Intel)
    }

    /// The root of a development platform (DER). It must call itself `NOT INTEL`.
    ///
    /// Exists only under the feature `dev-platform`, so that a production build has no way to hold
    /// such a root.
    #[cfg(feature = "dev-platform")]
    pub fn development(certificate_der: &[u8]) -> Result<Self, DevelopmentRootError> {
        use der::Decode as _;
        use sha2::{Digest as _, Sha384};
        let certificate = x509_cert::Certificate::from_der(certificate_der)
            .map_err(|error| DevelopmentRootError::NotACertificate(error.to_string()))?;
        let subject = certificate.tbs_certificate().subject().to_string();
        if !subject.contains("NOT INTEL") {
            return Err(DevelopmentRootError::NotMarked { subject });
        }
        let key = certificate.tbs_certificate().subject_public_key_info();
        let key_id = Sha384::digest(key.subject_public_key.raw_bytes()).into();
        Ok(Self(Root::Development { der: certificate_der.to_vec(), key_id }))
    }

    /// The kind of platform this root stands for.
    pub fn platform(&self) -> Platform {
        match self.0 {
            Root::Intel => Platform::Intel,
            #[cfg(feature = "dev-platform")]
            Root::Development { .. } => Platform::Development,
        }
    }

    /// SHA-384 of the root's public key point, for audit records.
    pub fn key_id(&self) -> &[u8; 48] {
        match &self.0 {
            Root::Intel => &INTEL_ROOT_KEY_ID,
            #[cfg(feature = "dev-platform")]
            Root::Development { key_id, .. } => key_id,
        }
    }

    pub(crate) fn root(&self) -> &Root {
        &self.0
    }
}

/// Without the feature `dev-platform` there is no constructor for a development root:
///
/// ```compile_fail
/// let root = cohort_attestation::TrustedRoot::development(&[]);
/// ```
#[cfg(all(doctest, not(feature = "dev-platform")))]
pub struct NoDevelopmentRoot;

/// Why a certificate is not a development root.
#[cfg(feature = "dev-platform")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevelopmentRootError {
    /// Not DER of an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    NotACertificate(String),
    /// The subject does not contain `NOT INTEL`.
    #[error("subject {subject:?} is not marked NOT INTEL")]
    NotMarked {
        /// The subject found.
        subject: String,
    },
}

/// A flag of the machine's PCK certificate that a policy may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformFlag {
    /// Packages may be added to the machine under the same platform key.
    DynamicPlatform,
    /// Intel's registration service holds the platform root keys.
    CachedKeys,
    /// Simultaneous multithreading is on.
    Smt,
}

impl std::fmt::Display for PlatformFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DynamicPlatform => "dynamic platform",
            Self::CachedKeys => "cached keys",
            Self::Smt => "simultaneous multithreading",
        })
    }
}

/// The states of a platform that a verifier accepts.
///
/// Debug, migratable and service TDs, revoked platforms, expired collateral and modules without
/// SEPT_VE_DISABLE are refused whatever the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    root: TrustedRoot,
    accepted_statuses: Vec<TcbStatus>,
    accepted_advisories: BTreeSet<String>,
    out_of_date_grace: Duration,
    minimum_tcb_evaluation: u32,
    refused_flags: Vec<PlatformFlag>,
    app_compose_required: bool,
}

impl Policy {
    /// Intel's root, TCB status `UpToDate` only, no open advisory, app-compose bytes required.
    ///
    /// It accepts dynamic platforms, cached keys and SMT. Every TDX server seen (11 machines in
    /// public evidence) has a dynamic platform and SMT, about half have cached keys: these flags are
    /// how multi-package servers are registered, so refusing them refuses the hardware. SMT leaves
    /// sibling-thread side channels to the TDX module's mitigations, which the TCB status covers.
    pub fn production() -> Self {
        Self {
            root: TrustedRoot::intel(),
            accepted_statuses: vec![TcbStatus::UpToDate],
            accepted_advisories: BTreeSet::new(),
            out_of_date_grace: Duration::ZERO,
            minimum_tcb_evaluation: 0,
            refused_flags: Vec::new(),
            app_compose_required: true,
        }
    }

    /// Trusts another root. A development root is reachable only under the feature `dev-platform`.
    pub fn with_root(mut self, root: TrustedRoot) -> Self {
        self.root = root;
        self
    }

    /// Accepts a further TCB status. `Revoked` is refused all the same.
    pub fn accept_status(mut self, status: TcbStatus) -> Self {
        self.accepted_statuses.push(status);
        self
    }

    /// Accepts platforms to which this Intel advisory applies (for example `INTEL-SA-01036`).
    pub fn accept_advisory(mut self, id: impl Into<String>) -> Self {
        self.accepted_advisories.insert(id.into());
        self
    }

    /// If `OutOfDate` is accepted: for how long after the date of the platform's TCB level.
    pub fn out_of_date_grace(mut self, grace: Duration) -> Self {
        self.out_of_date_grace = grace;
        self
    }

    /// Refuses collateral older than this TCB evaluation data number.
    pub fn minimum_tcb_evaluation(mut self, number: u32) -> Self {
        self.minimum_tcb_evaluation = number;
        self
    }

    /// Refuses machines with this flag.
    pub fn refuse_flag(mut self, flag: PlatformFlag) -> Self {
        self.refused_flags.push(flag);
        self
    }

    /// Accepts evidence without the app-compose bytes. The compose hash is then the measured one,
    /// and what it stands for must be known from elsewhere.
    pub fn app_compose_optional(mut self) -> Self {
        self.app_compose_required = false;
        self
    }

    /// The trusted root.
    pub fn root(&self) -> &TrustedRoot {
        &self.root
    }

    pub(crate) fn app_compose_is_required(&self) -> bool {
        self.app_compose_required
    }

    /// Applies the policy to claims whose signatures have been verified at `now`.
    pub(crate) fn check(&self, claims: &QuoteClaims, now: u64) -> Result<(), Refusal> {
        let status = claims.tcb.status;
        if !self.accepted_statuses.contains(&status) {
            return Err(Refusal::TcbStatusNotAccepted { status });
        }
        if let Some(id) = advisories(claims).find(|id| !self.accepted_advisories.contains(*id)) {
            return Err(Refusal::AdvisoryNotAccepted { id: id.clone() });
        }
        let have = claims.tcb.eval_data_number;
        if have < self.minimum_tcb_evaluation {
            return Err(Refusal::TcbEvaluationTooOld { have, want: self.minimum_tcb_evaluation });
        }
        let is_set = |flag: &&PlatformFlag| flag_of(claims, **flag) == PckCertFlag::True;
        if let Some(flag) = self.refused_flags.iter().find(is_set) {
            return Err(Refusal::PlatformFlagNotAccepted { flag: *flag });
        }
        // What is left to dcap-qvl: the collateral window once more, and the age of TCB levels.
        dcap_qvl::Policy::validate(&self.quote_policy(now), claims)
            .map_err(|error| Refusal::PolicyRefused { detail: format!("{error:#}") })
    }

    fn quote_policy(&self, now: u64) -> QuotePolicy {
        let accepts = |flag| !self.refused_flags.contains(&flag);
        self.accepted_statuses
            .iter()
            .fold(QuotePolicy::strict(now), |policy, status| policy.allow_status(*status))
            .platform_grace_period(self.out_of_date_grace)
            .qe_grace_period(self.out_of_date_grace)
            .min_tcb_eval_data_number(self.minimum_tcb_evaluation)
            .allow_dynamic_platform(accepts(PlatformFlag::DynamicPlatform))
            .allow_cached_keys(accepts(PlatformFlag::CachedKeys))
            .allow_smt(accepts(PlatformFlag::Smt))
    }
}

/// Advisories of the launch TCB, the current TCB (TDX 1.5) and the quoting enclave.
pub(crate) fn advisories(claims: &QuoteClaims) -> impl Iterator<Item = &String> {
    let current = claims.platform.current_tcb_level.iter().flat_map(|level| &level.advisory_ids);
    claims.platform.tcb_level.advisory_ids.iter().chain(current).chain(&claims.qe.tcb_level.advisory_ids)
}

fn flag_of(claims: &QuoteClaims, flag: PlatformFlag) -> PckCertFlag {
    let pck = &claims.platform.pck;
    match flag {
        PlatformFlag::DynamicPlatform => pck.dynamic_platform,
        PlatformFlag::CachedKeys => pck.cached_keys,
        PlatformFlag::Smt => pck.smt_enabled,
    }
}
