//! Stand-ins for RPC endpoints and indexer that can fail in chosen ways, a KMS in front of them, and an agent on the
//! development platform. They are for failures; that real parts work together is shown on anvil elsewhere.
#![allow(dead_code)] // each test uses a part

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes, U64, keccak256},
    sol_types::{SolCall, SolInterface, SolValue as _},
};
use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cohort_attestation::{self as attestation, AppId, TrustedRoot, dev};
use cohort_kms::{
    chain::Chain,
    collateral::CollateralCache,
    http,
    indexer::Indexer,
    limits::Limits,
    policy::Policy,
    release_log::{self, ReleaseLog},
    roots::Roots,
    service::{Kms, Parts, Request},
};
use cohort_protocol::{
    abi::{IDstackApp, IDstackKms, boot::isKmsAllowedCall},
    chain::{DecisionAt, Position, ReleaseDecisions},
    decision::Decision,
    hpke::{KeyPair, SecretBytes},
    ids::{OutputSchemaHash, RecipeHash},
    loss::Epsilon,
    release::{Binding, Challenge, DatasetRequest, Refusal},
    terms::{SignedRunRequest, Terms},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    APP_COMPOSE, CHAIN_ID, binding, compose_hash,
    document::{check_answer, check_request},
    evidence, listen, request, seal, unix_now,
};

pub(crate) const CONFIRMATIONS: u64 = 3;
const APP: Address = Address::repeat_byte(0xa1);
pub(crate) const REGISTRY: Address = Address::repeat_byte(0xa2);
const HEAD: u64 = 100;
/// Of the receipt that every run has on the stand-ins' chain.
pub(crate) const RECEIPT: B256 = B256::repeat_byte(0x77);

/// How an RPC endpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Honest,
    /// Accepts and never answers.
    Slow,
    /// Closes every connection.
    Down,
    NotJson,
    ServerError,
    /// A JSON-RPC error for every call.
    Error,
    /// Answers the wrong type.
    Nonsense,
    OtherChain,
    /// Other block hashes from `HEAD - 10` on.
    Forked,
    /// A newest block that is an hour old.
    Frozen,
    /// Denies at the newest block.
    Denies(Decision),
    /// Denies up to the confirmed block, allows later.
    NotYet(Decision),
    /// Has no contracts.
    Empty,
    Unlisted,
    Retired,
    OtherSystem,
    /// Does not list the OS image.
    OtherImage,
    /// The app lists its devices, and not this one.
    OtherDevices,
    /// The registry allows no machine to be a KMS.
    NoKms,
    /// No run has a receipt.
    NoReceipt,
    /// Receipts are at the newest block only.
    YoungReceipt,
}

/// How the indexer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexerMode {
    Honest,
    Slow,
    Down,
    NotJson,
    ServerError,
    Endless,
    /// One decision fewer than it was asked for.
    OneMissing,
    OtherChain,
    Forked,
    Frozen,
    Denies(Decision),
}

/// What the fakes share.
#[derive(Debug)]
pub(crate) struct Facts {
    kms_root: Address,
    sealing_key_hash: B256,
    mr_system: B256,
}

#[derive(Clone)]
struct Rpc {
    facts: Arc<Facts>,
    mode: Arc<Mutex<Endpoint>>,
}

#[derive(Clone)]
struct Index {
    mode: Arc<Mutex<IndexerMode>>,
}

static HEAD_TIME: LazyLock<u64> = LazyLock::new(unix_now);

/// The same block has the same time whoever is asked, and whenever.
fn position(number: u64, salt: u8, age: u64) -> Position {
    let hash = keccak256([&number.to_be_bytes()[..], &[salt]].concat());
    Position { number, hash, timestamp: *HEAD_TIME - age - (HEAD - number) }
}

impl Rpc {
    fn block(&self, mode: Endpoint, number: u64) -> Position {
        let salt = u8::from(mode == Endpoint::Forked && number >= HEAD - 10);
        position(number, salt, if mode == Endpoint::Frozen { 3600 } else { 0 })
    }

    fn answer(&self, mode: Endpoint, request: &Value) -> Value {
        let result = match request["method"].as_str().unwrap() {
            "eth_chainId" => json!(U64::from(if mode == Endpoint::OtherChain { 1 } else { CHAIN_ID })),
            "eth_getBlockByNumber" => self.block_answer(mode, &request["params"][0]),
            "eth_call" => {
                let data: Bytes = serde_json::from_value(request["params"][0]["data"].clone()).unwrap();
                json!(self.call(mode, &data, &request["params"][1]))
            }
            other => panic!("{other}"),
        };
        match mode {
            Endpoint::Error => {
                json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": -32000, "message": "no" } })
            }
            Endpoint::Nonsense => json!({ "jsonrpc": "2.0", "id": request["id"], "result": { "what": [1] } }),
            _ => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        }
    }

