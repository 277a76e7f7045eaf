//! `docs/spec/evidence.md` against `test/vectors/evidence`: each file fails at exactly the check that its defect names,
//! by the library and by the command. `COHORT_UPDATE=1` makes the files anew.

mod block;
mod cases;
mod study;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::primitives::{B256, Bytes, keccak256};
use cohort_agent::run::RunResult;
use cohort_attestation::{
    Policy, TrustedRoot,
    dev::DevGpus,
    gpu::{GpuPolicy, GpuRoot},
};
use cohort_cli::verify::{self, Known, Name, Report, Verdict};
use cohort_protocol::{chain_proof::ChainProof, json};
use serde_json::{Value, json};

/// Made once: quotes are signed in a debug build.
static CASES: LazyLock<Vec<cases::Case>> = LazyLock::new(cases::all);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/vectors/evidence")
}

fn path(name: &str) -> PathBuf {
    folder().join(name).with_extension("json")
}

/// What the tests know from elsewhere: all there is, and the block of this very file.
fn known(result: &RunResult) -> Known {
    let platform = study::platform();
    let root = TrustedRoot::development(&platform.root_certificate_der().unwrap()).unwrap();
    let gpus = DevGpus::of_platform(&platform, 1).unwrap();
    let gpu_root = GpuRoot::development(&gpus.root_certificate_der().unwrap()).unwrap();
    Known {
        app: Some(study::APP),
        registry: Some(study::REGISTRY),
        code_hash: Some(keccak256(block::CODE)),
        kms_root: Some(study::root().address()),
        block_hash: result.chain.as_ref().map(|_| result.position.block_hash),
        systems: vec![B256::repeat_byte(4), B256::repeat_byte(5)],
        devices: vec![B256::repeat_byte(4), B256::repeat_byte(5)],
        policy: Policy::production().with_root(root),
        gpu_policy: GpuPolicy::production().golden_optional().with_root(gpu_root),
    }
}

fn read(name: &str) -> RunResult {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn report(result: &RunResult, known: &Known) -> Report {
    let mut report = Report::default();
    verify::check_file(result, known, &mut report);
    report
}

fn index(cases: &[cases::Case]) -> Value {
    let files: Vec<_> = cases
        .iter()
        .map(|case| {
            json!({
                "file": format!("{}.json", case.name),
                "fails_at": case.fails_at.map(Name::as_str),
                "block_hash": case.result.chain.as_ref().map(|_| case.result.position.block_hash),
            })
        })
        .collect();
    json!({
        "app": study::APP,
        "registry": study::REGISTRY,
        "code_hash": keccak256(block::CODE),
        "kms_root": study::root().address(),
        "systems": [B256::repeat_byte(4), B256::repeat_byte(5)],
        "devices": [B256::repeat_byte(4), B256::repeat_byte(5)],
        "files": files,
    })
}

/// Every committed byte is what the generator makes.
#[test]
fn the_vectors_are_the_generators() {
    let cases = &*CASES;
    let platform = study::platform();
    let gpus = DevGpus::of_platform(&platform, 1).unwrap();
    let mut files = vec![
        (folder().join("insecure-root.pem"), platform.root_certificate_pem().unwrap()),
        (folder().join("insecure-gpu-root.pem"), gpus.root_certificate_pem().unwrap()),
        (folder().join("cases.json"), serde_json::to_string_pretty(&index(cases)).unwrap() + "\n"),
    ];
    for case in cases {
        files.push((path(case.name), serde_json::to_string(&case.result).unwrap() + "\n"));
    }
    if std::env::var_os("COHORT_UPDATE").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (path, text) in &files {
            fs::write(path, text).unwrap();
        }
    }
    for (path, text) in &files {
        let committed = fs::read_to_string(path).unwrap_or_default();
        assert!(committed == *text, "{} is out of date: COHORT_UPDATE=1", path.display());
    }
    let there = fs::read_dir(folder()).unwrap().count();
    assert_eq!(there, files.len(), "a file that no case makes");
}

#[test]
fn each_defect_is_found_at_its_check_and_nowhere_before() {
    for case in CASES.iter() {
        let result = read(case.name);
        let report = report(&result, &known(&result));
        let first = report.first_failure().map(|check| check.name);
        assert_eq!(first, case.fails_at, "{}: {:#?}", case.name, report.checks);
    }
}

