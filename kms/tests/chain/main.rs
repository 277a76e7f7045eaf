//! The KMS against the real contracts on anvil, with an indexer that always says allow: what a lying indexer gains,
//! which reason each step of a consortium gives, and how a revocation races releases.
//!
//! Needs anvil and the compiled contracts; skips visibly without them.

mod proxy;

use std::{
    io::{BufRead as _, BufReader, Cursor},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, B256, Bytes, FixedBytes},
    providers::{Provider as _, RootProvider},
    rpc::types::TransactionReceipt,
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::{SolCall, SolValue},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use cohort_attestation::{self as attestation, AppId, TrustedRoot, dev};
use cohort_kms::{
    chain::Chain,
    http,
    indexer::Indexer,
    limits::Limits,
    policy::Policy,
    release_log::{self, Outcome, ReleaseLog},
    roots::Roots,
    server,
    service::{Kms, Parts, Request},
};
use cohort_protocol::{
    abi::{self, IDstackApp, IDstackKms},
    chain::{DecisionAt, Position, ReleaseDecisions},
    decision::Decision,
    eip712,
    hpke::{KeyPair, SecretBytes},
    ids::{ComposeHash, OutputSchemaHash, OwnerId, RecipeHash},
    json::sha256,
    loss::Epsilon,
    release::{Binding, Challenge, DatasetRequest, Refusal, ReleaseAnswer, ReleaseRequest, WrapKeys},
    sealed::{self, CHUNK_BYTES_MIN, ContentKind, SealParams},
    terms::{SignedRunRequest, Terms},
};
use proxy::{Fault, Proxy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

const CONFIRMATIONS: u64 = 2;
const EPOCHS: [u32; 2] = [0, 1];
const APP_COMPOSE: &str = r#"{"cohort":{},"name":"test"}"#;
const PLAINTEXT: &[u8] = b"age,sex\n63,1\n";
const OWNERS: [&str; 3] = ["hospital-A", "hospital-B", "hospital-C"];
/// Races in the usual test run; `make bench-races` sets COHORT_RACES to 1,000.
const RACES: u32 = 30;

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn root_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// A chain of its own for one test; ends with it.
struct Anvil {
    child: Child,
    provider: RootProvider,
    url: reqwest::Url,
    accounts: Vec<Address>,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    async fn start() -> Option<Self> {
        let anvil = root_path("script/anvil");
        if !anvil.exists() || !root_path("out/DstackApp.sol/DstackApp.json").exists() {
            println!("skipped: needs script/anvil and the contracts that forge build compiles");
            return None;
        }
        let mut command = Command::new(anvil);
        command.args(["--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(address) = lines.find_map(|line| Some(line.ok()?.strip_prefix("Listening on ")?.to_owned()))
        else {
            let _ = child.wait();
            println!("skipped: anvil does not start; run: npm ci");
            return None;
        };
        std::thread::spawn(move || lines.for_each(drop)); // or its pipe fills up
        let url: reqwest::Url = format!("http://{address}").parse().unwrap();
        let provider = RootProvider::new_http(url.clone());
        let accounts = provider.raw_request("eth_accounts".into(), ()).await.unwrap();
        Some(Self { child, provider, url, accounts })
    }

    async fn send(&self, from: usize, to: Option<Address>, data: Vec<u8>) -> TransactionReceipt {
        let transaction = json!([{ "from": self.accounts[from], "to": to, "data": Bytes::from(data) }]);
        let hash: B256 = self.provider.raw_request("eth_sendTransaction".into(), transaction).await.unwrap();
        let receipt = loop {
            if let Some(receipt) = self.provider.get_transaction_receipt(hash).await.unwrap() {
                break receipt;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(receipt.status());
        receipt
    }

    async fn deploy(&self, name: &str, arguments: Vec<u8>) -> Address {
        let artifact = root_path(&format!("out/{name}.sol/{name}.json"));
        let artifact: Value = serde_json::from_slice(&std::fs::read(artifact).unwrap()).unwrap();
        let code = hex::decode(&artifact["bytecode"]["object"].as_str().unwrap()[2..]).unwrap();
        self.send(0, None, [code, arguments].concat()).await.contract_address.unwrap()
    }

    async fn mine(&self, blocks: u64) {
        let _: Value = self.provider.raw_request("anvil_mine".into(), json!([blocks])).await.unwrap();
    }
}

/// The indexer that says allow to everything, at blocks that exist.
async fn always(
    State((provider, answers)): State<(RootProvider, Arc<AtomicBool>)>,
) -> Result<Json<ReleaseDecisions>, StatusCode> {
    if !answers.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let head = provider.get_block_number().await.unwrap();
    let mut decided = Vec::new();
    for number in [head, head.saturating_sub(CONFIRMATIONS)] {
        let block = provider.get_block_by_number(number.into()).await.unwrap();
        let header = block.ok_or(StatusCode::SERVICE_UNAVAILABLE)?.header; // none: reorganised in between
        let position = Position { number, hash: header.hash, timestamp: header.timestamp };
        decided.push(DecisionAt { position, decision: Decision::Allow });
    }
    Ok(Json(ReleaseDecisions { chain_id: 31337, head: decided[0], confirmed: decided[1], finalized: None }))
}

async fn listen(router: Router) -> reqwest::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(server::serve(listener, router, std::future::pending()));
    url
}

/// Three hospitals (quorum 2), their contracts on anvil, a KMS, and a guest that runs their recipe.
struct Study {
    anvil: Anvil,
    /// The KMS's two endpoints.
    endpoints: [Proxy; 2],
    indexer: Arc<AtomicBool>,
    registry: Address,
    app: Address,
    analyst: PrivateKeySigner,
    guest: dev::DevGuest,
    url: reqwest::Url,
    http: reqwest::Client,
    log: PathBuf,
    sealed: Vec<u8>,
    dataset: DatasetRequest,
    _dir: TempDir,
}

fn founders(accounts: &[Address]) -> Vec<abi::OwnerInfo> {
    let owner = |(name, account): (&&str, &Address)| abi::OwnerInfo {
        ownerId: name.parse::<OwnerId>().unwrap().word(),
        account: *account,
        revoker: Address::ZERO,
        jurisdiction: FixedBytes(*b"CH"),
        grades: 2,
        epsilonCap: u64::MAX,
        deltaCap: u64::MAX,
    };
    OWNERS.iter().zip(&accounts[1..]).map(owner).collect()
}

impl Study {
    async fn new() -> Option<Self> {
        Self::pinned(0).await
    }

    /// A consortium that pins the root of this epoch; its data is sealed to epoch 0.
    async fn pinned(epoch: u32) -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let anvil = Anvil::start().await?;
        let roots = Roots::derive(&SecretBytes::new([7; 32]), &EPOCHS).unwrap();
        let root = roots.epoch(epoch).unwrap().address();
        let analyst = PrivateKeySigner::from_slice(&[6; 32]).unwrap();
        let registry = anvil.deploy("DstackKms", anvil.accounts[0].abi_encode()).await;
        let label = |text: &str| text.parse::<OwnerId>().unwrap().word();
        let arguments = (
            label("study"),
            label("health"),
            founders(&anvil.accounts),
            2u16,
            root,
            vec![analyst.address()],
            3600u64,
        );
        let app = anvil.deploy("DstackApp", arguments.abi_encode_params()).await;
        let platform = dev::DevPlatform::from_seed([3; 32]).unwrap();
        let root_der = platform.root_certificate_der().unwrap();
        let guest = dev::DevGuest::new(platform, AppId(app.into_array()), APP_COMPOSE, &[5; 32]).unwrap();
        let (sealed, dataset) = seal(&roots, app);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("release.log");
        let limit = Duration::from_secs(2);
        let answers = Arc::new(AtomicBool::new(true));
        let indexer = Router::new()
            .route("/v1/apps/{app}/release-decision", get(always))
            .with_state((anvil.provider.clone(), answers.clone()));
        let endpoints = [(); 2].map(|()| Proxy::new(anvil.url.clone()));
        let mut urls = Vec::new();
        for endpoint in &endpoints {
            urls.push(listen(endpoint.router()).await);
        }
        let parts = Parts {
            policy: Policy {
                chain_id: 31337,
                registry,
                roots: roots.identities(),
                self_authorisation: false,
                confirmations: CONFIRMATIONS,
                // anvil puts each block at least a second after the one before, however fast it mines
                max_head_age_seconds: 86_400,
                certificate_seconds: 3600,
                lease_seconds: 60,
                device_lists: Vec::new(),
                system_lists: Vec::new(),
            },
            evidence_policy: attestation::Policy::production()
                .with_root(TrustedRoot::development(&root_der).unwrap()),
            gpu_policy: attestation::gpu::GpuPolicy::production(),
            roots,
            chain: Chain::new(urls, registry, limit).unwrap(),
            indexer: Indexer::new(listen(indexer).await, limit).unwrap(),
            log: ReleaseLog::open(&log).unwrap().0,
            own_evidence: None,
        };
        let url = listen(http::router(Arc::new(Kms::new(parts).unwrap()), Limits::new(None))).await;
        let http = reqwest::Client::new();
        let indexer = answers;
        Some(Self {
            anvil,
            endpoints,
            indexer,
            registry,
            app,
            analyst,
            guest,
            url,
            http,
            log,
            sealed,
            dataset,
            _dir: dir,
        })
    }

    async fn registry(&self, call: impl SolCall) {
        self.anvil.send(0, Some(self.registry), call.abi_encode()).await;
    }

    async fn owner(&self, index: usize, call: impl SolCall) -> TransactionReceipt {
        self.anvil.send(index + 1, Some(self.app), call.abi_encode()).await
    }

    async fn register_epoch(&self, epoch: u32) {
        let roots = Roots::derive(&SecretBytes::new([7; 32]), &EPOCHS).unwrap();
        let keys = roots.epoch(epoch).unwrap();
        let sealing_key = Bytes::copy_from_slice(keys.sealing.public_key().as_bytes());
        self.registry(IDstackKms::registerRootCall { root: keys.address(), sealingKey: sealing_key }).await;
    }

    /// Everything that the registry's owner does.
    async fn list_all(&self) {
        self.register_root().await;
        self.registry(IDstackKms::registerAppCall { appId: self.app }).await;
        let mr_system = B256::from(self.guest.mr_system().0);
        self.registry(IDstackKms::addAgentSystemCall { mrSystem: mr_system }).await;
        self.registry(os_image()).await;
    }

    /// Approved by a quorum, a run opened, all of it deep enough.
    async fn approve_and_open(&self, terms: &Terms) {
        self.approve(0, terms).await;
        self.approve(1, terms).await;
        self.open_run(terms, &self.run(terms)).await;
        self.anvil.mine(CONFIRMATIONS).await;
    }

    async fn revoke(&self, terms: &Terms) -> TransactionReceipt {
        self.owner(1, IDstackApp::revokeCall { proposalId: terms.proposal_id().0 }).await
    }

    async fn register_root(&self) {
        let url = self.url.join("v1/root").unwrap();
        assert_eq!(self.http.get(url).send().await.unwrap().status(), 403);
        self.register_epoch(0).await;
        tokio::time::sleep(Duration::from_millis(2100)).await; // the KMS remembers the registry's answer for 2 seconds
    }

    async fn register_dataset(&self) {
        let bytes = self.dataset.envelope.as_bytes();
        let info = abi::DatasetInfo {
            datasetId: sealed::dataset_id(bytes, sealed::DataRoot(self.dataset.data_root.0)).0,
            composeHash: compose_hash().0,
            region: B256::ZERO,
            kind: B256::ZERO,
            records: 1,
            sizeBytes: self.sealed.len() as u64,
            supersedes: B256::ZERO,
        };
        self.owner(0, IDstackApp::registerDatasetCall { info }).await;
    }

    async fn approve(&self, index: usize, terms: &Terms) {
        self.owner(index, IDstackApp::approveCall { terms: terms.abi() }).await;
    }

    async fn open_run(&self, terms: &Terms, run: &SignedRunRequest) {
        let (request, signature) = (run.abi(), run.signature.clone());
        let call = IDstackApp::openRunCall { terms: terms.abi(), request, signature };
        self.anvil.send(9, Some(self.app), call.abi_encode()).await;
    }

    fn terms(&self, round: u32) -> Terms {
        Terms {
            compose_hash: compose_hash(),
            recipe_hash: RecipeHash(B256::repeat_byte(1)),
            output_schema_hash: OutputSchemaHash(B256::repeat_byte(2)),
            epsilon_per_run: Epsilon(1_500_000_000),
            delta_per_run: 0,
            epsilon_budget: Epsilon(4_500_000_000),
            delta_budget: 0,
            expiry: unix_now() / 86_400 * 86_400 + 10 * 86_400,
            devices: B256::ZERO,
            systems: B256::ZERO,
            era: 0,
            round,
        }
    }

    fn run(&self, terms: &Terms) -> SignedRunRequest {
        let mut run = SignedRunRequest {
            proposal_id: terms.proposal_id(),
            participants: 0b001,
            analyst: self.analyst.address(),
            nonce: B256::repeat_byte(3),
            deadline: unix_now() / 86_400 * 86_400 + 86_400 * 2,
            signature: Bytes::new(),
        };
        let digest = eip712::digest(&run.abi(), &eip712::app_domain(31337, self.app));
        run.signature = Bytes::from(self.analyst.sign_hash_sync(&digest).unwrap().as_bytes().to_vec());
        run
    }

    async fn request(&self, agent: &KeyPair, terms: &Terms, run: &SignedRunRequest) -> Request {
        let url = self.url.join("v1/challenge").unwrap();
        let challenge: Challenge = self.http.post(url).send().await.unwrap().json().await.unwrap();
        let encryption_key = Bytes::copy_from_slice(agent.public_key().as_bytes());
        let binding = Binding {
            chain_id: 31337,
            app: self.app,
            kms_root: challenge.kms_root,
            challenge: challenge.challenge,
            run_id: run.run_id(),
            encryption_key_hash: sha256(&encryption_key),
            receipt_key: Address::repeat_byte(0xa4),
            gpu_evidence_hash: None,
        };
        let evidence = self.guest.evidence(&binding.report_data()).unwrap();
        let evidence = evidence.with_collateral(self.guest.platform().collateral(unix_now()).unwrap());
        let (terms, run, datasets) = (terms.clone(), run.clone(), vec![self.dataset.clone()]);
        ReleaseRequest { terms, run, binding, encryption_key, datasets, evidence }
    }

    /// `Ok` with the answer, or the refusal's code.
    async fn ask(&self, agent: &KeyPair, terms: &Terms) -> Result<(Request, ReleaseAnswer), String> {
        let request = self.request(agent, terms, &self.run(terms)).await;
        let answer = self.send(&request).await?;
        Ok((request, answer))
    }

    async fn send(&self, request: &Request) -> Result<ReleaseAnswer, String> {
        let url = self.url.join("v1/release").unwrap();
        let response = self.http.post(url).json(request).send().await.unwrap();
        if response.status() == 200 {
            return Ok(response.json().await.unwrap());
        }
        Err(response.json::<Refusal>().await.unwrap().code)
    }
}

fn os_image() -> IDstackKms::addOsImageHashCall {
    IDstackKms::addOsImageHashCall { osImageHash: B256::from(dev::DevGuest::os_image_hash().0) }
}

fn compose_hash() -> ComposeHash {
    ComposeHash(sha256(APP_COMPOSE.as_bytes()))
}

fn seal(roots: &Roots, app: Address) -> (Vec<u8>, DatasetRequest) {
    let params = SealParams {
        chain_id: 31337,
        app,
        compose_hash: compose_hash(),
        owner: OWNERS[0].parse().unwrap(),
        root_epoch: 0,
        root: roots.epoch(0).unwrap().sealing.public_key().clone(),
        kind: ContentKind::Csv,
        rows: None,
        schema: None,
        chunk_bytes: CHUNK_BYTES_MIN,
    };
    let mut file = Vec::new();
    let go_on = &mut |_| ControlFlow::Continue(());
    let length = PLAINTEXT.len() as u64;
    let summary = sealed::seal(&mut Cursor::new(PLAINTEXT), length, &mut file, &params, go_on).unwrap();
    let envelope = String::from_utf8(summary.envelope.bytes().to_vec()).unwrap();
    let data_root = B256::from(summary.data_root.0);
    (file, DatasetRequest { owner: params.owner, envelope, data_root })
}

/// R1, R2 and R9 with nothing but the indexer made up: each step that is missing on chain is named, approvals must
/// age, and a revocation counts at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_chain_decides_though_the_indexer_always_allows() {
    let Some(study) = Study::new().await else { return };
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    let terms = study.terms(0);
    let denied = async |code: &str| {
        assert_eq!(study.ask(&agent, &terms).await.map(|_| ()).unwrap_err(), code);
    };
    study.register_root().await;
    denied("app_not_registered").await;
    study.registry(IDstackKms::registerAppCall { appId: study.app }).await;
    denied("system_not_allowed").await;
    let mr_system = B256::from(study.guest.mr_system().0);
    study.registry(IDstackKms::addAgentSystemCall { mrSystem: mr_system }).await;
    denied("os_image_not_allowed").await;
    study.registry(os_image()).await;
    denied("proposal_unknown").await;
    study.approve(1, &terms).await;
    denied("no_quorum").await;
    study.approve(2, &terms).await;
    denied("owner_not_approved").await; // a quorum without the owner of the data
    study.approve(0, &terms).await;
    denied("dataset_unknown").await;
    study.register_dataset().await;
    denied("run_unknown").await;
    study.open_run(&terms, &study.run(&terms)).await;
    for _ in 0..CONFIRMATIONS {
        denied("not_confirmed").await;
        study.anvil.mine(1).await;
    }
    let (request, answer) = study.ask(&agent, &terms).await.unwrap();
    let keys = WrapKeys::open(&agent, &request.binding, &answer).unwrap();
    let wrap_key = SecretBytes::from_slice(&hex::decode(&keys.keys[0].wrap_key).unwrap()).unwrap();
    let (plain, _) = sealed::open(&mut study.sealed.as_slice(), &wrap_key, 1 << 20).unwrap();
    assert_eq!(plain.as_slice(), PLAINTEXT);

    study.owner(2, IDstackApp::revokeCall { proposalId: terms.proposal_id().0 }).await;
    denied("proposal_revoked").await;
    study.registry(IDstackKms::retireRootCall { epoch: 0 }).await;
    denied("root_retired").await;
}

/// What the KMS's environment does during a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// One endpoint answers late.
    SlowEndpoint,
    /// The indexer stops at the revocation.
    IndexerStops,
    /// The block with the revocation is reorganised away, and it is mined again.
    Reorganisation,
}

const TROUBLES: [Trouble; 4] =
    [Trouble::None, Trouble::SlowEndpoint, Trouble::IndexerStops, Trouble::Reorganisation];

/// Requests race a revocation, while an endpoint is slow, the indexer stops, or the chain is reorganised: none is
/// released on a block that has it, and none that was sent after it was mined.
#[tokio::test(flavor = "multi_thread")]
async fn no_release_follows_a_revocation() {
    let Some(study) = Study::new().await else { return };
    let study = Arc::new(study);
    study.list_all().await;
    study.register_dataset().await;
    let races = std::env::var("COHORT_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(RACES);
    let (mut released, mut late) = (0, Vec::new());
    for round in 0..races {
        let trouble = TROUBLES[round as usize % TROUBLES.len()];
        let terms = study.terms(round);
        study.approve_and_open(&terms).await;
        let race = race(&study, &terms, round, trouble).await;
        released += race.released;
        late.extend(race.last_answer_after_mined.map(|delay| (delay, trouble)));
        study.endpoints.iter().for_each(|endpoint| endpoint.set(Fault::None));
        study.indexer.store(true, Ordering::SeqCst);
    }
    print_distribution(races, released, &mut late);
    assert!(released > 0, "nothing was released: the race shows nothing");
}

/// How long after the revocation was mined the last answer arrived that was under way.
fn print_distribution(races: u32, released: usize, late: &mut [(Duration, Trouble)]) {
    late.sort_unstable_by_key(|(delay, _)| *delay);
    let at = |percent: usize| {
        let index = (late.len().saturating_sub(1) * percent).div_ceil(100);
        late.get(index)
            .map_or_else(|| "none".to_owned(), |(delay, trouble)| format!("{delay:.1?} ({trouble:?})"))
    };
    println!(
        "races {races}: {released} releases, 0 after the revocation was visible; answers under way when it was mined: \
         {}, delay p50 {}, p95 {}, p99 {}, max {}",
        late.len(),
        at(50),
        at(95),
        at(99),
        at(100)
    );
}

struct Race {
    released: usize,
    last_answer_after_mined: Option<Duration>,
}

/// Asks until the revocation is the answer. Returns when the last release arrived.
async fn asker(study: Arc<Study>, terms: Terms, mined: Arc<AtomicBool>, trouble: Trouble) -> Option<Instant> {
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    let mut last = None;
    loop {
        let is_mined = mined.load(Ordering::SeqCst);
        match study.ask(&agent, &terms).await {
            Ok(_) => {
                assert!(!is_mined, "a request that was sent after the revocation was released");
                last = Some(Instant::now());
            }
            Err(code) if code == "proposal_revoked" && is_mined => return last,
            Err(code) => assert!(
                code == "proposal_revoked"
                    || trouble == Trouble::IndexerStops && code == "indexer_unreachable"
                    || trouble == Trouble::Reorganisation
                    || trouble == Trouble::SlowEndpoint && code == "endpoints_disagree",
                "{trouble:?}: {code}"
            ),
        }
    }
}

async fn race(study: &Arc<Study>, terms: &Terms, round: u32, trouble: Trouble) -> Race {
    let mined = Arc::new(AtomicBool::new(false));
    if trouble == Trouble::SlowEndpoint {
        let delay = Duration::from_millis(u64::from(5 + round * 13 % 60));
        study.endpoints[round as usize / 4 % 2].set(Fault::Delay(delay));
    }
    let ask = |_| tokio::spawn(asker(study.clone(), terms.clone(), mined.clone(), trouble));
    let askers: Vec<_> = (0..3).map(ask).collect();
    tokio::time::sleep(Duration::from_millis(30 + u64::from(round * 37 % 200))).await;
    if trouble == Trouble::IndexerStops {
        study.indexer.store(false, Ordering::SeqCst);
    }
    let mut revoked = Vec::new();
    if trouble == Trouble::Reorganisation {
        let snapshot: Value = study.anvil.provider.raw_request("evm_snapshot".into(), ()).await.unwrap();
        revoked.push(study.revoke(terms).await.block_hash.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _: Value = study.anvil.provider.raw_request("evm_revert".into(), [snapshot]).await.unwrap();
        study.anvil.mine(u64::from(round % 3)).await;
    }
    let receipt = study.revoke(terms).await;
    let (block, mined_at) = (receipt.block_number.unwrap(), Instant::now());
    mined.store(true, Ordering::SeqCst);
    let mut last: Option<Instant> = None;
    for asker in askers {
        last = last.max(asker.await.unwrap());
    }
    let proposal = terms.proposal_id();
    let entries = all_entries(&study.log).into_iter().filter(|entry| entry.record.proposal_id == proposal);
    let released: Vec<_> = entries.filter(|entry| entry.record.outcome == Outcome::Released).collect();
    for head in released.iter().flat_map(|entry| &entry.record.heads) {
        let has_it = revoked.contains(&head.hash) || head.number >= block;
        assert!(!has_it, "{trouble:?}: released on a block that has the revocation");
    }
    let last_answer_after_mined = last.and_then(|last| last.checked_duration_since(mined_at));
    Race { released: released.len(), last_answer_after_mined }
}

/// R8 and R9 with a real chain behind two endpoints, each of which fails in turn.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_must_answer_freshly_and_agree() {
    let Some(study) = Study::new().await else { return };
    study.list_all().await;
    study.register_dataset().await;
    let terms = study.terms(0);
    study.approve_and_open(&terms).await;
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    let ask = async || study.ask(&agent, &terms).await.map(|_| ());
    assert_eq!(ask().await, Ok(()));
    for (fault, code) in [
        (Fault::Silent, "rpc_unreachable"),
        (Fault::ServerError, "rpc_unreachable"),
        (Fault::CallsFail, "rpc_unreachable"),
        (Fault::OtherChain, "rpc_wrong_chain"),
        (Fault::OldHead, "head_stale"),
        (Fault::Forked, "endpoints_disagree"),
    ] {
        for endpoint in &study.endpoints {
            // The challenge is taken before, since it asks the registry as well.
            let request = study.request(&agent, &terms, &study.run(&terms)).await;
            endpoint.set(fault);
            assert_eq!(study.send(&request).await.map(|_| ()), Err(code.to_owned()), "{fault:?}");
            endpoint.set(Fault::None);
        }
    }
    study.indexer.store(false, Ordering::SeqCst);
    assert_eq!(ask().await, Err("indexer_unreachable".to_owned()));
    study.indexer.store(true, Ordering::SeqCst);
    assert_eq!(ask().await, Ok(()));

    // One endpoint hides the revocation; the other's newest block is enough.
    study.endpoints[0].set(Fault::Frozen);
    assert_eq!(ask().await, Ok(()));
    study.revoke(&terms).await;
    assert_eq!(ask().await, Err("proposal_revoked".to_owned()));
    study.endpoints[1].set(Fault::Silent);
    let hidden = ask().await;
    assert!(hidden.is_err(), "released with one endpoint frozen and the other silent");
}

/// A new epoch is sealed to, the old one still opens what was sealed to it, until it is retired.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_opens_its_datasets_until_it_is_retired() {
    let Some(study) = Study::pinned(1).await else { return };
    study.list_all().await;
    study.register_dataset().await;
    let roots = Roots::derive(&SecretBytes::new([7; 32]), &EPOCHS).unwrap();
    let stated = async || {
        tokio::time::sleep(Duration::from_millis(2100)).await; // the KMS remembers the registry's answer
        let response = study.http.get(study.url.join("v1/root").unwrap()).send().await.unwrap();
        response.json::<Value>().await.unwrap()["statement"]["epoch"].as_u64()
    };
    assert_eq!(stated().await, Some(0));
    study.register_epoch(1).await;
    assert_eq!(stated().await, Some(1));

    // The owners pin the new root; the dataset is still the one sealed to epoch 0.
    let terms = study.terms(0);
    study.approve_and_open(&terms).await;
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    let (request, answer) = study.ask(&agent, &terms).await.unwrap();
    assert_eq!(request.binding.kms_root, roots.epoch(1).unwrap().address());
    let keys = WrapKeys::open(&agent, &request.binding, &answer).unwrap();
    let wrap_key = SecretBytes::from_slice(&hex::decode(&keys.keys[0].wrap_key).unwrap()).unwrap();
    let (plain, _) = sealed::open(&mut study.sealed.as_slice(), &wrap_key, 1 << 20).unwrap();
    assert_eq!(plain.as_slice(), PLAINTEXT);

    study.registry(IDstackKms::retireRootCall { epoch: 0 }).await;
    assert_eq!(study.ask(&agent, &terms).await.map(|_| ()), Err("root_retired".to_owned()));
    assert_eq!(stated().await, Some(1));
}

fn all_entries(log: &Path) -> Vec<release_log::Entry> {
    let text = std::fs::read_to_string(log).unwrap();
    let entry = |line: &str| serde_json::from_str::<release_log::Line>(line).unwrap().entry;
    text.lines().map(entry).collect()
}
