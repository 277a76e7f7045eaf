//! Client of dstack's guest agent: the only place from which the agent learns who it is.
//!
//! JSON over HTTP on a Unix socket (dstack `guest-agent`, `/var/run/dstack.sock`): bytes are lower-case hex, some
//! fields are JSON inside a string.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::primitives::Address;
use cohort_attestation::gpu::GpuEvidence;
use cohort_protocol::{hpke::SecretBytes, json::sha256};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use zeroize::Zeroizing;

/// Answers larger than this are refused.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Longest time for one call; evidence of eight GPUs takes some seconds.
const CALL_TIME: Duration = Duration::from_secs(60);

/// The guest agent did not answer as dstack's does.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No socket, or nobody listens.
    #[error("cannot reach dstack's guest agent at {place}; is the socket mounted into this container?")]
    Connect {
        /// The socket, or the simulator's address.
        place: String,
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
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    #[cfg(feature = "dev")]
    Simulator(String),
}

impl GuestAgent {
    /// For the socket at `path`; connects anew for each call.
    pub fn new(path: &Path) -> Self {
        Self { place: Place::Socket(path.to_owned()) }
    }

    /// For dstack's simulator as its SDKs name it: `http://HOST:PORT`, or the path of a socket. Whoever can read or
    /// answer in its place learns or chooses this agent's keys.
    #[cfg(feature = "dev")]
    pub fn insecure_dev_simulator(endpoint: &str) -> Self {
        match endpoint.strip_prefix("http://") {
            Some(host) => Self { place: Place::Simulator(host.trim_end_matches('/').to_owned()) },
            None => Self::new(Path::new(endpoint)),
        }
    }

    /// `Info`: of the v1 API where the agent has it (dstack 0.6.0 and later), of v0 otherwise.
    pub async fn identity(&self) -> Result<Identity, GuestError> {
        if let Some(info) = self.ask::<InfoV1>("v1/Info", &serde_json::json!({})).await? {
            return identity("v1/Info", &info.app_id, info.app_compose, Some(&info.compose_hash));
        }
        let info: InfoV0 = self.call("Info", &serde_json::json!({})).await?;
        let bad = |reason: String| GuestError::Answer { method: "Info", reason };
        let tcb: TcbInfo = serde_json::from_str(&info.tcb_info).map_err(|e| bad(format!("tcb_info: {e}")))?;
        identity("Info", &info.app_id, tcb.app_compose, None)
    }

    /// `GetQuote` over 64 bytes of report data, of the v0 API, which dstack froze: v1 has no such call.
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

    /// `GetKey`: 32 secret bytes that depend on the app and `path`, not on the compose hash. Of the frozen v0 API, so
    /// that they stay the same over updates of dstack; of v1, where they are others, only if the agent lacks v0.
    pub async fn key(&self, path: &str, purpose: &str) -> Result<SecretBytes, GuestError> {
        #[derive(Deserialize)]
        struct Key {
            key: Zeroizing<String>,
        }
        let bad = |reason: &str| GuestError::Answer { method: "GetKey", reason: reason.to_owned() };
        let request = serde_json::json!({ "path": path, "purpose": purpose, "algorithm": "secp256k1" });
        let answer: Key = match self.ask("GetKey", &request).await? {
            Some(answer) => answer,
            None => {
                let request = serde_json::json!({ "domain": path, "algorithm": "secp256k1" });
                self.call("v1/GetKey", &request).await?
            }
        };
        let bytes = Zeroizing::new(hex::decode(answer.key.as_str()).map_err(|_| bad("key is not hex"))?);
        SecretBytes::from_slice(&bytes).ok_or_else(|| bad("key is not 32 bytes"))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        body: &serde_json::Value,
    ) -> Result<T, GuestError> {
        let missing = || GuestError::Call { method, reason: "HTTP 404 Not Found".to_owned() };
        self.ask(method, body).await?.ok_or_else(missing)
    }

    /// The answer, or `None` where the agent does not have this call.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        body: &serde_json::Value,
    ) -> Result<Option<T>, GuestError> {
        let unreachable = |place: String| move |source| GuestError::Connect { place, source };
        let asked = async {
            match &self.place {
                Place::Socket(path) => {
                    let connected = UnixStream::connect(path).await;
                    exchange(connected.map_err(unreachable(path.display().to_string()))?, method, body).await
                }
                #[cfg(feature = "dev")]
                Place::Simulator(host) => {
                    let connected = tokio::net::TcpStream::connect(host).await;
                    exchange(connected.map_err(unreachable(host.clone()))?, method, body).await
                }
            }
        };
        let late = |_| GuestError::Call { method, reason: format!("no answer in {} s", CALL_TIME.as_secs()) };
        let Some(bytes) = tokio::time::timeout(CALL_TIME, asked).await.map_err(late)?? else {
            return Ok(None);
        };
        // A parser's message could hold a part of the answer, and the answer a key: only where it is wrong is told.
        serde_json::from_slice(&bytes).map(Some).map_err(|error| GuestError::Answer {
            method,
            reason: format!("line {}, column {}", error.line(), error.column()),
        })
    }
}

