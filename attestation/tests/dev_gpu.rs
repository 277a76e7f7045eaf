//! Development GPUs: real structures through the unmodified verifier, and every reason for refusal.
#![cfg(feature = "dev-platform")]

use cohort_attestation::dev::{DevGpus, DevPlatform, ReportOptions};
use cohort_attestation::gpu::{
    Appraisal, ChainError, GpuEvidence, GpuPlatform, GpuPolicy, GpuRefusal, GpuRoot, GpuState, Mode,
    appraise, evidence_hash, verify,
};
use cohort_protocol::recipe::{GpuArchitecture, GpuRequirement};

const NOW: u64 = 1_767_225_600;
const NONCE: [u8; 32] = [7; 32];

fn gpus(count: u32) -> DevGpus {
    DevGpus::of_platform(&DevPlatform::from_seed([1; 32]).unwrap(), count).unwrap()
}

fn root(gpus: &DevGpus) -> GpuRoot {
    GpuRoot::development(&gpus.root_certificate_der().unwrap()).unwrap()
}

fn required(count: u32) -> Option<GpuRequirement> {
    Some(GpuRequirement { architecture: GpuArchitecture::Hopper, count })
}

fn state(devices: u32, cc_mode: &str, devtools: bool) -> GpuState {
    let payload = serde_json::json!({
        "version": 2, "provider": "nvidia", "devices": devices, "cc_mode": cc_mode, "devtools": devtools,
        "evidence_sha256": "00",
    });
    GpuState::parse(payload.to_string().as_bytes()).unwrap()
}

/// Appraises evidence as the KMS would, with the quote committing to it.
fn outcome(count: u32, evidence: &[GpuEvidence], policy: &GpuPolicy) -> Result<usize, GpuRefusal> {
    let state = state(count, "on", false);
    let inputs = Appraisal {
        required: required(count),
        evidence,
        committed: Some(evidence_hash(evidence)),
        nonce: &NONCE,
        state: Some(&state),
    };
    appraise(&inputs, policy, NOW).map(|gpus| gpus.len())
}

fn code<T>(result: Result<T, GpuRefusal>) -> &'static str {
    result.err().map_or("accepted", |refusal| refusal.code())
}

#[test]
fn evidence_passes_the_verifier_and_says_development() {
    let gpus = gpus(1);
    let evidence = gpus.evidence(&NONCE).unwrap();
    let verified = verify(&evidence[0], &root(&gpus), &NONCE, NOW).unwrap();
    assert_eq!(verified.platform(), GpuPlatform::Development);
    assert_eq!(verified.driver_version(), cohort_attestation::dev::DRIVER_VERSION);
    assert_eq!(verified.vbios_version(), cohort_attestation::dev::VBIOS_VERSION);
    assert_eq!(gpus.evidence(&NONCE).unwrap(), evidence, "the same seed and nonce give the same report");
    let collected = gpus.collected(&NONCE).unwrap();
    assert_eq!(GpuEvidence::from_collected(&collected).unwrap(), evidence);
    let wrapped = [b"{\"result_code\":0,\"evidences\":", &collected[..], b"}"].concat();
    assert_eq!(GpuEvidence::from_collected(&wrapped).unwrap(), evidence);
}

#[test]
fn no_other_root_accepts_it() {
    let own = gpus(1);
    let evidence = own.evidence(&NONCE).unwrap();
    let other = DevGpus::of_platform(&DevPlatform::from_seed([2; 32]).unwrap(), 1).unwrap();
    for root in [GpuRoot::nvidia(), root(&other)] {
        assert_eq!(code(verify(&evidence[0], &root, &NONCE, NOW)), "gpu_root_not_trusted");
    }
    // A root under which everything is signed by a foreign key is no root of it.
    let mut mixed = evidence[0].clone();
    mixed.certificates[4] = other.root_certificate_der().unwrap();
    assert_eq!(code(verify(&mixed, &root(&other), &NONCE, NOW)), "gpu_chain");
}

