//! Client of the KMS: a challenge, then keys sealed to this process alone.

use std::time::Duration;

use cohort_attestation::{Collateral, Evidence, collateral};
use cohort_protocol::release::{
    Challenge, LeaseAnswer, LeaseRequest, ReceiptAnswer, ReceiptQuestion, Refusal, ReleaseAnswer,
    ReleaseRequest,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest answer: 64 wrap keys and a certificate take a few kilobytes, collateral some twenty, twice as much in hex.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The KMS refused, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// It did not answer as a KMS does.
    #[error("the KMS does not answer: {0}")]
    Unreachable(String),
    /// It refused, with its reason.
    #[error("the KMS refuses: {} ({})", .0.message, .0.code)]
    Refused(Refusal),
}

/// The client.
#[derive(Clone)]
pub struct Kms {
    url: reqwest::Url,
    http: reqwest::Client,
}

impl Kms {
    /// For the KMS at `url`.
    pub fn new(url: reqwest::Url) -> Result<Self, KmsError> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| KmsError::Unreachable(e.to_string()))?;
        Ok(Self { url, http })
    }

    /// A fresh single-use challenge.
    pub async fn challenge(&self) -> Result<Challenge, KmsError> {
        self.post("v1/challenge", &serde_json::json!({})).await
    }

    /// Collateral for a quote of this machine, valid now.
    pub async fn collateral(&self, quote: &[u8]) -> Result<Collateral, KmsError> {
        let family = collateral::family_of_quote(quote)
            .map_err(|e| KmsError::Unreachable(format!("the quote names no platform family: {e}")))?;
        self.ask::<(), _>(&format!("v1/collateral/{family}"), None).await
    }

    /// Asks for keys.
    pub async fn release(&self, request: &ReleaseRequest<Evidence>) -> Result<ReleaseAnswer, KmsError> {
        self.post("v1/release", request).await
    }

    /// Asks whether a run may go on.
    pub async fn lease(&self, request: &LeaseRequest) -> Result<LeaseAnswer, KmsError> {
        self.post("v1/lease", request).await
    }

    /// Asks whether the KMS sees a receipt at the confirmed depth.
    pub async fn receipt(&self, question: &ReceiptQuestion) -> Result<ReceiptAnswer, KmsError> {
        self.post("v1/receipt", question).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, KmsError> {
        self.ask(path, Some(body)).await
    }

    /// POST with a body, GET without.
    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, KmsError> {
        let down = |e: reqwest::Error| KmsError::Unreachable(e.without_url().to_string());
        let url = self.url.join(path).map_err(|e| KmsError::Unreachable(e.to_string()))?;
        let request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let mut response = request.send().await.map_err(down)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(down)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(KmsError::Unreachable("its answer is longer than a KMS's".to_owned()));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|e| KmsError::Unreachable(format!("its answer is not a KMS's: {e}")));
        }
        match serde_json::from_slice(&bytes) {
            Ok(refusal) => Err(KmsError::Refused(refusal)),
            Err(_) => Err(KmsError::Unreachable(format!("HTTP {status}"))),
        }
    }
}
