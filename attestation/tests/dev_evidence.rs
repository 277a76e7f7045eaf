//! Evidence of the development platform through the unmodified verifier: accepted under its own
//! root, and refused for every reason there is.
#![cfg(feature = "dev-platform")]

use std::sync::LazyLock;

use cohort_attestation::dev::{
    CollateralOptions, DevGuest, DevPlatform, PckFlags, QuoteVersion, TdMeasurements,
};
use cohort_attestation::dstack::MrConfig;
use cohort_attestation::policy::{DevelopmentRootError, PlatformFlag};
use cohort_attestation::{
    AppId, Evidence, Platform, Policy, Refusal, TcbStatus, TrustedRoot, collateral, event_log, verify,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};

const NOW: u64 = 1_800_000_000;
const REPORT_DATA: [u8; 64] = [0xAB; 64];
const APP_COMPOSE: &str = r#"{"manifest_version":2,"name":"study","runner":"docker-compose"}"#;

static PLATFORM: LazyLock<DevPlatform> = LazyLock::new(|| DevPlatform::from_seed([1; 32]).unwrap());
static GUEST: LazyLock<DevGuest> = LazyLock::new(boot);
static EVIDENCE: LazyLock<Evidence> = LazyLock::new(gather);

fn boot() -> DevGuest {
    DevGuest::new(platform(), AppId([0xA0; 20]), APP_COMPOSE, &[2; 32]).unwrap()
}

fn gather() -> Evidence {
    let collateral = platform().collateral(NOW).unwrap();
    guest().evidence(&REPORT_DATA).unwrap().with_collateral(collateral)
}

fn platform() -> DevPlatform {
    PLATFORM.clone()
}

fn guest() -> DevGuest {
    GUEST.clone()
}

fn evidence() -> Evidence {
    EVIDENCE.clone()
}

fn policy() -> Policy {
    let root = TrustedRoot::development(&platform().root_certificate_der().unwrap()).unwrap();
    Policy::production().with_root(root)
}

fn code(evidence: &Evidence) -> Option<&'static str> {
    verify(evidence, &policy(), &REPORT_DATA, NOW).map_err(|refusal| refusal.code()).err()
}

/// Evidence with other measurements, signed by the platform.
fn with_measurements(change: impl Fn(&mut TdMeasurements)) -> Evidence {
    let mut measurements = guest().measurements().clone();
    change(&mut measurements);
    let quote = platform().quote(&measurements, &REPORT_DATA).unwrap();
    Evidence { quote, ..evidence() }
}

/// Evidence with another event log, whose replay the quote confirms: a guest that measured this.
fn with_events(change: impl Fn(&mut Vec<Value>)) -> Evidence {
    let mut events: Vec<Value> = serde_json::from_str(guest().event_log_json()).unwrap();
    change(&mut events);
    let event_log = serde_json::to_string(&events).unwrap();
    let rtmrs = *event_log::replay(&event_log::parse(&event_log).unwrap()).values();
    let quote = with_measurements(|measurements| measurements.rtmrs = rtmrs).quote;
    Evidence { quote, event_log, ..evidence() }
}

fn event(name: &str, payload: &[u8]) -> Value {
    json!({
        "imr": 3, "event_type": 134_217_729, "event": name, "event_payload": hex::encode(payload),
    })
}

fn position(events: &[Value], name: &str) -> usize {
    events.iter().position(|event| event["event"] == name).unwrap()
}

