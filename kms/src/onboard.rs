//! How a new replica gets the root from one that serves: its own quote, bound to a challenge and to a fresh key, of a
//! machine that is what the serving one is and that the registry allows. Specification: `docs/spec/replicas.md`.

use alloy::primitives::{Address, B256, Bytes};
use cohort_attestation::KmsEvidence;
use cohort_guest::{GuestAgent, GuestError};
use cohort_protocol::{
    abi::boot::AppBootInfo,
    hpke::{self, HpkeError, KeyPair, PublicKey, SecretBytes},
    json::{push_prefixed, sha256},
    release::{Challenge, Refusal},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::{collateral::CollateralCache, denial::Denial, guest, service::unix_now};

const TAG: &[u8] = b"cohort-kms-onboard/1";
/// Longest answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Body of `POST /v1/onboard`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnboardRequest {
    /// Of `POST /v1/challenge`.
    pub challenge: B256,
    /// Fresh X-Wing public key, 1216 bytes.
    pub encryption_key: Bytes,
    /// The asking machine's, about [`report_data`].
    pub evidence: KmsEvidence,
}

/// Answer: HPKE of the root secret's 32 bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnboardAnswer {
    /// Encapsulated key.
    pub enc: Bytes,
    /// Ciphertext.
    pub ciphertext: Bytes,
}

/// What the quote of the asking machine commits to.
pub fn report_data(
    (chain_id, registry): (u64, Address),
    kms_root: Address,
    challenge: B256,
    encryption_key: &[u8],
) -> [u8; 64] {
    let mut input = Vec::with_capacity(256);
    push_prefixed(&mut input, TAG);
    push_prefixed(&mut input, &chain_id.to_be_bytes());
    push_prefixed(&mut input, registry.as_slice());
    push_prefixed(&mut input, kms_root.as_slice());
    push_prefixed(&mut input, challenge.as_slice());
    push_prefixed(&mut input, sha256(encryption_key).as_slice());
    Sha512::digest(&input).into()
}

/// Is the asking machine what this KMS's own is? Instance and device may differ; the registry decides about them.
pub fn same_machine(own: &AppBootInfo, other: &AppBootInfo) -> Result<(), Denial> {
    let differs = [
        ("app id", own.appId != other.appId),
        ("compose hash", own.composeHash != other.composeHash),
        ("system (mr_system)", own.mrSystem != other.mrSystem),
        ("OS image", own.osImageHash != other.osImageHash),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(Denial::MachineDiffers { field }),
        None => Ok(()),
    }
}

/// Encrypts the root to the asking machine's key.
pub fn seal(
    secret: &SecretBytes,
    key: &PublicKey,
    report_data: &[u8; 64],
) -> Result<OnboardAnswer, HpkeError> {
    let (enc, ciphertext) = hpke::seal(key, TAG, report_data, secret.expose_secret())?;
    Ok(OnboardAnswer { enc: enc.into(), ciphertext: ciphertext.into() })
}

/// A replica that gets no root.
#[derive(Debug, thiserror::Error)]
pub enum OnboardError {
    /// No randomness.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// No quote.
    #[error("dstack's guest agent gives no evidence")]
    Guest(#[source] GuestError),
    /// The serving KMS does not answer as one does.
    #[error("the serving KMS does not answer: {0}")]
    Unreachable(String),
    /// It refuses.
    #[error("the serving KMS refuses: {} ({}). {}", .0.message, .0.code, .0.hint.as_deref().unwrap_or_default())]
    Refused(Refusal),
    /// Its answer does not open.
    #[error("the serving KMS's answer holds no root secret for this machine")]
    Answer,
}

/// Asks the KMS at `url` for the root secret. That it is the right root shows on chain: with another one this replica's
/// keys are not registered, and it releases nothing.
pub async fn onboard(
    url: &reqwest::Url,
    agent: &GuestAgent,
    collateral: &CollateralCache,
    (chain_id, registry): (u64, Address),
) -> Result<SecretBytes, OnboardError> {
    let unreachable = |error: reqwest::Error| OnboardError::Unreachable(error.without_url().to_string());
    let http = crate::client::client(std::time::Duration::from_secs(30)).map_err(unreachable)?;
    let challenge: Challenge = post(&http, url, "v1/challenge", &serde_json::json!({})).await?;
    let pair = KeyPair::derive(&hpke::random_secret().map_err(OnboardError::Random)?);
    let encryption_key = Bytes::copy_from_slice(pair.public_key().as_bytes());
    let data = report_data((chain_id, registry), challenge.kms_root, challenge.challenge, &encryption_key);
    let mut evidence = guest::evidence(agent, &data).await.map_err(OnboardError::Guest)?;
    if let Ok(now) = unix_now() {
        evidence.collateral = collateral.of_quote(&evidence.quote, now, None).await.ok();
    }
    let request = OnboardRequest { challenge: challenge.challenge, encryption_key, evidence };
    let answer: OnboardAnswer = post(&http, url, "v1/onboard", &request).await?;
    let secret =
        hpke::open(&pair, &answer.enc, TAG, &data, &answer.ciphertext).map_err(|_| OnboardError::Answer)?;
    SecretBytes::from_slice(&Zeroizing::new(secret)).ok_or(OnboardError::Answer)
}

async fn post<Q: Serialize, A: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    base: &reqwest::Url,
    path: &str,
    body: &Q,
) -> Result<A, OnboardError> {
    let unreachable = |error: reqwest::Error| OnboardError::Unreachable(error.without_url().to_string());
    let url = base.join(path).map_err(|error| OnboardError::Unreachable(error.to_string()))?;
    let mut response = http.post(url).json(body).send().await.map_err(unreachable)?;
    let status = response.status();
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(OnboardError::Unreachable("its answer is too long".to_owned()));
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|_| OnboardError::Answer);
    }
    match serde_json::from_slice(&bytes) {
        Ok(refusal) => Err(OnboardError::Refused(refusal)),
        Err(_) => Err(OnboardError::Unreachable(format!("HTTP {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_data_commits_to_every_part() {
        let (address, word) = (Address::ZERO, B256::ZERO);
        let base = report_data((1, address), address, word, &[1]);
        for other in [
            report_data((2, address), address, word, &[1]),
            report_data((1, Address::repeat_byte(1)), address, word, &[1]),
            report_data((1, address), Address::repeat_byte(1), word, &[1]),
            report_data((1, address), address, B256::repeat_byte(1), &[1]),
            report_data((1, address), address, word, &[2]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn only_the_same_image_app_and_compose_file_is_the_same_machine() {
        let own = AppBootInfo { instanceId: [1; 20].into(), ..AppBootInfo::default() };
        let field = |change: fn(&mut AppBootInfo)| {
            let mut other = AppBootInfo { instanceId: [2; 20].into(), ..own.clone() };
            change(&mut other);
            match same_machine(&own, &other) {
                Err(Denial::MachineDiffers { field }) => Some(field),
                _ => None,
            }
        };
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|other| other.appId = [1; 20].into()), Some("app id"));
        assert_eq!(field(|other| other.composeHash = [1; 32].into()), Some("compose hash"));
        assert_eq!(field(|other| other.mrSystem = [1; 32].into()), Some("system (mr_system)"));
        assert_eq!(field(|other| other.osImageHash = [1; 32].into()), Some("OS image"));
    }
}
