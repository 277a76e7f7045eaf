//! A JSON-RPC endpoint before the chain that delays or lies.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Json, Router, extract::State, http::Uri, routing::post};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the endpoint does to requests.
pub(crate) enum Behaviour {
    /// Holds transactions that call `selector` (8 hex digits): tells `arrived`, waits for `go`.
    Hold { selector: String, arrived: Arc<Notify>, go: Arc<Notify> },
    /// Answers `eth_call`s of `selector` with a last word of zero.
    ZeroLastWord { selector: String },
    /// Keeps no states: knows no contract's code but at the newest block or one that is named by its hash.
    Pruned,
    /// Leaves this one out of the logs that it answers.
    DropLog { index: Arc<AtomicUsize> },
    /// Answers everything with this text in the place of that.
    Replace { from: String, to: String },
}

/// The same before one of our own services: answers of `GET` with that text in the place of this.
pub(crate) async fn before(service: &str, from: &str, to: &str) -> String {
    let proxy = Proxy {
        upstream: service.trim_end_matches('/').to_owned(),
        http: reqwest::Client::new(),
        behaviour: Behaviour::Replace { from: from.to_owned(), to: to.to_owned() },
    };
    serve(Router::new().fallback(told).with_state(Arc::new(proxy))).await
}

async fn told(State(proxy): State<Arc<Proxy>>, uri: Uri) -> String {
    let Behaviour::Replace { from, to } = &proxy.behaviour else { return String::new() };
    let answer =
        proxy.http.get(format!("{}{uri}", proxy.upstream)).send().await.expect("the service answers");
    let text = answer.text().await.expect("text");
    text.replace(from, to)
}

struct Proxy {
    upstream: String,
    http: reqwest::Client,
    behaviour: Behaviour,
}

/// Starts the endpoint; returns its address.
pub(crate) async fn start(upstream: &str, behaviour: Behaviour) -> String {
    let proxy = Proxy { upstream: upstream.to_owned(), http: reqwest::Client::new(), behaviour };
    serve(Router::new().route("/", post(handle)).with_state(Arc::new(proxy))).await
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn handle(State(proxy): State<Arc<Proxy>>, Json(request): Json<Value>) -> Json<Value> {
    let text = request.to_string();
    if let Behaviour::Hold { selector, arrived, go } = &proxy.behaviour
        && text.contains("eth_sendRawTransaction")
        && text.contains(selector)
    {
        arrived.notify_one();
        go.notified().await;
    }
    let at = &request["params"][1];
    let is_old = at.as_str().is_some_and(|at| at.starts_with("0x") && at.len() < 66);
    if matches!(proxy.behaviour, Behaviour::Pruned) && request["method"] == "eth_getCode" && is_old {
        let error = json!({ "code": -32000, "message": "missing trie node" });
        return Json(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }));
    }
    let response = proxy.http.post(&proxy.upstream).json(&request).send().await.expect("the chain answers");
    let mut answer: Value = response.json().await.expect("JSON");
    if let Behaviour::ZeroLastWord { selector } = &proxy.behaviour
        && text.contains("eth_call")
        && text.contains(&format!("0x{selector}"))
        && let Some(result) = answer.get("result").and_then(Value::as_str).map(str::to_owned)
        && let Some(kept) = result.len().checked_sub(64).and_then(|end| result.get(..end))
    {
        answer["result"] = Value::String(format!("{kept}{}", "0".repeat(64)));
    }
    if let Behaviour::DropLog { index } = &proxy.behaviour
        && text.contains("eth_getLogs")
        && let Some(logs) = answer.get_mut("result").and_then(Value::as_array_mut)
        && index.load(Ordering::Relaxed) < logs.len()
    {
        logs.remove(index.load(Ordering::Relaxed));
    }
    if let Behaviour::Replace { from, to } = &proxy.behaviour {
        answer = serde_json::from_str(&answer.to_string().replace(from, to)).expect("JSON as before");
    }
    Json(answer)
}