#[test]
fn development_evidence_verifies_under_its_root() {
    let td = verify(&evidence(), &policy(), &REPORT_DATA, NOW).unwrap();
    let guest = guest();
    assert_eq!(td.platform(), Platform::Development);
    assert_eq!(td.platform().as_str(), "development");
    assert_eq!(td.app_id(), AppId([0xA0; 20]));
    assert_eq!(td.compose_hash(), guest.identity().compose_hash);
    assert_eq!(td.instance_id(), guest.identity().instance_id);
    assert_eq!(td.device_id(), platform().device_id());
    assert_eq!(td.os_image_hash(), Some(DevGuest::os_image_hash()));
    assert_eq!(td.mr_system(), guest.mr_system());
    assert_eq!(td.mr_aggregated(), guest.mr_aggregated());
    assert_ne!(td.boot_mr_aggregated(), td.mr_aggregated());
    assert_ne!(td.boot_mr_system(), td.mr_system());
    assert_eq!(td.mrtd(), guest.measurements().mrtd);
    assert_eq!(td.rtmrs(), &guest.measurements().rtmrs);
    assert_eq!(td.mr_config(), MrConfig::V1);
    assert_eq!(td.report_data(), &REPORT_DATA);
    assert_eq!(td.tcb_status(), TcbStatus::UpToDate);
    assert_eq!(td.key_provider().name(), "kms");
    let audit = serde_json::to_value(&td).unwrap();
    assert_eq!(audit["platform"], "development");
    assert_eq!(audit["app_id"], "a0".repeat(20));
}

#[test]
fn a_production_policy_refuses_development_evidence() {
    let refused = verify(&evidence(), &Policy::production(), &REPORT_DATA, NOW).unwrap_err();
    assert_eq!(refused.code(), "root_not_trusted");
    assert!(refused.to_string().contains("NOT INTEL"), "{refused}");
}

#[test]
fn another_development_root_is_refused() {
    let other = DevPlatform::from_seed([9; 32]).unwrap();
    let root = TrustedRoot::development(&other.root_certificate_der().unwrap()).unwrap();
    let policy = Policy::production().with_root(root);
    let refused = verify(&evidence(), &policy, &REPORT_DATA, NOW).unwrap_err();
    assert_eq!(refused.code(), "root_not_trusted");
    // The other platform's collateral does not make this machine its own.
    let mixed = Evidence { collateral: other.collateral(NOW).unwrap(), ..evidence() };
    let refused = verify(&mixed, &policy, &REPORT_DATA, NOW).unwrap_err();
    assert_eq!(refused.code(), "root_not_trusted");
}

#[test]
fn a_development_root_must_say_so() {
    assert!(matches!(
        TrustedRoot::development(b"no certificate"),
        Err(DevelopmentRootError::NotACertificate(_))
    ));
    let unmarked = guest().app_certificate_pem().unwrap();
    let (_, der) = der::pem::decode_vec(unmarked.as_bytes()).unwrap();
    assert!(matches!(TrustedRoot::development(&der), Err(DevelopmentRootError::NotMarked { .. })));
}

#[test]
fn everything_is_deterministic() {
    let again = DevPlatform::from_seed([1; 32]).unwrap();
    let guest = DevGuest::new(again, AppId([0xA0; 20]), APP_COMPOSE, &[2; 32]).unwrap();
    let collateral = guest.platform().collateral(NOW).unwrap();
    assert_eq!(guest.evidence(&REPORT_DATA).unwrap().with_collateral(collateral), evidence());
    let json = serde_json::to_string(&evidence()).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), evidence());
}

#[test]
fn version_5_quotes_verify() {
    let quote = |change: &dyn Fn(&mut TdMeasurements)| {
        let mut measurements = guest().measurements().clone();
        change(&mut measurements);
        platform().quote_of(QuoteVersion::V5, &measurements, &REPORT_DATA).unwrap()
    };
    assert_eq!(code(&Evidence { quote: quote(&|_| ()), ..evidence() }), None);
    let bound = quote(&|measurements| measurements.mr_service_td = [1; 48]);
    assert_eq!(code(&Evidence { quote: bound, ..evidence() }), Some("td_service"));
}

/// The quote's bytes are not an identity: with bytes behind it, or with the twin signature
/// (r, n - s), it says the same.
#[test]
fn a_quotes_bytes_are_malleable() {
    let claims = verify(&evidence(), &policy(), &REPORT_DATA, NOW).unwrap();
    let mut longer = evidence();
    longer.quote.extend([0; 100]);
    assert_eq!(verify(&longer, &policy(), &REPORT_DATA, NOW).unwrap(), claims);
    let mut twin = evidence();
    // Header 48, report 584, length of the signature data 4.
    let signature = &mut twin.quote[636..700];
    let (r, s) = p256::ecdsa::Signature::from_slice(signature).unwrap().split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap();
    signature.copy_from_slice(&other.to_bytes());
    assert_ne!(twin.quote, evidence().quote);
    assert_eq!(verify(&twin, &policy(), &REPORT_DATA, NOW).unwrap(), claims);
}

