//! The auditor's view: the chain alone tells the history, and whoever leaves something out of it is noticed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy::providers::Provider;
use cohort_cli::dev::Stack;

use super::{
    proxy::{self, Behaviour},
    support::{fails, ok, ready},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_and_notices_every_event_that_is_left_out() {
    let (stack, terms) = ready("audit").await;
    let (analyst, owner) = (stack.analyst.key(), stack.owners[3].key());
    let proposal = terms.proposal_id().to_string();
    let run = ["run", "--terms", "terms.json", "--owners", "hospital-A,hospital-B", "--key-file", &analyst];
    ok(&stack, &[&run[..], &["--out", "result.json"]].concat()).await;
    let reason = "<script>alert(1)</script>";
    ok(&stack, &["reject", "--proposal", &proposal, "--reason", reason, "--key-file", &owner]).await;

    let mut audit = serde_json::Value::Null;
    for _ in 0..40 {
        let ran = ok(&stack, &["audit", "--compare-indexer", "--json"]).await;
        audit = serde_json::from_str(&ran.stdout).expect("JSON");
        if audit["findings"] == serde_json::json!([]) {
            break;
        }
        // The indexer may stand a block behind.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    let kms = stack.kms_url.clone();
    let ran = ok(&stack, &["audit", "--kms-log", &kms, "--html", "audit.html"]).await;
    assert!(ran.stdout.contains("Release log: "), "{}", ran.stdout);
    the_log_is_matched(&stack).await;
    an_indexer_that_tells_otherwise(&stack, &audit, &proposal).await;
    nothing_secret_is_written(&stack, audit["runs"][0]["run_id"].as_str().expect("an id"));
    assert_eq!(audit["findings"], serde_json::json!([]), "nothing to find");
    assert_eq!(audit["proposals"][&proposal]["decision"], "allow");
    assert_eq!(audit["proposals"][&proposal]["approvals"].as_array().map(Vec::len), Some(4));
    assert_eq!(audit["proposals"][&proposal]["spent"]["epsilon"], "1.5");
    assert_eq!(audit["runs"][0]["participants"], serde_json::json!([0, 1]));
    assert!(audit["runs"][0]["receipt"]["digest"].is_string());
    let page = std::fs::read_to_string(stack.path("audit.html")).expect("written");
    assert!(page.contains("Release log of the KMS"), "{page}");
    assert!(page.contains("No rule was broken.") && !page.contains("<script"), "{page}");

    an_endpoint_that_is_down(&stack).await;
    an_endpoint_without_old_states(&stack, &audit).await;
    what_is_no_consortium(&stack).await;
    // The same block, told by an endpoint that drops one log: alone it is found out by sums and views, unless the
    // event changes no state that lasts; beside an honest one always.
    let index = Arc::new(AtomicUsize::new(0));
    let lying = proxy::start(&stack.rpc_url, Behaviour::DropLog { index: Arc::clone(&index) }).await;
    let block = audit["block_number"].to_string();
    let events = audit["events"].as_u64().expect("a number") as usize;
    let both = format!("{},{lying}", stack.rpc_url);
    for dropped in 0..events {
        index.store(dropped, Ordering::Relaxed);
        let args = ["audit", "--rpc-url", &lying, "--from-block", "0", "--to-block", &block];
        let alone = stack.cohort(&args).await.unwrap_or_else(|f| panic!("{}", f.message));
        if alone.code == Some(0) {
            fails(&stack, &["audit", "--rpc-url", &both, "--from-block", "0"], 1, &["break a rule"]).await;
            let ran = stack
                .cohort(&["audit", "--rpc-url", &both])
                .await
                .unwrap_or_else(|f| panic!("{}", f.message));
            let told = ["OwnerBudget", "DatasetRegistered", "PolicyChanged", "ProposalRejected"];
            assert!(
                told.iter().any(|event| ran.stdout.contains(&format!("does not tell {event}"))),
                "{}",
                ran.stdout
            );
        } else {
            assert_eq!(alone.code, Some(1), "{}{}", alone.stdout, alone.stderr);
        }
    }
    a_run_without_a_receipt(&stack, &run).await;
}

/// A run that was debited and never gets its receipt stays visible, to be looked at.
async fn a_run_without_a_receipt(stack: &Stack, run: &[&str]) {
    ok(stack, &[run, &["--open-only"]].concat()).await;
    let ran = ok(stack, &["audit", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(told["findings"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(
        (&told["findings"][0]["code"], &told["findings"][0]["severity"]),
        (&"open_run".into(), &"notice".into())
    );
    assert!(told["runs"][1]["receipt"].is_null());
}

/// Another kind, place, transaction, time or sum than the chain's: each is found, beside a report that is the chain's own.
async fn an_indexer_that_tells_otherwise(stack: &Stack, audit: &serde_json::Value, proposal: &str) {
    let run = &audit["runs"][0];
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let receipt = &run["receipt"];
    let (transaction, time) = (text(&receipt["transaction"]), receipt["time"].to_string());
    let place = format!("\"cursor\":\"{}:", run["opened_block"]);
    let lies = [
        ("\"kind\":\"receipt_posted\"".to_owned(), "\"kind\":\"receipt_equivocation\"".to_owned()),
        (transaction, proposal.to_owned()),
        (format!("\"timestamp\":{time}"), "\"timestamp\":1".to_owned()),
        (place, "\"cursor\":\"1:7".to_owned()),
        ("\"epsilon_spent\":\"1.5\"".to_owned(), "\"epsilon_spent\":\"0\"".to_owned()),
    ];
    for (from, to) in lies {
        let lying = proxy::before(&stack.indexer_url, &from, &to).await;
        let args = ["audit", "--compare-indexer", "--indexer-url", &lying, "--json"];
        let ran = stack.cohort(&args).await.unwrap_or_else(|f| panic!("{}", f.message));
        assert_eq!(ran.code, Some(1), "{from}: {}{}", ran.stdout, ran.stderr);
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(told["findings"][0]["code"], "indexer", "{from}");
        assert_eq!(told["runs"], audit["runs"]);
    }
}

/// It has said nothing, good or bad: the report is made, and both it and the exit code say who is missing.
async fn an_endpoint_that_is_down(stack: &Stack) {
    let honest = stack.rpc_url.trim_start_matches("http://");
    let both = format!("{},http://127.0.0.1:1", stack.rpc_url);
    let args = ["audit", "--rpc-url", &both, "--json"];
    fails(stack, &args, 3, &["no rule was broken, but 1 of the endpoints"]).await;
    let ran = stack.cohort(&args).await.unwrap_or_else(|f| panic!("{}", f.message));
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(told["endpoints"], serde_json::json!([honest]));
    assert_eq!(told["findings"][0]["code"], "endpoint_silent");
    assert!(told["findings"][0]["text"].as_str().expect("words").starts_with("127.0.0.1:1 "));
    // The one that is read first cannot be missed.
    let both = format!("http://127.0.0.1:1,{}", stack.rpc_url);
    fails(stack, &["audit", "--rpc-url", &both], 3, &["127.0.0.1:1: "]).await;
    // One that tells other code has answered.
    let provider = stack.provider().unwrap_or_else(|f| panic!("{}", f.message));
    let code = provider.get_code_at(stack.app).await.expect("the chain answers").to_string();
    let other = format!("{}00", &code[..code.len() - 2]);
    let lying = proxy::start(&stack.rpc_url, Behaviour::Replace { from: code, to: other }).await;
    let both = format!("{},{lying}", stack.rpc_url);
    let ran = stack.cohort(&["audit", "--rpc-url", &both]).await.unwrap_or_else(|f| panic!("{}", f.message));
    assert!(ran.code == Some(1) && ran.stdout.contains("tells another code"), "{}{}", ran.stdout, ran.stderr);
}

/// An ordinary node keeps logs for ever, and states of the last hours.
async fn an_endpoint_without_old_states(stack: &Stack, audit: &serde_json::Value) {
    let pruned = proxy::start(&stack.rpc_url, Behaviour::Pruned).await;
    let ran = ok(stack, &["audit", "--rpc-url", &pruned, "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&told["events"], &told["timeline"]), (&audit["events"], &audit["timeline"]));
    assert!(ran.stderr.contains("logs are read from block 0"), "{}", ran.stderr);
}

/// Addresses of something else, and ranges without a block.
async fn what_is_no_consortium(stack: &Stack) {
    let provider = stack.provider().unwrap_or_else(|f| panic!("{}", f.message));
    let silent = "0x00000000000000000000000000000000000000aa";
    let code = (silent, "0x60006000f3"); // It answers everything with nothing.
    let _: serde_json::Value =
        provider.raw_request("anvil_setCode".into(), code).await.expect("anvil does it");
    fails(stack, &["audit", "--app", silent], 2, &["as no DstackApp"]).await;
    let registry = stack.registry.to_string();
    fails(stack, &["audit", "--app", &registry], 2, &["none of a DstackApp's"]).await;
    let nobody = stack.relayer.address.to_string();
    fails(stack, &["audit", "--app", &nobody], 2, &["no contract"]).await;
    fails(stack, &["audit", "--from-block", "999999999"], 2, &["nothing to read"]).await;
    fails(stack, &["audit", "--to-block", "999999999"], 3, &["no block 999999999"]).await;
}

/// A log from which the run's release was cut off: the chain has a receipt that no entry accounts for.
async fn the_log_is_matched(stack: &Stack) {
    let log = std::fs::read_to_string(stack.path("release-log.jsonl")).expect("the KMS keeps its log");
    std::fs::write(stack.path("whole.jsonl"), &log).expect("written");
    ok(stack, &["audit", "--kms-log", "whole.jsonl"]).await;
    let lines: Vec<_> = log.lines().collect();
    let released = lines.iter().position(|line| line.contains("\"released\"")).expect("a release");
    let before = lines[..released].iter().map(|line| format!("{line}\n")).collect::<String>();
    std::fs::write(stack.path("cut.jsonl"), before).expect("written");
    fails(stack, &["audit", "--kms-log", "cut.jsonl"], 1, &["break a rule"]).await;
    let ran =
        stack.cohort(&["audit", "--kms-log", "cut.jsonl"]).await.unwrap_or_else(|f| panic!("{}", f.message));
    assert!(ran.stdout.contains("release_missing"), "{}", ran.stdout);
    // One digit of an entry is another.
    let altered = log.replacen("\"released\"", "\"refused\"", 1);
    std::fs::write(stack.path("altered.jsonl"), altered).expect("written");
    fails(stack, &["audit", "--kms-log", "altered.jsonl"], 1, &["altered.jsonl", "damaged at line"]).await;
    std::fs::write(stack.path("torn.jsonl"), format!("{log}{{\"entry")).expect("written");
    let ran = ok(stack, &["audit", "--kms-log", "torn.jsonl"]).await;
    assert!(
        ran.stdout.contains("a copy, whose end nobody signed; 7 bytes of an unfinished"),
        "{}",
        ran.stdout
    );
}

/// No key, no seed and no word of a row stands in what services write: logs, release log, results, pages.
fn nothing_secret_is_written(stack: &Stack, run: &str) {
    let read = |path: &std::path::Path| std::fs::read(path).unwrap_or_default();
    let hex = |path: &std::path::Path| {
        String::from_utf8(read(path)).expect("text").trim().trim_start_matches("0x").to_owned()
    };
    let people = stack.owners.iter().chain([&stack.analyst, &stack.relayer, &stack.deployer]);
    let mut secrets: Vec<String> = people.map(|person| hex(&person.key_file)).collect();
    secrets.push(hex(&stack.path("platform.seed")));
    assert!(secrets.iter().all(|secret| secret.len() == 64));
    // Values of columns that the recipe does not read, so that no word of its own is one of them.
    let words = ["lv hypertrophy", "atypical angina", "downsloping", "fixed defect"];
    let csv = String::from_utf8(read(&stack.study.csv())).expect("text");
    assert!(words.iter().all(|word| csv.contains(word)), "they are in the data");
    secrets.extend(words.map(str::to_owned));

    let mut files: Vec<_> =
        std::fs::read_dir(stack.path("logs")).expect("logs").flatten().map(|e| e.path()).collect();
    // Anvil prints the keys of its own accounts, which everybody knows.
    files.retain(|file| !file.ends_with("anvil.log"));
    files.extend(["release-log.jsonl", "result.json", "audit.html"].map(|name| stack.path(name)));
    let texts: Vec<_> = files.iter().map(|file| String::from_utf8_lossy(&read(file)).into_owned()).collect();
    assert!(texts.iter().filter(|text| text.contains(run)).count() >= 3, "they tell of the run");
    for (file, text) in files.iter().zip(&texts) {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{} has {secret}", file.display());
        }
    }
}
