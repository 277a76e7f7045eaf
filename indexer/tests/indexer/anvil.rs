//! Against the real contracts on a real node: what the mirror decides is what `releaseDecision` returns.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use alloy::{
    primitives::{Address, B256, Bytes, FixedBytes, U64, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::{SolCall, SolValue},
};
use cohort_protocol::{
    abi::{
        self,
        IDstackApp::{approveCall, openRunCall, registerDatasetCall, releaseDecisionCall, revokeCall},
        IDstackKms::registerAppCall,
    },
    chain::ReleaseDecisions,
    decision::Decision,
    eip712,
    ids::Label,
    terms::SignedRunRequest,
};
use serde_json::{Value, json};

use crate::{
    running::{Running, config, dumped, rebuilt_from},
    study::{OWNERS, dataset_id, label, owner_word, terms},
};

struct Anvil {
    child: Child,
    url: reqwest::Url,
    client: reqwest::Client,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn creation_code(contract: &str) -> Option<Vec<u8>> {
    let file = root().join(format!("out/{contract}.sol/{contract}.json"));
    let artifact: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    hex::decode(artifact["bytecode"]["object"].as_str()?.trim_start_matches("0x")).ok()
}

impl Anvil {
    fn start() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut child = Command::new(root().join("script/anvil"))
            .args(["--port", "0", "--accounts", "6"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.strip_prefix("Listening on ")?.to_owned()));
        let Some(address) = address else {
            drop(child.wait());
            return None; // the launcher has said why
        };
        // Read on, or anvil would stop when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{address}").parse().unwrap();
        Some(Self { child, url, client: reqwest::Client::new() })
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Value =
            self.client.post(self.url.clone()).json(&body).send().await.unwrap().json().await.unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Sends a transaction in a block of its own and gives the contract that it created, if any.
    async fn send(&self, from: Address, to: Option<Address>, data: Vec<u8>) -> Option<Address> {
        let data = Bytes::from(data);
        let sent = self
            .call(
                "eth_sendTransaction",
                json!([{ "from": from, "to": to, "data": data, "gas": "0x1000000" }]),
            )
            .await;
        for _ in 0..500 {
            let receipt = self.call("eth_getTransactionReceipt", json!([sent])).await;
            if !receipt.is_null() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no receipt of {sent}");
    }

    async fn tip(&self) -> (u64, B256) {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let number: U64 = serde_json::from_value(block["number"].clone()).unwrap();
        (number.to(), serde_json::from_value(block["hash"].clone()).unwrap())
    }

    async fn decision(&self, app: Address, call: &releaseDecisionCall, block: u64) -> Decision {
        let data = Bytes::from(call.abi_encode());
        let answer = self.call("eth_call", json!([{ "to": app, "data": data }, U64::from(block)])).await;
        let bytes: Bytes = serde_json::from_value(answer).unwrap();
        Decision::try_from(*bytes.last().unwrap()).unwrap()
    }
}

struct Consortium {
    anvil: Anvil,
    accounts: Vec<Address>,
    registry: Address,
    app: Address,
    analyst: PrivateKeySigner,
    terms: abi::Terms,
    run: SignedRunRequest,
}

impl Consortium {
    async fn deploy(anvil: Anvil, kms: Vec<u8>, app: Vec<u8>) -> Self {
        let accounts: Vec<Address> =
            serde_json::from_value(anvil.call("eth_accounts", json!([])).await).unwrap();
        let registry = anvil.send(accounts[0], None, [kms, accounts[0].abi_encode()].concat()).await.unwrap();
        let analyst = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x42)).unwrap();
        let owners: Vec<_> = (0..4)
            .map(|index| abi::OwnerInfo {
                ownerId: owner_word(index),
                account: accounts[index + 1],
                revoker: Address::ZERO,
                jurisdiction: FixedBytes(*b"CH"),
                grades: 3,
                epsilonCap: 10_000_000_000,
                deltaCap: 0,
            })
            .collect();
        let root = Address::repeat_byte(9);
        let founded =
            (label("heart"), label("health"), owners, U256::from(3), root, vec![analyst.address()], 3600u64);
        let app = anvil.send(accounts[0], None, [app, founded.abi_encode_params()].concat()).await.unwrap();
        let block = anvil.call("eth_getBlockByNumber", json!(["latest", false])).await;
        let now: U64 = serde_json::from_value(block["timestamp"].clone()).unwrap();
        let terms = abi::Terms { expiry: now.to::<u64>() + 86_400, ..terms(0) };
        let chain_id: U64 = serde_json::from_value(anvil.call("eth_chainId", json!([])).await).unwrap();
        let mut run = SignedRunRequest {
            proposal_id: cohort_protocol::terms::Terms::from(&terms).proposal_id(),
            participants: 0b11,
            analyst: analyst.address(),
            nonce: B256::repeat_byte(3),
            deadline: terms.expiry,
            signature: Bytes::new(),
        };
        let digest = eip712::digest(&run.abi(), &eip712::app_domain(chain_id.to(), app));
        run.signature = analyst.sign_hash_sync(&digest).unwrap().as_bytes().to_vec().into();
        Self { anvil, accounts, registry, app, analyst, terms, run }
    }