/// Blackwell (GB100), an NVSwitch (LS_10): NVIDIA's root is theirs, too.
#[test]
fn another_chip_under_the_same_root_is_no_hopper() {
    let platform = DevPlatform::from_seed([1; 32]).unwrap();
    for (chip, expected) in [
        ("GH100", "accepted"),
        ("GB100", "gpu_architecture"),
        ("LS_10", "gpu_architecture"),
        ("GH1000", "gpu_architecture"),
        ("NVIDIA GH100", "gpu_architecture"),
    ] {
        let other = DevGpus::of_chip(&platform, 1, chip).unwrap();
        let evidence = other.evidence(&NONCE).unwrap().remove(0);
        let found = verify(&evidence, &root(&other), &NONCE, NOW);
        assert!(found.as_ref().err().is_none_or(|refusal| refusal.to_string().contains(chip)), "{found:?}");
        assert_eq!(code(found), expected, "{chip}");
    }
}

#[test]
fn a_root_must_say_that_it_is_not_nvidias() {
    let tdx = DevPlatform::from_seed([1; 32]).unwrap().root_certificate_der().unwrap();
    assert!(GpuRoot::development(&tdx).is_err());
    assert!(GpuRoot::development(b"x").is_err());
}

#[test]
fn the_report_is_of_the_certified_firmware() {
    let gpus = gpus(1);
    let options = ReportOptions { other_firmware: true, ..ReportOptions::good(NONCE, 1) };
    let evidence = gpus.evidence_of(0, &options).unwrap();
    assert_eq!(code(verify(&evidence, &root(&gpus), &NONCE, NOW)), "gpu_firmware_mismatch");
}

#[test]
fn what_the_recipe_requires_is_what_must_be_there() {
    let two = gpus(2);
    let policy = GpuPolicy::production().with_root(root(&two)).golden_optional();
    let evidence = two.evidence(&NONCE).unwrap();
    assert_eq!(outcome(2, &evidence, &policy), Ok(2));
    assert_eq!(code(outcome(1, &[], &policy)), "gpu_missing");
    assert_eq!(code(outcome(1, &evidence, &policy)), "gpu_count");
    assert_eq!(code(outcome(3, &evidence, &policy)), "gpu_count");
    let twice = [evidence[0].clone(), evidence[0].clone()];
    assert_eq!(code(outcome(2, &twice, &policy)), "gpu_duplicate");
    // Another answer of the same device, to the same nonce: its reports differ, the device does not.
    let options = ReportOptions { tampered_block: Some(64), ..ReportOptions::good(NONCE, 2) };
    let again = [evidence[0].clone(), two.evidence_of(0, &options).unwrap()];
    assert_eq!(code(outcome(2, &again, &policy)), "gpu_duplicate");
    let many = vec![evidence[0].clone(); 17];
    assert_eq!(code(outcome(17, &many, &policy)), "gpu_evidence_malformed");
    let none = Appraisal { required: None, evidence: &[], committed: None, nonce: &NONCE, state: None };
    assert_eq!(appraise(&none, &policy, NOW), Ok(vec![]));
    let committed = Some(evidence_hash(&evidence));
    for unexpected in [Appraisal { evidence: &evidence, ..none }, Appraisal { committed, ..none }] {
        assert_eq!(code(appraise(&unexpected, &policy, NOW)), "gpu_unexpected");
    }
}

#[test]
fn modes_that_leave_links_in_the_clear_are_refused() {
    let one = gpus(1);
    let policy = GpuPolicy::production().with_root(root(&one)).golden_optional();
    for (mode, expected) in [
        (Mode::Single, "accepted"),
        (Mode::Multiple, "gpu_mode_not_accepted"),
        (Mode::ProtectedPcie, "gpu_mode_not_accepted"),
    ] {
        let options = ReportOptions { mode, ..ReportOptions::good(NONCE, 1) };
        let evidence = [one.evidence_of(0, &options).unwrap()];
        assert_eq!(code(outcome(1, &evidence, &policy)), expected, "{mode}");
    }
}

