//! What the HTTP answers say.

use std::time::Duration;

use alloy::primitives::B256;
use cohort_protocol::{abi::IDstackKms, terms::Terms};
use serde_json::{Value, json};

use crate::{
    chain::Node,
    running::{Running, config},
    study::*,
};

pub(crate) async fn study() -> (Node, Running, tempfile::TempDir) {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine(vec![receipt(RUN)]);
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    (node, running, dir)
}

#[tokio::test]
async fn every_answer_carries_both_positions() {
    let (node, running, _dir) = study().await;
    let proposal = proposal_id(0);
    for path in [
        "/v1/status".to_owned(),
        "/v1/kms".to_owned(),
        "/v1/apps".to_owned(),
        format!("/v1/apps/{APP}"),
        format!("/v1/apps/{APP}/proposals"),
        format!("/v1/apps/{APP}/proposals/{proposal}"),
        format!("/v1/apps/{APP}/datasets"),
        format!("/v1/apps/{APP}/runs"),
        format!("/v1/apps/{APP}/runs/{RUN}"),
        format!("/v1/apps/{APP}/receipts"),
        format!("/v1/apps/{APP}/timeline"),
        question(),
    ] {
        let body = running.ok(&path).await;
        assert_eq!(body["chain_id"], 31337, "{path}");
        let number = |name: &str| body[name]["number"].as_u64().or(body[name]["position"]["number"].as_u64());
        let tip = node.chain().tip().0;
        assert_eq!((number("head"), number("confirmed")), (Some(tip), Some(tip - 2)), "{path}");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_proposal_tells_who_signed_how_and_who_is_awaited() {
    let (node, running, _dir) = study().await;
    let body = running.ok(&format!("/v1/apps/{APP}/proposals/{}", proposal_id(0))).await;
    assert_eq!(body["quorum"], json!({ "signed": 3, "threshold": 3, "owners": 4 }));
    assert_eq!(body["awaiting"], json!([{ "owner": "hospital-D", "index": 3 }]));
    assert_eq!(body["terms"], json!(Terms::from(&terms(0))));
    assert_eq!(body["budget"]["epsilon_left"], "3");
    assert_eq!(body["budget"]["runs_left"], 2);
    assert_eq!(body["decision"], json!({ "head": "allow", "confirmed": "allow" }));
    let third = &body["approvals"][2];
    assert_eq!(
        (&third["owner"], &third["by_signature"], &third["counts"]),
        (&json!("hospital-C"), &json!(true), &json!(true))
    );
    assert_eq!(third["at"]["block"]["hash"], json!(node.chain().blocks[5].hash));

    node.chain().mine(vec![revoked(0, 2)]);
    running.reaches_tip(&node).await;
    let body = running.ok(&format!("/v1/apps/{APP}/proposals/{}", proposal_id(0))).await;
    assert_eq!(
        (&body["revocation"]["owner"], &body["revocation"]["by"]),
        (&json!("hospital-C"), &json!(account(2)))
    );
    assert_eq!(body["decision"], json!({ "head": "proposal_revoked", "confirmed": "allow" }));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_app_its_datasets_runs_and_receipts_are_told() {
    let (_node, running, _dir) = study().await;
    let app = running.ok(&format!("/v1/apps/{APP}")).await;
    assert_eq!(
        (&app["name"], &app["sector"], &app["threshold"]),
        (&json!("heart-disease"), &json!("health"), &json!(3))
    );
    assert_eq!((&app["datasets"], &app["records"]), (&json!(4), &json!(300 + 301 + 302 + 303)));
    let owner = &app["owners"][2];
    assert_eq!((&owner["owner"], &owner["jurisdiction"]), (&json!("hospital-C"), &json!("CH")));
    assert_eq!(owner["grades"], json!(["HIPAA", "GDPR"]));
    assert_eq!(owner["budget"]["epsilon_left"], "5.5");

    let datasets = running.ok(&format!("/v1/apps/{APP}/datasets?limit=3")).await;
    assert_eq!(datasets["datasets"].as_array().unwrap().len(), 3);
    assert_eq!(datasets["datasets"][0]["owner"], "hospital-A");
    let rest = format!("/v1/apps/{APP}/datasets?limit=3&after={}", datasets["next"].as_str().unwrap());
    let rest = running.ok(&rest).await;
    assert_eq!((&rest["datasets"][0]["owner"], &rest["next"]), (&json!("hospital-D"), &json!(null)));

    let run = running.ok(&format!("/v1/apps/{APP}/runs/{RUN}")).await;
    assert_eq!((&run["status"], &run["epsilon"]), (&json!("closed"), &json!("1.5")));
    assert_eq!(
        run["participants"],
        json!([{ "owner": "hospital-A", "index": 0 }, { "owner": "hospital-B", "index": 1 }])
    );
    let receipts = running.ok(&format!("/v1/apps/{APP}/receipts")).await;
    assert_eq!(receipts["receipts"][0]["receipt"], run["receipt"]["receipt"]);
    assert_eq!(run["receipt"]["receipt"]["output_hash"], json!(B256::repeat_byte(0x0f)));
    running.stop().await.unwrap();
}

/// Pages of other origins read nothing, unless they are named.
#[tokio::test]
async fn other_origins_are_let_in_by_name() {
    let (node, running, dir) = study().await;
    let status = running.address("/v1/status");
    let client = reqwest::Client::new();
    let ask = async |method: &str, url: &str, origin: &str| {
        let request = client.request(method.parse().unwrap(), url).header("origin", origin);
        let answer = request.header("access-control-request-method", "GET").send().await.unwrap();
        let allowed = answer.headers().get("access-control-allow-origin").cloned();
        (answer.status().as_u16(), allowed.map(|origin| origin.to_str().unwrap().to_owned()))
    };
    let (ours, theirs) = ("https://page.example", "https://other.example");
    assert_eq!(ask("GET", &status, ours).await, (200, None));
    assert_eq!(ask("OPTIONS", &status, ours).await, (405, None));
    running.stop().await.unwrap();

    for (allowed, third) in [(ours, None), ("*", Some(theirs.to_owned()))] {
        let mut config = config(&[&node], dir.path().join("mirror.sqlite"));
        config.allow_origins = vec![allowed.to_owned()];
        let running = Running::start(&config).await;
        running.reaches_tip(&node).await;
        let status = running.address("/v1/status");
        assert_eq!(ask("GET", &status, ours).await, (200, Some(ours.to_owned())));
        assert_eq!(ask("OPTIONS", &status, ours).await, (204, Some(ours.to_owned())));
        assert_eq!(ask("GET", &status, theirs).await, (200, third));
        assert_eq!(ask("GET", &running.address("/v2"), ours).await, (404, Some(ours.to_owned())));
        running.stop().await.unwrap();
    }
}

/// Pages of one list are of one chain: who was told something that is no more is not given the rest of something else.
#[tokio::test]
async fn pages_go_on_unless_the_chain_took_back_what_they_told() {
    let (node, running, _dir) = study().await;
    let whole = running.ok(&format!("/v1/apps/{APP}/timeline")).await["events"].clone();
    let page = async |after: Option<&str>| {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        running.get(&format!("/v1/apps/{APP}/timeline?limit=4{after}")).await
    };
    let (mut told, mut after) = (Vec::new(), None);
    while told.is_empty() || after.is_some() {
        let (status, body) = page(after.as_deref()).await;
        assert_eq!(status, 200, "{body}");
        told.extend(body["events"].as_array().unwrap().clone());
        after = body["next"].as_str().map(str::to_owned);
        // Blocks that nobody was told of may come and go.
        node.chain().mine_empty(1);
        running.reaches_tip(&node).await;
    }
    assert_eq!(json!(told), whole);

    // The last page but one ended in a block that goes.
    let last = told.last().unwrap();
    let at = |event: &Value| {
        format!("{}@{}", event["cursor"].as_str().unwrap(), event["block"]["hash"].as_str().unwrap())
    };
    let (gone, kept) = (at(last), at(&told[0]));
    assert_eq!(page(Some(&gone)).await.0, 200);
    let depth = node.chain().tip().0 - last["block"]["number"].as_u64().unwrap() + 1;
    node.chain().drop_blocks(depth as usize);
    node.chain().mine_empty(depth as usize);
    running.reaches_tip(&node).await;
    let (status, body) = page(Some(&gone)).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("cursor_gone")), "{body}");
    assert_eq!(page(Some(&kept)).await.1["events"][0], told[1]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_page_for_people_shows_the_quorum() {
    let (_node, running, _dir) = study().await;
    let plain = running.text("/plain").await;
    assert!(
        plain.contains("<h2>heart-disease</h2>") && plain.contains("<td>3 / 4<td>hospital-D<td>allow"),
        "{plain}"
    );
    // A build that has the console inside serves that first; what it shows is tested in a browser.
    let first = running.text("/").await;
    match first.split_once("src=\"./assets/").and_then(|(_, rest)| rest.split_once('"')) {
        Some((script, _)) => {
            let script = running.text(&format!("/assets/{script}")).await;
            assert!(script.len() > 1_000, "{script}");
        }
        None => assert_eq!(first, plain),
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_registry_is_told() {
    let (node, running, _dir) = study().await;
    let root = |epoch: u32| {
        let sealing_key = vec![7u8; 1216].into();
        by_registry(IDstackKms::RootRegistered { epoch, root: account(epoch as u8), sealingKey: sealing_key })
    };
    let system = B256::repeat_byte(0x51);
    node.chain().mine(vec![root(0), root(1), by_registry(IDstackKms::RootRetired { epoch: 0 })]);
    node.chain().mine(vec![by_registry(IDstackKms::AgentSystemAdded { mrSystem: system })]);
    running.reaches_tip(&node).await;
    let kms = running.ok("/v1/kms").await["kms"].clone();
    assert_eq!((&kms["roots"][1]["epoch"], &kms["roots"][1]["retired"]), (&json!(1), &json!(null)));
    assert_eq!(kms["roots"][0]["retired"]["block"]["number"], 8);
    assert_eq!(kms["agent_systems"], json!([system]));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn refusals_have_codes_and_statuses() {
    let (_node, running, _dir) = study().await;
    let question = question();
    for (status, code, path) in [
        (400, "bad_request", "/v1/apps/heart".to_owned()),
        (404, "app_unknown", format!("/v1/apps/{REGISTRY}")),
        (404, "proposal_unknown", format!("/v1/apps/{APP}/proposals/{}", B256::ZERO)),
        (404, "run_unknown", format!("/v1/apps/{APP}/runs/{}", B256::ZERO)),
        (400, "bad_request", format!("/v1/apps/{APP}/runs/0x12")),
        (400, "bad_request", format!("/v1/apps/{APP}/timeline?limit=0")),
        (400, "bad_request", format!("/v1/apps/{APP}/timeline?after=x")),
        (400, "bad_request", format!("/v1/apps/{APP}/timeline?after=1:9223372036854775808")),
        (400, "bad_request", format!("/v1/apps/{APP}/timeline?after=1:0@{}", &RUN.to_string()[2..])),
        (400, "bad_request", format!("/v1/apps/{APP}/timeline?after=1@{RUN}")),
        (409, "cursor_gone", format!("/v1/apps/{APP}/timeline?after=1:0@{RUN}")),
        (409, "cursor_gone", format!("/v1/apps?after=900:0@{RUN}")),
        (400, "bad_request", question.replace("owner=hospital-A", "owner=hospital%20A")),
        (400, "bad_request", question.replace("&run=", "&ran=")),
        (404, "app_unknown", question.replace(&APP.to_string(), &B256::ZERO.to_string()[..42])),
        (400, "bad_request", format!("{question}&run={RUN}")),
        (400, "bad_request", "/v1/apps/%ff".to_owned()),
        (400, "bad_request", "/v1/apps?limmit=5".to_owned()),
        (400, "bad_request", "/v1/cohorts?sectors=finance".to_owned()),
        (400, "bad_request", format!("/v1/events?after={}@{RUN}", u64::MAX)),
        (404, "not_found", "/v2".to_owned()),
    ] {
        let (have, body) = running.get(&path).await;
        assert_eq!((have, body["code"].as_str()), (status, Some(code)), "{path}: {body}");
        assert!(body["message"].is_string());
    }
    let (_, body) = running.get("/v1/apps?limmit=5").await;
    assert_eq!(body["message"], "query: there is no parameter \"limmit\" here, only: after, limit");
    for path in ["/v1/apps", "/", "/index.html", "/plain"] {
        let posted = reqwest::Client::new().post(running.address(path)).send().await.unwrap();
        assert_eq!(posted.status().as_u16(), 405, "{path}");
    }
    running.stop().await.unwrap();
}

/// A mirror that has lost its chain says so and decides nothing.
#[tokio::test]
async fn a_mirror_that_lags_is_not_ready() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[&node], dir.path().join("mirror.sqlite"));
    config.max_lag = Duration::from_millis(300);
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    while running.get("/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.chain().down = true;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, body) = running.get("/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body["last_error"].as_str().unwrap().contains("HTTP status 502"), "{body}");
    let (status, body) = running.get(&question()).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("not_synced")));
    // What is mirrored stays readable, at the position it names.
    assert_eq!(running.ok("/v1/status").await["synced"], false);

    node.chain().down = false;
    while running.get("/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.get(&question()).await.0, 200);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let (node, running, _dir) = study().await;
    running.ok(&question()).await;
    node.chain().drop_blocks(1);
    node.chain().mine_empty(2);
    running.reaches_tip(&node).await;
    let text = running.text("/metrics").await;
    let value = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
    };
    assert_eq!(value("cohort_indexer_head"), node.chain().tip().0);
    assert_eq!((value("cohort_indexer_ready"), value("cohort_indexer_lag_blocks")), (1, 0));
    assert_eq!(
        (value("cohort_indexer_rewinds_total"), value("cohort_indexer_release_decisions_total")),
        (1, 1)
    );
    assert!(
        value("cohort_indexer_events_applied_total") > 10 && value("cohort_indexer_http_requests_total") > 1
    );
    running.stop().await.unwrap();
}
