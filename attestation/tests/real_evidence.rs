//! Real evidence under Intel's root: what verifies, and what is refused and why.

mod common;

use cohort_attestation::{Collateral, Evidence, Platform, Policy, Refusal, TcbStatus, verify, verify_quote};
use serde_json::Value;

/// A second at which the recorded collateral is valid, and the bounds of its window.
const NOW: u64 = 1_771_500_000;
const FIRST: u64 = 1_771_412_331;
const EXPIRED: u64 = 1_774_003_275;

fn json(path: std::path::PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The recorded virtual machine. Its app-compose file was not recorded.
fn cvm() -> Option<(Evidence, [u8; 64])> {
    let folder = common::samples()?.join("real-dstack-cvm");
    let recorded = json(folder.join("quote-report.json"));
    let collateral = json(folder.join("collateral_fmspc_90c06f000000.json"));
    let evidence = Evidence {
        quote: hex::decode(recorded["quote"].as_str().unwrap()).unwrap(),
        event_log: recorded["event_log"].as_str().unwrap().to_owned(),
        app_compose: None,
        gpu: Vec::new(),
        privacy_proof: None,
        collateral: serde_json::from_value(collateral).unwrap(),
    };
    let report_data = hex::decode(recorded["report_data"].as_str().unwrap()).unwrap();
    Some((evidence, report_data.try_into().unwrap()))
}

fn policy() -> Policy {
    Policy::production().app_compose_optional()
}

#[test]
fn a_real_dstack_cvm_verifies() {
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let td = verify(&evidence, &policy(), &report_data, NOW).unwrap();
    assert_eq!(td.platform(), Platform::Intel);
    assert_eq!(td.app_id().to_string(), "3763bc34552cf3a27ff71ad5f7a90471562a1a2d");
    assert_eq!(
        td.compose_hash().to_string(),
        "0x3763bc34552cf3a27ff71ad5f7a90471562a1a2df552dfc1998cba2d60da27e7"
    );
    assert_eq!(td.instance_id().unwrap().to_string(), "c3714eb66990eace777b4e664c16e09375dec4c9");
    assert_eq!(td.key_provider().name(), "local-sgx");
    assert_eq!(td.tcb_status(), TcbStatus::UpToDate);
    assert!(td.advisory_ids().is_empty());
    assert_eq!(td.fmspc(), &[0x90, 0xc0, 0x6f, 0, 0, 0]);
    assert_eq!(td.report_data(), &report_data);
    assert_eq!(td.os_image_hash(), None);
}

#[test]
fn the_window_of_its_collateral_is_half_open() {
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let code = |now| verify(&evidence, &policy(), &report_data, now).map_err(|r| r.code()).err();
    assert_eq!(code(FIRST - 1), Some("collateral_not_yet_valid"));
    assert_eq!(code(FIRST), None);
    assert_eq!(code(EXPIRED - 1), None);
    assert_eq!(code(EXPIRED), Some("collateral_expired"));
    let window = cohort_attestation::collateral::window(&evidence.collateral).unwrap();
    assert_eq!((window.valid_from, window.expires_at), (FIRST, EXPIRED));
}

#[test]
fn it_is_refused_for_another_purpose_and_without_its_app() {
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let other = verify(&evidence, &policy(), &[0; 64], NOW).unwrap_err();
    assert_eq!(other, Refusal::ReportDataMismatch);
    let no_app = verify(&evidence, &Policy::production(), &report_data, NOW).unwrap_err();
    assert_eq!(no_app, Refusal::AppComposeMissing);
    let wrong = Evidence { app_compose: Some("{}".to_owned()), ..evidence };
    let wrong = verify(&wrong, &policy(), &report_data, NOW).unwrap_err();
    assert_eq!(wrong.code(), "compose_hash_mismatch");
}

/// One bit in every 7th byte of header and report. None may pass, whatever the reason.
#[test]
fn flipped_bits_of_the_signed_part_are_refused() {
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let mut codes = std::collections::BTreeSet::new();
    for at in (0..632).step_by(7) {
        let mut flipped = evidence.clone();
        flipped.quote[at] ^= 1 << (at % 8);
        let refused = verify(&flipped, &policy(), &report_data, NOW);
        codes.insert(refused.expect_err(&format!("byte {at}")).code());
    }
    assert!(codes.contains("quote_refused") && codes.contains("event_log_mismatch"), "{codes:?}");
}

#[test]
fn changed_event_logs_are_refused() {
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let code = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut events: Vec<Value> = serde_json::from_str(&evidence.event_log).unwrap();
        change(&mut events);
        let event_log = serde_json::to_string(&events).unwrap();
        let changed = Evidence { event_log, ..evidence.clone() };
        verify(&changed, &policy(), &report_data, NOW).map_err(|r| r.code()).err()
    };
    let at = |events: &[Value], name: &str| events.iter().position(|e| e["event"] == name).unwrap();
    assert_eq!(code(&|_| ()), None);
    assert_eq!(code(&|e| drop(e.remove(0))), Some("event_log_mismatch"));
    assert_eq!(code(&|e| e.retain(|e| e["imr"] == 3)), None);
    assert_eq!(code(&|e| drop(e.pop())), Some("event_log_mismatch"));
    let app_id = code(&|e| {
        let app_id = at(e, "app-id");
        e.insert(app_id, e[app_id].clone());
    });
    assert_eq!(app_id, Some("boot_event_duplicate"));
    let late = code(&|e| e.push(e[at(e, "app-id")].clone()));
    assert_eq!(late, Some("boot_event_after_boundary"));
    let renamed = code(&|e| {
        let last = e.len() - 1;
        e[last]["event"] = "x".into();
    });
    assert_eq!(renamed, Some("event_log_malformed"));
    assert_eq!(code(&|e| e.retain(|e| e["event"] != "key-provider")), Some("boot_event_missing"));
    // dstack strips digests from the copies it embeds; they are recomputed.
    let strip = |e: &mut Vec<Value>| {
        e.iter_mut().filter(|e| e["imr"] == 3).for_each(|e| e["digest"] = "".into());
    };
    assert_eq!(code(&strip), None);
}

