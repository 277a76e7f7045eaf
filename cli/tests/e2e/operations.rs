//! `docs/operations.md` as an operator follows it: each block of the page, in its order, in one shell, against a chain and
//! the KMS's development guest. Between them the test does what only time and people do.

use std::{
    collections::BTreeMap, fmt::Write as _, os::unix::fs::PermissionsExt, process::Stdio, time::Duration,
};

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use cohort_attestation::dev::DevPlatform;
use cohort_cli::dev::Stack;
use cohort_protocol::abi::{IDstackApp, IDstackKms};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::support::{blocks, deployed, programs, project, read};

/// Enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(600);
const NEW_ROOT: Address = Address::repeat_byte(0x77);
const AGENT_KEY: Address = Address::repeat_byte(0x78);

/// What the page calls each wallet, and which of anvil's accounts it is.
const WALLETS: [(&str, usize); 8] = [
    ("DEPLOYER", 0),
    ("OWNER_A", 1),
    ("OWNER_B", 2),
    ("OWNER_C", 3),
    ("REGISTRY_OWNER", 6),
    ("REVOKER", 7),
    ("NEW_OWNER_A", 8),
    ("JOINING", 9),
];

/// What the shell has to do before each block of the page, by a word that only that block has.
const BEFORE: [(&str, &str); 8] = [
    (
        "script/deploy kms",
        r#"node -e '
        const input = JSON.parse(fs.readFileSync(process.env.MADE_KMS)), root = JSON.parse(fs.readFileSync(process.env.STUDY + "/root.json"));
        const output = process.env.STUDY + "/kms-deployed.json", owner = process.env.REGISTRY_OWNER_ADDRESS;
        fs.writeFileSync(process.env.STUDY + "/kms.json", JSON.stringify({...input, root: root.root, sealingKey: root.sealing_key, owner, output}));'
    "#,
    ),
    (
        "script/deploy app",
        r#"until (exec 3<>"/dev/tcp/127.0.0.1/$KMS_PORT") 2>/dev/null; do sleep 0.1; done
        REGISTRY=$REGISTRY node -e '
        const input = JSON.parse(fs.readFileSync(process.env.MADE_APP)), root = JSON.parse(fs.readFileSync(process.env.STUDY + "/root.json"));
        const output = process.env.STUDY + "/app-deployed.json", dstackKms = process.env.REGISTRY;
        fs.writeFileSync(process.env.STUDY + "/app.json", JSON.stringify({...input, kmsRoot: root.root, dstackKms, governanceDelaySeconds: 3600, output}));'
    "#,
    ),
    ("execute --action \"$STUDY/remove.json\"", "an_hour_later\n"),
    (
        "execute --action \"$STUDY/add.json\"",
        "an_hour_later\nNEW_SEALING_KEY=$(node -p 'JSON.parse(fs.readFileSync(process.env.STUDY + \"/root.json\")).sealing_key')\n",
    ),
    ("execute --action \"$STUDY/pin.json\"", "an_hour_later\n"),
    ("acceptRotation", ""),
    ("removeAgentSystem", ""),
    (
        "script/govern veto",
        r#"echo '{"function": "setThreshold(uint8)", "arguments": ["1"], "salt": "0x'$(printf '5%.0s' $(seq 64))'"}' > "$STUDY/lower.json"
        ACTION=$(script/govern approve --action "$STUDY/lower.json" --app "$APP" --chain-id "$CHAIN" --rpc-url "$RPC_OWN" $OWNER_C --broadcast |
          sed -n 's/^action  *\(0x[0-9a-f]\{64\}\)$/\1/p')
    "#,
    ),
];

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// The page's own lines, with what is a file or an address of a real machine in the words of this one.
fn here(block: &str, stack: &Stack, kms_port: u16, indexer_port: u16) -> String {
    let at = |name: &str| stack.path(name).display().to_string();
    let development = format!(
        "--collateral-file {} --insecure-dev-attestation-root {} --confirmations 2",
        at("collateral.json"),
        at("platform-root.pem")
    );
    let replaced = block
        .replace("\\\n", " ")
        .replace("/var/run/dstack.sock", &at("kms-dstack.sock"))
        .replace("--pccs-url https://api.trustedservices.intel.com/", &development)
        .replace("0.0.0.0:8720", &format!("127.0.0.1:{kms_port}"))
        .replace("127.0.0.1:8710", &format!("127.0.0.1:{indexer_port}"))
        .replace("/data/", &at(""));
    let mut out = String::new();
    for line in replaced.lines() {
        let served =
            ["cohort-indexer ", "cohort-kms serve "].iter().any(|start| line.trim().starts_with(start));
        // What serves for ever serves in the background.
        writeln!(out, "{line}{}", if served { " 2>> \"$STUDY/services.log\" >&2 &" } else { "" }).unwrap();
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_commands_do_what_the_page_says() {
    let page = std::fs::read_to_string(project().join("docs/operations.md")).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 13, "{}", blocks.len());
    for (word, _) in BEFORE {
        assert_eq!(blocks.iter().filter(|block| block.contains(word)).count(), 1, "{word}");
    }
    let stack = deployed("operations").await;
    let (kms_port, indexer_port) = (free_port(), free_port());
    let environment = environment(&stack, kms_port, indexer_port).await;
    let mut script = String::from(
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n\
         an_hour_later() { script/cast rpc evm_increaseTime 3601 --rpc-url \"$RPC_OWN\" > /dev/null; script/cast rpc evm_mine --rpc-url \"$RPC_OWN\" > /dev/null; }\n",
    );
    for block in &blocks {
        for (_, before) in BEFORE.iter().filter(|(word, _)| block.contains(word)) {
            script += before;
        }
        script += &here(block, &stack, kms_port, indexer_port);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = Command::new("bash")
        .args(["-xc", &script])
        .current_dir(project())
        .env("PATH", format!("{}:{path}", programs().display()))
        .envs(environment)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, shell).await.expect("it ends in time").expect("bash is there");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let services = std::fs::read_to_string(stack.path("services.log")).unwrap_or_default();
    assert!(output.status.success(), "{out}\n{err}\n{services}");
    assert!(out.contains("nothing was sent"), "dry runs: {out}");
    assert_eq!(out.matches("of this checkout, code hash").count(), 2, "{out}");
    what_it_did(&stack).await;
}

/// Wallets as encrypted keystores, the root certificate of the development platform, and the page's variables.
async fn environment(stack: &Stack, kms_port: u16, indexer_port: u16) -> BTreeMap<String, String> {
    let seed = std::fs::read_to_string(stack.path("platform.seed")).unwrap();
    let seed: B256 = seed.trim().parse().unwrap();
    let certificate = DevPlatform::from_seed(seed.0).unwrap().root_certificate_pem().unwrap();
    std::fs::write(stack.path("platform-root.pem"), certificate).unwrap();
    std::fs::write(stack.path("password"), "of all of them").unwrap();
    std::fs::set_permissions(stack.path("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let folder = stack.path("");
    let at = |name: &str| stack.path(name).display().to_string();
    let mut variables: BTreeMap<String, String> = [
        ("CHAIN", "31337".to_owned()),
        ("STUDY", folder.display().to_string().trim_end_matches('/').to_owned()),
        ("RPC_OWN", stack.rpc_url.clone()),
        ("RPC_OTHER", stack.rpc_url.clone()),
        ("ZERO", Address::ZERO.to_string()),
        ("KMS", format!("http://127.0.0.1:{kms_port}")),
        ("KMS_PORT", kms_port.to_string()),
        ("INDEXER", format!("http://127.0.0.1:{indexer_port}")),
        ("NEW_ROOT", NEW_ROOT.to_string()),
        ("AGENT_KEY", AGENT_KEY.to_string()),
        ("NEW_SYSTEM", B256::repeat_byte(0x79).to_string()),
        ("OLD_SYSTEM", stack.mr_system.to_string()),
        ("MADE_KMS", at("DeployKms.json")),
        ("MADE_APP", at("DeployApp.json")),
        ("COHORT_KNOWN_ROOTS", at("operator-roots.json")),
        ("COHORT_INSECURE_DEV_ATTESTATION_ROOT", at("platform-root.pem")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let accounts: Value = read(&stack.path("accounts.json"));
    for (name, index) in WALLETS {
        let key = accounts["private_keys"][index].as_str().expect("a key");
        let signer: PrivateKeySigner = key.parse().unwrap();
        let made = Command::new(project().join("script/cast"))
            .args(["wallet", "import", name, "--unsafe-password", "of all of them", "--private-key", key])
            .arg("--keystore-dir")
            .arg(&folder)
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let flags = format!("--keystore {} --password-file {}", at(name), at("password"));
        variables.insert(name.to_owned(), flags);
        variables.insert(format!("{name}_ADDRESS"), signer.address().to_string());
    }
    let named = |name: &str| variables[name].clone();
    let (account, joining) = (named("NEW_OWNER_A_ADDRESS"), named("JOINING_ADDRESS"));
    variables.insert("NEW_ACCOUNT".to_owned(), account);
    variables.insert("JOINING_ACCOUNT".to_owned(), joining);
    variables
}

async fn what_it_did(stack: &Stack) {
    let [kms, app]: [Value; 2] =
        ["kms-deployed.json", "app-deployed.json"].map(|name| read(&stack.path(name)));
    let address = |file: &Value, key: &str| file[key].as_str().unwrap().parse::<Address>().unwrap();
    let provider = stack.provider().unwrap_or_else(|f| panic!("{}", f.message));
    let registry = IDstackKms::new(address(&kms, "dstackKms"), &provider);
    let app = IDstackApp::new(address(&app, "dstackApp"), &provider);
    assert_eq!(app.kmsRoot().call().await.unwrap(), NEW_ROOT);
    assert!(registry.root(0).call().await.unwrap().retired);
    assert_eq!(registry.root(1).call().await.unwrap().rootAddress, NEW_ROOT);
    assert!(registry.allowedAgentSystems(B256::repeat_byte(0x79)).call().await.unwrap());
    assert!(!registry.allowedAgentSystems(stack.mr_system).call().await.unwrap());
    assert!(app.agentRevoked(AGENT_KEY).call().await.unwrap());
    let audit = std::fs::read_to_string(stack.path("audit.html")).unwrap();
    assert!(audit.contains("No rule was broken.") && audit.contains("hospital-E"), "{audit}");
    let head: Value = read(&stack.path("head.json"));
    assert!(head.is_object(), "{head}");
    assert_eq!(app.config().call().await.unwrap().era, 2, "both revocations of everything ended an era");
}
