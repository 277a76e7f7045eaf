//! NVIDIA's own reference manifests verify, and no byte of one can change. `make nvidia-rims` fetches them, from
//! the package of NVIDIA's local verifier; skipped, visibly, where they are not there.
#![cfg(feature = "gpu-rim")]

mod common;

use std::path::{Path, PathBuf};

use cohort_attestation::gpu::ManifestKind;
use cohort_attestation::gpu::rim::{self, RimError, RimRoot};

/// 2024-01-01: within the two years of the signers of 2023.
const NOW: u64 = 1_704_067_200;

fn manifests() -> Option<Vec<(String, String)>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nvidia-rims");
    let folder = std::env::var_os("COHORT_NVIDIA_RIMS").map_or(beside, PathBuf::from);
    let folder = common::present(folder, "NVIDIA's reference manifests")?;
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "swidtag"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .map(|(name, path)| (name, std::fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "the folder has no .swidtag file");
    Some(found)
}

#[test]
fn every_published_manifest_verifies() {
    let Some(manifests) = manifests() else { return };
    for (name, xml) in manifests {
        // The package marks two that it has for its own tests.
        if name.contains("test_no_gpu") {
            continue;
        }
        let manifest = rim::read(xml.as_bytes(), &RimRoot::nvidia(), NOW).expect(&name);
        assert_eq!(manifest.kind, ManifestKind::Vbios, "{name}");
        assert!(manifest.measurements.len() > 8, "{name}");
        // The name has the version's digits: 1010_0200_882_96005E0001_PROD.
        let digits = manifest.version.replace('.', "");
        assert!(name.contains(&digits), "{name} {digits}");
    }
}

/// Every value that counts, and a sample of the rest of the text.
#[test]
fn a_changed_manifest_does_not_verify() {
    let Some(manifests) = manifests() else { return };
    let (name, xml) = manifests.into_iter().find(|(name, _)| name.contains("PROD")).unwrap();
    let end = xml.find("<ds:KeyInfo>").unwrap();
    for at in (0..end).step_by(97) {
        let mut changed = xml.clone().into_bytes();
        changed[at] ^= 1;
        let same =
            at >= end || xml.as_bytes()[at].is_ascii_whitespace() && at > xml.find("<ds:Signature").unwrap();
        assert!(same || rim::read(&changed, &RimRoot::nvidia(), NOW).is_err(), "{name} byte {at}");
    }
    let late = rim::read(xml.as_bytes(), &RimRoot::nvidia(), 1_900_000_000);
    assert!(matches!(late, Err(RimError::Chain(_))), "{late:?}");
}