/// Nothing in the section is there for decoration: no byte of it can be another, no node more or fewer.
#[test]
fn every_byte_of_the_chain_counts() {
    let result = read("sound");
    let known = known(&result);
    let refused = |change: &dyn Fn(&mut ChainProof)| {
        let mut altered = result.clone();
        change(altered.chain.as_mut().unwrap());
        let mut report = Report::default();
        verify::chain::check(&altered, altered.chain.as_ref().unwrap(), None, &known, &mut report);
        report.first_failure().is_some()
    };
    assert!(!refused(&|_| ()));
    let proof = result.chain.clone().unwrap();
    let flip = |bytes: &mut Bytes, at: usize| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        *bytes = flipped.into();
    };
    // Every seventh byte: a debug build hashes slowly.
    for at in (0..proof.header.len()).step_by(7) {
        assert!(refused(&|chain| flip(&mut chain.header, at)), "header {at}");
    }
    for at in 0..proof.account.len() {
        assert!(refused(&|chain| flip(&mut chain.account, at)), "account {at}");
    }
    for at in (0..proof.receipt.receipt.len()).step_by(7) {
        assert!(refused(&|chain| flip(&mut chain.receipt.receipt, at)), "receipt {at}");
    }
    for at in (0..proof.receipt.transaction.len()).step_by(7) {
        assert!(refused(&|chain| flip(&mut chain.receipt.transaction, at)), "transaction {at}");
    }
    for at in 0..proof.analyst.account.len() {
        assert!(refused(&|chain| flip(&mut chain.analyst.account, at)), "analyst {at}");
    }
    type Nodes = fn(&mut ChainProof, usize) -> &mut Vec<Bytes>;
    let proofs: [(usize, Nodes); 5] = [
        (1, |chain, _| &mut chain.account_proof),
        (1, |chain, _| &mut chain.analyst.proof),
        (1, |chain, _| &mut chain.receipt.transaction_proof),
        (1, |chain, _| &mut chain.receipt.proof),
        (proof.storage.len(), |chain, index| &mut chain.storage[index].proof),
    ];
    for (count, nodes) in proofs {
        for index in 0..count {
            let lengths: Vec<_> = nodes(&mut proof.clone(), index).iter().map(|node| node.len()).collect();
            for (node, length) in lengths.into_iter().enumerate() {
                for at in (0..length).step_by(61) {
                    assert!(
                        refused(&|chain| flip(&mut nodes(chain, index)[node], at)),
                        "{index} {node} {at}"
                    );
                }
                assert!(refused(&|chain| drop(nodes(chain, index).remove(node))), "{index}: {node} missing");
            }
            assert!(
                refused(&|chain| nodes(chain, index).push(Bytes::from_static(b"\x80"))),
                "{index}: one more"
            );
            assert!(refused(&|chain| nodes(chain, index).clear()), "{index}: none");
        }
    }
}

/// Each check that a file can fail has a file that does.
#[test]
fn no_check_is_without_its_defect() {
    let cases = &*CASES;
    let needs_more = [
        Name::GpuFirmware, // needs golden values: cli/tests/e2e/gpu.rs
        Name::Contract,
        Name::KmsRoot,
        Name::Chain,
        Name::Block,
        Name::ContractCode, // what the verifier knows: the next test
    ];
    for name in Name::ALL.iter().filter(|name| !needs_more.contains(name)) {
        assert!(cases.iter().any(|case| case.fails_at == Some(*name)), "{}", name.as_str());
    }
}

#[test]
fn what_the_verifier_knows_is_compared_and_what_it_does_not_is_said() {
    let result = read("sound");
    let all = known(&result);
    let made = |known: &Known| {
        let report = report(&result, known);
        (report.first_failure().map(|check| check.name), verify::is_anchored(known, &report))
    };
    assert_eq!(made(&all), (None, true));
    let other = study::key(9).address();
    assert_eq!(made(&Known { app: Some(other), ..all.clone() }).0, Some(Name::Contract));
    let by_root = Known { kms_root: Some(other), ..all.clone() };
    assert_eq!(made(&by_root).0, Some(Name::KmsRoot));
    let other = Some(B256::repeat_byte(5));
    assert_eq!(made(&Known { code_hash: other, ..all.clone() }).0, Some(Name::ContractCode));
    assert_eq!(made(&Known { block_hash: other, ..all.clone() }).0, Some(Name::Block));

    // One of root and (contract, block) suffices; a contract without its block, or nothing, does not.
    let contract = Known { kms_root: None, ..all.clone() };
    assert_eq!(made(&contract), (None, true));
    assert_eq!(made(&Known { block_hash: None, ..contract.clone() }), (None, false));
    assert_eq!(made(&Known { app: None, ..contract }), (None, false));
    let root = Known { app: None, block_hash: None, code_hash: None, ..all.clone() };
    let told = report(&result, &root);
    let skipped = [Name::Contract, Name::Block, Name::ContractCode];
    for check in &told.checks {
        let want = if skipped.contains(&check.name) { Verdict::Skipped } else { Verdict::Ok };
        assert_eq!(check.verdict, want, "{check:?}");
    }
    assert!(verify::is_anchored(&root, &told));
    // The registry that lists the image is the one that is meant, or it is said that nobody says so.
    let listed = read("sound-listed-image");
    let image = |registry| {
        let known = Known { registry, ..known(&listed) };
        let report = report(&listed, &known);
        report.checks.into_iter().rfind(|check| check.name == Name::CvmImage).unwrap().verdict
    };
    assert_eq!(image(Some(study::REGISTRY)), Verdict::Ok);
    assert_eq!(image(Some(study::APP)), Verdict::Failed);
    assert_eq!(image(None), Verdict::Skipped);
    // No development evidence under production's policy.
    let production = Known { policy: Policy::production(), ..all };
    assert_eq!(made(&production).0, Some(Name::TdxQuote));
}

