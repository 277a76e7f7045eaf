//! The evidence of a key service about itself: that a root's keys live in a virtual machine, and in which.
//! Specification: `docs/spec/kms-root.md`, "Evidence".

use cohort_protocol::root::{RootError, RootStatement};
use serde::{Deserialize, Serialize};

use crate::bytes::{AppId, DeviceId, MrAggregated, OsImageHash};
use crate::collateral::Collateral;
use crate::evidence::GuestEvidence;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::tdx;
use crate::verified::VerifiedTd;

/// What a key service shows beside its root statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsEvidence {
    /// DCAP quote, version 4 or 5; hex in JSON. Its report data is [`RootStatement::report_data`].
    #[serde(with = "cohort_protocol::hex_digits")]
    pub quote: Vec<u8>,
    /// As the guest agent returned it with the quote.
    pub event_log: String,
    /// The exact text of the key service's own `app-compose.json`.
    pub app_compose: String,
    /// Collateral for the quote, where the key service has any. A verifier may use its own instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collateral: Option<Collateral>,
}

/// Why evidence of a key service was refused.
#[derive(Debug, thiserror::Error)]
pub enum KmsRefusal {
    /// The statement that it is about does not hold.
    #[error("the root statement does not hold")]
    Statement(#[source] RootError),
    /// Neither the evidence nor the verifier has collateral.
    #[error("there is no collateral to verify the quote with")]
    CollateralMissing,
    /// The evidence itself.
    #[error("the key service's evidence does not verify")]
    Evidence(#[from] Refusal),
}

impl KmsRefusal {
    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Statement(_) => "root_statement_invalid",
            Self::CollateralMissing => "collateral_missing",
            Self::Evidence(refusal) => refusal.code(),
        }
    }
}

/// A virtual machine that held a root's keys when it had its quote made. Only [`verify`] makes one.
///
/// Whether that machine is a key service that may have these keys is for the caller: `DstackKms.isKmsAllowed` over
/// these values says so, at a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedKms {
    td: VerifiedTd,
    statement: RootStatement,
}

impl VerifiedKms {
    /// The keys that the machine stated.
    pub fn statement(&self) -> &RootStatement {
        &self.statement
    }

    /// All claims about the machine.
    pub fn td(&self) -> &VerifiedTd {
        &self.td
    }

    /// The dstack app that the key service runs as: for dstack's boot gate, the contract whose rules it booted under.
    pub fn app_id(&self) -> AppId {
        self.td.app_id()
    }

    /// dstack `mr_aggregated` with the whole of RTMR3, as dstack's own KMS computes it of a KMS that asks it for the
    /// root keys, and as `DstackKms.kmsAllowedAggregatedMrs` lists it.
    pub fn mr_aggregated(&self) -> MrAggregated {
        self.td.mr_aggregated()
    }

    /// dstack device id, as `DstackKms.kmsAllowedDeviceIds` lists it.
    pub fn device_id(&self) -> DeviceId {
        self.td.device_id()
    }

    /// What the guest image says it is, as `DstackKms.allowedOsImages` lists it. The image writes this itself:
    /// believe it as far as `mr_aggregated`, which covers it, is of an image that tells the truth.
    pub fn os_image_hash(&self) -> Option<OsImageHash> {
        self.td.os_image_hash()
    }
}

/// Verifies a key service's evidence about the keys of `statement` at `now` (Unix seconds). Offline.
///
/// `collateral` is the verifier's own; without it the evidence's is used. Either must be valid at `now`, so a saved
/// answer is verified at the time at which it was saved.
///
/// # Errors
/// The first reason found.
pub fn verify(
    statement: &RootStatement,
    evidence: &KmsEvidence,
    collateral: Option<&Collateral>,
    policy: &Policy,
    now: u64,
) -> Result<VerifiedKms, KmsRefusal> {
    statement.verify().map_err(KmsRefusal::Statement)?;
    let td = verify_about(evidence, collateral, policy, &statement.report_data(), now)?;
    Ok(VerifiedKms { td, statement: statement.clone() })
}

fn verify_about(
    evidence: &KmsEvidence,
    collateral: Option<&Collateral>,
    policy: &Policy,
    report_data: &[u8; 64],
    now: u64,
) -> Result<VerifiedTd, KmsRefusal> {
    let collateral = collateral.or(evidence.collateral.as_ref()).ok_or(KmsRefusal::CollateralMissing)?;
    let evidence = evidence.guest().with_collateral(collateral.clone());
    Ok(tdx::verify(&evidence, policy, report_data, now)?)
}

impl KmsEvidence {
    /// A guest agent's answers, still without collateral; `None` without the app-compose text.
    pub fn of_guest(guest: GuestEvidence) -> Option<Self> {
        let GuestEvidence { quote, event_log, app_compose, gpu: _ } = guest;
        Some(Self { quote, event_log, app_compose: app_compose?, collateral: None })
    }

    /// Verifies it about something else than a root statement: these 64 bytes, at `now` (Unix seconds), with the
    /// collateral that it brings.
    ///
    /// # Errors
    /// The first reason found.
    pub fn verify(
        &self,
        report_data: &[u8; 64],
        policy: &Policy,
        now: u64,
    ) -> Result<VerifiedTd, KmsRefusal> {
        verify_about(self, None, policy, report_data, now)
    }

    fn guest(&self) -> GuestEvidence {
        let Self { quote, event_log, app_compose, .. } = self.clone();
        GuestEvidence { quote, event_log, app_compose: Some(app_compose), gpu: Vec::new() }
    }
}
