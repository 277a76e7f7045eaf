//! The evidence that a virtual machine presents, as it travels and as it is kept.

use serde::{Deserialize, Serialize};

use crate::collateral::{self, Collateral};
use crate::event_log;
use crate::gpu::GpuEvidence;
use crate::refusal::Refusal;

/// Longest accepted quote, in bytes (real ones have 5 000 to 10 000).
pub const MAX_QUOTE_BYTES: usize = 64 << 10;
/// Longest accepted app-compose file, in bytes: dstack's own limit.
pub const MAX_APP_COMPOSE_BYTES: usize = 256 << 10;
/// Longest accepted record of a privacy proof, in bytes of JSON.
const MAX_PRIVACY_PROOF_BYTES: usize = 512 << 10;

/// What a guest agent can give: evidence still without collateral.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestEvidence {
    /// DCAP quote, version 4 or 5; hex in JSON. Its bytes are malleable, so that neither they nor
    /// their hash identify anything: the report data does.
    #[serde(with = "cohort_protocol::hex_digits")]
    pub quote: Vec<u8>,
    /// The `event_log` string of the guest agent's `GetQuote` answer, as received.
    pub event_log: String,
    /// The exact text of `app-compose.json` (`tcb_info.app_compose` of the guest agent's `Info`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_compose: Option<String>,
    /// Its GPUs, where the app requires some. The report data commits to them; [`crate::verify`] does not
    /// read them: [`crate::gpu::appraise`] does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu: Vec<GpuEvidence>,
}

impl GuestEvidence {
    /// Adds the collateral to verify it with.
    pub fn with_collateral(self, collateral: Collateral) -> Evidence {
        let Self { quote, event_log, app_compose, gpu } = self;
        Evidence { quote, event_log, app_compose, gpu, privacy_proof: None, collateral }
    }
}

/// Everything that is needed to verify a virtual machine, now or later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// As in [`GuestEvidence`].
    #[serde(with = "cohort_protocol::hex_digits")]
    pub quote: Vec<u8>,
    /// As in [`GuestEvidence`].
    pub event_log: String,
    /// As in [`GuestEvidence`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_compose: Option<String>,
    /// As in [`GuestEvidence`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu: Vec<GpuEvidence>,
    /// Which rule admitted which node of the recipe's SQL, as the app says; no part of what is verified here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_proof: Option<serde_json::Value>,
    /// Intel's statements about the platform, valid at the time of verification.
    pub collateral: Collateral,
}

impl Evidence {
    /// Refuses parts that exceed their limits, before any of them is read.
    pub(crate) fn check_sizes(&self) -> Result<(), Refusal> {
        let app_compose = self.app_compose.as_ref().map_or(0, String::len);
        check_size("event log", self.event_log.len(), event_log::MAX_LOG_BYTES)?;
        check_size("app-compose", app_compose, MAX_APP_COMPOSE_BYTES)?;
        let privacy_proof = self.privacy_proof.as_ref().map_or(0, |record| record.to_string().len());
        check_size("privacy proof", privacy_proof, MAX_PRIVACY_PROOF_BYTES)?;
        check_quote_sizes(&self.quote, &self.collateral)
    }
}

/// The same for a quote alone.
pub(crate) fn check_quote_sizes(quote: &[u8], collateral: &Collateral) -> Result<(), Refusal> {
    check_size("quote", quote.len(), MAX_QUOTE_BYTES)?;
    check_size("collateral", collateral::bytes(collateral), collateral::MAX_BYTES)
}

fn check_size(part: &'static str, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes > limit {
        return Err(Refusal::TooLarge { part, bytes, limit });
    }
    Ok(())
}
