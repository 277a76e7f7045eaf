//! Client of dstack's guest agent: the only place from which the agent learns who it is.
//!
//! JSON over HTTP on a Unix socket (dstack `guest-agent`, `/var/run/dstack.sock`): bytes are lower-case hex, some
//! fields are JSON inside a string.

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use cohort_attestation::gpu::GpuEvidence;
use cohort_protocol::hpke::SecretBytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Answers larger than this are refused.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The guest agent did not answer as dstack's does.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No socket, or nobody listens.
    #[error("cannot reach dstack's guest agent at {path}; is the socket mounted into this container?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("guest agent call {method} failed: {reason}")]
    Call {
        /// Which call.
        method: &'static str,
        /// Why.
        reason: String,
    },
    /// An answer that does not have dstack's shape.
    #[error("guest agent call {method} answered something else than dstack's shape: {reason}")]
    Answer {
        /// Which call.
        method: &'static str,
        /// Why.
        reason: String,
    },
}

/// Who this CVM is, as `Info` tells. Only hints: what counts is what the quote proves to the KMS.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The app contract's address.
    pub app: Address,
    /// The exact bytes of app-compose.json.
    pub app_compose: String,
}

/// A quote with the log that explains its RTMR3.
#[derive(Debug, Clone, Deserialize)]
pub struct Quote {
    /// TDX quote, lower-case hex.
    pub quote: String,
    /// Event log as dstack's JSON string.
    pub event_log: String,
}

/// The client.
#[derive(Debug, Clone)]
pub struct GuestAgent {
    socket: PathBuf,
}

impl GuestAgent {
    /// For the socket at `path`; connects anew for each call.
    pub fn new(path: &Path) -> Self {
        Self { socket: path.to_owned() }
    }

    /// `Info`.
    pub async fn identity(&self) -> Result<Identity, GuestError> {
        #[derive(Deserialize)]
        struct Info {
            app_id: String,
            tcb_info: String,
        }
        #[derive(Deserialize)]
        struct TcbInfo {
            app_compose: String,
        }
        let bad = |reason: String| GuestError::Answer { method: "Info", reason };
        let info: Info = self.call("Info", &serde_json::json!({})).await?;
        let tcb: TcbInfo = serde_json::from_str(&info.tcb_info).map_err(|e| bad(format!("tcb_info: {e}")))?;
        let id =
            hex::decode(info.app_id.trim_start_matches("0x")).map_err(|e| bad(format!("app_id: {e}")))?;
        let app = Address::try_from(id.as_slice()).map_err(|e| bad(format!("app_id: {e}")))?;
        Ok(Identity { app, app_compose: tcb.app_compose })
    }

    /// `GetQuote` over 64 bytes of report data.
    pub async fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, GuestError> {
        self.call("GetQuote", &serde_json::json!({ "report_data": hex::encode(report_data) })).await
    }

    /// `AttestGpu` (v1, dstack 0.6): fresh evidence of all GPUs for a nonce.
    pub async fn gpu_evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GuestError> {
        #[derive(Deserialize)]
        struct Answer {
            bundles: Vec<Bundle>,
        }
        #[derive(Deserialize)]
        struct Bundle {
            vendor: String,
            format: String,
            evidence: String,
        }
        const METHOD: &str = "v1/AttestGpu";
        let bad = |reason: String| GuestError::Answer { method: METHOD, reason };
        let request = serde_json::json!({ "nonce": hex::encode(nonce) });
        let Answer { bundles } = self.call(METHOD, &request).await?;
        let [bundle] = bundles.as_slice() else {
            return Err(bad(format!("{} bundles, not 1", bundles.len())));
        };
        if bundle.vendor != "nvidia" || bundle.format != "nvidia-nvattest-collect-evidence-json-v1" {
            return Err(bad(format!("evidence of {} in the format {}", bundle.vendor, bundle.format)));
        }
        let json = hex::decode(&bundle.evidence).map_err(|e| bad(format!("evidence: {e}")))?;
        GpuEvidence::from_collected(&json).map_err(|e| bad(e.to_string()))
    }

    /// `GetKey` (v0): 32 secret bytes that depend on the app and `path`, not on the compose hash.
    pub async fn key(&self, path: &str, purpose: &str) -> Result<SecretBytes, GuestError> {
        #[derive(Deserialize)]
        struct Key {
            key: Zeroizing<String>,
        }
        let bad = |reason: &str| GuestError::Answer { method: "GetKey", reason: reason.to_owned() };
        let request = serde_json::json!({ "path": path, "purpose": purpose, "algorithm": "secp256k1" });
        let answer: Key = self.call("GetKey", &request).await?;
        let bytes = Zeroizing::new(hex::decode(answer.key.as_str()).map_err(|_| bad("key is not hex"))?);
        SecretBytes::from_slice(&bytes).ok_or_else(|| bad("key is not 32 bytes"))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        body: &serde_json::Value,
    ) -> Result<T, GuestError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| GuestError::Connect { path: self.socket.clone(), source })?;
        let failed = |reason: String| GuestError::Call { method, reason };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(e.to_string()))?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("/{method}"))
            .header(header::HOST, "dstack")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|e| failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| failed(e.to_string()))?
            .to_bytes();
        driver.abort();
        if !status.is_success() {
            return Err(failed(format!("HTTP {status}")));
        }
        serde_json::from_slice(&bytes).map_err(|e| GuestError::Answer { method, reason: e.to_string() })
    }
}