#[test]
fn the_quote_commits_to_the_evidence_and_boot_to_the_state() {
    let one = gpus(1);
    let policy = GpuPolicy::production().with_root(root(&one)).golden_optional();
    let evidence = one.evidence(&NONCE).unwrap();
    let good = state(1, "on", false);
    let base = Appraisal {
        required: required(1),
        evidence: &evidence,
        committed: Some(evidence_hash(&evidence)),
        nonce: &NONCE,
        state: Some(&good),
    };
    assert!(appraise(&base, &policy, NOW).is_ok());
    let two = gpus(2);
    let mut swapped = two.evidence(&NONCE).unwrap();
    let both = state(2, "on", false);
    let committed = Some(evidence_hash(&swapped));
    swapped.swap(0, 1);
    let other =
        Appraisal { required: required(2), evidence: &swapped, committed, state: Some(&both), ..base };
    assert_eq!(code(appraise(&other, &policy, NOW)), "gpu_evidence_hash_mismatch");
    for committed in [None, Some([0; 32])] {
        let other = Appraisal { committed, ..base };
        assert_eq!(code(appraise(&other, &policy, NOW)), "gpu_evidence_hash_mismatch");
    }
    let unseen = Appraisal { state: None, ..base };
    assert_eq!(code(appraise(&unseen, &policy, NOW)), "gpu_state_missing");
    for bad in [state(2, "on", false), state(1, "off", false), state(1, "on", true)] {
        let other = Appraisal { state: Some(&bad), ..base };
        assert_eq!(code(appraise(&other, &policy, NOW)), "gpu_state_not_accepted");
    }
    let later = Appraisal { nonce: &[8; 32], ..base };
    assert_eq!(code(appraise(&later, &policy, NOW)), "gpu_nonce_mismatch");
    let production = GpuPolicy::production().with_root(root(&one));
    assert_eq!(code(appraise(&base, &production, NOW)), "gpu_golden_missing");
}

#[cfg(feature = "gpu-rim")]
mod manifests {
    use super::*;
    use cohort_attestation::gpu::rim::{self, RimError, RimRoot};
    use cohort_attestation::gpu::{GoldenValues, ManifestKind};

    fn rim_root(gpus: &DevGpus) -> RimRoot {
        RimRoot::development(&gpus.rim_root_certificate_der().unwrap()).unwrap()
    }

    fn golden(gpus: &DevGpus) -> GoldenValues {
        let read = |xml: &String| rim::read(xml.as_bytes(), &rim_root(gpus), NOW).unwrap();
        GoldenValues::new(gpus.manifests().unwrap().iter().map(read).collect()).unwrap()
    }

    #[test]
    fn manifests_become_golden_values_that_the_evidence_matches() {
        let gpus = gpus(1);
        let golden = golden(&gpus);
        let [driver, vbios] = golden.manifests() else { panic!("{golden:?}") };
        assert_eq!((driver.kind, driver.measurements.len()), (ManifestKind::Driver, 21));
        assert_eq!((vbios.kind, vbios.measurements.len()), (ManifestKind::Vbios, 12));
        let policy = GpuPolicy::production().with_root(root(&gpus)).with_golden(golden);
        assert_eq!(outcome(1, &gpus.evidence(&NONCE).unwrap(), &policy), Ok(1));
        for (block, kind) in [(1, "vbios"), (12, "vbios"), (20, "driver"), (40, "driver")] {
            let options = ReportOptions { tampered_block: Some(block), ..ReportOptions::good(NONCE, 1) };
            let evidence = [gpus.evidence_of(0, &options).unwrap()];
            let mismatch = GpuRefusal::MeasurementMismatch { block, kind };
            assert_eq!(outcome(1, &evidence, &policy), Err(mismatch));
        }
    }

    #[test]
    fn versions_without_golden_values_are_refused_and_conflicts_as_well() {
        let gpus = gpus(1);
        let evidence = gpus.evidence(&NONCE).unwrap();
        let manifests = golden(&gpus).manifests().to_vec();
        let with = |manifests: Vec<_>| {
            let golden = GoldenValues::new(manifests).unwrap();
            outcome(1, &evidence, &GpuPolicy::production().with_root(root(&gpus)).with_golden(golden))
        };
        for missing in 0..2 {
            let mut fewer = manifests.clone();
            fewer.remove(missing);
            assert_eq!(code(with(fewer)), "gpu_golden_missing");
        }
        let mut overlapping = manifests.clone();
        let first = overlapping[1].measurements[0].clone();
        overlapping[0].measurements.insert(0, first);
        assert_eq!(with(overlapping), Err(GpuRefusal::GoldenConflict { block: 1 }));
    }

    fn refused(xml: &str, gpus: &DevGpus, now: u64) -> RimError {
        rim::read(xml.as_bytes(), &rim_root(gpus), now).expect_err(xml)
    }

