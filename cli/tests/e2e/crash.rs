//! `kill -9` between receipt and reveal: nothing is lost, and nothing else is revealed.

use std::time::Duration;

use cohort_cli::dev::Stack;
use serde_json::Value;

use super::support::{fails, ok, ready, run};

async fn restart(stack: &mut Stack, args: &[&str]) {
    stack.agent = None;
    stack.agent_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    stack.start_agent().await.unwrap_or_else(|f| panic!("{}", f.message));
}

/// All runs that the agent knows, once none is under way.
async fn ended(stack: &Stack) -> Vec<Value> {
    for _ in 0..240 {
        let runs: Value = reqwest::get(url(stack)).await.unwrap().json().await.unwrap();
        let runs = runs["runs"].as_array().unwrap().clone();
        if runs.iter().all(|run| run["state"] != "running") {
            return runs;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("a run is still under way");
}

fn url(stack: &Stack) -> String {
    format!("{}/v1/runs", stack.agent_url.trim_end_matches('/'))
}

/// What the agent answers for a run that ended.
async fn answer(stack: &Stack, run: &Value) -> reqwest::Response {
    reqwest::get(format!("{}/{}", url(stack), run["run_id"].as_str().unwrap())).await.unwrap()
}

/// The results of all runs that the agent knows, once none is under way.
async fn results(stack: &Stack) -> Vec<Value> {
    let mut results = Vec::new();
    for run in ended(stack).await {
        let answer = answer(stack, &run).await;
        assert!(answer.status().is_success(), "{run}");
        results.push(answer.json().await.unwrap());
    }
    results
}

/// Results that were kept on disk.
fn kept(stack: &Stack) -> usize {
    std::fs::read_dir(stack.path("agent-state")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_receipt_and_reveal_loses_nothing_and_reveals_nothing_twice() {
    let (mut stack, _) = ready("crash").await;
    let analyst = stack.analyst.key();
    // After the result was kept and before its receipt is posted; after that is on chain; after the KMS has seen it.
    for step in ["kept", "posted", "seen"] {
        // What an earlier step left would be taken up, and end the process before this step's run.
        let _ = std::fs::remove_dir_all(stack.path("agent-state"));
        restart(&mut stack, &["--insecure-dev-kill-at", step]).await;
        let (request, out) = (format!("{step}.json"), format!("result-{step}.json"));
        let first = run(&analyst, "hospital-A,hospital-B", &out);
        fails(&stack, &[&first[..], &["--save-request", &request]].concat(), 3, &["agent"]).await;
        assert!(!stack.path(&out).exists(), "nothing was revealed before the crash");

        restart(&mut stack, &[]).await;
        let taken_up = results(&stack).await;
        assert_eq!(taken_up.len(), 1, "{step}: the result is there again");
        let again =
            ["run", "--terms", "terms.json", "--key-file", &analyst, "--request", &request, "--out", &out];
        ok(&stack, &again).await;
        let result: Value = serde_json::from_slice(&std::fs::read(stack.path(&out)).unwrap()).unwrap();
        assert!(taken_up.contains(&result), "{step}: and it is the one that was signed before the crash");
        ok(&stack, &["verify", &out]).await;

        restart(&mut stack, &[]).await;
        assert_eq!(results(&stack).await, taken_up, "{step}: the same again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_result_is_kept_and_a_revocation_after_it_reveal_nothing() {
    let (mut stack, terms) = ready("crash-early").await;
    let analyst = stack.analyst.key();
    // After the keys came; after the receipt was signed in memory.
    for step in ["released", "signed"] {
        restart(&mut stack, &["--insecure-dev-kill-at", step]).await;
        let (request, out) = (format!("{step}.json"), format!("result-{step}.json"));
        let first = run(&analyst, "hospital-A,hospital-B", &out);
        fails(&stack, &[&first[..], &["--save-request", &request]].concat(), 3, &["agent"]).await;
        assert_eq!(kept(&stack), 0, "{step}: nothing was kept");

        restart(&mut stack, &[]).await;
        assert!(ended(&stack).await.is_empty(), "{step}: there is nothing to take up");
        // A second process would draw the noise anew: it gets no keys. The debit stays.
        let again =
            ["run", "--terms", "terms.json", "--key-file", &analyst, "--request", &request, "--out", &out];
        fails(&stack, &again, 1, &["run_released"]).await;
        assert!(!stack.path(&out).exists());
    }

    // Kept, not posted, then revoked: the contract takes no receipt, and the agent reveals nothing.
    restart(&mut stack, &["--insecure-dev-kill-at", "kept"]).await;
    fails(&stack, &run(&analyst, "hospital-A,hospital-B", "result.json"), 3, &["agent"]).await;
    assert_eq!(kept(&stack), 1);
    let owner = stack.owners[2].key();
    ok(&stack, &["revoke", "--proposal", &terms.proposal_id().to_string(), "--key-file", &owner]).await;
    for _ in 0..2 {
        restart(&mut stack, &[]).await;
        let runs = ended(&stack).await;
        assert_eq!(runs.len(), 1, "it is taken up");
        assert_eq!((&runs[0]["state"], &runs[0]["code"]), (&"failed".into(), &"proposal_revoked".into()));
        let text = answer(&stack, &runs[0]).await.text().await.unwrap();
        assert!(!text.contains("payload") && !text.contains("measures"), "{text}");
    }
    assert!(!stack.path("result.json").exists());
}
