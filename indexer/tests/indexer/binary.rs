//! The program: its first line, its end, kill -9, a full disk, and bad values.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use alloy::primitives::{B256, U256};
use serde_json::{Value, json};

use crate::{
    chain::{Node, Random},
    postgres::Server,
    running::{dumped, rebuilt},
    study::*,
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohort-indexer"));
    command.env_clear();
    command
}

/// Gives its address as well. `program` may be one that starts it.
fn start(mut program: Command, node: &Node, database: &str) -> (Child, String) {
    let mut child = program
        .args(["--rpc-url", node.url.as_str(), "--registry", &REGISTRY.to_string()])
        .args(["--listen", "127.0.0.1:0", "--poll-ms", "10", "--exit-with-stdin"])
        .env("COHORT_INDEXER_DATABASE", database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening ").expect("the first line tells the address").to_owned();
    (child, url)
}

/// An answer, `null` while nobody answers.
async fn answer(url: &str, path: &str) -> Value {
    match reqwest::get(format!("{url}{path}")).await {
        Ok(response) => response.json().await.unwrap(),
        Err(_) => Value::Null,
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not come to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reaches_tip(url: &str, node: &Node) {
    let (number, hash) = node.chain().tip();
    let head = json!({ "number": number, "hash": hash });
    until(async || {
        let status = answer(url, "/v1/status").await;
        status["head"]["number"] == head["number"] && status["head"]["hash"] == head["hash"]
    })
    .await;
}

/// Killed again and again while it backfills and rewinds, it ends with the same bytes as one that never was.
async fn survives_kills(database: &str) {
    let node = node_with_open_run().await;
    let mut random = Random(11);
    node.chain().max_range = Some(20);
    let runs = |node: &Node, from: u64, blocks: u64| {
        for run in from..from + blocks {
            node.chain().mine(vec![run_opened(B256::from(U256::from(run)), 3, run)]);
        }
    };
    runs(&node, 0, 400);
    for round in 1..=12u64 {
        let (mut child, _) = start(program(), &node, database);
        tokio::time::sleep(Duration::from_millis(random.below(120))).await;
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        if round % 3 == 0 {
            // Caught up, so that the next one begins with a rewind.
            let (mut child, url) = start(program(), &node, database);
            reaches_tip(&url, &node).await;
            child.kill().unwrap();
            child.wait().unwrap();
            let depth = 1 + random.below(300) as usize;
            node.chain().drop_blocks(depth);
            runs(&node, 1_000 * round, random.below(300));
        }
    }
    let (mut child, url) = start(program(), &node, database);
    reaches_tip(&url, &node).await;
    drop(child.stdin.take()); // the program that started it is gone
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");

    let dump = program().args(["dump", "--database", database]).output().unwrap();
    assert!(dump.status.success());
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert_eq!(dump, dumped(&database.parse().unwrap()).await);
    node.chain().max_range = None;
    assert_eq!(dump, rebuilt(&node).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_resumes() {
    let dir = tempfile::tempdir().unwrap();
    survives_kills(dir.path().join("mirror.sqlite").to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_resumes_on_postgresql() {
    let Some(server) = Server::start() else { return };
    survives_kills(&server.url()).await;
}

/// A limit on the size of files is what a full disk is: writing fails. It tells so, goes on showing what it has, decides
/// nothing any more, and recovers when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_it_with_a_reason() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mirror.sqlite");
    let database = file.to_str().unwrap();
    node.chain().mine_empty(3);
    // Units of 512 bytes; without the trap, the signal would end it.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 5000; exec \"$0\" \"$@\""]);
    limited.arg(env!("CARGO_BIN_EXE_cohort-indexer")).env("COHORT_INDEXER_MAX_LAG", "1");
    let (mut child, url) = start(limited, &node, database);
    reaches_tip(&url, &node).await;
    assert_eq!(answer(&url, &question()).await["head"]["decision"], "allow");

    let runs: Vec<_> = (0..6_000u64).map(|run| run_opened(B256::from(U256::from(run)), 3, run)).collect();
    node.chain().mine(vec![revoked(0, 2)]);
    for logs in runs.chunks(100) {
        node.chain().mine(logs.to_vec());
    }
    until(async || answer(&url, "/readyz").await["last_error"].to_string().contains("database")).await;
    until(async || answer(&url, &question()).await["code"] == "not_synced").await;
    let head = answer(&url, "/v1/status").await["head"].clone();
    let number = head["number"].as_u64().unwrap();
    assert_eq!(head["hash"], json!(node.chain().blocks[number as usize].hash));
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, url) = start(program(), &node, database);
    reaches_tip(&url, &node).await;
    assert_eq!(answer(&url, &question()).await["head"]["decision"], "proposal_revoked");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(dumped(&database.parse().unwrap()).await, rebuilt(&node).await);
}

#[test]
fn bad_values_name_the_flag_and_end_with_2() {
    let registry = REGISTRY.to_string();
    let url = "http://127.0.0.1:1";
    for (flag, args) in [
        ("--rpc-url", vec!["--registry", &registry, "--database", "x"]),
        ("--registry", vec!["--rpc-url", url, "--database", "x"]),
        ("--rpc-url", vec!["--rpc-url", "ftp://x", "--registry", &registry, "--database", "x"]),
        ("--registry", vec!["--rpc-url", url, "--registry", "0x12", "--database", "x"]),
        ("--listen", vec!["--rpc-url", url, "--registry", &registry, "--database", "x", "--listen", "here"]),
        (
            "--confirmations",
            vec!["--rpc-url", url, "--registry", &registry, "--database", "x", "--confirmations", "999"],
        ),
        ("--depth", vec!["--rpc-url", url, "--registry", &registry, "--database", "x", "--depth", "9"]),
    ] {
        let output = program().args(&args).stdin(Stdio::null()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(flag), "{args:?}: {message}");
    }
}

#[test]
fn a_missing_database_is_asked_for() {
    let args = ["--rpc-url", "http://127.0.0.1:1", "--registry", &REGISTRY.to_string()];
    let output = program().args(args).stdin(Stdio::null()).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("--database"), "{message}");
}

#[test]
fn a_database_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sqlite");
    let output = program().arg("dump").arg("--database").arg(&missing).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("missing.sqlite"), "{message}");
    assert!(!missing.exists(), "a dump creates nothing");
}
