//! The program itself: its commands, its refusals, and what a production build lacks.

#[cfg(not(feature = "dev"))]
use std::collections::BTreeSet;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use cohort_protocol::root::RootStatement;

const REGISTRY: &str = "0x00000000000000000000000000000000000000a2";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohort-kms"));
    command.env_clear();
    command
}

fn new_root(dir: &Path) -> String {
    let path = dir.join("root").display().to_string();
    assert!(program().args(["root", "new", "--out", &path]).status().unwrap().success());
    path
}

fn show(root: &str) -> Output {
    program()
        .args(["root", "show", "--insecure-root-file", root, "--chain-id", "31337", "--registry", REGISTRY])
        .output()
        .unwrap()
}

fn serve(dir: &Path, root: &str) -> Command {
    let mut command = program();
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--exit-with-stdin",
        "--rpc-url",
        "http://127.0.0.1:9",
    ]);
    command.args(["--indexer-url", "http://127.0.0.1:9", "--registry", REGISTRY, "--chain-id", "31337"]);
    command.args(["--insecure-root-file", root, "--log"]).arg(dir.join("log"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The address of a service that has started.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_root_is_made_once_and_shown_as_a_signed_statement() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    let statement: RootStatement = serde_json::from_slice(&show(&root).stdout).unwrap();
    assert!(statement.verify().is_ok());
    assert_eq!((statement.chain_id, statement.epoch), (31337, 0));
    let secret = std::fs::read_to_string(&root).unwrap();
    assert!(!String::from_utf8(show(&root).stdout).unwrap().contains(secret.trim()));
    assert!(!program().args(["root", "new", "--out", &root]).output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&root).unwrap(), secret);
}

#[test]
fn a_root_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = show(&root);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("chmod 600"), "{stderr}");
    let output = serve(dir.path(), &root).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("chmod 600"), "{stderr}");
}

#[test]
fn it_tells_its_address_and_ends_with_its_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    let mut child = serve(dir.path(), &root).spawn().unwrap();
    let line = first_line(&mut child);
    assert!(line.starts_with("listening http://127.0.0.1:") && !line.trim().ends_with(":0"), "{line}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_damaged_log_stops_it_and_a_torn_one_is_mended_in_sight() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    let log = dir.path().join("log");
    std::fs::write(&log, "{}\n").unwrap();
    let output = serve(dir.path(), &root).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("line 1"), "{stderr}");
    assert!(!program().args(["log", "verify"]).arg(&log).output().unwrap().status.success());

    std::fs::write(&log, "{\"entry\":").unwrap();
    let mut child = serve(dir.path(), &root).spawn().unwrap();
    first_line(&mut child);
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("cut 9 bytes"));
    let output = program().args(["log", "verify"]).arg(&log).output().unwrap();
    let head: cohort_kms::release_log::Head = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(head.entries, 0);
}

#[cfg(not(feature = "dev"))]
#[test]
fn a_production_build_has_no_way_to_trust_a_development_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    let file = dir.path().join("dev.pem");
    std::fs::File::create(&file).unwrap().write_all(b"-----BEGIN CERTIFICATE-----").unwrap();
    for flag in ["--insecure-dev-attestation-root", "--insecure-dev-gpu-root"] {
        let output = serve(dir.path(), &root).arg(flag).arg(&file).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains("unexpected argument"), "{stderr}");
    }
    let help = program().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap().to_ascii_lowercase();
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    let insecure: BTreeSet<_> = words.filter(|word| word.contains("insecure")).collect();
    assert_eq!(insecure, BTreeSet::from(["--insecure-root-file", "cohort_kms_insecure_root_file"]));
    // Nor does the environment do it: the service starts, and says nothing of a development root.
    let mut command = serve(dir.path(), &root);
    command.env("COHORT_KMS_INSECURE_DEV_ATTESTATION_ROOT", &file);
    command.env("COHORT_KMS_INSECURE_DEV_GPU_ROOT", &file);
    let mut child = command.spawn().unwrap();
    first_line(&mut child);
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains("INSECURE DEVELOPMENT"));
}

#[cfg(feature = "dev")]
#[test]
fn a_development_root_is_announced_loudly_and_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = new_root(dir.path());
    let platform = cohort_attestation::dev::DevPlatform::from_seed([3; 32]).unwrap();
    let file = dir.path().join("dev-root");
    let contents =
        [platform.root_certificate_pem().unwrap().into_bytes(), platform.root_certificate_der().unwrap()];
    for content in contents {
        std::fs::File::create(&file).unwrap().write_all(&content).unwrap();
        let mut child =
            serve(dir.path(), &root).arg("--insecure-dev-attestation-root").arg(&file).spawn().unwrap();
        assert!(first_line(&mut child).starts_with("listening"));
        drop(child.stdin.take());
        let stderr = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        assert!(stderr.contains("WARNING: INSECURE DEVELOPMENT KMS"), "{stderr}");
    }
    std::fs::write(&file, "no certificate").unwrap();
    let output = serve(dir.path(), &root).arg("--insecure-dev-attestation-root").arg(&file).output().unwrap();
    assert!(!output.status.success());
}
