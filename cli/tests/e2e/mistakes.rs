//! One transcript a mistake: a clear error that names the thing and the fix, a documented exit code, nothing half-done.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use cohort_cli::dev::Stack;
use cohort_protocol::{abi::IDstackApp, terms::Terms};
use serde_json::Value;

use super::support::{approve, fails, ok, read, run, seal_all, started};

const REFUSED: i32 = 1;
const INPUT: i32 = 2;
const UNREACHABLE: i32 = 3;
const INCOMPLETE: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_named_and_leaves_nothing_half_done() {
    let mut stack = started("mistakes").await;
    seal_all(&stack).await;
    sealing(&stack).await;
    damaged_files(&stack).await;
    keys_and_networks(&stack).await;
    rehearsals(&stack).await;
    approvals(&stack).await;
    results(&stack).await;
    services_down(&mut stack).await;
}

async fn sealing(stack: &Stack) {
    let out = |name: &str| format!("sealed/{name}.tar");
    fails(
        stack,
        &["seal", "--owner", "hospital-X", "--in", "data/hospital-A.parquet", "--out", &out("x")],
        INPUT,
        &["hospital-X", "hospital-A, hospital-B"],
    )
    .await;
    fails(
        stack,
        &["seal", "--owner", "hospital-A", "--in", "data/none.parquet", "--out", &out("x")],
        INPUT,
        &["data/none.parquet"],
    )
    .await;
    fs::write(stack.path("data/broken.parquet"), b"PAR1 this is no Parquet file PAR1").unwrap();
    fails(
        stack,
        &["seal", "--owner", "hospital-A", "--in", "data/broken.parquet", "--out", &out("x")],
        INPUT,
        &["broken.parquet"],
    )
    .await;
    assert!(!stack.path(&out("x")).exists(), "nothing under the final name");
    fails(stack, &["seal", "--owner", "hospital-A", "--in", "data/hospital-A.parquet"], INPUT, &["exists"])
        .await;
    // Another recipe is another key: it is sealed for another compose hash, and not registered for this one.
    let compose = fs::read_to_string(stack.study.compose_file()).unwrap();
    fs::write(stack.path("no-recipe.json"), compose.replace("\"cohort\"", "\"cohorts\"")).unwrap();
    fails(
        stack,
        &[
            "seal",
            "--owner",
            "hospital-A",
            "--in",
            "data/hospital-A.parquet",
            "--compose",
            "no-recipe.json",
            "--out",
            &out("x"),
        ],
        INPUT,
        &["no-recipe.json"],
    )
    .await;
    fails(
        stack,
        &[
            "seal",
            "--owner",
            "hospital-A",
            "--in",
            "data/hospital-A.parquet",
            "--compose",
            "data/hospital-A.parquet",
            "--out",
            &out("x"),
        ],
        INPUT,
        &["data/hospital-A.parquet"],
    )
    .await;
    // A KMS that the contract does not pin.
    let root: Value = reqwest::get(format!("{}/v1/root", stack.kms_url)).await.unwrap().json().await.unwrap();
    let mut other = root["statement"].clone();
    other["root"] = Value::String("0x0000000000000000000000000000000000000001".to_owned());
    let record = serde_json::json!({
        "format": "cohort-verified-root/1",
        "statement": other,
        "app": stack.app,
        "platform": "development",
        "verified_at": 1_790_000_000,
    });
    fs::write(stack.path("other-root.json"), record.to_string()).unwrap();
    fails(
        stack,
        &[
            "seal",
            "--owner",
            "hospital-A",
            "--in",
            "data/hospital-A.parquet",
            "--root-file",
            "other-root.json",
            "--out",
            &out("x"),
        ],
        REFUSED,
        &["not signed by"],
    )
    .await;
    assert!(!stack.path(&out("x")).exists(), "nothing under the final name");
    let leftovers: Vec<_> =
        fs::read_dir(stack.path("sealed")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(leftovers.len(), 4, "{leftovers:?}");
}

async fn damaged_files(stack: &Stack) {
    let whole = fs::read(stack.path("sealed/hospital-A.tar")).unwrap();
    fs::write(stack.path("truncated.tar"), &whole[..whole.len() / 2]).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    fs::write(stack.path("altered.tar"), &altered).unwrap();
    let key = stack.owners[0].key();
    for name in ["truncated.tar", "altered.tar"] {
        fails(stack, &["inspect", name], REFUSED, &[name]).await;
        fails(
            stack,
            &["dataset", "register", name, "--region", "CH", "--kind", "EHR", "--key-file", &key],
            REFUSED,
            &[name],
        )
        .await;
    }
    // Published in place of the registered file, it opens nothing: the agent refuses before any key is asked for.
    approve(stack, &[0, 1, 2]).await;
    fs::write(stack.path("published/hospital-A.tar"), &altered).unwrap();
    let analyst = stack.analyst.key();
    fails(stack, &run(&analyst, "hospital-A", "x.json"), REFUSED, &["dataset_unusable"]).await;
    fs::write(stack.path("published/hospital-A.tar"), &whole).unwrap();
    assert!(!stack.path("x.json").exists());
}

async fn keys_and_networks(stack: &Stack) {
    let file = "sealed/hospital-A.tar";
    let register = ["dataset", "register", file, "--region", "CH", "--kind", "EHR", "--key-file"];
    let with =
        |key: &str| [register.as_slice(), &[key]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    async fn refused(stack: &Stack, args: Vec<String>, code: i32, words: &[&str]) {
        fails(stack, &args.iter().map(String::as_str).collect::<Vec<_>>(), code, words).await;
    }
    refused(stack, with(&stack.owners[1].key()), INPUT, &["belongs to hospital-A"]).await;
    fs::write(stack.path("loose.key"), "ab".repeat(32)).unwrap();
    fs::set_permissions(stack.path("loose.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(stack, with("loose.key"), INPUT, &["loose.key", "chmod 600"]).await;
    fs::write(stack.path("no.key"), "not a key").unwrap();
    fs::set_permissions(stack.path("no.key"), fs::Permissions::from_mode(0o600)).unwrap();
    refused(stack, with("no.key"), INPUT, &["no.key", "64 hex digits"]).await;
    refused(stack, with(&stack.owners[0].key()), REFUSED, &["dataset_refused"]).await; // registered already

    let nowhere = "0x00000000000000000000000000000000000000aa";
    fails(stack, &["terms", "--out", "t.json", "--app", nowhere], INPUT, &["no contract"]).await;
    fails(
        stack,
        &["terms", "--out", "t.json", "--rpc-url", "http://127.0.0.1:1"],
        UNREACHABLE,
        &["RPC endpoint"],
    )
    .await;
    fs::write(stack.path("bad.toml"), "rpc = 1").unwrap();
    fails(stack, &["terms", "--out", "t.json", "--config", "bad.toml"], INPUT, &["bad.toml", "rpc"]).await;
    assert!(!stack.path("t.json").exists());
}

/// An owner sees the rehearsal that came with the terms, and approves nothing beside a damaged one.
async fn rehearsals(stack: &Stack) {
    let (analyst, relayer, d) = (stack.analyst.key(), stack.relayer.key(), stack.owners[3].key());
    let rehearse = ["recipe", "rehearse", "--rows", "100", "--out"];
    ok(stack, &[&rehearse[..], &["rehearsal.json", "--key-file", &analyst]].concat()).await;
    ok(stack, &[&rehearse[..], &["stranger.json", "--key-file", &relayer]].concat()).await;
    let terms = |out, record| ["terms", "--out", out, "--rehearsal", record];
    fails(stack, &terms("t.json", "cohort.toml"), INPUT, &["cohort.toml"]).await;
    let system = stack.mr_system.to_string();
    for (out, record, words) in [
        ("shown.json", "rehearsal.json", " a listed analyst"),
        ("strange.json", "stranger.json", "NOT a listed analyst"),
    ] {
        ok(stack, &[&terms(out, record)[..], &["--round", "7", "--system", &system]].concat()).await;
        let sign =
            ["approve", "--owner", "hospital-D", "--key-file", &d, "--yes", "--sign-only", "--terms", out];
        let signed = format!("signed-{out}");
        let ran = ok(stack, &[&sign[..], &["--out", &signed]].concat()).await;
        assert!(ran.stderr.contains("100 synthetic rows") && ran.stderr.contains(words), "{}", ran.stderr);
        let beside = stack.path(out).with_extension("rehearsal.json");
        let damaged = fs::read_to_string(&beside).unwrap().replace("\"seed\": 1", "\"seed\": 2");
        fs::write(&beside, damaged).unwrap();
        fails(stack, &[&sign[..], &["--out", "x.json"]].concat(), REFUSED, &["not signed by the analyst"])
            .await;
    }
    assert!(!stack.path("t.json").exists() && !stack.path("x.json").exists());
}

async fn approvals(stack: &Stack) {
    let d = stack.owners[3].key();
    let approve = ["approve", "--terms", "terms.json", "--owner", "hospital-D", "--key-file", &d];
    fails(stack, &approve, INPUT, &["--yes"]).await; // no terminal, no yes: nothing is signed
    fails(
        stack,
        &["approve", "--terms", "terms.json", "--owner", "hospital-C", "--key-file", &d, "--yes"],
        INPUT,
        &["hospital-C approves with"],
    )
    .await;
    // Terms for other code than the file at hand.
    let mut terms: Value = read(&stack.path("terms.json"));
    terms["compose_hash"] = Value::String(format!("0x{}", "11".repeat(32)));
    fs::write(stack.path("other-terms.json"), terms.to_string()).unwrap();
    fails(
        stack,
        &["approve", "--terms", "other-terms.json", "--owner", "hospital-D", "--key-file", &d, "--yes"],
        REFUSED,
        &["compose-hash"],
    )
    .await;

    let signed = [approve.as_slice(), &["--yes", "--sign-only", "--out", "d.json"]].concat();
    ok(stack, &signed).await;
    let relayer = stack.relayer.key();
    let edited = |name: &str, edit: fn(&mut Value)| {
        let mut file: Value = read(&stack.path("d.json"));
        edit(&mut file);
        fs::write(stack.path(name), file.to_string()).unwrap();
    };
    edited("expired.json", |file| file["deadline"] = 1_600_000_000.into());
    fails(stack, &["relay", "expired.json", "--key-file", &relayer], REFUSED, &["deadline_passed"]).await;
    edited("forged.json", |file| file["terms"]["epsilon_budget"] = "45".into());
    fails(stack, &["relay", "forged.json", "--key-file", &relayer], REFUSED, &["error: "]).await;
    edited("elsewhere.json", |file| file["chain_id"] = 1.into());
    fails(stack, &["relay", "elsewhere.json", "--key-file", &relayer], INPUT, &["chain 1"]).await;
    edited("unknown.json", |file| file["extra"] = 1.into());
    fails(stack, &["relay", "unknown.json", "--key-file", &relayer], INPUT, &["extra"]).await;
    // The signature itself is good: nobody needs the owner again.
    ok(stack, &["relay", "d.json", "--key-file", &relayer]).await;
}

async fn results(stack: &Stack) {
    stack.indexed().await.unwrap_or_else(|f| panic!("{}", f.message));
    let analyst = stack.analyst.key();
    ok(stack, &run(&analyst, "hospital-A,hospital-D", "result.json")).await;
    ok(stack, &["verify", "result.json"]).await;
    let root = stack.kms_root.to_string();
    let by_root = ["verify", "result.json", "--offline", "--kms-root", &root];
    fails(stack, &by_root, INCOMPLETE, &["not shown to be on the chain"]).await;
    fails(stack, &["verify", "result.json", "--offline"], INCOMPLETE, &["nothing says"]).await;
    proofs(stack).await;
    let other = "0x0000000000000000000000000000000000000001";
    fails(stack, &["verify", "result.json", "--offline", "--kms-root", other], REFUSED, &["checks failed"])
        .await;
    fails(stack, &["verify", "result.json", "--app", other], REFUSED, &["checks failed"]).await;
    let edits: [(&str, &str, Value); 12] = [
        ("/run/signature", "request signature", "0x".into()),
        ("/payload/measures/0/cells/0/value", "payload", 1_000_000.into()),
        ("/receipt/epsilon", "privacy loss", "0.5".into()),
        ("/receipt/produced_at", "receipt signature", 1_700_000_000.into()),
        ("/certificate/not_after", "certificate", 4_000_000_000u64.into()),
        ("/binding/challenge", "quote", format!("0x{}", "22".repeat(32)).into()),
        ("/binding/kms_root", "certificate", "0x0000000000000000000000000000000000000001".into()),
        ("/run/participants", "run", "15".into()),
        ("/inputs/0/owner", "storage proofs", "hospital-B".into()),
        ("/attestation", "claimed platform", "intel".into()),
        ("/position/block_number", "block header", 1.into()),
        ("/chain/storage/2/word", "storage proofs", format!("0x{}", "22".repeat(32)).into()),
    ];
    for (pointer, line, value) in edits {
        let mut file: Value = read(&stack.path("result.json"));
        *file.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        tampered(stack, &file, line).await;
    }
    // Python reads the same file in its own words (test/python).
    let python = stack.options.project.join("target/python");
    fs::create_dir_all(&python).unwrap();
    fs::copy(stack.path("result.json"), python.join("result.json")).unwrap();
    fs::write(stack.path("cut.json"), &fs::read(stack.path("result.json")).unwrap()[..500]).unwrap();
    fails(stack, &["verify", "cut.json"], INPUT, &["cut.json"]).await;
}

/// The agent has put the chain's proofs in; without them an endpoint gives the same; both verify offline by the block.
async fn proofs(stack: &Stack) {
    let file: Value = read(&stack.path("result.json"));
    let block = file["position"]["block_hash"].as_str().expect("a hash").to_owned();
    assert!(file["chain"].is_object(), "anvil proves");
    ok(stack, &["verify", "result.json", "--offline", "--block-hash", &block]).await;
    let other = format!("0x{}", "22".repeat(32));
    let elsewhere = ["verify", "result.json", "--offline", "--block-hash", &other];
    fails(stack, &elsewhere, REFUSED, &["1 of "]).await;

    let mut bare = file.clone();
    bare.as_object_mut().expect("an object").remove("chain");
    fs::write(stack.path("bare.json"), bare.to_string()).unwrap();
    let offline = ["verify", "bare.json", "--offline", "--block-hash", &block];
    fails(stack, &offline, INCOMPLETE, &["nothing says"]).await;
    ok(stack, &["verify", "bare.json"]).await;
    ok(stack, &["result", "attach-proofs", "bare.json", "--out", "whole.json"]).await;
    assert_eq!(read::<Value>(&stack.path("whole.json")), file);
    fails(stack, &["result", "attach-proofs", "bare.json", "--out", "whole.json"], INPUT, &["exists"]).await;
    bare["position"]["block_hash"] = other.into();
    fs::write(stack.path("astray.json"), bare.to_string()).unwrap();
    fails(stack, &["result", "attach-proofs", "astray.json", "--out", "x.json"], REFUSED, &["block"]).await;
    assert!(!stack.path("x.json").exists());
}

/// `verify` fails, and the line about what was changed is among those that fail.
async fn tampered(stack: &Stack, file: &Value, line: &str) {
    fs::write(stack.path("tampered.json"), file.to_string()).unwrap();
    let ran = stack.cohort(&["verify", "tampered.json"]).await.unwrap_or_else(|f| panic!("{}", f.message));
    let failed: Vec<_> = ran.stdout.lines().filter(|l| l.starts_with("FAIL")).collect();
    assert_eq!(ran.code, Some(REFUSED), "{line}: {}{}", ran.stdout, ran.stderr);
    assert!(failed.iter().any(|l| l.contains(line)), "{line}: {failed:?}");
}

async fn budget_left(stack: &Stack) -> u64 {
    let terms: Terms = read(&stack.path("terms.json"));
    let app = IDstackApp::new(stack.app, stack.provider().unwrap_or_else(|f| panic!("{}", f.message)));
    let proposal = app.proposal(terms.proposal_id().0).call().await.unwrap();
    terms.epsilon_budget.0 - proposal.runs * terms.epsilon_per_run.0
}

async fn services_down(stack: &mut Stack) {
    let analyst = stack.analyst.key();
    let run = run(&analyst, "hospital-A,hospital-B", "y.json");
    stack.kms.take().expect("running").kill().await;
    stack.indexed().await.unwrap_or_else(|f| panic!("{}", f.message));
    let before = budget_left(stack).await;
    fails(stack, &run, UNREACHABLE, &["kms_unreachable"]).await;
    assert_eq!(budget_left(stack).await, before, "nothing is debited when the KMS does not answer");
    let requests = fs::read_dir(stack.path(".")).unwrap().flatten();
    let kept = requests.filter(|e| e.file_name().to_string_lossy().starts_with("y.")).count();
    assert_eq!(kept, 1, "the signed request is kept");
    fails(stack, &["kms", "verify"], UNREACHABLE, &["the KMS"]).await;
    stack.agent.take().expect("running").kill().await;
    fails(stack, &run, UNREACHABLE, &["the agent"]).await;
    stack.anvil = None;
    fails(stack, &run, UNREACHABLE, &["RPC endpoint"]).await;
    assert!(!Path::new(&stack.path("y.json")).exists());
}
