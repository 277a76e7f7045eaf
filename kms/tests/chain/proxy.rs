//! An RPC endpoint in front of anvil that can fail in chosen ways.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};

/// What it does to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answers later.
    Delay(Duration),
    /// Accepts and never answers.
    Silent,
    ServerError,
    /// Shows the newest block as of the freezing for ever.
    Frozen,
    /// Its newest block is two days old by its timestamp.
    OldHead,
    /// On a fork of its own: another hash for every block asked for by number.
    Forked,
    OtherChain,
    /// A JSON-RPC error for every call of a contract.
    CallsFail,
}

/// Of every block of the fork: 0xab, 32 times.
const FORKED_HASH: &str = "0xabababababababababababababababababababababababababababababababab";

/// The endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    upstream: reqwest::Url,
    http: reqwest::Client,
    fault: Arc<Mutex<Fault>>,
    frozen: Arc<Mutex<Option<Value>>>,
}

impl Proxy {
    pub(crate) fn new(upstream: reqwest::Url) -> Self {
        let frozen = Arc::new(Mutex::new(None));
        Self { upstream, http: reqwest::Client::new(), fault: Arc::new(Mutex::new(Fault::None)), frozen }
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().route("/", post(answer)).with_state(self.clone())
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        *self.frozen.lock().unwrap() = None;
    }

    /// A call on a block of the fork, asked of the block that it stands for.
    fn on_the_real_chain(&self, body: &Value) -> Value {
        match &*self.frozen.lock().unwrap() {
            Some(Value::String(hash)) => {
                serde_json::from_str(&body.to_string().replace(FORKED_HASH, hash)).unwrap()
            }
            _ => body.clone(),
        }
    }

    fn spoil(&self, fault: Fault, request: &Value, answer: &mut Value) {
        let by_number = request["method"] == "eth_getBlockByNumber";
        let newest = by_number && request["params"][0] == "latest";
        match fault {
            Fault::OtherChain if request["method"] == "eth_chainId" => answer["result"] = json!("0x1"),
            Fault::Forked if by_number && !newest => {
                let hash = &mut answer["result"]["hash"];
                *self.frozen.lock().unwrap() = Some(hash.take());
                *hash = json!(FORKED_HASH);
            }
            Fault::OldHead if newest => {
                let timestamp = answer["result"]["timestamp"].as_str().unwrap();
                let seconds = u64::from_str_radix(&timestamp[2..], 16).unwrap() - 2 * 86_400;
                answer["result"]["timestamp"] = json!(format!("{seconds:#x}"));
            }
            Fault::Frozen if newest => {
                let mut frozen = self.frozen.lock().unwrap();
                answer["result"] = frozen.get_or_insert_with(|| answer["result"].clone()).clone();
            }
            Fault::CallsFail if request["method"] == "eth_call" => {
                *answer = json!({ "jsonrpc": "2.0", "id": request["id"],
                    "error": { "code": -32000, "message": "header not found" } });
            }
            _ => (),
        }
    }
}

async fn answer(State(proxy): State<Proxy>, Json(body): Json<Value>) -> Response {
    let fault = *proxy.fault.lock().unwrap();
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::ServerError => return StatusCode::BAD_GATEWAY.into_response(),
        Fault::Delay(delay) => tokio::time::sleep(delay).await,
        _ => (),
    }
    let body = if fault == Fault::Forked { proxy.on_the_real_chain(&body) } else { body };
    let Ok(response) = proxy.http.post(proxy.upstream.clone()).json(&body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut answers: Value = response.json().await.unwrap();
    match (&body, &mut answers) {
        (Value::Array(requests), Value::Array(answers)) => {
            for answer in answers {
                let request = requests.iter().find(|request| request["id"] == answer["id"]).unwrap();
                proxy.spoil(fault, request, answer);
            }
        }
        (request, answer) => proxy.spoil(fault, request, answer),
    }
    if let Fault::Delay(delay) = fault {
        tokio::time::sleep(delay).await;
    }
    Json(answers).into_response()
}
