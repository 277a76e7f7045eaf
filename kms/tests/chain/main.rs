//! The KMS against the real contracts on anvil, with an indexer that always says allow: what a lying indexer gains,
//! which reason each step of a consortium gives, and how a revocation races releases.
//!
//! Needs anvil and the compiled contracts; skips visibly without them.

mod proxy;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::{
    primitives::{B256, Bytes},
    providers::{Provider as _, RootProvider},
    sol_types::SolCall as _,
};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use cohort_attestation as attestation;
use cohort_kms::{
    chain::Chain,
    collateral::CollateralCache,
    http,
    indexer::Indexer,
    limits::Limits,
    policy::Policy,
    release_log::{self, Outcome, ReleaseLog},
    service::{Kms, Parts, Request},
};
use cohort_protocol::{
    abi::{IDstackApp, IDstackKms},
    chain::{DecisionAt, Position, ReleaseDecisions},
    decision::Decision,
    hpke::{KeyPair, SecretBytes},
    release::{Challenge, Refusal, ReleaseAnswer, WrapKeys},
    sealed,
    terms::{SignedRunRequest, Terms},
};
use proxy::{Fault, Proxy};
use serde_json::Value;
use support::{
    CHAIN_ID, PLAINTEXT,
    consortium::{CONFIRMATIONS, Consortium, GOVERNANCE_DELAY, os_image, roots},
    listen,
};
use tempfile::TempDir;

/// Races in the usual test run; `make bench-races` sets COHORT_RACES to 1,000.
const RACES: u32 = 30;

/// The indexer that says allow to everything, at blocks that exist.
async fn always(
    State((provider, answers)): State<(RootProvider, Arc<AtomicBool>)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Vec<ReleaseDecisions>>, StatusCode> {
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
    let decisions =
        ReleaseDecisions { chain_id: CHAIN_ID, head: decided[0], confirmed: decided[1], finalized: None };
    Ok(Json(vec![decisions; query["run"].split(',').count()]))
}

/// A consortium and a KMS in front of its chain.
struct Study {
    on: Consortium,
    /// The KMS's two endpoints.
    endpoints: [Proxy; 2],
    indexer: Arc<AtomicBool>,
    url: reqwest::Url,
    http: reqwest::Client,
    log: PathBuf,
    _dir: TempDir,
}

impl std::ops::Deref for Study {
    type Target = Consortium;

    fn deref(&self) -> &Consortium {
        &self.on
    }
}

impl Study {
    async fn new() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let on = Consortium::deploy().await?;
        let roots = roots();
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("release.log");
        let limit = Duration::from_secs(2);
        let answers = Arc::new(AtomicBool::new(true));
        let indexer = Router::new()
            .route("/v1/apps/{app}/release-decisions", get(always))
            .with_state((on.anvil.provider.clone(), answers.clone()));
        let endpoints = [(); 2].map(|()| Proxy::new(on.anvil.url.clone()));
        let mut urls = Vec::new();
        for endpoint in &endpoints {
            urls.push(listen(endpoint.router()).await);
        }
        let registry = on.registry;
        let parts = Parts {
            policy: Policy {
                chain_id: CHAIN_ID,
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
            evidence_policy: attestation::Policy::production().with_root(on.trusted_root()),
            gpu_policy: attestation::gpu::GpuPolicy::production(),
            roots,
            chain: Chain::new(urls, registry, CONFIRMATIONS, limit).unwrap(),
            indexer: Indexer::new(listen(indexer).await, limit).unwrap(),
            log: ReleaseLog::open(&log).unwrap().0,
            own_evidence: None,
            collateral: Arc::new(CollateralCache::new(Vec::new(), None).unwrap()),
            replicas: None,
            onboarding: None,
        };
        let url = listen(http::router(Arc::new(Kms::new(parts).unwrap()), Limits::new(None))).await;
        let http = reqwest::Client::new();
        Some(Self { on, endpoints, indexer: answers, url, http, log, _dir: dir })
    }

    /// Everything that the registry's owner does.
    async fn list_all(&self) {
        self.register_root().await;
        self.on.list_all().await;
    }

    async fn register_root(&self) {
        let url = self.url.join("v1/root").unwrap();
        assert_eq!(self.http.get(url).send().await.unwrap().status(), 403);
        self.register_epoch(0).await;
        self.states_epoch(0).await;
    }

    /// Waits until the KMS states this epoch: it remembers the registry's answer for a moment.
    async fn states_epoch(&self, epoch: u32) {
        let url = self.url.join("v1/root").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer: Value = self.http.get(url.clone()).send().await.unwrap().json().await.unwrap();
            if answer["statement"]["epoch"] == epoch {
                return;
            }
            assert!(Instant::now() < deadline, "{answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn request(&self, agent: &KeyPair, terms: &Terms, run: &SignedRunRequest) -> Request {
        let url = self.url.join("v1/challenge").unwrap();
        let challenge: Challenge = self.http.post(url).send().await.unwrap().json().await.unwrap();
        self.on.request(&challenge, agent, terms, run)
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

/// A new epoch is sealed to, the old one still opens what was sealed to it, until it is retired. The pin changes by
/// governance.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_opens_its_datasets_until_it_is_retired() {
    let Some(study) = Study::new().await else { return };
    study.list_all().await;
    study.register_dataset().await;
    study.register_epoch(1).await;
    study.states_epoch(1).await;
    let newer = roots().epoch(1).unwrap().address();
    let agent = KeyPair::derive(&SecretBytes::new([9; 32]));
    assert_eq!(study.ask(&agent, &study.terms(0)).await.map(|_| ()), Err("root_not_pinned".to_owned()));

    // The owners pin the new root; the dataset is still the one sealed to epoch 0.
    let call = Bytes::from(IDstackApp::setKmsRootCall { kmsRoot: newer }.abi_encode());
    let salt = B256::ZERO;
    for owner in [0, 1] {
        study.owner(owner, IDstackApp::approveActionCall { data: call.clone(), salt }).await;
    }
    study.anvil.pass_time(GOVERNANCE_DELAY + 1).await;
    study.owner(0, IDstackApp::executeActionCall { data: call, salt }).await;
    let terms = study.terms(0);
    study.approve_and_open(&terms).await;
    let (request, answer) = study.ask(&agent, &terms).await.unwrap();
    assert_eq!(request.binding.kms_root, newer);
    let keys = WrapKeys::open(&agent, &request.binding, &answer).unwrap();
    let wrap_key = SecretBytes::from_slice(&hex::decode(&keys.keys[0].wrap_key).unwrap()).unwrap();
    let (plain, _) = sealed::open(&mut study.sealed.as_slice(), &wrap_key, 1 << 20).unwrap();
    assert_eq!(plain.as_slice(), PLAINTEXT);

    study.registry(IDstackKms::retireRootCall { epoch: 0 }).await;
    assert_eq!(study.ask(&agent, &terms).await.map(|_| ()), Err("root_retired".to_owned()));
    study.states_epoch(1).await;
}

fn all_entries(log: &Path) -> Vec<release_log::Entry> {
    let text = std::fs::read_to_string(log).unwrap();
    let entry = |line: &str| serde_json::from_str::<release_log::Line>(line).unwrap().entry;
    text.lines().map(entry).collect()
}