/// One call: the body of the answer, or `None` where the agent does not have it.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &'static str,
    body: &serde_json::Value,
) -> Result<Option<Bytes>, GuestError> {
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
    if status == hyper::StatusCode::NOT_FOUND || is_unknown_call(status, &bytes) {
        return Ok(None);
    }
    if !status.is_success() {
        return Err(failed(format!("HTTP {status}")));
    }
    Ok(Some(bytes))
}

/// How dstack's agent says that it lacks a call: 400 and `{"error": "Service not found: NAME"}`.
fn is_unknown_call(status: hyper::StatusCode, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Failure {
        error: String,
    }
    let failure = serde_json::from_slice::<Failure>(body);
    status == hyper::StatusCode::BAD_REQUEST
        && failure.is_ok_and(|failure| failure.error.starts_with("Service not found"))
}

/// `Info` of the v1 API: the file and its hash stand at the top.
#[derive(Deserialize)]
struct InfoV1 {
    app_id: String,
    app_compose: String,
    compose_hash: String,
}

/// `Info` of the v0 API: the file stands in JSON in a string.
#[derive(Deserialize)]
struct InfoV0 {
    app_id: String,
    tcb_info: String,
}

#[derive(Deserialize)]
struct TcbInfo {
    app_compose: String,
}

