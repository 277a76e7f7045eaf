//! A real node behind a proxy that refuses, forgets, repeats, lags and lies: the mirror ends as it does without.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use cohort_indexer::Config;
use serde_json::{Value, json};

use crate::{
    chain::Random,
    contracts::Consortium,
    running::{Running, config, rebuilt, rebuilt_from},
    study::node_with_open_run,
};

/// What is wrong with the endpoint. Lies are told once, or now and then: one that only ever lies is never believed.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// Answers to a batch with one error.
    RefusesBatches,
    /// Answers to a batch with an HTTP error.
    ForbidsBatches,
    /// Answers to a batch as if its first request had been all.
    KnowsNoBatches,
    /// Takes batches of a few.
    SmallBatches(usize),
    /// Says that there were too many requests.
    TooMany,
    /// Refuses ranges of more blocks.
    SmallRanges(u64),
    /// Leaves out of a range what is beyond so many logs, without a word.
    Truncates(usize),
    /// Tells logs twice, and backwards.
    Repeats,
    /// Is, for a moment, a node that is blocks behind.
    Lags(u64),
    /// Gives logs the hash of another block.
    OtherBlock,
    /// Gives logs as taken back.
    Removed,
    /// Makes a log up.
    Invents,
    /// Changes the last byte of a log's data.
    OtherData,
    /// Changes an indexed argument.
    OtherTopic,
    /// Leaves a log out of a block's receipts.
    Withholds,
    /// Says that a block has no transactions.
    NoReceipts,
    /// Has no method for a block's receipts, and says so in its own way.
    NoBlockReceipts(i64, &'static str),
    /// Gives more answers than there were questions.
    Overanswers,
    /// Does not know a block that it has told of.
    ForgetsReceipts,
    /// Gives headers that follow no block.
    OtherParent,
    /// Gives headers under another hash.
    OtherHash,
    /// Gives blocks another time.
    OtherTime,
    /// Gives headers that promise no logs.
    NoBloom,
}

/// Lies that only a chain's own commitments give away.
const LIES: [Fault; 7] = [
    Fault::OtherData,
    Fault::OtherTopic,
    Fault::Withholds,
    Fault::NoReceipts,
    Fault::OtherTime,
    Fault::NoBloom,
    Fault::OtherHash,
];

struct Proxy {
    fault: Fault,
    always: bool,
    node: reqwest::Url,
    client: reqwest::Client,
    random: Mutex<Random>,
    told: Mutex<BTreeSet<String>>,
}