    fn block_answer(&self, mode: Endpoint, number: &Value) -> Value {
        let number = match number.as_str().unwrap() {
            "latest" => HEAD,
            text => u64::from_str_radix(&text[2..], 16).unwrap(),
        };
        if number > HEAD {
            return Value::Null;
        }
        let block = self.block(mode, number);
        json!({ "number": U64::from(block.number), "hash": block.hash, "timestamp": U64::from(block.timestamp) })
    }

    fn call(&self, mode: Endpoint, data: &[u8], at: &Value) -> Bytes {
        if mode == Endpoint::Empty {
            return Bytes::new();
        }
        if data.starts_with(&isKmsAllowedCall::SELECTOR) {
            return (mode != Endpoint::NoKms, String::new()).abi_encode_params().into();
        }
        let is_head = at == "latest" || at["blockHash"] == json!(self.block(mode, HEAD).hash);
        if let Ok(call) = IDstackApp::IDstackAppCalls::abi_decode(data) {
            return match call {
                IDstackApp::IDstackAppCalls::kmsRoot(_) => {
                    IDstackApp::kmsRootCall::abi_encode_returns(&self.facts.kms_root).into()
                }
                IDstackApp::IDstackAppCalls::releaseDecision(_) => {
                    let decision = match mode {
                        Endpoint::Denies(decision) => decision,
                        Endpoint::NotYet(decision) if !is_head => decision,
                        _ => Decision::Allow,
                    };
                    B256::with_last_byte(decision as u8).0.into()
                }
                IDstackApp::IDstackAppCalls::run(_) => {
                    let digest = match mode {
                        Endpoint::NoReceipt => B256::ZERO,
                        Endpoint::YoungReceipt if !is_head => B256::ZERO,
                        _ => RECEIPT,
                    };
                    let run = IDstackApp::runReturn {
                        openProposalId: B256::ZERO,
                        participants: 1,
                        openedAt: *HEAD_TIME,
                        digest,
                    };
                    IDstackApp::runCall::abi_encode_returns(&run).into()
                }
                IDstackApp::IDstackAppCalls::requireTcbUpToDate(_) => flag(true),
                IDstackApp::IDstackAppCalls::allowAnyDevice(_) => flag(mode != Endpoint::OtherDevices),
                IDstackApp::IDstackAppCalls::allowedDeviceIds(_) => flag(false),
                _ => panic!("not expected"),
            };
        }
        match IDstackKms::IDstackKmsCalls::abi_decode(data).unwrap() {
            IDstackKms::IDstackKmsCalls::registeredApps(_) => {
                IDstackKms::registeredAppsCall::abi_encode_returns(&(mode != Endpoint::Unlisted)).into()
            }
            IDstackKms::IDstackKmsCalls::allowedAgentSystems(call) => {
                let allowed = call.mrSystem == self.facts.mr_system && mode != Endpoint::OtherSystem;
                IDstackKms::allowedAgentSystemsCall::abi_encode_returns(&allowed).into()
            }
            IDstackKms::IDstackKmsCalls::gpuGoldenValues(_) => B256::ZERO.0.into(),
            IDstackKms::IDstackKmsCalls::allowedOsImages(_) => flag(mode != Endpoint::OtherImage),
            IDstackKms::IDstackKmsCalls::root(call) => {
                assert_eq!(call.epoch, 0);
                let root = IDstackKms::rootReturn {
                    rootAddress: self.facts.kms_root,
                    sealingKeyHash: self.facts.sealing_key_hash,
                    retired: mode == Endpoint::Retired,
                };
                IDstackKms::rootCall::abi_encode_returns(&root).into()
            }
            _ => panic!("not expected"),
        }
    }
}

fn flag(value: bool) -> Bytes {
    B256::with_last_byte(u8::from(value)).0.into()
}

async fn rpc(State(rpc): State<Rpc>, Json(body): Json<Value>) -> Response {
    let mode = *rpc.mode.lock().unwrap();
    match mode {
        Endpoint::Slow => std::future::pending().await,
        Endpoint::Down => panic!("closes the connection"),
        Endpoint::NotJson => "<html>".into_response(),
        Endpoint::ServerError => axum::http::StatusCode::BAD_GATEWAY.into_response(),
        _ => match body {
            Value::Array(requests) => {
                // JSON-RPC allows any order.
                let answers: Vec<_> =
                    requests.iter().rev().map(|request| rpc.answer(mode, request)).collect();
                Json(answers).into_response()
            }
            request => Json(rpc.answer(mode, &request)).into_response(),
        },
    }
}

