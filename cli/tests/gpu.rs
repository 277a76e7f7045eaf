//! `cohort gpu` without a chain: genuine evidence, and NVIDIA's own manifests, where they are there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const REGISTRY: &str = "0x4444444444444444444444444444444444444444";
/// The account of the key 0x0707..07.
const SIGNER: &str = "0x4a62316623ad457f02cdc5d997ded67a383ec569";

fn cohort(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cohort")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A folder, or a visible line that it is not there.
fn folder(variable: &str, beside: &str, what: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(beside);
    let folder = std::env::var_os(variable).map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        eprintln!("skipped: {what} not found (looked in {})", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn a_genuine_gpu_verifies_for_its_nonce_only() {
    let samples = folder("COHORT_SAMPLES", "../../shared/samples", "recorded evidence");
    let Some(folder) = samples.map(|samples| samples.join("nvidia-hopper")) else { return };
    let [report, chain] = ["hopperAttestationReport.txt", "hopperCertChain.txt"]
        .map(|name| folder.join(name).display().to_string());
    let nonce = fs::read_to_string(&report).unwrap()[8..72].to_owned();
    let base = ["gpu", "verify", &report, "--certificates", &chain];
    let run = |nonce: &str| cohort(&[&base[..], &["--nonce", nonce]].concat());
    let output = run(&nonce);
    assert!(output.status.success(), "{}", text(&output));
    for word in ["nvidia device", "550.90.07", "96.00.9F.00.01", "102bf659d5419614", "not compared"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    let output = run(&"0".repeat(64));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("gpu_nonce_mismatch"), "{}", text(&output));
    let output = cohort(&base);
    assert!(text(&output).contains("not compared: the nonce"), "{}", text(&output));
}

#[test]
fn manifests_become_a_signed_list_that_evidence_is_held_against() {
    let Some(rims) = folder("COHORT_NVIDIA_RIMS", "../target/nvidia-rims", "NVIDIA's reference manifests")
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (key, out) = (dir.path().join("key"), dir.path().join("golden.json"));
    fs::write(&key, "07".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let [key, out] = [key, out].map(|path| path.display().to_string());
    let rim = rims.join("1010_0200_882_96005E0003_PROD.swidtag").display().to_string();
    let base = ["gpu", "rim", "import", &rim, "--out", &out, "--chain-id", "31337"];
    let base = [&base[..], &["--registry", REGISTRY, "--key-file", &key]].concat();
    // Its signer has ended.
    let output = cohort(&base);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("signer is refused"), "{}", text(&output));
    let output = cohort(&[&base[..], &["--insecure-rim-time", "1704067200"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("96.00.5E.00.03: 12 measurements"), "{}", text(&output));
    assert!(text(&output).to_lowercase().contains(SIGNER), "{}", text(&output));

    let samples = folder("COHORT_SAMPLES", "../../shared/samples", "recorded evidence");
    let Some(folder) = samples.map(|samples| samples.join("nvidia-hopper")) else { return };
    let [report, chain] = ["hopperAttestationReport.txt", "hopperCertChain.txt"]
        .map(|name| folder.join(name).display().to_string());
    let verify = |registry: &str| {
        let base = ["gpu", "verify", &report, "--certificates", &chain, "--gpu-golden", &out];
        let against = ["--gpu-golden-signer", SIGNER, "--chain-id", "31337", "--registry", registry];
        cohort(&[&base[..], &against].concat())
    };
    // This list knows nothing of that driver; for another registry it is no list at all.
    let output = verify(REGISTRY);
    assert!(text(&output).contains("gpu_golden_missing"), "{}", text(&output));
    let output = verify("0x5555555555555555555555555555555555555555");
    assert!(text(&output).contains("not signed by"), "{}", text(&output));
}