#[test]
fn report_data_must_be_the_expected() {
    let refused = verify(&evidence(), &policy(), &[0; 64], NOW).unwrap_err();
    assert_eq!(refused, Refusal::ReportDataMismatch);
}

#[test]
fn td_attributes_are_checked() {
    let refused = |bits: u64| code(&with_measurements(|m| m.td_attributes = bits.to_le_bytes()));
    const SEPT_VE_DISABLE: u64 = 1 << 28;
    assert_eq!(refused(SEPT_VE_DISABLE), None);
    assert_eq!(refused(SEPT_VE_DISABLE | 1), Some("td_debug"));
    assert_eq!(refused(SEPT_VE_DISABLE | 1 << 29), Some("td_migratable"));
    assert_eq!(refused(0), Some("td_attributes"));
    assert_eq!(refused(SEPT_VE_DISABLE | 1 << 40), Some("td_attributes"));
}

#[test]
fn rtmr3_must_replay() {
    for register in 0..4u8 {
        let wrong = with_measurements(|m| m.rtmrs[usize::from(register)].0[0] ^= 1);
        let refused = verify(&wrong, &policy(), &REPORT_DATA, NOW).unwrap_err();
        assert_eq!(refused, Refusal::EventLogMismatch { register });
    }
    let empty = Evidence { event_log: "[]".to_owned(), ..evidence() };
    assert_eq!(code(&empty), Some("boot_event_missing"));
    let garbage = Evidence { event_log: "{".to_owned(), ..evidence() };
    assert_eq!(code(&garbage), Some("event_log_malformed"));
}

/// These logs replay: a guest (or, after the boundary, an app in it) really measured them.
#[test]
fn measured_logs_must_follow_the_grammar() {
    assert_eq!(code(&with_events(|events| events.push(event("mine", b"x")))), None);
    let late = with_events(|events| events.push(event("app-id", &[0xB0; 20])));
    assert_eq!(code(&late), Some("boot_event_after_boundary"));
    let late = with_events(|events| events.push(event("compose-hash", &[0xB0; 32])));
    assert_eq!(code(&late), Some("boot_event_after_boundary"));
    let twice = with_events(|events| {
        let at = position(events, "app-id");
        events.insert(at + 1, event("app-id", &[0xB0; 20]));
    });
    assert_eq!(code(&twice), Some("boot_event_duplicate"));
    let none = with_events(|events| events.retain(|event| event["event"] != "compose-hash"));
    assert_eq!(code(&none), Some("boot_event_missing"));
    let swapped = with_events(|events| {
        let at = position(events, "app-id");
        events.swap(at, at + 1);
    });
    assert_eq!(code(&swapped), Some("boot_event_out_of_order"));
    let unfinished = with_events(|events| drop(events.pop()));
    assert_eq!(code(&unfinished), Some("boot_event_missing"));
    let long = with_events(|events| {
        let at = position(events, "app-id");
        events[at] = event("app-id", &[0xA0; 21]);
    });
    assert_eq!(code(&long), Some("boot_event_malformed"));
}

#[test]
fn version_2_events_verify() {
    let second = with_events(|events| {
        for event in events.iter_mut().filter(|event| event["imr"] == 3) {
            let canonical = format!(
                r#"{{"name":{},"payload":{},"type":134217729}}"#,
                event["event"], event["event_payload"]
            );
            event["digest"] = hex::encode(Sha384::digest(&canonical)).into();
            event["preimage"] = hex::encode(canonical).into();
            event["version"] = 2.into();
        }
    });
    assert_eq!(code(&second), None);
}

#[test]
fn the_app_compose_must_be_the_measured_one() {
    let spaced = Evidence { app_compose: Some(format!("{APP_COMPOSE} ")), ..evidence() };
    assert_eq!(code(&spaced), Some("compose_hash_mismatch"));
    let none = Evidence { app_compose: None, ..evidence() };
    assert_eq!(code(&none), Some("app_compose_missing"));
    verify(&none, &policy().app_compose_optional(), &REPORT_DATA, NOW).unwrap();
}