#[test]
fn the_policy_is_applied() {
    use cohort_attestation::policy::PlatformFlag;
    let Some((evidence, report_data)) = cvm() else {
        return;
    };
    let code = |policy| verify(&evidence, &policy, &report_data, NOW).map_err(|r| r.code()).err();
    for flag in [PlatformFlag::DynamicPlatform, PlatformFlag::Smt] {
        assert_eq!(code(policy().refuse_flag(flag)), Some("platform_flag_not_accepted"));
    }
    assert_eq!(code(policy().minimum_tcb_evaluation(18)), None);
    assert_eq!(code(policy().minimum_tcb_evaluation(19)), Some("tcb_evaluation_too_old"));
}

/// Collateral that also carries another machine's PCK chain still serves this machine.
#[test]
fn the_quotes_own_pck_chain_wins() {
    let Some((mut evidence, report_data)) = cvm() else {
        return;
    };
    let Some(folder) = common::dcap_qvl_samples() else {
        return;
    };
    let other = json(folder.join("tdx_quote_td15ex_collateral.json"));
    let foreign = other["pck_certificate_chain"].as_str().unwrap().to_owned();
    evidence.collateral.pck_certificate_chain = Some(foreign);
    verify(&evidence, &policy(), &report_data, NOW).unwrap();
}

fn dcap_sample(name: &str) -> Option<(Vec<u8>, Collateral)> {
    let folder = common::dcap_qvl_samples()?;
    let quote = std::fs::read(folder.join(name)).unwrap();
    let collateral = json(folder.join(format!("{name}_collateral.json")));
    Some((quote, serde_json::from_value(collateral).unwrap()))
}

#[test]
fn dcap_qvls_tdx_samples_verify() {
    for (name, now) in [("tdx_quote", 1_750_400_000), ("tdx_quote_td15ex", 1_791_500_000)] {
        let Some((quote, collateral)) = dcap_sample(name) else {
            return;
        };
        let claims = verify_quote(&quote, &collateral, &Policy::production(), now).unwrap();
        assert_eq!(claims.tcb.status, TcbStatus::UpToDate, "{name}");
    }
}

#[test]
fn dcap_qvls_negative_samples_are_refused() {
    let Some((quote, collateral)) = dcap_sample("tdx_quote_outdated") else {
        return;
    };
    let outdated = verify_quote(&quote, &collateral, &Policy::production(), NOW).unwrap_err();
    assert_eq!(outdated.code(), "quote_refused");
    assert!(outdated.to_string().contains("No matching TCB level"), "{outdated}");
    let Some((quote, collateral)) = dcap_sample("sgx_quote") else {
        return;
    };
    let sgx = verify_quote(&quote, &collateral, &Policy::production(), 1_750_400_000).unwrap_err();
    assert_eq!(sgx, Refusal::NotTdx);
}

fn guest_agent_answer(name: &str) -> Option<Value> {
    Some(json(common::samples()?.join("dstack-guest-agent").join(name)))
}

