//! What a KMS in a virtual machine has from dstack's guest agent: its root secret, and its own quote.

use cohort_attestation::KmsEvidence;
use cohort_guest::{GuestAgent, GuestError};
use cohort_protocol::hpke::SecretBytes;

/// Path (v0) and domain (v1) of the root secret among the app's keys.
pub const ROOT_KEY: &str = "cohort-kms-root/1";

/// Which of the guest agent's key derivations gives the root secret. They give different secrets, so that there is no
/// falling back from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyApi {
    /// `POST /GetKey`: frozen, served by all 0.5 and 0.6 releases.
    V0,
    /// `POST /v1/GetKey`: since 0.6.
    V1,
}

/// The root secret: the key that dstack derives for this app under [`ROOT_KEY`]. It depends on the app id and on
/// dstack's own root, not on the machine and not on the compose hash.
pub async fn root_secret(guest: &GuestAgent, api: KeyApi) -> Result<SecretBytes, GuestError> {
    match api {
        KeyApi::V0 => guest.key_v0(ROOT_KEY, "cohort-kms-root").await,
        KeyApi::V1 => guest.key_v1(ROOT_KEY).await,
    }
}

/// Quote over `report_data`, event log and app-compose text; without collateral.
pub async fn evidence(guest: &GuestAgent, report_data: &[u8; 64]) -> Result<KmsEvidence, GuestError> {
    let app_compose = guest.identity().await?.app_compose;
    let quote = guest.quote(report_data).await?;
    Ok(KmsEvidence { quote: quote.quote, event_log: quote.event_log, app_compose, collateral: None })
}
