//! Genuine evidence of an NVIDIA H100 is accepted, and everything that is nearly it is refused with the
//! right reason. Skipped, visibly, where the recorded evidence is not there.

mod common;

use cohort_attestation::gpu::{self, ChainError, GpuEvidence, GpuPlatform, GpuRefusal, GpuRoot, Mode};
use proptest::prelude::*;

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;
const REQUEST: usize = 37;
const HEADER: usize = 8;
const BLOCK: usize = 55;

struct Sample {
    evidence: GpuEvidence,
    nonce: [u8; 32],
}

fn sample() -> Option<Sample> {
    let folder = common::samples()?.join("nvidia-hopper");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let report = hex::decode(read("hopperAttestationReport.txt").trim()).unwrap();
    let nonce = report[4..36].try_into().unwrap();
    let evidence = GpuEvidence::from_report(&report, read("hopperCertChain.txt").as_bytes()).unwrap();
    Some(Sample { evidence, nonce })
}

fn verify(evidence: &GpuEvidence, nonce: &[u8; 32]) -> Result<gpu::VerifiedGpu, GpuRefusal> {
    gpu::verify(evidence, &GpuRoot::nvidia(), nonce, NOW)
}

fn code(result: Result<gpu::VerifiedGpu, GpuRefusal>) -> &'static str {
    result.err().map_or("accepted", |refusal| refusal.code())
}

#[test]
fn a_genuine_h100_is_accepted() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    let verified = verify(&evidence, &nonce).unwrap();
    assert_eq!(verified.platform(), GpuPlatform::Nvidia);
    assert_eq!(verified.driver_version(), "550.90.07");
    assert_eq!(verified.vbios_version(), "96.00.9F.00.01");
    assert_eq!(verified.mode(), Mode::Single);
    assert!(!verified.nvdec0_is_on());
    let board = verified.board().clone().map(Option::unwrap);
    assert_eq!(board, ["1010", "0200", "882"]);
    let measured = hex::encode(verified.measurement(4).unwrap());
    assert!(measured.starts_with("73bbf35822549e28"), "{measured}");
    assert_eq!(verified.measurement(0), None);
    assert_eq!(verified.measurement(65), None);
}

#[test]
fn another_nonce_is_refused() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    for bit in [0, 100, 255] {
        let mut other = nonce;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(&evidence, &other), Err(GpuRefusal::NonceMismatch));
    }
    // The nonce in the report, brought in line: the signature is over it.
    let mut changed = evidence.clone();
    changed.report[4] ^= 1;
    let nonce = changed.report[4..36].try_into().unwrap();
    assert_eq!(verify(&changed, &nonce), Err(GpuRefusal::Signature));
}

/// One bit in bytes of every kind: what the form fixes is told apart from what is only signed, of which a
/// sample is taken since each costs six signatures.
#[test]
fn no_byte_of_the_report_can_change() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    let length = evidence.report.len();
    let record = REQUEST + HEADER..REQUEST + HEADER + 64 * BLOCK;
    let responder = record.end..record.end + 32;
    let is_fixed =
        |at: &usize| (0..45).contains(at) || record.contains(at) && (at - record.start) % BLOCK < 7;
    let opaque = responder.end..responder.end + 12;
    for at in (0..length).filter(|at| is_fixed(at) || opaque.contains(at) || at % 41 == 0) {
        let mut changed = evidence.clone();
        changed.report[at] ^= 1 << (at % 8);
        let found = code(verify(&changed, &nonce));
        let expected: &[&str] = match at {
            4..36 => &["gpu_nonce_mismatch"],
            0..4 | 36..45 => &["gpu_evidence_malformed"],
            at if is_fixed(&at) => &["gpu_evidence_malformed"],
            at if record.contains(&at) || responder.contains(&at) => &["gpu_signature"],
            at if at >= length - 96 => &["gpu_signature"],
            _ => &["gpu_evidence_malformed", "gpu_signature"],
        };
        assert!(expected.contains(&found), "byte {at}: {found}");
    }
}

/// One bit in every fifth byte of every certificate.
#[test]
fn no_byte_of_the_certificates_can_change() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    for index in 0..5 {
        for at in (0..evidence.certificates[index].len()).step_by(5) {
            let mut changed = evidence.clone();
            changed.certificates[index][at] ^= 1 << (at % 8);
            let found = code(verify(&changed, &nonce));
            let fits = found.starts_with("gpu_c") || found == "gpu_root_not_trusted";
            assert!(fits, "certificate {index} byte {at}: {found}");
            assert!(index != 4 || found != "gpu_chain", "the root is pinned by its bytes");
        }
    }
}