#[test]
fn mr_config_id_must_name_the_app() {
    let guest = guest();
    for form in [MrConfig::Unset, MrConfig::V1, MrConfig::V2, MrConfig::V3] {
        for value in form.expected(guest.identity()) {
            assert_eq!(code(&with_measurements(|m| m.mr_config_id = value)), None, "{form:?}");
            for at in (1..48).step_by(4).filter(|_| form != MrConfig::Unset) {
                let wrong = with_measurements(|m| {
                    m.mr_config_id = value;
                    m.mr_config_id[at] ^= 1;
                });
                assert_eq!(code(&wrong), Some("mr_config_id_mismatch"), "{form:?} byte {at}");
            }
        }
    }
    let unknown = with_measurements(|m| m.mr_config_id = [4; 48]);
    assert_eq!(code(&unknown), Some("mr_config_id_unknown"));
}

fn with_collateral(change: impl Fn(&mut CollateralOptions)) -> Evidence {
    let mut options = CollateralOptions::at(NOW);
    change(&mut options);
    Evidence { collateral: platform().collateral_with(&options).unwrap(), ..evidence() }
}

#[test]
fn collateral_is_checked() {
    assert_eq!(code(&with_collateral(|o| o.pck_is_revoked = true)), Some("pck_revoked"));
    // The window is half open, as its dates are read before anything is verified.
    for (valid_from, expires_at, expected) in [
        (NOW, NOW + 1, None),
        (NOW - 1, NOW, Some("collateral_expired")),
        (NOW + 1, NOW + 2, Some("collateral_not_yet_valid")),
    ] {
        let evidence = with_collateral(|o| (o.valid_from, o.expires_at) = (valid_from, expires_at));
        assert_eq!(code(&evidence), expected, "{valid_from}..{expires_at}");
        let window = collateral::window(&evidence.collateral).unwrap();
        assert_eq!(window.contains(NOW), expected.is_none());
    }
    let other = with_collateral(|o| o.fmspc = [0x90, 0xc0, 0x6f, 0, 0, 0]);
    let refused = verify(&other, &policy(), &REPORT_DATA, NOW).unwrap_err();
    assert_eq!(refused.code(), "collateral_of_another_family");
    assert!(refused.is_about_collateral() && refused.to_string().contains("90c06f000000"), "{refused}");
    let mut garbage = evidence();
    garbage.collateral.tcb_info = "{".to_owned();
    assert_eq!(code(&garbage), Some("collateral_malformed"));
    let mut garbage = evidence();
    garbage.collateral.pck_crl.truncate(40);
    assert_eq!(code(&garbage), Some("collateral_malformed"));
    let mut changed = evidence();
    changed.collateral.tcb_info = changed.collateral.tcb_info.replace("\"pcesvn\":13", "\"pcesvn\":12");
    assert_eq!(code(&changed), Some("quote_refused"));
    let mut large = evidence();
    large.collateral.tcb_info.push_str(&" ".repeat(256 << 10));
    assert_eq!(code(&large), Some("evidence_too_large"));
}

#[test]
fn tcb_states_are_refused_unless_accepted() {
    let with_status = |status| with_collateral(move |o| o.tcb_status = status);
    for status in [
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::SWHardeningNeeded,
        TcbStatus::ConfigurationAndSWHardeningNeeded,
    ] {
        let evidence = with_status(status);
        assert_eq!(code(&evidence), Some("tcb_status_not_accepted"), "{status}");
        let accepting = policy().accept_status(status);
        let result = verify(&evidence, &accepting, &REPORT_DATA, NOW);
        if status.to_string().starts_with("OutOfDate") {
            assert_eq!(result.unwrap_err().code(), "policy_refused", "{status}: no grace");
            let years = std::time::Duration::from_secs(20 * 366 * 24 * 3600);
            let graceful = accepting.out_of_date_grace(years);
            verify(&evidence, &graceful, &REPORT_DATA, NOW).unwrap();
        } else {
            assert_eq!(result.unwrap().tcb_status(), status);
        }
    }
    let revoked = with_status(TcbStatus::Revoked);
    let accepting = policy().accept_status(TcbStatus::Revoked);
    let refused = verify(&revoked, &accepting, &REPORT_DATA, NOW).unwrap_err();
    assert_eq!(refused.code(), "quote_refused");
}