/// The stock simulator's fixture measures another compose hash than that of its app-compose file.
#[test]
fn the_inconsistent_guest_agent_fixture_is_refused() {
    let Some((cvm, _)) = cvm() else { return };
    let Some(answer) = guest_agent_answer("GetQuote.json") else {
        return;
    };
    let Some(info) = guest_agent_answer("Info.json") else {
        return;
    };
    let tcb_info: Value = serde_json::from_str(info["tcb_info"].as_str().unwrap()).unwrap();
    let app_compose = tcb_info["app_compose"].as_str().unwrap();
    let report_data = hex::decode(answer["report_data"].as_str().unwrap()).unwrap();
    let evidence = Evidence {
        quote: hex::decode(answer["quote"].as_str().unwrap()).unwrap(),
        event_log: answer["event_log"].as_str().unwrap().to_owned(),
        app_compose: Some(app_compose.to_owned()),
        gpu: Vec::new(),
        privacy_proof: None,
        collateral: cvm.collateral,
    };
    let report_data = report_data.try_into().unwrap();
    let refused = verify(&evidence, &Policy::production(), &report_data, NOW).unwrap_err();
    assert_eq!(refused.code(), "compose_hash_mismatch");
    // Without the app-compose text, the simulator's patched report data gives it away.
    let evidence = Evidence { app_compose: None, ..evidence };
    let refused = verify(&evidence, &policy(), &report_data, NOW).unwrap_err();
    assert_eq!(refused.code(), "quote_refused", "{refused}");
}

/// A consistent app under the simulator's own root: everything fits but the root.
#[test]
fn the_seeded_simulator_is_not_intel() {
    let Some((cvm, _)) = cvm() else { return };
    let Some(answer) = guest_agent_answer("seeded-GetQuote.json") else {
        return;
    };
    let folder = common::samples().unwrap().join("dstack-guest-agent");
    let app_compose = std::fs::read_to_string(folder.join("_fixture-app-compose.json")).unwrap();
    let report_data = hex::decode(answer["report_data"].as_str().unwrap()).unwrap();
    let evidence = Evidence {
        quote: hex::decode(answer["quote"].as_str().unwrap()).unwrap(),
        event_log: answer["event_log"].as_str().unwrap().to_owned(),
        app_compose: Some(app_compose),
        gpu: Vec::new(),
        privacy_proof: None,
        collateral: cvm.collateral,
    };
    let report_data = report_data.try_into().unwrap();
    let refused = verify(&evidence, &Policy::production(), &report_data, NOW).unwrap_err();
    assert_eq!(refused.code(), "root_not_trusted", "{refused}");
}

/// What dstack's own KMS and guest agent computed from the same quotes and logs.
#[test]
fn measurements_are_those_that_dstack_computes() {
    use cohort_attestation::{boot::BootIdentity, dstack, event_log};
    let Some(folder) = common::samples() else { return };
    let read = |name: &str| json(folder.join("dstack-guest-agent").join(name));
    let (info, asked) = (read("Info.json"), read("kms-bootinfo-webhook.jsonl"));
    for (name, told) in [("GetQuote.json", &info), ("seeded-GetQuote.json", &asked["body"])] {
        let answer = read(name);
        let quote = hex::decode(answer["quote"].as_str().unwrap()).unwrap();
        let quote = dcap_qvl::quote::Quote::parse(&quote).unwrap();
        let report = quote.report.as_td10().unwrap();
        let events = event_log::parse(answer["event_log"].as_str().unwrap()).unwrap();
        let identity = BootIdentity::read(&events).unwrap();
        let [.., rtmr3] = *event_log::replay(&events).values();
        let same = |snake: &str, camel: &str, ours: String| {
            let theirs = told.get(snake).or(told.get(camel)).and_then(Value::as_str);
            assert!(theirs.is_none_or(|theirs| theirs == ours), "{name} {snake}: {ours}, not {theirs:?}");
            theirs.is_some()
        };
        assert!(same("mr_aggregated", "mrAggregated", dstack::mr_aggregated(report, &rtmr3).to_string()));
        same(
            "mr_system",
            "mrSystem",
            dstack::mr_system(report, Some(identity.key_provider.digest())).to_string(),
        );
        assert!(same("app_id", "appId", identity.app_id.to_string()));
        assert!(same("compose_hash", "composeHash", hex::encode(identity.compose_hash.as_bytes())));
        assert!(same("instance_id", "instanceId", identity.instance_id.unwrap().to_string()));
    }
    // The simulator's PCK certificate has a PPID of zeros.
    assert_eq!(asked["body"]["deviceId"], dstack::device_id(&[0; 16]).to_string());
}
