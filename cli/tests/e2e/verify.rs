//! One result file before endpoints that agree, lie or are silent; an analyst that is a contract; an image that only the
//! registry lists.

use alloy::{
    network::{ReceiptResponse, TransactionBuilder},
    primitives::{Address, Bytes},
    providers::Provider,
    rpc::types::TransactionRequest,
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolValue,
};
use cohort_agent::run::RunResult;
use cohort_cli::dev::{HOSPITALS, Stack};
use cohort_protocol::{abi::IDstackApp, eip712};
use serde_json::{Value, json};

use super::{
    proxy::{self, Behaviour},
    support::{fails, ok, project, read, run, seal_all, started},
};

const REFUSED: i32 = 1;
const INPUT: i32 = 2;
const UNREACHABLE: i32 = 3;
const INCOMPLETE: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_before_every_kind_of_endpoint() {
    let stack = started("verify").await;
    seal_all(&stack).await;
    // Terms that name no CVM image: the registry's list decides.
    ok(&stack, &["terms", "--out", "terms.json"]).await;
    for (hospital, owner) in HOSPITALS.iter().zip(&stack.owners).take(3) {
        let (name, key) = (hospital.owner, owner.key());
        ok(&stack, &["approve", "--terms", "terms.json", "--owner", name, "--key-file", &key, "--yes"]).await;
    }
    let wallet = PrivateKeySigner::random();
    become_a_contract(&stack, wallet.address()).await;
    let analyst = stack.analyst.key();
    ok(&stack, &run(&analyst, "hospital-A,hospital-B", "result.json")).await;

    let told = verified(&stack, "result.json", &[], 0).await;
    // cohort.toml names the registry, so its list is fetched and proved.
    assert_eq!(verdict(&told, "CVM image"), ["ok"]);
    assert_eq!(verdict(&told, "transaction"), ["ok"]);
    assert_eq!(verdict(&told, "time"), ["ok"]);
    endpoints(&stack).await;
    registry(&stack).await;
    contract_account(&stack, &wallet).await;
    forms(&stack).await;
    agent_key(&stack).await;
}

/// The report of `cohort verify --json`, which must end with `code`.
async fn verified(stack: &Stack, file: &str, more: &[&str], code: i32) -> Value {
    let args = [&["verify", file, "--json"], more].concat();
    let ran = stack.cohort(&args).await.unwrap_or_else(|f| panic!("{}", f.message));
    assert_eq!(ran.code, Some(code), "{args:?}: {}{}", ran.stdout, ran.stderr);
    let told: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(told["verified"], json!(code == 0));
    told
}

/// How the checks of this name ended.
fn verdict(told: &Value, name: &str) -> Vec<String> {
    let checks = told["checks"].as_array().expect("a list").iter();
    let of = checks.filter(|check| check["name"] == name);
    of.map(|check| check["verdict"].as_str().expect("a word").to_owned()).collect()
}

