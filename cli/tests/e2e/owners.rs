//! An owner's word in every way the command line knows, on a real chain: nothing but anvil and the contracts runs.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use alloy::{
    consensus::SignableTransaction,
    dyn_abi::TypedData,
    eips::eip2718::Encodable2718,
    network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder},
    primitives::{B256, Bytes, hex},
    rpc::types::TransactionRequest,
    signers::{SignerSync, local::PrivateKeySigner},
};
use cohort_cli::dev::{Person, Stack};
use cohort_protocol::{abi::IDstackApp, terms::Terms};
use serde_json::Value;

use super::support::{deployed, fails, ok, project, read};

const REFUSED: i32 = 1;
const INPUT: i32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn owners_approve_reject_and_revoke_in_every_way() {
    let stack = deployed("owners").await;
    ok(&stack, &["terms", "--out", "terms.json"]).await;
    let terms: Terms = read(&stack.path("terms.json"));
    let id = terms.proposal_id().to_string();
    what_is_not_seen_is_not_signed(&stack).await;
    by_keystore(&stack).await;
    rehearsed(&stack).await;
    assert_eq!(approvals(&stack, &terms).await, 0b0001, "only hospital-A's keystore has approved");
    elsewhere(&stack, &id).await;
    assert_eq!(approvals(&stack, &terms).await, 0b1101);
    rejected(&stack, &id).await;
    revoked(&stack, &terms).await;
}

async fn approvals(stack: &Stack, terms: &Terms) -> u128 {
    let contract = IDstackApp::new(stack.app, stack.provider().unwrap());
    contract.proposal(terms.proposal_id().0).call().await.unwrap().approvals
}

fn signer(person: &Person) -> PrivateKeySigner {
    fs::read_to_string(&person.key_file).unwrap().trim().parse().unwrap()
}

/// What a machine without a network does with a file of `--export`.
fn sign_typed(stack: &Stack, file: &str, person: &Person) -> String {
    let typed: TypedData = read(&stack.path(file));
    let digest = typed.eip712_signing_hash().unwrap();
    let signature = signer(person).sign_hash_sync(&digest).unwrap();
    hex::encode_prefixed(signature.as_bytes())
}