    #[test]
    fn a_changed_manifest_is_refused() {
        let gpus = gpus(1);
        let [driver, vbios] = gpus.manifests().unwrap();
        let change = |from: &str, to: &str| {
            assert!(driver.contains(from), "{from}");
            refused(&driver.replacen(from, to, 1), &gpus, NOW)
        };
        assert!(matches!(change("active=\"False\"", "active=\"True\""), RimError::Digest));
        assert!(matches!(change("999.00.01", "999.00.02"), RimError::Digest));
        assert!(matches!(change("\n", "\n "), RimError::Digest));
        assert!(matches!(
            change("<ds:DigestValue>", "<ds:DigestValue>AA"),
            RimError::Digest | RimError::Base64 { .. }
        ));
        let shape = |xml: RimError| matches!(xml, RimError::Shape { .. });
        assert!(shape(change("<ns0:Payload>", "<!-- x --><ns0:Payload>")));
        assert!(shape(change("<ns0:Payload>", "<?x y?><ns0:Payload>")));
        assert!(shape(change("<ns0:Payload>", "<ns0:Payload xml:lang=\"en\">")));
        assert!(shape(change("<ns0:Payload>", "<ns0:Meta/><ns0:Payload>")));
        assert!(shape(change("</SoftwareIdentity>", "<ns0:Payload/></SoftwareIdentity>")));
        assert!(shape(change("<ds:KeyInfo>", "<ds:KeyInfo/><ds:KeyInfo>")));
        assert!(matches!(
            refused(&format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{driver}"), &gpus, NOW),
            RimError::Xml(_)
        ));
        let nested = format!("<ns0:Payload>{}{}", "<ns0:a>".repeat(12_000), "</ns0:a>".repeat(12_000));
        assert!(shape(change("<ns0:Payload>", &nested)));
        assert!(shape(change("<ds:X509Data>", "<ds:X509Data><ds:X509CRL/>")));
        let one = change(
            "<ds:X509Certificate>",
            "<ds:X509Certificate>AA==</ds:X509Certificate><ds:X509Certificate>",
        );
        assert!(format!("{one:?}").contains("have: 5"), "{one:?}");
        let algorithm = |xml: RimError| matches!(xml, RimError::Algorithm { .. });
        assert!(algorithm(change("xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha256")));
        assert!(algorithm(change("URI=\"\"", "URI=\"#x\"")));
        assert!(algorithm(change("xml-c14n11\"></ds:Transform>", "xml-c14n10\"></ds:Transform>")));
        // Another manifest's signature: the digest is of another document.
        let signature = |xml: &str| {
            let from = xml.find("<ds:Signature ").unwrap();
            xml[from..xml.find("</SoftwareIdentity>").unwrap()].to_owned()
        };
        let moved = driver.replace(&signature(&driver), &signature(&vbios));
        assert!(matches!(refused(&moved, &gpus, NOW), RimError::Digest));
        // The same content, written otherwise, is the same document.
        let spaced = driver.replacen("corpus=\"false\" name=\"GH100\"", "name='GH100'   corpus='false'", 1);
        assert_ne!(spaced, driver);
        assert!(rim::read(spaced.as_bytes(), &rim_root(&gpus), NOW).is_ok());
    }

    #[test]
    fn signature_and_signer_are_checked() {
        let gpus = gpus(1);
        // A root of the same name with other keys.
        let other = DevGpus::of_platform(&DevPlatform::from_seed([2; 32]).unwrap(), 1).unwrap();
        let foreign = rim::read(other.manifests().unwrap()[0].as_bytes(), &rim_root(&gpus), NOW);
        assert!(matches!(foreign, Err(RimError::Chain(ChainError::Root { .. }))), "{foreign:?}");
        let [driver, _] = gpus.manifests().unwrap();
        let at = driver.find("<ds:SignatureValue>").unwrap() + "<ds:SignatureValue>".len();
        let mut forged = driver.clone();
        let other = if forged.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.replace_range(at..=at, other);
        assert!(matches!(refused(&forged, &gpus, NOW), RimError::Signature));
        let foreign = rim::read(driver.as_bytes(), &RimRoot::nvidia(), NOW);
        assert!(matches!(foreign, Err(RimError::Chain(_))));
        // Before the development certificates begin.
        assert!(matches!(refused(&driver, &gpus, 1_600_000_000), RimError::Chain(_)));
    }
}