#[test]
fn advisories_are_refused_unless_accepted() {
    let advised = with_collateral(|o| o.advisory_ids = vec!["INTEL-SA-01036".to_owned()]);
    assert_eq!(code(&advised), Some("advisory_not_accepted"));
    let policy = policy().accept_advisory("INTEL-SA-01036");
    let td = verify(&advised, &policy, &REPORT_DATA, NOW).unwrap();
    assert_eq!(td.advisory_ids(), ["INTEL-SA-01036"]);
}

#[test]
fn platform_flags_can_be_refused() {
    let strict = [PlatformFlag::DynamicPlatform, PlatformFlag::CachedKeys, PlatformFlag::Smt]
        .into_iter()
        .fold(policy(), Policy::refuse_flag);
    for set in 0..3 {
        let flags = PckFlags { dynamic_platform: set == 0, cached_keys: set == 1, smt: set == 2 };
        let platform = DevPlatform::with_flags([1; 32], flags).unwrap();
        let guest = DevGuest::new(platform, AppId([0; 20]), APP_COMPOSE, &[2; 32]).unwrap();
        let evidence = guest.evidence(&REPORT_DATA).unwrap();
        let evidence = evidence.with_collateral(guest.platform().collateral(NOW).unwrap());
        let refused = verify(&evidence, &strict, &REPORT_DATA, NOW).unwrap_err();
        assert_eq!(refused.code(), "platform_flag_not_accepted");
        verify(&evidence, &policy(), &REPORT_DATA, NOW).unwrap();
    }
    let refused = verify(&evidence(), &policy().minimum_tcb_evaluation(18), &REPORT_DATA, NOW);
    assert_eq!(refused.unwrap_err().code(), "tcb_evaluation_too_old");
}

#[test]
fn malformed_quotes_are_refused() {
    let refused = |quote: Vec<u8>| code(&Evidence { quote, ..evidence() });
    assert_eq!(refused(Vec::new()), Some("quote_malformed"));
    assert_eq!(refused(vec![0xFF; 5000]), Some("quote_malformed"));
    assert_eq!(refused(evidence().quote[..2000].to_vec()), Some("quote_malformed"));
    assert_eq!(refused(vec![0; (64 << 10) + 1]), Some("evidence_too_large"));
    let log = Evidence { event_log: " ".repeat((1 << 20) + 1), ..evidence() };
    assert_eq!(code(&log), Some("evidence_too_large"));
}

/// One bit in every third byte of header and report, which are all that the quote signs.
#[test]
fn flipped_bits_of_the_signed_part_are_refused() {
    for at in (0..632).step_by(3) {
        let mut flipped = evidence();
        flipped.quote[at] ^= 1 << (at % 8);
        assert!(code(&flipped).is_some(), "byte {at}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Edits anywhere in quote, log and collateral never panic, and what still verifies says the
    /// same (the quote's framing and its embedded root certificate are not signed).
    #[test]
    fn edited_evidence_never_panics_nor_lies(
        edits in proptest::collection::vec(
            (0..4u8, proptest::prelude::any::<proptest::sample::Index>(), 1u8..=255), 1..4,
        ),
        cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
    ) {
        let honest = verify(&evidence(), &policy(), &REPORT_DATA, NOW).unwrap();
        let mut edited = evidence();
        let mut log = edited.event_log.clone().into_bytes();
        for (part, at, mask) in edits {
            let bytes = match part {
                0 => &mut edited.quote,
                1 => &mut log,
                2 => &mut edited.collateral.pck_crl,
                _ => &mut edited.collateral.root_ca_crl,
            };
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        if let Some(cut) = cut {
            let length = cut.index(edited.quote.len());
            edited.quote.truncate(length);
        }
        edited.event_log = String::from_utf8_lossy(&log).into_owned();
        if let Ok(td) = verify(&edited, &policy(), &REPORT_DATA, NOW) {
            proptest::prop_assert_eq!(td, honest);
        }
    }
}