async fn endpoints(stack: &Stack) {
    let file: Value = read(&stack.path("result.json"));
    let honest = stack.rpc_url.as_str();
    let hash = file["position"]["block_hash"].as_str().expect("a hash").to_owned();
    let other = format!("0x{}", "22".repeat(32));
    let fork = proxy::start(honest, Behaviour::Replace { from: hash.clone(), to: other.clone() }).await;
    let elsewhere =
        proxy::start(honest, Behaviour::Replace { from: "\"0x7a69\"".into(), to: "\"0x1\"".into() }).await;
    let silent = "http://127.0.0.1:1";

    verified(stack, "result.json", &["--rpc-url", honest, "--rpc-url", honest], 0).await;
    // One that tells another block, or is of another chain, is enough, wherever it stands among them.
    for lying in [&fork, &elsewhere] {
        for urls in [format!("{honest},{lying}"), format!("{lying},{honest}")] {
            let told = verified(stack, "result.json", &["--rpc-url", &urls], REFUSED).await;
            // It is told which one.
            let failed = told["checks"].as_array().expect("a list").iter();
            let mut failed = failed.filter(|check| check["verdict"] == "failed");
            let name = lying.trim_start_matches("http://");
            assert!(failed.all(|check| check["detail"].as_str().expect("words").contains(name)), "{told}");
        }
    }
    // One that is silent has said nothing, good or bad.
    let both = format!("{honest},{silent}");
    let told = verified(stack, "result.json", &["--rpc-url", &both], UNREACHABLE).await;
    assert_eq!(verdict(&told, "chain"), ["ok", "skipped"]);
    fails(stack, &["verify", "result.json", "--rpc-url", silent], UNREACHABLE, &["1 of the endpoints"]).await;
    // What fails outweighs it, and so does a block hash from elsewhere that is another.
    verified(stack, "result.json", &["--rpc-url", &format!("{silent},{fork}")], REFUSED).await;
    verified(stack, "result.json", &["--block-hash", &other], REFUSED).await;
    // A file without proofs takes them from whichever endpoint gives them.
    let mut bare = file.clone();
    bare.as_object_mut().expect("an object").remove("chain");
    write(stack, "bare.json", &bare);
    verified(stack, "bare.json", &["--rpc-url", &both], UNREACHABLE).await;
    verified(stack, "bare.json", &["--rpc-url", honest], 0).await;
    verified(stack, "bare.json", &["--rpc-url", silent], UNREACHABLE).await;
    verified(stack, "bare.json", &["--offline", "--block-hash", &hash], INCOMPLETE).await;
}

/// What the registry lists can be put into the file, and then needs no endpoint.
async fn registry(stack: &Stack) {
    let attach = ["result", "attach-proofs", "bare.json", "--out", "whole.json"];
    ok(stack, &attach).await;
    let whole: Value = read(&stack.path("whole.json"));
    let hash = whole["position"]["block_hash"].as_str().expect("a hash");
    let offline = ["--offline", "--block-hash", hash];
    let told = verified(stack, "whole.json", &offline, 0).await;
    assert_eq!(verdict(&told, "CVM image"), ["ok"]);
    let other = stack.app.to_string();
    let told =
        verified(stack, "whole.json", &[&offline[..], &["--registry", &other]].concat(), REFUSED).await;
    assert_eq!(verdict(&told, "CVM image"), ["failed"]);
}

/// The wallet of `test/utils/Wallets.sol` that follows `key`, at the analyst's own address.
async fn become_a_contract(stack: &Stack, key: Address) {
    let path = project().join("out/Wallets.sol/ContractWallet.json");
    let artifact: Value = read(&path);
    let code: Bytes = artifact["bytecode"]["object"].as_str().expect("hex").parse().expect("hex");
    let provider = stack.provider().unwrap_or_else(|f| panic!("{}", f.message));
    let create = TransactionRequest::default()
        .with_from(stack.deployer.address)
        .with_deploy_code([code.to_vec(), key.abi_encode()].concat());
    let pending = provider.send_transaction(create).await.unwrap();
    let receipt = pending.get_receipt().await.unwrap();
    let made = receipt.contract_address().expect("it is deployed");
    let code = provider.get_code_at(made).await.unwrap();
    let _: Value = provider.raw_request("anvil_setCode".into(), (stack.analyst.address, code)).await.unwrap();
}