fn identity(
    method: &'static str,
    app_id: &str,
    app_compose: String,
    compose_hash: Option<&str>,
) -> Result<Identity, GuestError> {
    let bad = |reason: String| GuestError::Answer { method, reason };
    let id = hex::decode(app_id.trim_start_matches("0x")).map_err(|e| bad(format!("app_id: {e}")))?;
    let app = Address::try_from(id.as_slice()).map_err(|e| bad(format!("app_id: {e}")))?;
    let own = hex::encode(sha256(app_compose.as_bytes()));
    if compose_hash.is_some_and(|told| told.trim_start_matches("0x") != own) {
        return Err(bad("compose_hash is not that of app_compose".to_owned()));
    }
    Ok(Identity { app, app_compose })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        Router,
        http::{StatusCode, Uri},
    };
    use std::{collections::HashMap, sync::Arc};

    type Answers = HashMap<String, (StatusCode, String)>;

    /// A guest agent that has these calls and answers others as dstack's does.
    async fn guest(answers: Answers) -> (GuestAgent, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("dstack.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let answers = Arc::new(answers);
        let router = Router::new().fallback(move |uri: Uri| {
            let answers = Arc::clone(&answers);
            async move {
                let missing = (StatusCode::NOT_FOUND, "<!DOCTYPE html>404".to_owned());
                answers.get(uri.path().trim_start_matches('/')).cloned().unwrap_or(missing)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (GuestAgent::new(&socket), folder)
    }

    /// dstack's simulator also listens on a port, which its SDKs find in DSTACK_SIMULATOR_ENDPOINT.
    #[cfg(feature = "dev")]
    #[tokio::test]
    async fn a_simulator_is_asked_over_tcp_or_its_socket() {
        let compose = "{}";
        let info = serde_json::json!({
            "app_id": "0x5bb4ff9a3837357f19dc176407a5709c62eb6c56",
            "tcb_info": serde_json::json!({ "app_compose": compose }).to_string(),
        });
        let router = Router::new().fallback(move |uri: Uri| {
            let info = info.to_string();
            async move {
                match uri.path() {
                    "/Info" => (StatusCode::OK, info),
                    _ => (StatusCode::NOT_FOUND, "<!DOCTYPE html>404".to_owned()),
                }
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let identity = GuestAgent::insecure_dev_simulator(&endpoint).identity().await.unwrap();
        assert_eq!(identity.app_compose, compose);
        let nobody = GuestAgent::insecure_dev_simulator("/nonexistent/dstack.sock");
        let error = nobody.identity().await.unwrap_err();
        assert!(
            matches!(&error, GuestError::Connect { place, .. } if place == "/nonexistent/dstack.sock"),
            "{error}"
        );
    }

    /// What the real agent refuses is an error with its status, and a page that is no JSON a missing call.
    #[tokio::test]
    async fn refusals_of_the_real_agent_are_errors() {
        let (Some(bad), Some(long), Some(page)) =
            (recorded("GetKey_bad.json"), recorded("GetQuote_long.json"), recorded("v1_Version.json"))
        else {
            return;
        };
        let refused = |body| (StatusCode::BAD_REQUEST, body);
        let missing = (StatusCode::NOT_FOUND, page);
        let answers = [
            ("GetKey", refused(bad)),
            ("GetQuote", refused(long)),
            ("v1/Info", missing.clone()),
            ("Info", missing),
        ];
        let (agent, _folder) = guest(answers.map(|(name, answer)| (name.to_owned(), answer)).into()).await;
        assert!(matches!(agent.key("a", "b").await, Err(GuestError::Call { method: "GetKey", .. })));
        assert!(matches!(agent.quote(&[0; 64]).await, Err(GuestError::Call { method: "GetQuote", .. })));
        assert!(matches!(agent.identity().await, Err(GuestError::Call { method: "Info", .. })));
    }

    fn ok(body: impl ToString) -> (StatusCode, String) {
        (StatusCode::OK, body.to_string())
    }

    /// What dstack's own guest agent answered, or `None` with a visible note.
    fn recorded(name: &str) -> Option<String> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
        let folder = std::env::var_os("COHORT_SAMPLES").map_or(beside, PathBuf::from);
        let text = std::fs::read_to_string(folder.join("dstack-guest-agent").join(name)).ok();
        if text.is_none() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "skipped: no recorded {name}; set COHORT_SAMPLES");
        }
        text
    }

    #[tokio::test]
    async fn answers_of_the_real_agent_are_read() {
        let (Some(info), Some(key), Some(quote), Some(unknown)) = (
            recorded("Info.json"),
            recorded("GetKey_secp256k1.json"),
            recorded("GetQuote.json"),
            recorded("EmitEvent.json"),
        ) else {
            return;
        };
        let (agent, _folder) = guest(
            [("Info", ok(info)), ("GetKey", ok(key)), ("GetQuote", ok(quote))]
                .map(|(name, answer)| (name.to_owned(), answer))
                .into(),
        )
        .await;
        let identity = agent.identity().await.unwrap();
        assert_eq!(identity.app.to_string().to_lowercase(), "0x5bb4ff9a3837357f19dc176407a5709c62eb6c56");
        assert!(identity.app_compose.starts_with('{'));
        let key = agent.key("seal/test", "signing").await.unwrap();
        assert_eq!(
            hex::encode(key.expose_secret()),
            "83b4b88c18bd13ba7935257e42a3aa3554a5a88e26b4f25c03ff6c08a72a4eb1"
        );
        let quote = agent.quote(&[0; 64]).await.unwrap();
        assert!(quote.quote.starts_with("0400020081") && quote.event_log.starts_with('['));
        assert!(is_unknown_call(StatusCode::BAD_REQUEST, unknown.as_bytes()));
    }

    /// The v1 API by its published description; the key is that of its test vector.
    #[tokio::test]
    async fn an_agent_with_v1_only_is_read() {
        let compose = "{\"name\":\"x\"}";
        let info = |hash: String| {
            serde_json::json!({ "app_id": "5bb4ff9a3837357f19dc176407a5709c62eb6c56", "instance_id": "",
                "app_compose": compose, "compose_hash": hash })
        };
        let key = "d3".repeat(32);
        let answers = |hash| -> Answers {
            [
                ("v1/Info".to_owned(), ok(info(hash))),
                (
                    "v1/GetKey".to_owned(),
                    ok(serde_json::json!({ "key": key, "public_key": "", "signature_chain": [] })),
                ),
                (
                    "GetKey".to_owned(),
                    (StatusCode::BAD_REQUEST, r#"{"error": "Service not found: GetKey"}"#.to_owned()),
                ),
            ]
            .into()
        };
        let (agent, _folder) = guest(answers(hex::encode(sha256(compose.as_bytes())))).await;
        assert_eq!(agent.identity().await.unwrap().app_compose, compose);
        assert_eq!(hex::encode(agent.key("wallet", "gas").await.unwrap().expose_secret()), key);
        let error = agent.quote(&[0; 64]).await.unwrap_err();
        assert!(error.to_string().contains("GetQuote"), "{error}");
        let (liar, _folder) = guest(answers("00".repeat(32))).await;
        assert!(matches!(liar.identity().await, Err(GuestError::Answer { method: "v1/Info", .. })));
    }
}
