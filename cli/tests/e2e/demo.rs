//! `make demo` itself: it ends well, leaves nothing running, and two can run side by side.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::process::{Child, Command};

use super::support::{programs, project};

fn demo() -> Child {
    Command::new(programs().join("cohort"))
        .args(["dev", "demo", "--project"])
        .arg(project())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cohort starts")
}

/// Command lines of all processes that work in this folder.
fn running_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let command = |path: PathBuf| std::fs::read(path.join("cmdline")).ok();
    entries
        .filter_map(|entry| command(entry.path()))
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}

async fn nothing_left(id: u32) {
    let folder = format!("target/demo/{id}/");
    for _ in 0..50 {
        if running_in(&folder).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still running: {:?}", running_in(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_demos_side_by_side_end_verified_and_leave_nothing_running() {
    let (one, two) = (demo(), demo());
    let ids = [one.id().expect("running"), two.id().expect("running")];
    let (one, two) = tokio::join!(one.wait_with_output(), two.wait_with_output());
    for (output, id) in [one, two].into_iter().zip(ids) {
        let output = output.expect("it ran");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        for shown in [
            "no_quorum",
            "owner_not_approved",
            "epsilon 1.5 debited",
            "verified:",
            "proposal_revoked",
            "920 rows",
        ] {
            assert!(out.contains(shown), "{shown:?} is not in the transcript: {out}");
        }
        assert!(!out.contains("FAIL"), "{out}");
        nothing_left(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_nothing_running() {
    let mut child = demo();
    let id = child.id().expect("running");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!running_in(&format!("target/demo/{id}/")).is_empty(), "the demo starts processes");
    let interrupted =
        Command::new("kill").args(["-INT", &id.to_string()]).status().await.expect("kill is there");
    assert!(interrupted.success());
    let status = child.wait().await.expect("it ends");
    assert!(!status.success(), "an interrupted demo does not claim success");
    nothing_left(id).await;
}