/// A signature that no key of the analyst's made is the contract's to judge; without an endpoint that is said.
async fn contract_account(stack: &Stack, wallet: &PrivateKeySigner) {
    let mut result: RunResult = read(&stack.path("result.json"));
    let domain = eip712::app_domain(result.chain_id, result.app);
    let digest = eip712::digest(&result.run.abi(), &domain);
    let block = result.position.block_hash.to_string();
    let offline = ["--offline", "--block-hash", &block];
    let sign = |key: &PrivateKeySigner| Bytes::from(key.sign_hash_sync(&digest).unwrap().as_bytes().to_vec());
    result.run.signature = sign(wallet);
    write(stack, "by-wallet.json", &result);
    let told = verified(stack, "by-wallet.json", &[], 0).await;
    assert_eq!(verdict(&told, "request signature"), ["ok"]);
    let told = verified(stack, "by-wallet.json", &offline, 0).await;
    assert_eq!(verdict(&told, "request signature"), ["skipped"]);
    assert!(told.to_string().contains("is a contract account, which DstackApp asked"), "{told}");
    result.run.signature = sign(&PrivateKeySigner::random());
    write(stack, "by-nobody.json", &result);
    // Offline these bytes are the one member that nothing holds against anything: docs/spec/evidence.md says so.
    let told = verified(stack, "by-nobody.json", &offline, 0).await;
    assert_eq!(verdict(&told, "request signature"), ["skipped"]);
    let told = verified(stack, "by-nobody.json", &[], REFUSED).await;
    assert_eq!(verdict(&told, "request signature"), ["failed"]);
}

/// Files that are no files, are endless, or say the same in another way.
async fn forms(stack: &Stack) {
    let text = std::fs::read_to_string(stack.path("result.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let app = file["app"].as_str().unwrap();
    let upper = format!("0x{}", app[2..].to_uppercase());
    let edits = [
        ("twice.json", text.replacen('{', "{\"chain_id\":31337,", 1), "stands twice"),
        ("trailing.json", format!("{text} {{}}"), "trailing"),
        ("mark.json", format!("\u{feff}{text}"), "expected value at line 1"),
        ("nul.json", format!("{text}\0"), "trailing"),
        ("comma.json", text.trim_end().trim_end_matches('}').to_owned() + ",}", "trailing comma"),
        ("unknown.json", text.replacen('{', "{\"note\":1,", 1), "note"),
        ("case.json", text.replace(app, &upper), "/app"),
        ("deep.json", format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20)), "recursion limit"),
        ("format.json", text.replacen("cohort-result/1", "cohort-result/2", 1), "cohort-result/2"),
    ];
    for (name, text, word) in edits {
        std::fs::write(stack.path(name), text).unwrap();
        fails(stack, &["verify", name], INPUT, &[name, word]).await;
    }
    fails(stack, &["verify", "/dev/zero"], INPUT, &["longer than"]).await;
    fails(stack, &["verify", "no-such-file"], INPUT, &["no-such-file"]).await;
}

/// A key that an owner has revoked since: told by an honest endpoint, whatever another one says.
async fn agent_key(stack: &Stack) {
    let result: RunResult = read(&stack.path("result.json"));
    let app = IDstackApp::new(stack.app, stack.provider().unwrap_or_else(|f| panic!("{}", f.message)));
    // A proposal that was revoked since is told; its results stay what they are.
    app.revoke(result.run.proposal_id.0)
        .from(stack.owners[0].address)
        .send()
        .await
        .unwrap()
        .get_receipt()
        .await
        .unwrap();
    let told = verified(stack, "result.json", &[], 0).await;
    assert!(told.to_string().contains("the proposal is by now: proposal_revoked"), "{told}");
    let revoke = app.revokeAgent(result.certificate.agent).from(stack.owners[0].address);
    revoke.send().await.unwrap().get_receipt().await.unwrap();
    let hides = Behaviour::ZeroLastWord { selector: "28e95426".into() };
    let lying = proxy::start(&stack.rpc_url, hides).await;
    let both = format!("{lying},{}", stack.rpc_url);
    let told = verified(stack, "result.json", &["--rpc-url", &both], REFUSED).await;
    assert_eq!(verdict(&told, "agent key"), ["ok", "ok", "failed"]);
}

fn write(stack: &Stack, name: &str, value: &impl serde::Serialize) {
    std::fs::write(stack.path(name), serde_json::to_string(value).unwrap()).unwrap();
}
