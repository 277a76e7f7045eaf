//! `docs/tour.md` as a reader follows it: the demo left running, the lines that it prints, then each block of the page.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::support::{blocks, programs, project};

/// Enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(600);

/// The demo with its services left running, and the lines of a shell that its last words ask for.
async fn kept_demo() -> (Child, String) {
    let mut child = Command::new(programs().join("cohort"))
        .args(["dev", "demo", "--keep", "--project"])
        .arg(project())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cohort starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut shell = String::new();
    let read = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let line = line.trim();
            if line.starts_with("cd ") || line.starts_with("export ") {
                shell += line;
                shell.push('\n');
            }
            if line.starts_with("export ") {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("the demo ends in time");
    assert!(shell.contains("export PATH="), "the demo says how to go on: {shell}");
    // What it prints further must not block it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, shell)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_does_what_it_says() {
    let page = std::fs::read_to_string(project().join("docs/tour.md")).unwrap();
    let (mut demo, opened) = kept_demo().await;
    let blocks = blocks(&page);
    assert!(blocks.len() > 4, "{page}");
    let script = format!("set -eux\n{opened}{}", blocks.concat());
    let shell = Command::new("bash").arg("-c").arg(&script).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, shell).await.expect("the tour ends in time").expect("bash is there");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.matches("verified: ").count(), 2, "{out}");
    assert!(!out.contains("VIOLATION") && !out.contains("FAIL"), "{out}");
    let id = demo.id().expect("running").to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.expect("kill is there").success());
    timeout(PATIENCE, demo.wait()).await.expect("it ends").expect("it ran");
}
