//! Against the real contracts on a real node: what the mirror decides is what `releaseDecision` returns.

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
use serde_json::json;

use crate::{
    anvil::{Anvil, creation_code},
    running::{Running, config, dumped, rebuilt_from},
    study::{OWNERS, dataset_id, label, owner_word, terms},
};

pub(crate) struct Consortium {
    pub(crate) anvil: Anvil,
    accounts: Vec<Address>,
    pub(crate) registry: Address,
    app: Address,
    analyst: PrivateKeySigner,
    terms: abi::Terms,
    run: SignedRunRequest,
}

impl Consortium {
    /// `None`, after a line that says why: the contracts are not compiled, or there is no anvil.
    pub(crate) async fn start() -> Option<Self> {
        let codes = (creation_code("out", "DstackKms"), creation_code("out", "DstackApp"));
        let (Some(kms), Some(app)) = codes else {
            crate::running::skipped("out/DstackApp.sol is missing; run: script/forge build");
            return None;
        };
        let Some(anvil) = Anvil::start(&["--accounts", "6"]) else {
            crate::running::skipped("script/anvil does not start; run: npm ci");
            return None;
        };
        Some(Self::deploy(anvil, kms, app).await)
    }

    async fn deploy(anvil: Anvil, kms: Vec<u8>, app: Vec<u8>) -> Self {
        let accounts = anvil.accounts().await;
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

    pub(crate) async fn register(&self) {
        let register = registerAppCall { appId: self.app }.abi_encode();
        self.anvil.send(self.accounts[0], Some(self.registry), register).await;
    }

    pub(crate) async fn approve(&self, index: usize) {
        self.by_owner(index, approveCall { terms: self.terms.clone() }).await;
    }

    pub(crate) async fn register_dataset(&self, index: u8) {
        self.register_dataset_as(index, dataset_id(index), B256::ZERO).await;
    }

    /// Each owner's dataset by a newer one.
    pub(crate) async fn supersede_datasets(&self) {
        for index in 0..4 {
            self.register_dataset_as(index, B256::repeat_byte(index + 1), dataset_id(index)).await;
        }
    }

    async fn register_dataset_as(&self, index: u8, id: B256, supersedes: B256) {
        let info = abi::DatasetInfo {
            datasetId: id,
            composeHash: self.terms.composeHash,
            region: label("EU-West"),
            kind: label("EHR"),
            records: 300,
            sizeBytes: 1 << 20,
            supersedes,
        };
        self.by_owner(usize::from(index), registerDatasetCall { info }).await;
    }

    pub(crate) async fn open_run(&self) {
        let (terms, request) = (self.terms.clone(), self.run.abi());
        self.by_owner(3, openRunCall { terms, request, signature: self.run.signature.clone() }).await;
    }

    async fn decision(&self, call: &releaseDecisionCall, block: u64) -> Decision {
        let data = Bytes::from(call.abi_encode());
        let answer =
            self.anvil.call("eth_call", json!([{ "to": self.app, "data": data }, U64::from(block)])).await;
        let bytes: Bytes = serde_json::from_value(answer).unwrap();
        Decision::try_from(*bytes.last().unwrap()).unwrap()
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
                    let theirs = self.decision(&call, at.position.number).await;
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
    let Some(study) = Consortium::start().await else { return };
    study.register_dataset(0).await;
    study.approve(0).await;
    study.register().await;
    study.anvil.call("anvil_mine", json!(["0x3"])).await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[], dir.path().join("mirror.sqlite"));
    config.rpc_urls = vec![study.anvil.url.clone()];
    config.registry = study.registry;
    // With so slow a poll, only announced heads can make this test end in time.
    config.poll = std::time::Duration::from_secs(60);
    config.ws_urls = vec![study.anvil.ws_url()];
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

/// A line to the node that can be down.
struct Wire {
    url: reqwest::Url,
    up: tokio::sync::watch::Sender<bool>,
}

impl Wire {
    async fn to(node: &reqwest::Url) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        let to = format!("{}:{}", node.host_str().unwrap(), node.port().unwrap());
        let (up, state) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut state) = (to.clone(), state.clone());
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        down = state.wait_for(|up| !up) => drop(down),
                        ended = tokio::io::copy_bidirectional(&mut near, &mut far) => drop(ended),
                    }
                });
            }
        });
        Self { url, up }
    }
}

/// The announcements end and begin again by themselves; what was missed meanwhile is not.
#[tokio::test]
async fn a_lost_websocket_is_opened_again() {
    let Some(study) = Consortium::start().await else { return };
    study.register().await;
    let wire = Wire::to(&study.anvil.url).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[], dir.path().join("mirror.sqlite"));
    (config.rpc_urls, config.registry) = (vec![study.anvil.url.clone()], study.registry);
    config.ws_urls = vec![wire.url.clone()];
    // Only what is announced can move it.
    config.poll = std::time::Duration::from_secs(3_600);
    let running = Running::start(&config).await;
    for owner in 0..3 {
        running.follows_by("websocket").await;
        study.register_dataset(owner).await;
        running.reaches(study.anvil.tip().await).await;
        wire.up.send_replace(false);
        running.follows_by("polling").await;
        // Mined while nobody listens.
        study.approve(usize::from(owner)).await;
        wire.up.send_replace(true);
        running.reaches(study.anvil.tip().await).await;
    }
    running.stop().await.unwrap();
}
