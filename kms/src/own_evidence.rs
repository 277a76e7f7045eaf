//! What this KMS shows of itself: a quote of its own virtual machine over each epoch's statement.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use cohort_attestation::KmsEvidence;
use cohort_protocol::root::RootStatement;
use tokio::sync::Mutex;

use crate::{denial::Denial, guest::GuestAgent};

/// For how long a quote is shown again before a new one is made. Anonymous callers cause no more than one an hour.
const QUOTE_REMEMBERED: Duration = Duration::from_secs(3600);

/// Makes and remembers the evidence.
pub struct OwnEvidence {
    guest: GuestAgent,
    collateral_file: Option<PathBuf>,
    remembered: Mutex<BTreeMap<u32, (Instant, KmsEvidence)>>,
}

impl OwnEvidence {
    /// From this guest agent, with the collateral in this file, if any.
    pub fn new(guest: GuestAgent, collateral_file: Option<PathBuf>) -> Self {
        Self { guest, collateral_file, remembered: Mutex::default() }
    }

    /// Evidence that the keys of `statement` are in this virtual machine.
    pub async fn of(&self, statement: &RootStatement) -> Result<KmsEvidence, Denial> {
        let mut remembered = self.remembered.lock().await;
        if let Some((at, evidence)) = remembered.get(&statement.epoch)
            && at.elapsed() < QUOTE_REMEMBERED
        {
            return Ok(evidence.clone());
        }
        let mut evidence = self.guest.evidence(&statement.report_data()).await.map_err(|error| {
            tracing::error!(target: "kms", error = &error as &dyn std::error::Error, "no quote of this KMS");
            Denial::GuestUnavailable
        })?;
        evidence.collateral = self.collateral().await;
        remembered.insert(statement.epoch, (Instant::now(), evidence.clone()));
        Ok(evidence)
    }

    /// Collateral helps whoever verifies; its absence is no reason to show no quote.
    async fn collateral(&self) -> Option<cohort_attestation::Collateral> {
        let path = self.collateral_file.as_ref()?;
        let read = tokio::fs::read(path).await.map_err(|error| error.to_string());
        let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        parsed
            .inspect_err(|why| tracing::warn!(target: "kms", path = %path.display(), why, "no collateral"))
            .ok()
    }
}
