//! Why evidence was refused: one variant and one stable code per reason.

use dcap_qvl::TcbStatus;

use crate::boot::BootError;
use crate::collateral::Family;
use crate::dstack::MrConfig;
use crate::event_log::EventLogError;
use crate::policy::PlatformFlag;
use cohort_protocol::ids::ComposeHash;

/// The reason for refusing evidence. [`Refusal::code`] is stable; the text is for people and holds
/// nothing that the presenter of the evidence does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A part of the evidence exceeds its size limit.
    #[error("{part} has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Part of the evidence.
        part: &'static str,
        /// Length received.
        bytes: usize,
        /// Length allowed.
        limit: usize,
    },
    /// The quote is not a DCAP quote.
    #[error("the quote cannot be parsed: {detail}")]
    QuoteMalformed {
        /// What the parser said.
        detail: String,
    },
    /// A DCAP quote, but not of a TDX virtual machine.
    #[error("the quote is not from a TDX virtual machine")]
    NotTdx,
    /// The report data is not what this exchange requires.
    #[error("the quote's report data is not the expected value: it was made for something else")]
    ReportDataMismatch,
    /// The event log cannot be used.
    #[error("the event log cannot be used")]
    EventLogMalformed(#[source] EventLogError),
    /// The events of RTMR3 are not those of one dstack boot.
    #[error("the event log is not that of one dstack boot")]
    EventLogGrammar(#[source] BootError),
    /// The log does not replay to a register of the quote.
    #[error("the event log does not replay to RTMR{register} of the quote")]
    EventLogMismatch {
        /// Register, 0 to 3.
        register: u8,
    },
    /// The app-compose bytes are required and absent.
    #[error("the app-compose bytes are missing")]
    AppComposeMissing,
    /// The app-compose bytes are not the measured ones.
    #[error("the app-compose bytes hash to {presented}, the virtual machine measured {measured}")]
    ComposeHashMismatch {
        /// SHA-256 of the presented bytes.
        presented: ComposeHash,
        /// Payload of the `compose-hash` event.
        measured: ComposeHash,
    },
    /// MR_CONFIG_ID is set and names another app.
    #[error("MR_CONFIG_ID ({form:?}) does not name the app of the event log")]
    MrConfigMismatch {
        /// Form of the value.
        form: MrConfig,
    },
    /// MR_CONFIG_ID has a form that is not known here.
    #[error("MR_CONFIG_ID has the unknown form {version}")]
    MrConfigUnknown {
        /// First byte of the value.
        version: u8,
    },
    /// The collateral cannot be read.
    #[error("the collateral's {part} cannot be read")]
    CollateralMalformed {
        /// Part of the collateral.
        part: &'static str,
    },
    /// The collateral is for other machines.
    #[error("the collateral is of the platform family {have}, and the quote of {want}")]
    CollateralOfAnotherFamily {
        /// Whose collateral it is.
        have: Family,
        /// What made the quote.
        want: Family,
    },
    /// The collateral is from the future.
    #[error("the collateral is valid from {valid_from}, and now is {now} (Unix seconds)")]
    CollateralNotYetValid {
        /// First valid second.
        valid_from: u64,
        /// Time of verification.
        now: u64,
    },
    /// The collateral has expired.
    #[error("the collateral expired at {expired_at}, and now is {now} (Unix seconds)")]
    CollateralExpired {
        /// First second at which it is no longer valid.
        expired_at: u64,
        /// Time of verification.
        now: u64,
    },
    /// The evidence chains to another root than the trusted one.
    #[error("the evidence is signed under {found:?}, which is not the trusted root")]
    RootNotTrusted {
        /// Name of the root it chains to.
        found: String,
    },
    /// The machine's PCK certificate is revoked.
    #[error("the machine's PCK certificate is revoked")]
    PckRevoked,
    /// A debug TD: its host can read its memory.
    #[error("the virtual machine is in debug mode: its host can read its memory")]
    TdDebug,
    /// A migratable TD: another machine may hold its memory later.
    #[error("the virtual machine is migratable")]
    TdMigratable,
    /// A TD with a service TD bound to it.
    #[error("a service TD is bound to the virtual machine")]
    TdService,
    /// Other attributes of the TD are not acceptable.
    #[error("the virtual machine's attributes {attributes} are not acceptable")]
    TdAttributes {
        /// TD attributes, 8 bytes little endian, hex.
        attributes: String,
    },
    /// The quote failed verification for another reason: a signature, a chain, a TCB level.
    #[error("the quote was refused: {detail}")]
    QuoteRefused {
        /// What the verifier said.
        detail: String,
    },
    /// The platform's TCB status is not accepted by the policy.
    #[error("the platform's TCB status {status} is not accepted")]
    TcbStatusNotAccepted {
        /// Status found.
        status: TcbStatus,
    },
    /// An advisory applies to the platform that the policy does not accept.
    #[error("advisory {id} applies to the platform and is not accepted")]
    AdvisoryNotAccepted {
        /// Intel's advisory id.
        id: String,
    },
    /// The collateral's TCB evaluation is older than the policy allows.
    #[error("TCB evaluation data number {have} is older than {want}")]
    TcbEvaluationTooOld {
        /// Number found.
        have: u32,
        /// Number required.
        want: u32,
    },
    /// The platform has a flag that the policy refuses.
    #[error("the platform has the flag {flag}, which is not accepted")]
    PlatformFlagNotAccepted {
        /// Flag found.
        flag: PlatformFlag,
    },
    /// The policy refused the platform for another reason, such as the age of its TCB level.
    #[error("the platform is refused by policy: {detail}")]
    PolicyRefused {
        /// What the policy said.
        detail: String,
    },
}

impl Refusal {
    /// The stable code of this reason, for clients, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "evidence_too_large",
            Self::QuoteMalformed { .. } => "quote_malformed",
            Self::NotTdx => "quote_not_tdx",
            Self::ReportDataMismatch => "report_data_mismatch",
            Self::EventLogMalformed(_) => "event_log_malformed",
            Self::EventLogGrammar(error) => match error {
                BootError::Missing { .. } => "boot_event_missing",
                BootError::Duplicate { .. } => "boot_event_duplicate",
                BootError::OutOfOrder { .. } => "boot_event_out_of_order",
                BootError::AfterBoundary { .. } => "boot_event_after_boundary",
                BootError::Length { .. } | BootError::AmbiguousName | BootError::KeyProvider => {
                    "boot_event_malformed"
                }
            },
            Self::EventLogMismatch { .. } => "event_log_mismatch",
            Self::AppComposeMissing => "app_compose_missing",
            Self::ComposeHashMismatch { .. } => "compose_hash_mismatch",
            Self::MrConfigMismatch { .. } => "mr_config_id_mismatch",
            Self::MrConfigUnknown { .. } => "mr_config_id_unknown",
            Self::CollateralMalformed { .. } => "collateral_malformed",
            Self::CollateralOfAnotherFamily { .. } => "collateral_of_another_family",
            Self::CollateralNotYetValid { .. } => "collateral_not_yet_valid",
            Self::CollateralExpired { .. } => "collateral_expired",
            Self::RootNotTrusted { .. } => "root_not_trusted",
            Self::PckRevoked => "pck_revoked",
            Self::TdDebug => "td_debug",
            Self::TdMigratable => "td_migratable",
            Self::TdService => "td_service",
            Self::TdAttributes { .. } => "td_attributes",
            Self::QuoteRefused { .. } => "quote_refused",
            Self::TcbStatusNotAccepted { .. } => "tcb_status_not_accepted",
            Self::AdvisoryNotAccepted { .. } => "advisory_not_accepted",
            Self::TcbEvaluationTooOld { .. } => "tcb_evaluation_too_old",
            Self::PlatformFlagNotAccepted { .. } => "platform_flag_not_accepted",
            Self::PolicyRefused { .. } => "policy_refused",
        }
    }

    /// Whether the same quote may be accepted later or with other collateral.
    pub fn is_about_collateral(&self) -> bool {
        matches!(
            self,
            Self::CollateralMalformed { .. }
                | Self::CollateralOfAnotherFamily { .. }
                | Self::CollateralNotYetValid { .. }
                | Self::CollateralExpired { .. }
        )
    }
}
