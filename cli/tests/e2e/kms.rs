//! The KMS in a virtual machine of its own, as owners and replicas see it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy::{
    network::TransactionBuilder,
    primitives::{B256, Bytes},
    providers::Provider,
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use cohort_attestation::{KmsEvidence, Platform, Policy, kms};
use cohort_cli::dev::Stack;
use cohort_protocol::{
    abi::{
        IDstackKms,
        boot::{AppBootInfo, isKmsAllowedCall},
    },
    json,
    release_log::{Entry, Line, Outcome as Decided, Record, genesis},
    root::RootAnswer,
};

use serde_json::Value;

use crate::support;

/// What the registry says about a machine that wants to be a KMS.
async fn is_kms_allowed(stack: &Stack, boot: &AppBootInfo) -> (bool, String) {
    let call = isKmsAllowedCall { bootInfo: boot.clone() };
    let request =
        TransactionRequest::default().with_to(stack.registry).with_input(Bytes::from(call.abi_encode()));
    let answer = stack.provider().unwrap().call(request).await.unwrap();
    let decoded = isKmsAllowedCall::abi_decode_returns(&answer).unwrap();
    (decoded.isAllowed, decoded.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kms_shows_in_which_machine_its_keys_are() {
    let mut stack = support::deployed("kms-evidence").await;
    stack.indexer_url = "http://127.0.0.1:9".to_owned(); // nothing here asks it
    stack.start_kms().await.unwrap_or_else(|f| panic!("{}", f.message));
    let answer: RootAnswer<KmsEvidence> =
        reqwest::get(format!("{}/v1/root", stack.kms_url)).await.unwrap().json().await.unwrap();
    assert_eq!(answer.statement.root, stack.kms_root);
    let evidence = answer.evidence.expect("a KMS in a virtual machine shows its evidence");
    let root = cohort_cli::dev::attestation_root(&stack.path("platform-root.pem"));
    let policy = Policy::production().with_root(root.unwrap_or_else(|f| panic!("{}", f.message)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let machine = kms::verify(&answer.statement, &evidence, None, &policy, now).unwrap();
    assert_eq!(machine.td().platform(), Platform::Development);
    let boot = machine.td().boot_info();
    assert_eq!(is_kms_allowed(&stack, &boot).await, (true, String::new()));
    let other = AppBootInfo { mrAggregated: [1; 32].into(), ..boot.clone() };
    assert!(!is_kms_allowed(&stack, &other).await.0);
    let call = IDstackKms::removeKmsAggregatedMrCall { mrAggregated: boot.mrAggregated };
    let request = TransactionRequest::default()
        .with_from(stack.deployer.address)
        .with_to(stack.registry)
        .with_input(Bytes::from(call.abi_encode()));
    let sent = stack.provider().unwrap().send_transaction(request).await.unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
    assert_eq!(is_kms_allowed(&stack, &boot).await.1, "Aggregated MR not allowed");
}

/// State and stage of the agent's run that is not done.
async fn newest_run(stack: &Stack) -> (String, String) {
    let runs: Value =
        reqwest::get(format!("{}/v1/runs", stack.agent_url)).await.unwrap().json().await.unwrap();
    let run = runs["runs"].as_array().unwrap().iter().find(|run| run["state"] != "done");
    let text = |name: &str| run.and_then(|run| run[name].as_str()).unwrap_or_default().to_owned();
    (text("state"), text("stage"))
}

/// A lease is renewed while the agent computes, and a revocation ends the computation: nothing is posted or revealed.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_a_running_computation() {
    let mut stack = support::deployed("lease").await;
    stack.kms_args = ["--lease-seconds", "10"].map(str::to_owned).to_vec();
    stack.agent_args = ["--insecure-dev-slow-seconds", "14"].map(str::to_owned).to_vec();
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    support::seal_all(&stack).await;
    let terms = support::approve(&stack, &[0, 1, 2]).await;
    let analyst = stack.analyst.key();
    let run = |out: &'static str| {
        [
            "run",
            "--terms",
            "terms.json",
            "--owners",
            "hospital-A,hospital-B",
            "--key-file",
            &analyst,
            "--out",
            out,
        ]
        .map(str::to_owned)
    };
    let started = Instant::now();
    support::ok(&stack, &run("first.json").each_ref().map(String::as_str)).await;
    assert!(
        started.elapsed() > Duration::from_secs(14),
        "the computation was not slow: {:?}",
        started.elapsed()
    );

    let second = run("second.json");
    let ran = stack.cohort(&second);
    let revoke = async {
        while newest_run(&stack).await.1 != "computing" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (key, id) = (stack.owners[1].key(), terms.proposal_id().to_string());
        support::ok(&stack, &["revoke", "--proposal", &id, "--key-file", &key]).await;
        let revoked = Instant::now();
        while newest_run(&stack).await.0 != "failed" {
            assert!(revoked.elapsed() < Duration::from_secs(12), "it went on computing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("the computation ended {:.1?} after the revocation was mined", revoked.elapsed());
    };
    let (ran, ()) = tokio::join!(ran, revoke);
    let ran = ran.unwrap_or_else(|f| panic!("{}", f.message));
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("proposal_revoked"), "{}", ran.stderr);
    assert!(stack.path("first.json").exists() && !stack.path("second.json").exists());
    let log = std::fs::read_to_string(stack.path("release-log.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("\"proposal_revoked\""), "{log}");
    the_log_fits_the_chain(&stack, &log).await;
    an_older_log_does_not_start(&mut stack, &log).await;
}

/// Whoever puts an older copy of the log back gets no KMS that forgot a release, if a head was kept elsewhere.
async fn an_older_log_does_not_start(stack: &mut Stack, log: &str) {
    stack.kms.take().expect("running").kill().await;
    let head = stack.path("head.json").display().to_string();
    stack.kms_args = vec!["--log-head".to_owned(), head.clone()];
    let older: String = log.lines().take(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(stack.path("release-log.jsonl"), older).unwrap();
    assert!(stack.start_kms().await.is_err());
    let said = std::fs::read_to_string(stack.path("logs/kms.log")).unwrap();
    assert!(said.contains("it is an older copy"), "{said}");
    std::fs::write(stack.path("release-log.jsonl"), log).unwrap();
    stack.start_kms().await.unwrap_or_else(|f| panic!("{}", f.message));
    // A head that somebody else made is none.
    stack.kms.take().expect("running").kill().await;
    let text = std::fs::read_to_string(&head).unwrap();
    std::fs::write(&head, text.replacen("\"entries\": ", "\"entries\": 1", 1)).unwrap();
    assert!(stack.start_kms().await.is_err());
    let said = std::fs::read_to_string(stack.path("logs/kms.log")).unwrap();
    assert!(said.contains("not signed by this KMS's root"), "{said}");
}

/// The release log of the two runs, whole, rewritten, and with its first entry's release hidden.
async fn the_log_fits_the_chain(stack: &Stack, log: &str) {
    let verify = ["kms", "log", "verify"];
    let told = support::ok(stack, &[&verify[..], &["--save-head", "head.json"]].concat()).await;
    assert!(told.stdout.contains("no_receipt") && !told.stdout.contains("VIOLATION"), "{}", told.stdout);
    std::fs::write(stack.path("log.jsonl"), log).unwrap();
    support::ok(stack, &[&verify[..], &["log.jsonl", "--head", "head.json"]].concat()).await;
    // A torn tail is told, and nothing more.
    std::fs::write(stack.path("log.jsonl"), format!("{log}{{\"entry\":")).unwrap();
    let torn = support::ok(stack, &[&verify[..], &["log.jsonl", "--head", "head.json"]].concat()).await;
    assert!(torn.stdout.contains("9 bytes of an unfinished entry"), "{}", torn.stdout);
    // The end cut off whole: the kept head tells.
    let lines: Vec<&str> = log.lines().collect();
    std::fs::write(stack.path("log.jsonl"), lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    support::ok(stack, &[&verify[..], &["log.jsonl"]].concat()).await;
    support::fails(stack, &[&verify[..], &["log.jsonl", "--head", "head.json"]].concat(), 1, &["rewritten"])
        .await;
    // A log that never had the release: the run with its receipt shows the gap.
    std::fs::write(stack.path("log.jsonl"), "").unwrap();
    let gap = stack.cohort(&[&verify[..], &["log.jsonl"]].concat()).await;
    let gap = gap.unwrap_or_else(|f| panic!("{}", f.message));
    assert!(gap.code == Some(1) && gap.stdout.contains("release_missing"), "{}{}", gap.stdout, gap.stderr);
    logs_of_replicas_are_matched_together(stack, log).await;
    std::fs::write(stack.path("log.jsonl"), log.replacen("hospital-A", "hospital-Z", 1)).unwrap();
    support::fails(stack, &[&verify[..], &["log.jsonl", "--offline"]].concat(), 1, &["damaged at line"])
        .await;
}

/// The same decisions as two replicas would have logged them: neither log is whole without the other, and a run that
/// went to two agents shows only in both.
async fn logs_of_replicas_are_matched_together(stack: &Stack, log: &str) {
    let record = |line: &str| serde_json::from_str::<Line>(line).unwrap().entry.record;
    let records: Vec<Record> = log.lines().map(record).collect();
    let first = records.iter().position(|record| record.outcome == Decided::Released).expect("a release");
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for (index, record) in records.iter().enumerate() {
        if index <= first { &mut there } else { &mut here }.push(record.clone());
    }
    let write = |name: &str, records: &[Record]| std::fs::write(stack.path(name), chained(records)).unwrap();
    write("a.jsonl", &here);
    write("b.jsonl", &there);
    let verify = async |files: &[&str]| {
        let args = [&["kms", "log", "verify"], files].concat();
        stack.cohort(&args).await.unwrap_or_else(|f| panic!("{}", f.message))
    };
    let alone = verify(&["a.jsonl"]).await;
    assert!(alone.code == Some(1) && alone.stdout.contains("release_missing"), "{}", alone.stdout);
    let both = verify(&["a.jsonl", "b.jsonl", "--head", "head.json"]).await;
    assert!(both.code == Some(1) && both.stderr.contains("rewritten"), "{}", both.stderr);
    let both = verify(&["a.jsonl", "b.jsonl"]).await;
    assert!(both.code == Some(0) && both.stdout.contains("  b.jsonl"), "{}{}", both.stdout, both.stderr);
    support::ok(stack, &["audit", "--kms-log", "a.jsonl,b.jsonl"]).await;

    let mut thief = records[first].clone();
    thief.receipt_key = stack.deployer.address;
    write("c.jsonl", &[thief]);
    assert_eq!(verify(&["c.jsonl", "--offline"]).await.code, Some(0));
    let twice = verify(&["a.jsonl", "b.jsonl", "c.jsonl"]).await;
    assert!(twice.code == Some(1) && twice.stdout.contains("released_twice"), "{}", twice.stdout);
    let mut other = records.clone();
    other.iter_mut().for_each(|record| record.evidence_hash = B256::ZERO);
    write("d.jsonl", &other);
    let evidence = verify(&["d.jsonl"]).await;
    assert!(evidence.stdout.contains("evidence_without_release"), "{}", evidence.stdout);
}

/// A log of these records.
fn chained(records: &[Record]) -> String {
    let (mut previous, mut text) = (genesis(), String::new());
    for (index, record) in (0..).zip(records) {
        let entry = Entry { index, previous, record: record.clone(), time: 1_800_000_000 + index };
        let hash = json::canonical_hash(&entry).unwrap();
        previous = hash;
        text += &String::from_utf8(json::canonical(&Line { entry, hash }).unwrap()).unwrap();
        text.push('\n');
    }
    text
}
