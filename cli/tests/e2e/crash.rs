//! `kill -9` between receipt and reveal: nothing is lost, and nothing else is revealed.

use std::time::Duration;

use cohort_cli::dev::Stack;
use serde_json::Value;

use super::support::{fails, ok, ready};

async fn restart(stack: &mut Stack, args: &[&str]) {
    stack.agent = None;
    stack.agent_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    stack.start_agent().await.unwrap_or_else(|f| panic!("{}", f.message));
}

/// The results of all runs that the agent knows, once none is under way.
async fn results(stack: &Stack) -> Vec<Value> {
    for _ in 0..240 {
        let url = format!("{}/v1/runs", stack.agent_url.trim_end_matches('/'));
        let runs: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        let runs = runs["runs"].as_array().unwrap().clone();
        if runs.iter().all(|run| run["state"] != "running") {
            let mut results = Vec::new();
            for run in runs {
                let answer =
                    reqwest::get(format!("{url}/{}", run["run_id"].as_str().unwrap())).await.unwrap();
                assert!(answer.status().is_success(), "{run}");
                results.push(answer.json().await.unwrap());
            }
            return results;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("a run is still under way");
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
        let run = ["run", "--terms", "terms.json", "--key-file", &analyst, "--out", &out];
        let first = ["--owners", "hospital-A,hospital-B", "--save-request", &request];
        fails(&stack, &[&run[..], &first].concat(), 3, &["agent"]).await;
        assert!(!stack.path(&out).exists(), "nothing was revealed before the crash");

        restart(&mut stack, &[]).await;
        let taken_up = results(&stack).await;
        assert_eq!(taken_up.len(), 1, "{step}: the result is there again");
        ok(&stack, &[&run[..], &["--request", &request]].concat()).await;
        let result: Value = serde_json::from_slice(&std::fs::read(stack.path(&out)).unwrap()).unwrap();
        assert!(taken_up.contains(&result), "{step}: and it is the one that was signed before the crash");
        ok(&stack, &["verify", &out]).await;

        restart(&mut stack, &[]).await;
        assert_eq!(results(&stack).await, taken_up, "{step}: the same again");
    }
}
