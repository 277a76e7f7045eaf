//! A running indexer with its own database.

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use cohort_indexer::{
    Config, Indexer, RunError,
    dump::dump,
    store::{Database, Store},
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{chain::Node, study::REGISTRY};

/// No test waits longer than this for the mirror to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(nodes: &[&Node], database: impl Into<Database>) -> Config {
    Config {
        rpc_urls: nodes.iter().map(|node| node.url.clone()).collect(),
        ws_urls: Vec::new(),
        chain_id: None,
        registry: REGISTRY,
        database: database.into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        console_connect: Vec::new(),
        allow_origins: Vec::new(),
        confirmations: 2,
        from_block: 0,
        poll: Duration::from_millis(5),
        max_lag: Duration::from_secs(600),
        insecure_unproved: false,
    }
}

/// Says that a test does not run here, and why: past the harness, which keeps what the macros print.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

pub(crate) struct Running {
    url: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: &Config) -> Self {
        let indexer = Indexer::bind(config).await.unwrap();
        let url = format!("http://{}", indexer.address());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(indexer.run(async { drop(stopped.await) }));
        Self { url, client: reqwest::Client::new(), stop: Some(stop), task }
    }

    /// The URL of a path.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The entity tag of an answer.
    pub(crate) async fn tag(&self, path: &str) -> Option<String> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned())
    }

    /// The status for a client that has this already.
    pub(crate) async fn status_with(&self, path: &str, tag: &str) -> u16 {
        let request = self.client.get(format!("{}{path}", self.url)).header("if-none-match", tag);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.text().await.unwrap().is_empty(), status == 304, "{path}");
        status
    }

    /// An event stream.
    pub(crate) async fn stream(&self, path: &str, last: Option<&str>) -> Stream {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { response, text: String::new() }
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// The body of an answer that must be a success and carry both positions.
    pub(crate) async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        for position in ["head", "confirmed"] {
            assert!(
                body[position]["hash"].is_string() || body[position]["position"].is_object(),
                "{path}: {body}"
            );
        }
        body
    }

    /// Waits until the mirror holds this block as its head.
    pub(crate) async fn reaches(&self, (number, hash): (u64, B256)) {
        let begun = Instant::now();
        loop {
            let (_, status) = self.get("/v1/status").await;
            let at_head =
                status["head"]["number"] == number && status["head"]["hash"] == serde_json::json!(hash);
            if at_head && status["synced"] == true {
                return;
            }
            let readiness = self.get("/readyz").await;
            assert!(begun.elapsed() < PATIENCE, "not at {number}: {status} {readiness:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it says what keeps it from being current. Gives its status code and its readiness then.
    pub(crate) async fn says_why_not(&self) -> (u16, Value) {
        let begun = Instant::now();
        loop {
            let (status, ready) = self.get("/readyz").await;
            if ready["last_error"].is_string() {
                return (status, ready);
            }
            assert!(begun.elapsed() < PATIENCE, "nothing is wrong: {ready}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it is not current for this reason. It must not have been current meanwhile.
    pub(crate) async fn is_not_current(&self, reason: &str) {
        let begun = Instant::now();
        loop {
            let (status, ready) = self.get("/readyz").await;
            assert_eq!(status, 503, "{ready}");
            if ready["last_error"].as_str().is_some_and(|it| it.contains(reason)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{ready}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until new heads are noticed in this way.
    pub(crate) async fn follows_by(&self, way: &str) {
        let begun = Instant::now();
        while self.get("/readyz").await.1["heads_by"] != way {
            assert!(begun.elapsed() < PATIENCE, "not by {way}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn reaches_tip(&self, node: &Node) {
        let tip = node.chain().tip();
        self.reaches(tip).await;
    }

    /// Ends it and gives its result.
    pub(crate) async fn stop(mut self) -> Result<(), RunError> {
        drop(self.stop.take());
        self.task.await.unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(self) -> RunError {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("it ends by itself").unwrap().expect_err("with a reason")
    }
}

/// A client of server-sent events.
pub(crate) struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    /// Name, id and data of the next event.
    pub(crate) async fn next(&mut self) -> Option<(String, Option<String>, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let found = field("event").map(|kind| (kind, field("id"), field("data")));
                self.text = rest.to_owned();
                if let Some((kind, id, data)) = found {
                    return Some((kind, id, serde_json::from_str(&data.unwrap()).unwrap()));
                }
            }
            let chunk = self.response.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

pub(crate) async fn dumped(database: &Database) -> String {
    let store = Store::open_existing(database).await.unwrap();
    let mut bytes = Vec::new();
    dump(&store, &mut bytes).await.unwrap();
    store.close().await;
    String::from_utf8(bytes).unwrap()
}

/// The dump of a mirror that is built now, from nothing.
pub(crate) async fn rebuilt(node: &Node) -> String {
    let tip = node.chain().tip();
    rebuilt_from(&config(&[node], PathBuf::new()), tip).await
}

/// The same, of whatever chain is configured.
pub(crate) async fn rebuilt_from(config: &Config, tip: (u64, B256)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { database: dir.path().join("rebuilt.sqlite").into(), ..config.clone() };
    let running = Running::start(&config).await;
    running.reaches(tip).await;
    running.stop().await.unwrap();
    dumped(&config.database).await
}
