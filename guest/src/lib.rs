//! Client of dstack's guest agent: the only place from which the agent and a KMS in a virtual machine learn who they are,
//! and from which they have quotes and keys.
//!
//! JSON over HTTP on a Unix socket (dstack `guest-agent`): bytes are lower-case hex, some fields are JSON in a string. Two
//! APIs: v0, which dstack froze, and v1 (0.6.0 and later) at `/v1`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::primitives::Address;
use cohort_attestation::gpu::GpuEvidence;
use cohort_protocol::{hpke::SecretBytes, json::sha256};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use zeroize::Zeroizing;

/// Where dstack mounts the socket.
pub const SOCKET: &str = "/var/run/dstack.sock";
/// Answers larger than this are refused.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Longest time for one call; making a quote takes well below a second.
const CALL_TIME: Duration = Duration::from_secs(10);
/// Evidence of eight GPUs takes some seconds.
const GPU_CALL_TIME: Duration = Duration::from_secs(60);
const ATTEST_GPU: &str = "v1/AttestGpu";

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
    /// The guest agent is of a release without this call.
    #[error("the guest agent does not have the call {method}: it is of another release of dstack")]
    Missing {
        /// Which call.
        method: &'static str,
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

/// Who this virtual machine is, as `Info` tells. Only hints: what counts is what the quote proves.
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
    /// TDX quote.
    #[serde(deserialize_with = "hex_bytes")]
    pub quote: Vec<u8>,
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
    /// answer in its place learns or chooses the keys.
    #[cfg(feature = "dev")]
    pub fn insecure_dev_simulator(endpoint: &str) -> Self {
        match endpoint.strip_prefix("http://") {
            Some(host) => Self { place: Place::Simulator(host.trim_end_matches('/').to_owned()) },
            None => Self::new(Path::new(endpoint)),
        }
    }

    /// `Info`: of the v1 API where the agent has it, of v0 otherwise.
    pub async fn identity(&self) -> Result<Identity, GuestError> {
        match self.call::<InfoV1>("v1/Info", &json!({})).await {
            Err(GuestError::Missing { .. }) => {}
            answer => return answer.and_then(InfoV1::identity),
        }
        self.call::<InfoV0>("Info", &json!({})).await.and_then(InfoV0::identity)
    }

    /// `GetQuote` over 64 bytes of report data, of the v0 API: v1 has no such call.
    pub async fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, GuestError> {
        self.call("GetQuote", &json!({ "report_data": hex::encode(report_data) })).await
    }

    /// `AttestGpu` (v1): fresh evidence of all GPUs for a nonce.
    pub async fn gpu_evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GuestError> {
        #[derive(Deserialize)]
        struct Answer {
            bundles: Vec<Bundle>,
        }
        #[derive(Deserialize)]
        struct Bundle {
            vendor: String,
            format: String,
            #[serde(deserialize_with = "hex_bytes")]
            evidence: Vec<u8>,
        }
        let bad = |reason: String| GuestError::Answer { method: ATTEST_GPU, reason };
        let Answer { bundles } = self.call(ATTEST_GPU, &json!({ "nonce": hex::encode(nonce) })).await?;
        let [bundle] = bundles.as_slice() else {
            return Err(bad(format!("{} bundles, not 1", bundles.len())));
        };
        if bundle.vendor != "nvidia" || bundle.format != "nvidia-nvattest-collect-evidence-json-v1" {
            return Err(bad(format!("evidence of {} in the format {}", bundle.vendor, bundle.format)));
        }
        GpuEvidence::from_collected(&bundle.evidence).map_err(|error| bad(error.to_string()))
    }

    /// `GetKey` of the v0 API: 32 secret bytes that depend on the app and `path`, not on the machine and not on the
    /// compose hash. They stay the same over updates of dstack.
    pub async fn key_v0(&self, path: &str, purpose: &str) -> Result<SecretBytes, GuestError> {
        self.ask_key("GetKey", &json!({ "path": path, "purpose": purpose, "algorithm": "secp256k1" })).await
    }

    /// `GetKey` of the v1 API: the same for a domain, and other bytes than v0's.
    pub async fn key_v1(&self, domain: &str) -> Result<SecretBytes, GuestError> {
        self.ask_key("v1/GetKey", &json!({ "domain": domain, "algorithm": "secp256k1" })).await
    }

    /// The key of v0; of an agent that lacks it, that of v1.
    pub async fn key(&self, path: &str, purpose: &str) -> Result<SecretBytes, GuestError> {
        match self.key_v0(path, purpose).await {
            Err(GuestError::Missing { .. }) => self.key_v1(path).await,
            answer => answer,
        }
    }

    async fn ask_key(&self, method: &'static str, request: &Value) -> Result<SecretBytes, GuestError> {
        #[derive(Deserialize)]
        struct Key {
            key: Zeroizing<String>,
        }
        let answer: Key = self.call(method, request).await?;
        let bad = |reason: &str| GuestError::Answer { method, reason: reason.to_owned() };
        let digits = without_prefix(&answer.key);
        let bytes = Zeroizing::new(hex::decode(digits).map_err(|_| bad("key is not hex"))?);
        SecretBytes::from_slice(&bytes).ok_or_else(|| bad("key is not 32 bytes"))
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, body: &Value) -> Result<T, GuestError> {
        let time = if method == ATTEST_GPU { GPU_CALL_TIME } else { CALL_TIME };
        let late = |_| GuestError::Call { method, reason: format!("no answer in {} s", time.as_secs()) };
        let bytes = tokio::time::timeout(time, self.ask(method, body)).await.map_err(late)??;
        // A parser's message could hold a part of the answer, and the answer a key: only where it is wrong is told.
        serde_json::from_slice(&bytes).map_err(|error| GuestError::Answer {
            method,
            reason: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    async fn ask(&self, method: &'static str, body: &Value) -> Result<Bytes, GuestError> {
        let unreachable = |place: String| move |source| GuestError::Connect { place, source };
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
    }
}

/// One call: the body of the answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &'static str,
    body: &Value,
) -> Result<Bytes, GuestError> {
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
    let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    driver.abort();
    if status == StatusCode::NOT_FOUND || is_unknown_call(status, &bytes) {
        return Err(GuestError::Missing { method });
    }
    if !status.is_success() {
        return Err(failed(format!("HTTP {status}")));
    }
    Ok(bytes)
}

/// How dstack's agent says that it lacks a call: 400 and `{"error": "Service not found: NAME"}`.
fn is_unknown_call(status: StatusCode, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Failure {
        error: String,
    }
    let failure = serde_json::from_slice::<Failure>(body);
    status == StatusCode::BAD_REQUEST
        && failure.is_ok_and(|failure| failure.error.starts_with("Service not found"))
}

/// `Info` of the v1 API: the file and its hash stand at the top.
#[derive(Deserialize)]
struct InfoV1 {
    app_id: String,
    app_compose: String,
    compose_hash: String,
}

impl InfoV1 {
    fn identity(self) -> Result<Identity, GuestError> {
        const METHOD: &str = "v1/Info";
        let own = hex::encode(sha256(self.app_compose.as_bytes()));
        if without_prefix(&self.compose_hash) != own {
            let reason = "compose_hash is not that of app_compose".to_owned();
            return Err(GuestError::Answer { method: METHOD, reason });
        }
        Ok(Identity { app: app(METHOD, &self.app_id)?, app_compose: self.app_compose })
    }
}

/// `Info` of the v0 API: the file stands in JSON in a string.
#[derive(Deserialize)]
struct InfoV0 {
    app_id: String,
    tcb_info: String,
}

impl InfoV0 {
    fn identity(self) -> Result<Identity, GuestError> {
        #[derive(Deserialize)]
        struct TcbInfo {
            app_compose: String,
        }
        const METHOD: &str = "Info";
        let bad = |error| GuestError::Answer { method: METHOD, reason: format!("tcb_info: {error}") };
        let tcb: TcbInfo = serde_json::from_str(&self.tcb_info).map_err(bad)?;
        Ok(Identity { app: app(METHOD, &self.app_id)?, app_compose: tcb.app_compose })
    }
}

fn app(method: &'static str, app_id: &str) -> Result<Address, GuestError> {
    let bad = |reason: String| GuestError::Answer { method, reason: format!("app_id: {reason}") };
    let id = hex::decode(without_prefix(app_id)).map_err(|error| bad(error.to_string()))?;
    Address::try_from(id.as_slice()).map_err(|error| bad(error.to_string()))
}

fn without_prefix(digits: &str) -> &str {
    digits.strip_prefix("0x").unwrap_or(digits)
}

fn hex_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let digits = String::deserialize(deserializer)?;
    hex::decode(without_prefix(&digits)).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::Uri};
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
        assert!(matches!(agent.key_v0("a", "b").await, Err(GuestError::Call { method: "GetKey", .. })));
        assert!(matches!(agent.quote(&[0; 64]).await, Err(GuestError::Call { method: "GetQuote", .. })));
        assert!(matches!(agent.identity().await, Err(GuestError::Missing { method: "Info" })));
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
        let key = agent.key_v0("seal/test", "signing").await.unwrap();
        assert_eq!(
            hex::encode(key.expose_secret()),
            "83b4b88c18bd13ba7935257e42a3aa3554a5a88e26b4f25c03ff6c08a72a4eb1"
        );
        let quote = agent.quote(&[0; 64]).await.unwrap();
        assert!(quote.quote.starts_with(&[4, 0, 2, 0, 0x81]) && quote.event_log.starts_with('['));
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
        assert!(matches!(agent.key_v0("wallet", "gas").await, Err(GuestError::Missing { method: "GetKey" })));
        for found in [agent.key_v1("wallet").await, agent.key("wallet", "gas").await] {
            assert_eq!(hex::encode(found.unwrap().expose_secret()), key);
        }
        assert!(matches!(agent.quote(&[0; 64]).await, Err(GuestError::Missing { method: "GetQuote" })));
        let (liar, _folder) = guest(answers("00".repeat(32))).await;
        assert!(matches!(liar.identity().await, Err(GuestError::Answer { method: "v1/Info", .. })));
    }

    /// What is damaged is told by its place, and a key never.
    #[tokio::test]
    async fn no_answer_is_repeated_in_an_error() {
        for body in
            [r#"{"key": 5, "secret": "5ec7e7"}"#, r#"{"key": "5ec7e7"}"#, r#"{"key": "5ec7e7zz"}"#, "5ec7e7"]
        {
            let (agent, _folder) = guest([("GetKey".to_owned(), ok(body))].into()).await;
            let error = agent.key_v0("a", "b").await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(matches!(error, GuestError::Answer { .. }) && !text.contains("5ec7e7"), "{text}");
        }
        let long = "5".repeat(MAX_ANSWER_BYTES + 1);
        let (agent, _folder) = guest([("GetKey".to_owned(), ok(long))].into()).await;
        assert!(matches!(agent.key_v0("a", "b").await, Err(GuestError::Call { .. })));
    }
}
