//! Evidence of a key service about itself: the committed vector, and everything that must not verify.
#![cfg(feature = "dev-platform")]

use cohort_attestation::dev::{DevGuest, DevPlatform};
use cohort_attestation::{AppId, KmsEvidence, KmsRefusal, Policy, Refusal, TrustedRoot, VerifiedKms, kms};
use cohort_protocol::{
    hpke::SecretBytes,
    root::{RootAnswer, RootKeys, RootStatement},
};
use serde_json::{Value, json};

const NOW: u64 = 1_790_000_000;
const APP_COMPOSE: &str = r#"{"manifest_version":2,"name":"kms"}"#;

fn guest() -> DevGuest {
    let platform = DevPlatform::from_seed([0x42; 32]).unwrap();
    DevGuest::new(platform, AppId([7; 20]), APP_COMPOSE, &[9; 32]).unwrap()
}

fn statement(epoch: u32) -> RootStatement {
    let keys = RootKeys::derive(&SecretBytes::new([1; 32]), epoch).unwrap();
    keys.statement(31337, [0x44; 20].into()).unwrap()
}

fn evidence(statement: &RootStatement) -> KmsEvidence {
    let guest = guest();
    let mut evidence = KmsEvidence::of_guest(guest.evidence(&statement.report_data()).unwrap()).unwrap();
    evidence.collateral = Some(guest.platform().collateral(NOW).unwrap());
    evidence
}

fn policy() -> Policy {
    let root = guest().platform().root_certificate_der().unwrap();
    Policy::production().with_root(TrustedRoot::development(&root).unwrap())
}

fn verify(statement: &RootStatement, evidence: &KmsEvidence) -> Result<VerifiedKms, KmsRefusal> {
    kms::verify(statement, evidence, None, &policy(), NOW)
}

/// `test/vectors/kms-root/evidence.json`; `COHORT_WRITE_VECTORS=1` writes it anew.
#[test]
fn the_committed_vector_verifies_to_its_claims() {
    let statement = statement(0);
    let evidence = evidence(&statement);
    let made = json!({
        "note": "development platform: NOT INTEL",
        "now": NOW,
        "root_certificate": guest().platform().root_certificate_pem().unwrap(),
        "answer": RootAnswer { statement: statement.clone(), evidence: Some(evidence) },
        "claims": {
            "mr_aggregated": guest().mr_aggregated(),
            "device_id": guest().platform().device_id(),
            "os_image_hash": DevGuest::os_image_hash(),
            "app_id": AppId([7; 20]),
        },
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/kms-root/evidence.json");
    if std::env::var_os("COHORT_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(committed, made);
    let answer: RootAnswer<KmsEvidence> = serde_json::from_value(committed["answer"].clone()).unwrap();
    let kms = verify(&answer.statement, answer.evidence.as_ref().unwrap()).unwrap();
    assert_eq!(kms.statement(), &statement);
    let claims = &committed["claims"];
    assert_eq!(claims["mr_aggregated"], kms.mr_aggregated().to_string());
    assert_eq!(claims["device_id"], kms.device_id().to_string());
    assert_eq!(claims["os_image_hash"], kms.os_image_hash().unwrap().to_string());
    assert_eq!(claims["app_id"], kms.app_id().to_string());
    let boot = kms.td().boot_info();
    assert_eq!(boot.mrAggregated.0, kms.mr_aggregated().0);
    assert_eq!((boot.tcbStatus.as_str(), boot.deviceId.0), ("UpToDate", kms.device_id().0));
}

#[test]
fn a_quote_is_about_one_statement_only() {
    let good = statement(0);
    let evidence = evidence(&good);
    let foreign = RootKeys::derive(&SecretBytes::new([2; 32]), 0).unwrap();
    for other in [
        statement(1),
        foreign.statement(31337, [0x44; 20].into()).unwrap(),
        RootKeys::derive(&SecretBytes::new([1; 32]), 0).unwrap().statement(1, [0x44; 20].into()).unwrap(),
        RootKeys::derive(&SecretBytes::new([1; 32]), 0).unwrap().statement(31337, [0x45; 20].into()).unwrap(),
    ] {
        let refused = verify(&other, &evidence).unwrap_err();
        assert!(matches!(refused, KmsRefusal::Evidence(Refusal::ReportDataMismatch)), "{refused:?}");
    }
    let unsigned = RootStatement { root: [9; 20].into(), ..good };
    assert_eq!(verify(&unsigned, &evidence).unwrap_err().code(), "root_statement_invalid");
}

#[test]
fn other_machines_texts_roots_and_times_are_refused() {
    let statement = statement(0);
    let good = evidence(&statement);
    let code = |evidence: &KmsEvidence| verify(&statement, evidence).unwrap_err().code();
    let other_text = KmsEvidence { app_compose: "{}".to_owned(), ..good.clone() };
    assert_eq!(code(&other_text), "compose_hash_mismatch");
    let mut events: Value = serde_json::from_str(&good.event_log).unwrap();
    events.as_array_mut().unwrap().remove(3);
    assert_eq!(code(&KmsEvidence { event_log: events.to_string(), ..good.clone() }), "event_log_mismatch");
    assert_eq!(code(&KmsEvidence { collateral: None, ..good.clone() }), "collateral_missing");
    let mut forged = good.clone();
    *forged.quote.get_mut(48 + 136).unwrap() ^= 1; // MRTD
    assert_eq!(code(&forged), "quote_refused");

    let collateral = good.collateral.clone();
    let bare = KmsEvidence { collateral: None, ..good.clone() };
    assert!(kms::verify(&statement, &bare, collateral.as_ref(), &policy(), NOW).is_ok());
    let at = |now| kms::verify(&statement, &good, None, &policy(), now).unwrap_err().code();
    assert_eq!(at(NOW - 2 * 24 * 3600), "collateral_not_yet_valid");
    assert_eq!(at(NOW + 31 * 24 * 3600), "collateral_expired");
    let production = kms::verify(&statement, &good, None, &Policy::production(), NOW).unwrap_err();
    assert_eq!(production.code(), "root_not_trusted");
}
