//! The program: its first line, its end, kill -9, and bad values.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    chain::Node,
    running::{dumped, rebuilt},
    study::*,
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohort-indexer"));
    command.env_clear();
    command
}

fn start(node: &Node, database: &std::path::Path) -> (Child, String) {
    let mut child = program()
        .args([
            "--rpc-url",
            node.url.as_str(),
            "--registry",
            &REGISTRY.to_string(),
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--poll-ms", "10", "--exit-with-stdin", "--database"])
        .arg(database)
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

async fn reaches(url: &str, number: u64) {
    for _ in 0..1_000 {
        if let Ok(response) = reqwest::get(format!("{url}/v1/status")).await {
            let status: serde_json::Value = response.json().await.unwrap();
            if status["head"]["number"] == number {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{url} does not reach block {number}");
}

/// Killed again and again while it backfills, it ends with the same bytes as one that never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_resumes() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("mirror.sqlite");
    {
        let mut chain = node.chain();
        chain.max_range = Some(20);
        for logs in until_open_run() {
            chain.mine(logs);
        }
        for run in 0..400u64 {
            chain.mine(vec![run_opened(
                alloy::primitives::B256::from(alloy::primitives::U256::from(run)),
                3,
                run,
            )]);
        }
    }
    for pause in [5, 20, 40, 80] {
        let (mut child, _) = start(&node, &database);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    let (mut child, url) = start(&node, &database);
    let tip = node.chain().tip().0;
    reaches(&url, tip).await;
    drop(child.stdin.take()); // the program that started it is gone
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");

    let dump = program().arg("dump").arg("--database").arg(&database).output().unwrap();
    assert!(dump.status.success());
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert_eq!(dump, dumped(&database.clone().into()).await);
    node.chain().max_range = None;
    assert_eq!(dump, rebuilt(&node).await);
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