#[test]
fn nothing_is_missing_and_nothing_left_over() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    let length = evidence.report.len();
    for cut in (0..length).step_by(7).chain(length - 100..length) {
        let mut short = evidence.clone();
        short.report.truncate(cut);
        assert_eq!(code(verify(&short, &nonce)), "gpu_evidence_malformed", "{cut} bytes");
    }
    for tail in [&[0u8][..], &[0, 0], &[1], &[0; 96]] {
        let mut long = evidence.clone();
        long.report.extend_from_slice(tail);
        assert_eq!(code(verify(&long, &nonce)), "gpu_evidence_malformed");
    }
    let mut huge = evidence.clone();
    huge.report.resize(1 << 20, 0);
    assert_eq!(code(verify(&huge, &nonce)), "gpu_evidence_malformed");
    let mut certificate = evidence.clone();
    certificate.certificates[2].push(0);
    assert_eq!(code(verify(&certificate, &nonce)), "gpu_certificate_malformed");
}

/// A driver's padding is dropped where NVIDIA's form is read, and only padding.
#[test]
fn padding_is_dropped_when_read_and_only_there() {
    let Some(folder) = common::samples() else { return };
    let Some(Sample { evidence, nonce }) = sample() else { return };
    let pem = std::fs::read(folder.join("nvidia-hopper/hopperCertChain.txt")).unwrap();
    let read = |tail: &[u8]| {
        let padded = [&evidence.report[..], tail].concat();
        verify(&GpuEvidence::from_report(&padded, &pem).unwrap(), &nonce)
    };
    assert!(read(&[0]).is_ok());
    assert!(read(&[0, 0, 0]).is_ok());
    assert_eq!(code(read(&[0, 0, 0, 0])), "gpu_evidence_malformed");
    assert_eq!(code(read(&[1])), "gpu_evidence_malformed");
}

#[test]
fn the_chain_is_whole_and_in_order() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    for (a, b) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
        let mut swapped = evidence.clone();
        swapped.certificates.swap(a, b);
        assert_eq!(code(verify(&swapped, &nonce)), "gpu_chain", "{a} and {b}");
    }
    let mut swapped = evidence.clone();
    swapped.certificates.swap(3, 4);
    assert_eq!(code(verify(&swapped, &nonce)), "gpu_root_not_trusted");
    for missing in 0..5 {
        let mut short = evidence.clone();
        short.certificates.remove(missing);
        let length = GpuRefusal::Chain(ChainError::Length { have: 4, want: 5 });
        assert_eq!(verify(&short, &nonce), Err(length));
    }
    let mut twice = evidence.clone();
    twice.certificates[2] = twice.certificates[3].clone();
    assert_eq!(code(verify(&twice, &nonce)), "gpu_chain");
    // A certificate that is not issued under the device root at all.
    let folder = common::samples().unwrap().join("nvidia-hopper");
    let report = evidence.report.clone();
    let pem = |name: &str| {
        let text = std::fs::read(folder.join(name)).unwrap();
        GpuEvidence::from_report(&report, &text).unwrap().certificates.remove(0)
    };
    let mut foreign = evidence.clone();
    foreign.certificates[4] = pem("verifier_RIM_root.pem");
    assert_eq!(code(verify(&foreign, &nonce)), "gpu_root_not_trusted");
    let mut same = evidence.clone();
    same.certificates[4] = pem("verifier_device_root.pem");
    assert!(verify(&same, &nonce).is_ok());
}

#[test]
fn it_is_valid_from_the_latest_certificate_on() {
    let Some(Sample { evidence, nonce }) = sample() else { return };
    let at = |now| gpu::verify(&evidence, &GpuRoot::nvidia(), &nonce, now);
    // The provisioner's certificate begins on 2022-03-01.
    let begins = 1_646_092_800;
    assert!(at(begins).is_ok());
    assert_eq!(code(at(begins - 1)), "gpu_certificate_time");
    assert!(at(10 * NOW).is_ok());
    assert_eq!(code(at(u64::MAX)), "gpu_certificate_time");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is overwritten, inserted or removed: a refusal and no panic.
    #[test]
    fn mutations_never_panic_and_never_pass(
        part in 0usize..6,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8),
    ) {
        let Some(Sample { mut evidence, nonce }) = sample() else { return Ok(()) };
        let before = evidence.clone();
        let bytes = match part {
            5 => &mut evidence.report,
            index => &mut evidence.certificates[index],
        };
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 => bytes.insert(at.min(bytes.len()), byte),
                1 if at < bytes.len() => { bytes.remove(at); }
                _ if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        let accepted = verify(&evidence, &nonce).is_ok();
        prop_assert_eq!(accepted, evidence == before);
    }
}
