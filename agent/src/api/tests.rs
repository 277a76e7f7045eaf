use std::{path::Path, sync::Arc};

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use axum::{Json, Router, routing::post};
use cohort_guest::GuestAgent;
use cohort_protocol::{ids::RunId, release::Refusal};
use serde_json::{Value, json};

use super::{openapi, router};
use crate::{
    chain::Chain,
    compute::Sandbox,
    fetch::{Access, Sources},
    kms::Kms,
    run::{Agent, RunState, Setup, Stage},
};

const COMPOSE: &str = include_str!("../../../test/data/heart-disease/app-compose.json");
const STAGES: [(Stage, &str); 5] = [
    (Stage::Queued, "queued"),
    (Stage::Opening, "opening"),
    (Stage::Attesting, "attesting"),
    (Stage::Computing, "computing"),
    (Stage::PostingReceipt, "posting_receipt"),
];

/// Serves on this machine; its address.
async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// An agent whose chain tells its id and nothing else, and the address of its interface.
async fn agent() -> (Arc<Agent>, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = serve(Router::new().route(
        "/",
        post(|Json(asked): Json<Value>| async move {
            let id = asked["id"].clone();
            Json(match asked["method"].as_str() {
                Some("eth_chainId") => json!({ "jsonrpc": "2.0", "id": id, "result": "0x7a69" }),
                _ => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32000, "message": "down" } }),
            })
        }),
    ))
    .await;
    let urls = [chain.parse().unwrap()];
    let chain = Chain::connect(&urls, Address::repeat_byte(9), PrivateKeySigner::random(), 2).await.unwrap();
    let nowhere = Path::new("/nonexistent");
    let agent = Agent::new(Setup {
        chain,
        kms: Kms::new("http://127.0.0.1:1".parse().unwrap()).unwrap(),
        guest: GuestAgent::new(nowhere),
        app_compose: COMPOSE.to_owned(),
        sealed: Sources::new(nowhere.into(), vec![], nowhere.into(), &Access::default()).unwrap(),
        sandbox: Sandbox::new(nowhere.into()),
        collateral: None,
        #[cfg(feature = "dev")]
        insecure_dev_slow: std::time::Duration::ZERO,
    })
    .unwrap();
    let agent = Arc::new(agent);
    let base = serve(router(Arc::clone(&agent))).await;
    (agent, base)
}

fn run(byte: u8) -> RunId {
    RunId(B256::repeat_byte(byte))
}

fn failed() -> RunState {
    let message = "hospital-C has stopped it".to_owned();
    RunState::Failed(Refusal { code: "proposal_revoked".to_owned(), message, hint: None })
}