impl Proxy {
    async fn start(fault: Fault, always: bool, node: reqwest::Url) -> reqwest::Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (client, random, told) = (reqwest::Client::new(), Mutex::new(Random(1)), Mutex::default());
        let state = Arc::new(Self { fault, always, node, client, random, told });
        let app = Router::new().route("/", post(forward)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    /// Now and then.
    fn sometimes(&self) -> bool {
        self.random.lock().unwrap().below(5) == 0
    }

    /// The first time that this is asked.
    fn lies_about(&self, request: &Value) -> bool {
        self.always
            || self.told.lock().unwrap().insert(format!("{} {}", request["method"], request["params"]))
    }

    async fn ask(&self, body: &Value) -> Value {
        self.client.post(self.node.clone()).json(body).send().await.unwrap().json().await.unwrap()
    }

    /// Of a node that is blocks behind: it does not know the newest ones.
    async fn behind(&self, mut request: Value, blocks: u64) -> Value {
        let tip =
            self.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": [] })).await;
        let known = number(&tip["result"]) - blocks;
        let missing = json!({ "jsonrpc": "2.0", "id": request["id"], "result": null });
        match request["method"].as_str() {
            Some("eth_getBlockByNumber") => match request["params"][0].as_str() {
                Some("latest") => request["params"][0] = json!(format!("{known:#x}")),
                Some(hex) if hex.starts_with("0x") && number(&json!(hex)) > known => return missing,
                _ => {}
            },
            Some("eth_getLogs") if request["params"][0]["toBlock"].is_string() => {
                let last = number(&request["params"][0]["toBlock"]).min(known);
                if number(&request["params"][0]["fromBlock"]) > last {
                    return json!({ "jsonrpc": "2.0", "id": request["id"], "result": [] });
                }
                request["params"][0]["toBlock"] = json!(format!("{last:#x}"));
            }
            _ => {}
        }
        self.ask(&request).await
    }

    async fn one(&self, request: Value) -> Value {
        if let Fault::Lags(blocks) = self.fault
            && self.sometimes()
        {
            return self.behind(request, blocks).await;
        }
        let filter = &request["params"][0];
        if let Fault::SmallRanges(most) = self.fault
            && filter["fromBlock"].is_string()
            && number(&filter["toBlock"]) - number(&filter["fromBlock"]) >= most
        {
            let error = json!({ "code": -32005, "message": "block range is too wide" });
            return json!({ "jsonrpc": "2.0", "id": request["id"], "error": error });
        }
        if let Fault::NoBlockReceipts(code, message) = self.fault
            && request["method"] == "eth_getBlockReceipts"
        {
            let error = json!({ "code": code, "message": message });
            return json!({ "jsonrpc": "2.0", "id": request["id"], "error": error });
        }
        let mut answer = self.ask(&request).await;
        match (request["method"].as_str(), &mut answer["result"]) {
            (Some("eth_getLogs"), Value::Array(logs)) => {
                self.spoil_logs(logs, filter["fromBlock"].is_string())
            }
            (Some("eth_getBlockReceipts"), receipts) if self.lies_about(&request) => {
                self.spoil_receipts(receipts)
            }
            (_, header @ Value::Object(_)) if self.lies_about(&request) => self.spoil_header(header),
            _ => {}
        }
        answer
    }

    fn spoil_logs(&self, logs: &mut Vec<Value>, range: bool) {
        let lie = !logs.is_empty() && self.sometimes();
        match self.fault {
            Fault::Truncates(most) if range => logs.truncate(most),
            Fault::Repeats => {
                logs.extend(logs.clone());
                logs.reverse();
            }
            Fault::OtherBlock if lie => logs[0]["blockHash"] = json!(format!("0x{}", "ee".repeat(32))),
            Fault::Removed if lie => logs[0]["removed"] = json!(true),
            Fault::Invents if lie => {
                let mut log = logs[0].clone();
                log["topics"][0] = json!(format!("0x{}", "ab".repeat(32)));
                log["logIndex"] = json!("0xff");
                logs.push(log);
            }
            _ => {}
        }
    }

    fn spoil_receipts(&self, receipts: &mut Value) {
        match self.fault {
            Fault::NoReceipts => *receipts = json!([]),
            Fault::ForgetsReceipts => *receipts = Value::Null,
            _ => {}
        }
        let logs = receipts
            .as_array_mut()
            .into_iter()
            .flatten()
            .find_map(|receipt| receipt["logs"].as_array_mut().filter(|logs| !logs.is_empty()));
        let Some(logs) = logs else { return };
        let last = logs.len() - 1;
        match self.fault {
            Fault::OtherData => logs[last]["data"] = json!(other_end(&logs[last]["data"])),
            Fault::OtherTopic => {
                let topics = logs[last]["topics"].as_array_mut().unwrap();
                let last = topics.last_mut().unwrap();
                *last = json!(other_end(last));
            }
            Fault::Withholds => drop(logs.pop()),
            _ => {}
        }
    }

    fn spoil_header(&self, header: &mut Value) {
        let other = json!(format!("0x{}", "ee".repeat(32)));
        match self.fault {
            Fault::OtherParent => header["parentHash"] = other,
            Fault::OtherHash => header["hash"] = other,
            Fault::OtherTime => header["timestamp"] = json!(other_end(&header["timestamp"])),
            Fault::NoBloom => header["logsBloom"] = json!(format!("0x{}", "00".repeat(256))),
            _ => {}
        }
    }
}

/// The same hex with another last digit; `0x` gets a byte.
fn other_end(hex: &Value) -> String {
    let hex = hex.as_str().unwrap();
    match hex.strip_suffix('1') {
        Some(start) => format!("{start}2"),
        None if hex == "0x" => "0x01".to_owned(),
        None => format!("{}1", &hex[..hex.len() - 1]),
    }
}

fn number(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

async fn forward(State(proxy): State<Arc<Proxy>>, Json(request): Json<Value>) -> Response {
    if matches!(proxy.fault, Fault::TooMany) && proxy.sometimes() {
        return (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response();
    }
    let requests = match request {
        Value::Array(requests) => requests,
        request => return Json(proxy.one(request).await).into_response(),
    };
    let refused = json!({ "code": -32600, "message": "batches are not supported" });
    match proxy.fault {
        Fault::RefusesBatches => {
            Json(json!({ "jsonrpc": "2.0", "id": null, "error": refused })).into_response()
        }
        Fault::SmallBatches(most) if requests.len() > most => {
            Json(json!([{ "jsonrpc": "2.0", "id": null, "error": refused }])).into_response()
        }
        Fault::ForbidsBatches => (StatusCode::BAD_REQUEST, "one request, please").into_response(),
        Fault::KnowsNoBatches => Json(proxy.one(requests[0].clone()).await).into_response(),
        _ => {
            let mut answers = Vec::new();
            for request in requests {
                answers.push(proxy.one(request).await);
            }
            if matches!(proxy.fault, Fault::Overanswers) {
                answers.push(answers[0].clone());
            }
            Json(answers).into_response()
        }
    }
}

#[tokio::test]
async fn a_faulty_endpoint_costs_time_and_changes_nothing() {
    let Some(study) = Consortium::start().await else { return };
    for owner in 0..4 {
        study.register_dataset(owner).await;
        study.approve(usize::from(owner)).await;
    }
    study.open_run().await;
    study.anvil.call("anvil_mine", json!(["0x140"])).await;
    study.register().await;
    study.supersede_datasets().await;
    study.anvil.call("anvil_mine", json!(["0x2"])).await;
    let tip = study.anvil.tip().await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[], dir.path().join("unused.sqlite"));
    config.registry = study.registry;
    // What endpoints do to `eth_getLogs` matters where nothing is proved; the rest everywhere but there.
    let told = [
        Fault::SmallRanges(9),
        Fault::Truncates(3),
        Fault::Truncates(0),
        Fault::Repeats,
        Fault::Lags(3),
        Fault::OtherBlock,
        Fault::Removed,
        Fault::Invents,
        Fault::OtherParent,
    ];
    let proved = [
        Fault::None,
        Fault::RefusesBatches,
        Fault::ForbidsBatches,
        Fault::KnowsNoBatches,
        Fault::SmallBatches(7),
        Fault::TooMany,
        Fault::Lags(3),
        Fault::NoBlockReceipts(-32601, "Method not found"),
        Fault::NoBlockReceipts(-32000, "not available on your plan"),
        Fault::Overanswers,
        Fault::ForgetsReceipts,
        Fault::OtherParent,
    ];
    let proved = proved.into_iter().chain(LIES).map(|fault| (fault, false));
    let mut dumps = Vec::new();
    for (fault, insecure_unproved) in proved.chain(told.map(|fault| (fault, true))) {
        let rpc_urls = vec![Proxy::start(fault, false, study.anvil.url.clone()).await];
        let config = Config { rpc_urls, insecure_unproved, ..config.clone() };
        dumps.push((fault, insecure_unproved, rebuilt_from(&config, tip).await));
    }
    let (.., honest) = &dumps[0];
    assert!(honest.lines().count() > 40, "{honest}");
    for (fault, insecure_unproved, dump) in &dumps {
        assert!(dump == honest, "{fault:?}, unproved: {insecure_unproved}");
    }
}

/// Nothing of a lie is ever shown, not even where nobody contradicts it.
#[tokio::test]
async fn an_endpoint_that_only_lies_is_never_believed() {
    let node = node_with_open_run().await;
    node.chain().mine_empty(300);
    for fault in LIES {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&[&node], dir.path().join("mirror.sqlite"));
        config.rpc_urls = vec![Proxy::start(fault, true, node.url.clone()).await];
        let running = Running::start(&config).await;
        let (status, ready) = running.says_why_not().await;
        assert_eq!(status, 503, "{fault:?}: {ready}");
        let error = ready["last_error"].as_str().unwrap();
        assert!(error.contains("does not hash to") || error.contains("commits to"), "{fault:?}: {error}");
        assert_eq!((&ready["head"], running.get("/v1/apps").await.0), (&Value::Null, 503), "{fault:?}");
        running.stop().await.unwrap();

        config.rpc_urls.push(node.url.clone());
        let tip = node.chain().tip();
        assert_eq!(rebuilt_from(&config, tip).await, rebuilt(&node).await, "{fault:?}");
    }
}

/// An endpoint that allows so many requests each second, those of a batch counted one by one.
struct Allowance {
    node: reqwest::Url,
    client: reqwest::Client,
    /// Left of the allowance, since when, and how many requests were taken and refused.
    state: Mutex<(f64, Instant, u64, u64)>,
}

const EACH_SECOND: f64 = 400.0;
/// Of an allowance, at most so much is kept.
const KEPT: f64 = 40.0;

impl Allowance {
    fn admits(&self, requests: usize) -> bool {
        let (left, since, taken, refused) = &mut *self.state.lock().unwrap();
        *left = (*left + since.elapsed().as_secs_f64() * EACH_SECOND).min(KEPT);
        *since = Instant::now();
        let admitted = *left >= requests as f64;
        if admitted {
            *left -= requests as f64;
            *taken += 1;
        } else {
            *refused += 1;
        }
        admitted
    }
}

async fn allowed(State(allowance): State<Arc<Allowance>>, Json(request): Json<Value>) -> Response {
    if !allowance.admits(request.as_array().map_or(1, Vec::len)) {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], "slow down").into_response();
    }
    let answer = allowance.client.post(allowance.node.clone()).json(&request).send().await.unwrap();
    Json(answer.json::<Value>().await.unwrap()).into_response()
}

/// An allowance is found out and kept to: it slows the mirror down, and few requests are refused for it.
#[tokio::test]
async fn an_allowance_is_kept_to() {
    let node = node_with_open_run().await;
    node.chain().mine_empty(900);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let state = Mutex::new((KEPT, Instant::now(), 0, 0));
    let allowance = Arc::new(Allowance { node: node.url.clone(), client: reqwest::Client::new(), state });
    let app = Router::new().route("/", post(allowed)).with_state(allowance.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[&node], dir.path().join("unused.sqlite"));
    config.rpc_urls = vec![url];
    config.poll = Duration::from_millis(100);
    let tip = node.chain().tip();
    assert_eq!(rebuilt_from(&config, tip).await, rebuilt(&node).await);
    let (_, _, taken, refused) = *allowance.state.lock().unwrap();
    assert!(refused * 3 < taken, "{refused} refused, {taken} taken");
}
