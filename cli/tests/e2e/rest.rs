//! The agent's interface as the documentation shows it: curl, server-sent events, and the same result.

use std::io::Write as _;

use serde_json::Value;
use tokio::process::Command;

use super::support::{programs, project, read, ready};

const STAGES: [&str; 5] = ["queued", "opening", "attesting", "computing", "posting_receipt"];

/// The commands that docs/spec/agent-api.md gives.
fn documented() -> String {
    let page = std::fs::read_to_string(project().join("docs/spec/agent-api.md")).unwrap();
    let (_, from) = page.split_once("```sh\n").expect("the page has commands");
    from.split_once("```").expect("they end").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_can_do_what_cohort_run_does_and_progress_tells_stages_alone() {
    if !Command::new("curl").arg("--version").output().await.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: no curl on this machine");
        return;
    }
    let (stack, _) = ready("rest").await;
    std::fs::copy(stack.path(&stack.analyst.key()), stack.path("analyst.key")).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-euc", &documented()])
        .current_dir(stack.path("."))
        .env("AGENT", stack.agent_url.trim_end_matches('/'))
        .env("PATH", format!("{}:{path}", programs().display()))
        .env("COHORT_INSECURE_DEV_ATTESTATION_ROOT", "platform-root.pem")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("verified:"), "{said}");

    let events: Vec<Value> = said
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let result: Value = read(&stack.path("result.json"));
    let (last, running) = events.split_last().expect("there are events");
    let id = &result["receipt"]["run_id"];
    assert_eq!(*last, serde_json::json!({ "run_id": id, "state": "done" }));
    let places: Vec<usize> = running
        .iter()
        .map(|event| {
            let stage = event["stage"].as_str().expect("a stage");
            assert_eq!(*event, serde_json::json!({ "run_id": id, "state": "running", "stage": stage }));
            STAGES.iter().position(|name| *name == stage).expect("a documented stage")
        })
        .collect();
    assert!(places.is_sorted_by(|one, two| one < two), "each stage once, in order: {places:?}");
}