async fn index(State(index): State<Index>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let names: Vec<_> = query.keys().map(String::as_str).collect();
    assert_eq!(names, ["compose", "dataset", "owner", "proposal", "run"]);
    let count = query["run"].split(',').count();
    assert!(query.values().all(|list| list.split(',').count() == count) && count <= 16);
    let mode = *index.mode.lock().unwrap();
    let decision = if let IndexerMode::Denies(decision) = mode { decision } else { Decision::Allow };
    let at = |number| DecisionAt {
        position: position(
            number,
            u8::from(mode == IndexerMode::Forked),
            if mode == IndexerMode::Frozen { 3600 } else { 0 },
        ),
        decision,
    };
    let chain_id = if mode == IndexerMode::OtherChain { 1 } else { CHAIN_ID };
    match mode {
        IndexerMode::Slow => std::future::pending().await,
        IndexerMode::Down => panic!("closes the connection"),
        IndexerMode::NotJson => "<html>".into_response(),
        IndexerMode::ServerError => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        IndexerMode::Endless => "[".repeat(10 << 20).into_response(),
        _ => {
            let (head, confirmed) = (at(HEAD - 1), at(HEAD - 5));
            let missing = usize::from(mode == IndexerMode::OneMissing);
            Json(vec![ReleaseDecisions { chain_id, head, confirmed, finalized: None }; count - missing])
                .into_response()
        }
    }
}

/// What may differ from the standard set-up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) trust_development: bool,
    pub(crate) ask_seconds: u64,
    pub(crate) root_secret: [u8; 32],
    /// `None`: no limits on rates.
    pub(crate) requests_per_second: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { trust_development: true, ask_seconds: 5, root_secret: [7; 32], requests_per_second: None }
    }
}

/// Two RPC endpoints, an indexer, a KMS, and a guest that runs the approved app.
pub(crate) struct World {
    pub(crate) url: reqwest::Url,
    /// Where its KMS, or another one, finds the stand-ins.
    pub(crate) rpc_urls: Vec<reqwest::Url>,
    pub(crate) indexer_url: reqwest::Url,
    pub(crate) http: reqwest::Client,
    pub(crate) endpoints: [Arc<Mutex<Endpoint>>; 2],
    pub(crate) indexer: Arc<Mutex<IndexerMode>>,
    pub(crate) log: PathBuf,
    pub(crate) guest: dev::DevGuest,
    pub(crate) root: Address,
    pub(crate) sealed: Vec<u8>,
    dataset: DatasetRequest,
    _dir: TempDir,
}

/// What a request needs to be opened again.
pub(crate) struct Asked {
    pub(crate) agent: KeyPair,
    pub(crate) request: Request,
}

impl World {
    pub(crate) async fn new(options: Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let platform = dev::DevPlatform::from_seed([3; 32]).unwrap();
        let root_der = platform.root_certificate_der().unwrap();
        let guest = dev::DevGuest::new(platform, AppId(APP.into_array()), APP_COMPOSE, &[5; 32]).unwrap();
        let roots = Roots::derive(&SecretBytes::new(options.root_secret), &[0]).unwrap();
        let identity = roots.identities()[0];
        let (sealed, dataset) = seal(&roots, APP, "hospital-A");
        let facts = Arc::new(Facts {
            kms_root: identity.address,
            sealing_key_hash: identity.sealing_key_hash,
            mr_system: B256::from(guest.mr_system().0),
        });
        let endpoints = [Endpoint::Honest; 2].map(|mode| Arc::new(Mutex::new(mode)));
        let mut rpc_urls = Vec::new();
        for mode in &endpoints {
            let state = Rpc { facts: facts.clone(), mode: mode.clone() };
            rpc_urls.push(listen(Router::new().route("/", post(rpc)).with_state(state)).await);
        }
        let indexer = Arc::new(Mutex::new(IndexerMode::Honest));
        let indexer_url = listen(
            Router::new()
                .route("/v1/apps/{app}/release-decisions", get(index))
                .route("/healthz", get(async || "ok"))
                .with_state(Index { mode: indexer.clone() }),
        )
        .await;
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("release.log");
        let collateral = dir.path().join("collateral.json");
        let content = serde_json::to_vec(&guest.platform().collateral(unix_now()).unwrap()).unwrap();
        std::fs::write(&collateral, content).unwrap();
        let evidence_policy = attestation::Policy::production();
        let evidence_policy = if options.trust_development {
            evidence_policy.with_root(TrustedRoot::development(&root_der).unwrap())
        } else {
            evidence_policy
        };
        let limit = Duration::from_secs(options.ask_seconds);
        let parts = Parts {
            policy: Policy {
                chain_id: CHAIN_ID,
                registry: REGISTRY,
                roots: roots.identities(),
                self_authorisation: false,
                confirmations: CONFIRMATIONS,
                max_head_age_seconds: 60,
                certificate_seconds: 3600,
                lease_seconds: 60,
                device_lists: Vec::new(),
                system_lists: Vec::new(),
            },
            evidence_policy,
            gpu_policy: attestation::gpu::GpuPolicy::production(),
            roots,
            chain: Chain::new(rpc_urls.clone(), REGISTRY, CONFIRMATIONS, limit).unwrap(),
            indexer: Indexer::new(indexer_url.clone(), limit).unwrap(),
            log: ReleaseLog::open(&log).unwrap().0,
            own_evidence: None,
            collateral: Arc::new(CollateralCache::new(vec![collateral], None).unwrap()),
            replicas: None,
            onboarding: None,
        };
        let limits = Limits::new(options.requests_per_second);
        let url = listen(http::router(Arc::new(Kms::new(parts).unwrap()), limits)).await;
        let http = reqwest::Client::new();
        Self {
            url,
            rpc_urls,
            indexer_url,
            http,
            endpoints,
            indexer,
            log,
            guest,
            root: identity.address,
            sealed,
            dataset,
            _dir: dir,
        }
    }