    async fn by_owner(&self, index: usize, call: impl SolCall) {
        self.anvil.send(self.accounts[index + 1], Some(self.app), call.abi_encode()).await;
    }

    async fn approve(&self, index: usize) {
        self.by_owner(index, approveCall { terms: self.terms.clone() }).await;
    }

    async fn register_dataset(&self, index: u8) {
        let info = abi::DatasetInfo {
            datasetId: dataset_id(index),
            composeHash: self.terms.composeHash,
            region: label("EU-West"),
            kind: label("EHR"),
            records: 300,
            sizeBytes: 1 << 20,
            supersedes: B256::ZERO,
        };
        self.by_owner(usize::from(index), registerDatasetCall { info }).await;
    }

    async fn open_run(&self) {
        let (terms, request) = (self.terms.clone(), self.run.abi());
        self.by_owner(3, openRunCall { terms, request, signature: self.run.signature.clone() }).await;
    }

    /// Every owner's key, and some that are nobody's: the mirror and the contract agree at head and confirmed.
    async fn agrees(&self, running: &Running) -> Decision {
        let tip = self.anvil.tip().await;
        running.reaches(tip).await;
        let mut first = None;
        for (owner, index) in OWNERS.iter().zip(0u8..).chain([(&"stranger", 0)]) {
            for dataset in [dataset_id(index), dataset_id(7)] {
                let call = releaseDecisionCall {
                    proposalId: self.run.proposal_id.0,
                    composeHash: self.terms.composeHash,
                    ownerId: Label::parse("owner", owner).unwrap().word(),
                    datasetId: dataset,
                    runId: self.run.run_id().0,
                };
                let path = format!(
                    "/v1/apps/{}/release-decision?proposal={}&compose={}&owner={owner}&dataset={}&run={}",
                    self.app, call.proposalId, call.composeHash, call.datasetId, call.runId
                );
                let (status, body) = running.get(&path).await;
                assert_eq!(status, 200, "{body}");
                let ours: ReleaseDecisions = serde_json::from_value(body).unwrap();
                for at in [ours.head, ours.confirmed] {
                    let theirs = self.anvil.decision(self.app, &call, at.position.number).await;
                    assert_eq!(at.decision, theirs, "{owner} at block {}", at.position.number);
                }
                first = first.or(Some(ours.head.decision));
            }
        }
        first.unwrap()
    }
}

#[tokio::test]
async fn the_mirror_decides_as_the_contract_does() {
    let (Some(kms), Some(app)) = (creation_code("DstackKms"), creation_code("DstackApp")) else {
        eprintln!("skipped: out/DstackApp.sol is missing; run: script/forge build");
        return;
    };
    let Some(anvil) = Anvil::start() else {
        eprintln!("skipped: script/anvil does not start; run: npm ci");
        return;
    };
    let study = Consortium::deploy(anvil, kms, app).await;
    study.register_dataset(0).await;
    study.approve(0).await;
    let register = registerAppCall { appId: study.app }.abi_encode();
    study.anvil.send(study.accounts[0], Some(study.registry), register).await;
    study.anvil.call("anvil_mine", json!(["0x3"])).await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[], dir.path().join("mirror.sqlite"));
    config.rpc_urls = vec![study.anvil.url.clone()];
    config.registry = study.registry;
    // With so slow a poll, only announced heads can make this test end in time.
    config.poll = std::time::Duration::from_secs(60);
    let mut ws = study.anvil.url.clone();
    ws.set_scheme("ws").unwrap();
    config.ws_urls = vec![ws];
    let running = Running::start(&config).await;
    assert_eq!(study.agrees(&running).await, Decision::NoQuorum);
    study.approve(1).await;
    study.register_dataset(1).await;
    assert_eq!(study.agrees(&running).await, Decision::NoQuorum);
    study.approve(2).await;
    assert_eq!(study.agrees(&running).await, Decision::RunUnknown);
    study.open_run().await;
    assert_eq!(study.agrees(&running).await, Decision::Allow);
    study.by_owner(2, revokeCall { proposalId: study.run.proposal_id.0 }).await;
    assert_eq!(study.agrees(&running).await, Decision::ProposalRevoked);

    // The node takes the revocation back, and the run and the third approval with it.
    study.anvil.call("anvil_reorg", json!([1, []])).await;
    assert_eq!(study.agrees(&running).await, Decision::Allow);
    study.anvil.call("anvil_reorg", json!([3, []])).await;
    assert_eq!(study.agrees(&running).await, Decision::NoQuorum);
    study.approve(2).await;
    study.open_run().await;
    assert_eq!(study.agrees(&running).await, Decision::Allow);

    let (_, apps) = running.get("/v1/apps").await;
    assert_eq!(apps["apps"][0]["analysts"], json!([study.analyst.address()]));
    running.stop().await.unwrap();
    let tip = study.anvil.tip().await;
    assert_eq!(dumped(&config.database).await, rebuilt_from(&config, tip).await);
}
