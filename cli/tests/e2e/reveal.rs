//! R2, R5, R16: no payload without its receipt on chain, and no receipt after a revocation.

use std::sync::Arc;

use alloy::sol_types::SolCall;
use cohort_cli::dev::{Process, Stack};
use cohort_protocol::abi::IDstackApp;
use tokio::sync::Notify;

use super::{
    proxy::{self, Behaviour},
    support::{approve, deployed, fails, ok, run, seal_all},
};

async fn with_agent_behind(name: &str, behaviours: Vec<Option<Behaviour>>) -> Stack {
    let mut stack = deployed(name).await;
    for behaviour in behaviours {
        let url = match behaviour {
            Some(behaviour) => proxy::start(&stack.rpc_url, behaviour).await,
            None => stack.rpc_url.clone(),
        };
        stack.agent_rpc_urls.push(url);
    }
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    seal_all(&stack).await;
    stack
}

fn selector<C: SolCall>() -> String {
    hex::encode(C::SELECTOR)
}

async fn no_payload(stack: &Stack) {
    assert!(!stack.path("result.json").exists(), "no result file");
    let runs: serde_json::Value =
        reqwest::get(format!("{}/v1/runs", stack.agent_url)).await.unwrap().json().await.unwrap();
    let run = runs["runs"][0].clone();
    assert_eq!(run["state"], "failed", "{run}");
    let url = format!("{}/v1/runs/{}", stack.agent_url, run["run_id"].as_str().unwrap());
    let answer = reqwest::get(url).await.unwrap();
    assert!(!answer.status().is_success());
    let text = answer.text().await.unwrap();
    assert!(!text.contains("payload") && !text.contains("measures"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_revoked_before_its_receipt_yields_nothing() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hold = Behaviour::Hold {
        selector: selector::<IDstackApp::postReceiptCall>(),
        arrived: Arc::clone(&arrived),
        go: Arc::clone(&go),
    };
    let stack = with_agent_behind("revoked-late", vec![Some(hold)]).await;
    let terms = approve(&stack, &[0, 1, 2]).await;
    let analyst = stack.analyst.key();
    let run = run(&analyst, "hospital-A,hospital-B", "result.json");
    let revoke = async {
        // The output is computed, its receipt signed and on its way.
        arrived.notified().await;
        let key = stack.owners[2].key();
        ok(&stack, &["revoke", "--proposal", &terms.proposal_id().to_string(), "--key-file", &key]).await;
        go.notify_one();
    };
    let (_, ()) = tokio::join!(fails(&stack, &run, 1, &["proposal_revoked"]), revoke);
    no_payload(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_that_does_not_show_the_receipt_is_enough_to_reveal_nothing() {
    let lie = Behaviour::ZeroLastWord { selector: selector::<IDstackApp::runCall>() };
    let stack = with_agent_behind("receipt-hidden", vec![None, Some(lie)]).await;
    approve(&stack, &[0, 1, 2]).await;
    let analyst = stack.analyst.key();
    let run = run(&analyst, "hospital-A,hospital-B", "result.json");
    fails(&stack, &run, 3, &["chain_unavailable", "disagree"]).await;
    no_payload(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_chain_of_its_own_gets_nothing_and_no_second_draw() {
    let mut stack = with_agent_behind("forked", vec![]).await;
    approve(&stack, &[0, 1, 2]).await;
    let analyst = stack.analyst.key();
    let open = ["run", "--terms", "terms.json", "--owners", "hospital-A,hospital-B", "--key-file", &analyst];
    ok(&stack, &[open.as_slice(), &["--open-only", "--save-request", "run.json"]].concat()).await;
    stack.indexed().await.unwrap_or_else(|f| panic!("{}", f.message));
    let take_up = [
        "run",
        "--terms",
        "terms.json",
        "--request",
        "run.json",
        "--key-file",
        &analyst,
        "--out",
        "result.json",
    ];

    // The host gives the agent a fork of the chain: the receipt that the agent posts is there and nowhere else.
    let real = stack.rpc_url.clone();
    let mut fork = Process::start_watched(
        "fork",
        &stack.options.project.join("script/anvil"),
        ["--port", "0", "--block-time", "1", "--chain-id", "31337", "--fork-url", &real],
        &stack.path("logs"),
    )
    .unwrap_or_else(|f| panic!("{}", f.message));
    let address = fork.ready("Listening on ").await.unwrap_or_else(|f| panic!("{}", f.message));
    stack.agent_rpc_urls = vec![format!("http://{address}")];
    stack.agent = None;
    stack.start_agent().await.unwrap_or_else(|f| panic!("{}", f.message));
    fails(&stack, &take_up, 1, &["receipt_not_seen"]).await;
    no_payload(&stack).await;

    // A second agent, on the real chain, gets no keys for the same run: it would draw the noise anew. The first one's
    // signed result is not there: with it the same result would be revealed, and no other (crash.rs).
    stack.agent_rpc_urls.clear();
    stack.agent = None;
    std::fs::remove_dir_all(stack.path("agent-state")).expect("the first agent kept its result");
    stack.start_agent().await.unwrap_or_else(|f| panic!("{}", f.message));
    fails(&stack, &take_up, 1, &["run_released"]).await;
    no_payload(&stack).await;
}
