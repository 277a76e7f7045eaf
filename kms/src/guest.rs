//! Client of dstack's guest agent: where a KMS in a virtual machine has its root secret and its own quote from.
//!
//! JSON over HTTP on a Unix socket (dstack `guest-agent`): bytes are lower-case hex, some fields are JSON in a string.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cohort_attestation::{GuestEvidence, KmsEvidence};
use cohort_protocol::hpke::SecretBytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Where dstack mounts the socket.
pub const SOCKET: &str = "/var/run/dstack.sock";
/// Path (v0) and domain (v1) of the root secret among the app's keys.
pub const ROOT_KEY: &str = "cohort-kms-root/1";
/// Answers larger than this are refused.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest time for one call; making a quote takes well below a second.
const CALL_TIME: Duration = Duration::from_secs(10);

/// Which of the guest agent's key derivations gives the root secret. They give different secrets, so that there is no
/// falling back from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyApi {
    /// `POST /GetKey`: frozen, served by all 0.5 and 0.6 releases.
    V0,
    /// `POST /v1/GetKey`: since 0.6.
    V1,
}

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

    /// The root secret: the key that dstack derives for this app under [`ROOT_KEY`]. It depends on the app id and on
    /// dstack's own root, not on the machine and not on the compose hash.
    pub async fn root_secret(&self, api: KeyApi) -> Result<SecretBytes, GuestError> {
        #[derive(Deserialize)]
        struct Key {
            key: Zeroizing<String>,
        }
        let (method, request) = match api {
            KeyApi::V0 => (
                "GetKey",
                json!({ "path": ROOT_KEY, "purpose": "cohort-kms-root", "algorithm": "secp256k1" }),
            ),
            KeyApi::V1 => ("v1/GetKey", json!({ "domain": ROOT_KEY, "algorithm": "secp256k1" })),
        };
        let answer: Key = self.call(method, &request).await?;
        let bad = |reason: &str| GuestError::Answer { method, reason: reason.to_owned() };
        let digits = answer.key.strip_prefix("0x").unwrap_or(&answer.key);
        let bytes = Zeroizing::new(hex::decode(digits).map_err(|_| bad("key is not hex"))?);
        SecretBytes::from_slice(&bytes).ok_or_else(|| bad("key is not 32 bytes"))
    }

    /// Quote over `report_data`, event log and app-compose text; without collateral.
    pub async fn evidence(&self, report_data: &[u8; 64]) -> Result<KmsEvidence, GuestError> {
        #[derive(Deserialize)]
        struct Info {
            tcb_info: String,
        }
        #[derive(Deserialize)]
        struct TcbInfo {
            app_compose: String,
        }
        #[derive(Deserialize)]
        struct Quote {
            quote: String,
            event_log: String,
        }
        let bad = |method, reason: String| GuestError::Answer { method, reason };
        let info: Info = self.call("Info", &json!({})).await?;
        let tcb: TcbInfo =
            serde_json::from_str(&info.tcb_info).map_err(|error| bad("Info", error.to_string()))?;
        let request = json!({ "report_data": hex::encode(report_data) });
        let answer: Quote = self.call("GetQuote", &request).await?;
        let digits = answer.quote.strip_prefix("0x").unwrap_or(&answer.quote);
        let quote = hex::decode(digits).map_err(|_| bad("GetQuote", "quote is not hex".to_owned()))?;
        let app_compose = Some(tcb.app_compose);
        KmsEvidence::of_guest(GuestEvidence {
            quote,
            event_log: answer.event_log,
            app_compose,
            gpu: Vec::new(),
        })
        .ok_or_else(|| bad("Info", "no app_compose".to_owned()))
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, body: &Value) -> Result<T, GuestError> {
        match tokio::time::timeout(CALL_TIME, self.exchange(method, body)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(GuestError::Call { method, reason: "no answer in time".to_owned() }),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: &'static str,
        body: &Value,
    ) -> Result<T, GuestError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| GuestError::Connect { path: self.socket.clone(), source })?;
        let failed = |reason: String| GuestError::Call { method, reason };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("/{method}"))
            .header(header::HOST, "dstack")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| failed(error.to_string()))?
            .to_bytes();
        driver.abort();
        if !status.is_success() {
            return Err(failed(format!("HTTP {status}")));
        }
        // A parser's message could hold a part of the answer, and the answer a key: only where it is wrong is told.
        serde_json::from_slice(&bytes).map_err(|error| GuestError::Answer {
            method,
            reason: format!("line {}, column {}", error.line(), error.column()),
        })
    }
}
