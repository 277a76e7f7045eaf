//! Where recorded evidence is, when it is there.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The folder of recorded evidence: `COHORT_SAMPLES`, or `../shared/samples` beside the repository.
pub(crate) fn samples() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
    let folder = std::env::var_os("COHORT_SAMPLES").map_or(beside, PathBuf::from);
    present(folder, "recorded evidence")
}

/// The samples inside the source package of dcap-qvl.
pub(crate) fn dcap_qvl_samples() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let packages = registries
        .flatten()
        .flat_map(|registry| std::fs::read_dir(registry.path()).into_iter().flatten().flatten());
    let found = packages
        .map(|package| package.path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dcap-qvl-0.7")));
    present(found.unwrap_or_default().join("sample"), "dcap-qvl's samples")
}

/// Says once per test program what is missing, past the capture of test output.
pub(crate) fn present(folder: PathBuf, what: &str) -> Option<PathBuf> {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let there = folder.is_dir();
    if !there && SAID.lock().unwrap().insert(what.to_owned()) {
        let line = format!("\nskipped: {what} not found (looked in {})\n", folder.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    there.then_some(folder)
}