/// Checks a value against a schema of the document.
fn check(value: &Value, schema: &str) {
    let document = serde_json::to_value(openapi()).unwrap();
    let schema = json!({
        "$ref": format!("#/components/schemas/{schema}"),
        "components": document["components"],
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{value}: {errors:?}");
}

/// `COHORT_UPDATE=1` writes it anew.
#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi/agent.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&openapi()).unwrap());
    if std::env::var_os("COHORT_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "out of date: COHORT_UPDATE=1 cargo test -p cohort-agent --lib api");
}

#[tokio::test]
async fn answers_are_of_the_document_s_shapes() {
    let (agent, base) = agent().await;
    agent.set(run(1), RunState::Running(Stage::Computing));
    agent.set(run(2), failed());
    for (path, status, schema) in [
        ("v1/attestation", 200, "Attestation"),
        ("v1/runs", 200, "Runs"),
        (&format!("v1/runs/{}", run(1)), 202, "Accepted"),
        (&format!("v1/runs/{}", run(2)), 409, "Problem"),
        (&format!("v1/runs/{}", run(3)), 404, "Problem"),
        (&format!("v1/runs/{}/events", run(3)), 404, "Problem"),
        ("v1/runs/latest", 404, "Problem"),
    ] {
        let answer = reqwest::get(format!("{base}/{path}")).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        check(&answer.json().await.unwrap(), schema);
    }
    let told: Value = reqwest::get(format!("{base}/v1/openapi.json")).await.unwrap().json().await.unwrap();
    assert_eq!(told, serde_json::to_value(openapi()).unwrap());
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused_by_a_stable_code() {
    let (agent, base) = agent().await;
    let whole = json!({
        "compose": agent.compose_hash(), "owners": ["hospital-A"], "analyst": Address::ZERO, "nonce": B256::ZERO,
        "deadline": 1, "signature": "0x",
    });
    check(&whole, "RunBody");
    let with = |name: &str, value: Value| {
        let mut body = whole.clone();
        body[name] = value;
        body
    };
    for (body, status, code) in [
        (json!({}), 400, "malformed_request"),
        (json!([]), 400, "malformed_request"),
        (with("more", json!(1)), 400, "malformed_request"),
        (with("owners", json!("hospital-A")), 400, "malformed_request"),
        (with("nonce", json!("0x00")), 400, "malformed_request"),
        (with("deadline", json!(-1)), 400, "malformed_request"),
        (with("compose", json!(B256::ZERO)), 400, "compose_mismatch"),
        (with("owners", json!([])), 400, "invalid_owners"),
        (with("owners", json!(["hospital-A", "hospital-A"])), 400, "invalid_owners"),
        (with("owners", json!(["hospital-X"])), 404, "not_an_owner"),
        (whole.clone(), 503, "chain_unavailable"),
    ] {
        for path in ["v1/runs", "v1/preflight"] {
            let asked = reqwest::Client::new().post(format!("{base}/{path}")).json(&body);
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{body}");
            let problem: Value = answer.json().await.unwrap();
            check(&problem, "Problem");
            assert_eq!(problem["code"], code, "{body}: {problem}");
        }
    }
    assert!(agent.page(None, 1).unwrap().0.is_empty(), "what is refused is no run");
}

#[tokio::test]
async fn runs_are_listed_page_by_page_in_the_order_in_which_they_came() {
    let (agent, base) = agent().await;
    let get = async |query: &str| {
        let answer = reqwest::get(format!("{base}/v1/runs{query}")).await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(get("").await, (200, json!({ "runs": [], "next": null })));
    let order = [9, 3, 7, 1, 5];
    for byte in order {
        agent.set(run(byte), RunState::Running(Stage::Queued));
    }
    // A run that is known already keeps its place, and says no more than that it failed and by which code.
    agent.set(run(3), failed());
    let mut after = String::new();
    let mut found = Vec::new();
    for (size, more) in [(2, true), (2, true), (1, false)] {
        let (status, page) = get(&format!("?limit=2{after}")).await;
        assert_eq!(status, 200);
        check(&page, "Runs");
        let runs = page["runs"].as_array().unwrap();
        assert_eq!((runs.len(), page["next"].is_string()), (size, more), "{page}");
        found.extend(runs.iter().cloned());
        after = format!("&after={}", page["next"].as_str().unwrap_or_default());
    }
    let ids: Vec<&Value> = found.iter().map(|run| &run["run_id"]).collect();
    assert_eq!(json!(ids), json!(order.map(run)));
    assert_eq!(found[1], json!({ "run_id": run(3), "state": "failed", "code": "proposal_revoked" }));
    assert_eq!(get("?limit=5").await.1["next"], Value::Null, "nothing follows a page that is just full");
    assert_eq!(get(&format!("?after={}", run(5))).await.1, json!({ "runs": [], "next": null }));
    for (query, status, code) in [
        ("?limit=0", 400, "malformed_request"),
        ("?limit=501", 400, "malformed_request"),
        ("?limit=-1", 400, "malformed_request"),
        ("?after=latest", 400, "malformed_request"),
        ("?offset=2", 400, "malformed_request"),
        (&format!("?after={}", run(8)), 409, "cursor_gone"),
    ] {
        let (found, problem) = get(query).await;
        check(&problem, "Problem");
        assert_eq!((found, problem["code"].as_str().unwrap()), (status, code), "{query}");
    }
}

/// The next event's data, `None` at the end.
async fn next_event(answer: &mut reqwest::Response, buffer: &mut String) -> Option<Value> {
    loop {
        if let Some((event, rest)) = buffer.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *buffer = rest;
            if let Some(data) = event.strip_prefix("event: run\ndata: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            assert!(event.starts_with(':'), "neither an event nor a sign of life: {event}");
        } else {
            buffer.push_str(std::str::from_utf8(&answer.chunk().await.unwrap()?).unwrap());
        }
    }
}

#[tokio::test]
async fn progress_tells_each_stage_once_and_nothing_else() {
    let (agent, base) = agent().await;
    let id = run(7);
    agent.set(id, RunState::Running(Stage::Queued));
    let mut answer = reqwest::get(format!("{base}/v1/runs/{id}/events")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut buffer = String::new();
    for (stage, name) in STAGES {
        agent.set(id, RunState::Running(stage));
        // Other runs, and the same state again, are no event of this run.
        agent.set(run(8), RunState::Running(Stage::Computing));
        agent.set(id, RunState::Running(stage));
        let event = next_event(&mut answer, &mut buffer).await.unwrap();
        check(&event, "RunView");
        assert_eq!(event, json!({ "run_id": id, "state": "running", "stage": name }));
    }
    agent.set(id, failed());
    let event = next_event(&mut answer, &mut buffer).await.unwrap();
    check(&event, "RunView");
    assert_eq!(event, json!({ "run_id": id, "state": "failed", "code": "proposal_revoked" }));
    assert_eq!(next_event(&mut answer, &mut buffer).await, None, "it ends with the run");
    // Whoever comes later is told the end at once.
    let mut later = reqwest::get(format!("{base}/v1/runs/{id}/events")).await.unwrap();
    let mut buffer = String::new();
    assert_eq!(next_event(&mut later, &mut buffer).await, Some(event));
    assert_eq!(next_event(&mut later, &mut buffer).await, None);
}