/// The command by itself: offline, from the file, the roots and a pinned block.
#[test]
fn the_command_verifies_offline_and_ends_by_severity() {
    let run = |name: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cohort"))
            .env_clear()
            .arg("verify")
            .arg(path(name))
            .arg("--insecure-dev-attestation-root")
            .arg(folder().join("insecure-root.pem"))
            .args(more)
            .current_dir(folder())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let app = study::APP.to_string();
    let block = read("sound").position.block_hash.to_string();
    let root = study::root().address().to_string();
    let (code, text) = run("sound", &["--app", &app, "--block-hash", &block]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("verified: ") && text.contains("does not prove"), "{text}");
    // The collateral ended long ago by the clock of whoever verifies; what counts is that it was in force as of the run.
    let ended = Duration::from_secs(study::PRODUCED_AT + 30 * 86_400);
    assert!(SystemTime::now() > UNIX_EPOCH + ended && text.contains("until 2025-07-15"), "{text}");
    let (code, text) = run("sound", &["--app", &app, "--block-hash", &block, "--brief"]);
    assert!(code == Some(0) && !text.contains("does not prove"), "{text}");
    assert_eq!(run("sound", &["--kms-root", &root, "--block-hash", &block]).0, Some(0));
    // Nothing failed; something is missing for the verdict.
    assert_eq!(run("sound", &["--kms-root", &root]).0, Some(4));
    assert_eq!(run("sound", &["--block-hash", &block]).0, Some(4));
    assert_eq!(run("sound-without-chain", &["--kms-root", &root]).0, Some(4));
    // A failure outweighs what is missing.
    assert_eq!(run("payload-altered", &[]).0, Some(1));
    let (code, text) = run("proposal-revoked", &["--kms-root", &root, "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["verified"]), (Some(1), &json!(false)));
    let check = told["checks"].as_array().unwrap().iter().find(|check| check["name"] == "quorum").unwrap();
    assert_eq!(check["verdict"], "failed");
    // Programs read these: one that goes or is renamed breaks them.
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(members(&told), BTreeSet::from(["checks", "skipped", "verified"].map(str::to_owned)));
    let line = ["detail", "does_not_prove", "name", "rests_on", "verdict"];
    assert_eq!(members(check), BTreeSet::from(line.map(str::to_owned)));
}

/// Not a result file at all, or more than one: refused before any check.
#[test]
fn another_form_is_refused_before_any_check() {
    let text = fs::read_to_string(path("sound")).unwrap();
    let parses = |text: &str| serde_json::from_str::<RunResult>(text).is_ok();
    assert!(parses(&text));
    assert!(!parses(&text.replacen('{', "{\"note\":1,", 1)), "an unknown member");
    assert!(!parses(&text.replacen('{', "{\"format\":\"cohort-result/1\",", 1)), "a member twice");
    assert!(!parses(&text.replacen("\"header\"", "\"headers\"", 1)), "an unknown member of the section");
    assert!(!parses(&text[..text.len() / 2]));
}

/// Names, and what each rests on and does not prove, are the specification's.
#[test]
fn the_specification_has_every_check_in_order() {
    let spec = include_str!("../../../docs/spec/evidence.md");
    let mut rest = spec;
    for name in Name::ALL {
        let start = format!("\n| {} | ", name.as_str());
        let end = format!(" | {} | {} |", name.rests_on(), name.does_not_prove());
        let at = rest.find(&start).unwrap_or_else(|| panic!("{start}"));
        let row = rest[at + 1..].lines().next().unwrap();
        assert!(row.ends_with(&end), "{row}");
        rest = &rest[at + 1..];
    }
}

/// Whoever alters any member of a file, in any of these ways, gets no verdict of 0 for it; and no panic.
#[test]
fn no_altered_member_is_verified() {
    // Each further file for the part that only it has.
    for (name, part) in
        [("sound", ""), ("sound-listed-image", "/chain/registry"), ("sound-gpu", "/evidence/gpu")]
    {
        let file: Value = serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap();
        let sound = read(name);
        let known = known(&sound);
        let td = verify::machine(&sound, &known.policy).ok();
        // The machine's evidence takes long to verify: what the chain's proofs refuse needs no more.
        let holds = |result: &RunResult, place: &str| {
            let mut report = Report::default();
            if let (Some(chain), true) =
                (&result.chain, place.starts_with("/chain") || place.starts_with("/position"))
            {
                verify::chain::check(result, chain, td.as_ref(), &known, &mut report);
            }
            if report.first_failure().is_none() {
                report = self::report(result, &known);
            }
            report.first_failure().is_none() && report.holds(Name::Budget)
        };
        let mut places = Vec::new();
        members(file.pointer(part).unwrap(), part.to_owned(), &mut places);
        assert!(places.len() > 4, "{name}: {}", places.len());
        // All measures and cells are as the first.
        let first = |place: &String| !place.contains("/measures/") || place.contains("/measures/0/");
        let cell = |place: &String| !place.contains("/cells/") || place.contains("/cells/0");
        places.retain(|place| first(place) && cell(place));
        for place in &places {
            for altered in alterations(file.pointer(place).unwrap()) {
                let mut changed = file.clone();
                *changed.pointer_mut(place).unwrap() = altered.clone();
                let Ok(result) = serde_json::from_value::<RunResult>(changed.clone()) else { continue };
                let again = serde_json::to_value(&result).unwrap();
                let is_taken = result.format == "cohort-result/1"
                    && json::first_difference(&changed, &again).is_none()
                    && holds(&result, place);
                assert!(!is_taken, "{name}: {place} may be {altered}");
            }
        }
        // And what is left out.
        for place in &places {
            let (parent, last) = place.rsplit_once('/').unwrap();
            let mut changed = file.clone();
            let removed = match changed.pointer_mut(parent).unwrap() {
                Value::Object(members) => members.remove(last).is_some(),
                Value::Array(items) => items.pop().is_some(),
                _ => false,
            };
            assert!(removed, "{place}");
            let Ok(result) = serde_json::from_value::<RunResult>(changed.clone()) else { continue };
            assert!(!holds(&result, place), "{name}: without {place}");
        }
    }
}

/// Pointers to all values but the root.
fn members(value: &Value, at: String, places: &mut Vec<String>) {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in inside {
        let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places.push(place.clone());
        members(value, place, places);
    }
}

/// Another value of the same kind, where there is one; and one that says the same in another way.
fn alterations(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => {
            number.as_u64().map(|n| vec![json!(n + 1), json!(n ^ 1)]).unwrap_or_default()
        }
        Value::String(text) if !text.is_empty() => {
            let last = text.chars().next_back().unwrap();
            let other = if last == '0' { '1' } else { '0' };
            let flipped = format!("{}{other}", &text[..text.len() - last.len_utf8()]);
            let upper = text.replacen('a', "A", 1);
            let mut all = vec![json!(flipped), json!(format!("{text} ")), json!(format!("0{text}"))];
            all.extend((upper != *text).then(|| json!(upper)));
            all
        }
        Value::String(_) => vec![json!("0")],
        Value::Null => vec![json!(0)],
        Value::Array(items) => {
            let longer = items.iter().chain(items.last()).cloned().collect();
            let mut turned = items.clone();
            turned.reverse();
            let mut all = vec![Value::Null, Value::Array(longer)];
            all.extend((turned != *items).then_some(Value::Array(turned)));
            all
        }
        Value::Object(members) => {
            let mut more = members.clone();
            more.insert("note".to_owned(), json!(1));
            let mut all = vec![Value::Null, Value::Object(more)];
            // Neighbours that could be taken for each other.
            for ((one, a), (other, b)) in members.iter().zip(members.iter().skip(1)) {
                if std::mem::discriminant(a) == std::mem::discriminant(b) && a != b {
                    let mut swapped = members.clone();
                    swapped.insert(one.clone(), b.clone());
                    swapped.insert(other.clone(), a.clone());
                    all.push(Value::Object(swapped));
                }
            }
            all
        }
    }
}