    pub(crate) fn set(&self, endpoint: usize, mode: Endpoint) {
        *self.endpoints[endpoint].lock().unwrap() = mode;
    }

    pub(crate) fn set_indexer(&self, mode: IndexerMode) {
        *self.indexer.lock().unwrap() = mode;
    }

    pub(crate) async fn challenge(&self) -> Challenge {
        let url = self.url.join("v1/challenge").unwrap();
        self.http.post(url).send().await.unwrap().json().await.unwrap()
    }

    /// A request as an honest agent makes it; the changes come before the quote is taken.
    pub(crate) async fn request(&self, change: impl FnOnce(&mut Binding)) -> Asked {
        self.request_for(&self.challenge().await, B256::repeat_byte(3), change)
    }

    /// The same for another KMS's challenge, and the run with this nonce.
    pub(crate) fn request_for(
        &self,
        challenge: &Challenge,
        nonce: B256,
        change: impl FnOnce(&mut Binding),
    ) -> Asked {
        let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
        let terms = Terms {
            compose_hash: compose_hash(),
            recipe_hash: RecipeHash(B256::repeat_byte(1)),
            output_schema_hash: OutputSchemaHash(B256::repeat_byte(2)),
            epsilon_per_run: Epsilon(1_500_000_000),
            delta_per_run: 0,
            epsilon_budget: Epsilon(4_500_000_000),
            delta_budget: 0,
            expiry: *HEAD_TIME + 86_400,
            devices: B256::ZERO,
            systems: B256::ZERO,
            era: 0,
            round: 0,
        };
        let run = SignedRunRequest {
            proposal_id: terms.proposal_id(),
            participants: 1,
            analyst: Address::repeat_byte(0xa3),
            nonce,
            deadline: *HEAD_TIME + 600,
            signature: Bytes::new(),
        };
        let mut binding = binding(challenge, APP, run.run_id(), &agent);
        change(&mut binding);
        let evidence = evidence(&self.guest, &binding);
        let request = request(terms, run, binding, &agent, vec![self.dataset.clone()], evidence);
        Asked { agent, request }
    }

    pub(crate) async fn send(&self, request: &Request) -> reqwest::Response {
        self.http.post(self.url.join("v1/release").unwrap()).json(request).send().await.unwrap()
    }

    /// Status and JSON body of any exchange; both sides of it must be what the document says.
    pub(crate) async fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method: reqwest::Method = method.parse().unwrap();
        let mut request = self.http.request(method.clone(), self.url.join(path).unwrap());
        if let Some(body) = body {
            check_request(path, &body);
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.json().await.unwrap();
        check_answer(method.as_str(), path.split('?').next().unwrap(), status, &body);
        (status, body)
    }

    /// Status and code of a refusal; panics if keys came back.
    pub(crate) async fn refused(&self, request: &Request) -> (u16, String) {
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let body = response.text().await.unwrap();
        assert_ne!(status, 200, "{body}");
        assert!(!body.contains("ciphertext") && !body.contains("http://"), "{body}");
        check_answer("POST", "/v1/release", status, &serde_json::from_str(&body).unwrap());
        let refusal: Refusal = serde_json::from_str(&body).unwrap();
        assert!(refusal.hint.is_some());
        (status, refusal.code)
    }

    pub(crate) fn entries(&self) -> Vec<release_log::Entry> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().map(|line| serde_json::from_str::<release_log::Line>(line).unwrap().entry).collect()
    }

    pub(crate) fn log_entries(&self) -> u64 {
        cohort_kms::release_log::verify(&self.log).unwrap().0.entries
    }
}