async fn what_is_not_seen_is_not_signed(stack: &Stack) {
    let key = stack.owners[0].key();
    let approve = |more: &[&'static str]| {
        let base = ["approve", "--terms", "terms.json", "--owner", "hospital-A", "--key-file", &key, "--yes"];
        [&base[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let config = fs::read_to_string(stack.path("cohort.toml")).unwrap();
    let without: String =
        config.lines().filter(|line| !line.starts_with("compose")).map(|line| format!("{line}\n")).collect();
    fs::write(stack.path("no-compose.toml"), without).unwrap();
    let refuse = async |more: &[&'static str], code, words: &[&str]| {
        let args = approve(more);
        fails(stack, &args.iter().map(String::as_str).collect::<Vec<_>>(), code, words).await;
    };
    refuse(&["--config", "no-compose.toml"], INPUT, &["app-compose", "--compose"]).await;
    let mut tampered = fs::read(stack.study.compose_file()).unwrap();
    tampered.push(b' ');
    fs::write(stack.path("tampered.json"), tampered).unwrap();
    for way in [&[][..], &["--dry-run"], &["--export", "t.json"], &["--sign-only", "--out", "t.json"]] {
        let more = [way, &["--compose", "tampered.json"]].concat();
        refuse(&more, REFUSED, &["compose-hash", "tampered.json"]).await;
    }
    assert!(!stack.path("t.json").exists());
    refuse(&["--out", "t.json"], INPUT, &["--sign-only"]).await;
    refuse(&["--keystore", "none.json"], INPUT, &["two keys", "--keystore"]).await;
}

async fn by_keystore(stack: &Stack) {
    let key = fs::read_to_string(&stack.owners[0].key_file).unwrap();
    let made = Command::new(project().join("script/cast"))
        .current_dir(project())
        .args([
            "wallet",
            "import",
            "hospital-A",
            "--private-key",
            key.trim(),
            "--unsafe-password",
            "correct horse",
        ])
        .arg("--keystore-dir")
        .arg(stack.path("keystores"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let secret = |name: &str, text: &str| {
        fs::write(stack.path(name), text).unwrap();
        fs::set_permissions(stack.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret("right.txt", "correct horse\n");
    secret("wrong.txt", "incorrect horse\n");
    let approve = |password: &'static str| {
        [
            "approve",
            "--terms",
            "terms.json",
            "--owner",
            "hospital-A",
            "--keystore",
            "keystores/hospital-A",
            "--password-file",
            password,
            "--yes",
            "--json",
        ]
    };
    fails(stack, &approve("wrong.txt"), INPUT, &["keystores/hospital-A", "password is wrong"]).await;
    fs::set_permissions(stack.path("wrong.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    fails(stack, &approve("wrong.txt"), INPUT, &["wrong.txt", "read by others"]).await;
    fails(stack, &approve("none.txt"), INPUT, &["none.txt"]).await;
    let ran = ok(stack, &approve("right.txt")).await;
    let done: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(done["done"], "approved");
    assert!(done["transaction"].is_string() && done["block_number"].is_u64(), "{done}");
    for words in ["Coronary", "compose-hash", "uncommitted now", "0 / 4 owners, 3 needed", "hospital-C"] {
        assert!(ran.stderr.contains(words), "{words:?} is not in: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("correct horse") && !ran.stdout.contains("correct horse"));
}

/// A simulation needs no key, sends nothing, and meets the contract's refusals.
async fn rehearsed(stack: &Stack) {
    let approve = ["approve", "--terms", "terms.json", "--owner", "hospital-B", "--dry-run"];
    let ran = ok(stack, &approve).await;
    assert!(
        ran.stdout.contains("nothing was signed or sent") && ran.stdout.contains("gas "),
        "{}",
        ran.stdout
    );
    let ran = ok(stack, &[&approve[..], &["--json"]].concat()).await;
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["from"], Value::String(stack.owners[1].address.to_string().to_lowercase()));
    assert!(told["gas"].as_u64().is_some_and(|gas| gas > 21_000), "{told}");
    let mut late: Value = read(&stack.path("terms.json"));
    late["era"] = 7.into();
    fs::write(stack.path("era.json"), late.to_string()).unwrap();
    fails(
        stack,
        &["approve", "--terms", "era.json", "--owner", "hospital-B", "--dry-run"],
        REFUSED,
        &["era"],
    )
    .await;
    let ledger = ["approve", "--terms", "terms.json", "--owner", "hospital-B", "--ledger", "--yes"];
    let ran = stack.cohort(&ledger).await.unwrap();
    let want = if cfg!(feature = "ledger") { (3, "unlock it") } else { (INPUT, "--features ledger") };
    assert_eq!(ran.code, Some(want.0), "{}", ran.stderr);
    assert!(ran.stderr.contains(want.1), "{}", ran.stderr);
}

async fn elsewhere(stack: &Stack, id: &str) {
    let relayer = stack.relayer.key();
    let base = |owner: &'static str| ["approve", "--terms", "terms.json", "--owner", owner];
    let c = base("hospital-C");
    let ran = ok(stack, &[&c[..], &["--export", "c.typed.json"]].concat()).await;
    assert!(ran.stdout.contains(id) && ran.stdout.contains("--import"), "{}", ran.stdout);
    let document: Value = read(&stack.path("c.typed.json"));
    assert_eq!(document["primaryType"], "Approve");
    assert_eq!(document["message"]["terms"]["epsilonBudget"], "4500000000");
    assert!(document["types"]["EIP712Domain"].is_array(), "wallets ask for the domain's type");
    fails(stack, &[&c[..], &["--export", "c.typed.json"]].concat(), INPUT, &["exists already"]).await;

    let wrong = sign_typed(stack, "c.typed.json", &stack.analyst);
    let import = |signature: &str, more: &[&str]| {
        let base = [&c[..], &["--import", signature, "--typed-data", "c.typed.json", "--yes"], more].concat();
        base.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    fails(
        stack,
        &[&c[..], &["--import", "0x11", "--typed-data", "c.typed.json"]].concat(),
        INPUT,
        &["--yes"],
    )
    .await;
    let refuse = async |args: Vec<String>, code, words: &[&str]| {
        fails(stack, &args.iter().map(String::as_str).collect::<Vec<_>>(), code, words).await;
    };
    refuse(import(&wrong, &["--out", "c.json"]), REFUSED, &["bad_signature"]).await;
    refuse(import("0xzz", &["--out", "c.json"]), INPUT, &["hex"]).await;
    let good = sign_typed(stack, "c.typed.json", &stack.owners[2]);
    refuse(import(&good, &[]), INPUT, &["--out"]).await;
    let mut other = document.clone();
    other["message"]["terms"]["epsilonBudget"] = "9000000000".into();
    fs::write(stack.path("other.typed.json"), other.to_string()).unwrap();
    let swapped = [&c[..], &["--import", &good, "--typed-data", "other.typed.json", "--yes"]].concat();
    fails(
        stack,
        &swapped,
        INPUT,
        &["other.typed.json", "hospital"].map(|it| if it == "hospital" { id } else { it }),
    )
    .await;
    assert!(!stack.path("c.json").exists());
    let taken = import(&good, &["--out", "c.json"]);
    ok(stack, &taken.iter().map(String::as_str).collect::<Vec<_>>()).await;
    ok(stack, &["relay", "c.json", "--key-file", &relayer, "--dry-run"]).await;
    ok(stack, &["relay", "c.json", "--key-file", &relayer]).await;

    // The recovery id itself for v, as some signers write it; the signature in a file; the relayer's key pays at once.
    let d = base("hospital-D");
    ok(stack, &[&d[..], &["--export", "d.typed.json", "--json"]].concat()).await;
    let mut signature = hex::decode(sign_typed(stack, "d.typed.json", &stack.owners[3])).unwrap();
    signature[64] -= 27;
    fs::write(stack.path("d.sig"), hex::encode_prefixed(&signature) + "\n").unwrap();
    let submit = ["--import", "d.sig", "--typed-data", "d.typed.json", "--key-file", &relayer, "--yes"];
    ok(stack, &[&d[..], &submit].concat()).await;
}

/// The contract takes a rejection by transaction only: the transaction itself goes to the signer and comes back.
async fn rejected(stack: &Stack, id: &str) {
    let reject = ["reject", "--proposal", id, "--reason", "the budget is too large", "--owner", "hospital-B"];
    ok(stack, &[&reject[..], &["--dry-run"]].concat()).await;
    ok(stack, &[&reject[..], &["--export", "reject.json"]].concat()).await;
    let file: Value = read(&stack.path("reject.json"));
    let by = async |person: &Person| {
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        let request = TransactionRequest::default()
            .with_from(person.address)
            .with_to(text("to").parse().unwrap())
            .with_input(text("data").parse::<Bytes>().unwrap())
            .with_chain_id(file["chain_id"].as_u64().unwrap())
            .with_nonce(file["nonce"].as_u64().unwrap())
            .with_gas_limit(file["gas"].as_u64().unwrap())
            .with_max_fee_per_gas(text("max_fee_per_gas").parse().unwrap())
            .with_max_priority_fee_per_gas(text("max_priority_fee_per_gas").parse().unwrap());
        let signed = request.build(&EthereumWallet::from(signer(person))).await.unwrap();
        let unsigned = signed.as_eip1559().unwrap().tx().encoded_for_signing();
        assert_eq!(hex::encode_prefixed(unsigned), text("unsigned"), "the file holds the bytes to sign");
        hex::encode_prefixed(signed.encoded_2718())
    };
    let import = |transaction: String| {
        [&reject[..], &["--import"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .chain([transaction])
            .collect::<Vec<_>>()
    };
    let stranger = import(by(&stack.analyst).await);
    fails(stack, &stranger.iter().map(String::as_str).collect::<Vec<_>>(), INPUT, &["signed by"]).await;
    let own = import(by(&stack.owners[1]).await);
    let mut other = own.clone();
    other[4] = "another reason".to_owned();
    fails(stack, &other.iter().map(String::as_str).collect::<Vec<_>>(), INPUT, &["another transaction"])
        .await;
    ok(stack, &own.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let long = "x".repeat(257);
    fails(
        stack,
        &["reject", "--proposal", id, "--reason", &long, "--owner", "hospital-B", "--dry-run"],
        INPUT,
        &["256"],
    )
    .await;
    let key = stack.analyst.key();
    fails(
        stack,
        &["reject", "--proposal", id, "--reason", "no", "--key-file", &key],
        REFUSED,
        &["not_an_owner"],
    )
    .await;
}

async fn revoked(stack: &Stack, terms: &Terms) {
    let id = terms.proposal_id().to_string();
    let (key, relayer) = (stack.owners[1].key(), stack.relayer.key());
    let revoke = ["revoke", "--proposal", &id];
    fails(stack, &[&revoke[..], &["--export", "r.json"]].concat(), INPUT, &["--owner"]).await;
    fails(
        stack,
        &[&revoke[..], &["--owner", "hospital-B", "--revocation-key", "--dry-run"]].concat(),
        INPUT,
        &["no revocation key"],
    )
    .await;
    ok(stack, &[&revoke[..], &["--owner", "hospital-B", "--dry-run"]].concat()).await;
    ok(stack, &[&revoke[..], &["--key-file", &key, "--sign-only", "--out", "stop.json"]].concat()).await;
    let contract = IDstackApp::new(stack.app, stack.provider().unwrap());
    let state = async || contract.proposal(B256::from(terms.proposal_id().0)).call().await.unwrap();
    assert!(!state().await.revoked, "a signature alone changes nothing");
    let ran = ok(stack, &["relay", "stop.json", "--key-file", &relayer]).await;
    assert!(ran.stdout.contains("no key, no new run, no receipt"), "{}", ran.stdout);
    assert!(state().await.revoked);
    fails(
        stack,
        &["approve", "--terms", "terms.json", "--owner", "hospital-B", "--dry-run"],
        REFUSED,
        &["proposal_revoked"],
    )
    .await;

    let all = ["revoke", "--all", "--owner", "hospital-B"];
    ok(stack, &[&all[..], &["--export", "all.typed.json"]].concat()).await;
    let signature = sign_typed(stack, "all.typed.json", &stack.owners[1]);
    let import = ["--import", &signature, "--typed-data", "all.typed.json", "--key-file", &relayer, "--json"];
    ok(stack, &[&all[..], &import].concat()).await;
    assert_eq!(contract.config().call().await.unwrap().era, 1, "the next era has begun");
}
