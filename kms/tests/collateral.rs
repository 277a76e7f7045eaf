//! The collateral cache against a PCCS that serves recorded (here: the development platform's) collateral.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use cohort_attestation::{
    Collateral,
    collateral::{Family, family_of, window},
    dev::DevPlatform,
};
use cohort_kms::{
    collateral::{CollateralCache, CollateralError},
    limits::Peer,
};
use tokio::{net::TcpListener, sync::Semaphore};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn collateral(now: u64) -> Collateral {
    DevPlatform::from_seed([3; 32]).unwrap().collateral(now).unwrap()
}

#[derive(Clone)]
struct Recorded {
    collateral: Arc<Collateral>,
    asked: Arc<AtomicUsize>,
    /// A permit for each answer of TCB info.
    gate: Arc<Semaphore>,
}

fn encoded(pem: &str) -> String {
    pem.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn tcb(State(recorded): State<Recorded>) -> Response {
    recorded.asked.fetch_add(1, Ordering::SeqCst);
    recorded.gate.acquire().await.unwrap().forget();
    let Collateral { tcb_info, tcb_info_signature, tcb_info_issuer_chain, .. } = &*recorded.collateral;
    let body = format!(r#"{{"tcbInfo":{tcb_info},"signature":"{}"}}"#, hex::encode(tcb_info_signature));
    ([("TCB-Info-Issuer-Chain", encoded(tcb_info_issuer_chain))], body).into_response()
}

async fn qe(State(recorded): State<Recorded>) -> Response {
    let Collateral { qe_identity, qe_identity_signature, qe_identity_issuer_chain, .. } =
        &*recorded.collateral;
    let signature = hex::encode(qe_identity_signature);
    let body = format!(r#"{{"enclaveIdentity":{qe_identity},"signature":"{signature}"}}"#);
    ([("SGX-Enclave-Identity-Issuer-Chain", encoded(qe_identity_issuer_chain))], body).into_response()
}

async fn pck_crl(State(recorded): State<Recorded>) -> Response {
    let Collateral { pck_crl, pck_crl_issuer_chain, .. } = &*recorded.collateral;
    ([("SGX-PCK-CRL-Issuer-Chain", encoded(pck_crl_issuer_chain))], pck_crl.clone()).into_response()
}

async fn root_crl(State(recorded): State<Recorded>) -> String {
    hex::encode(&recorded.collateral.root_ca_crl)
}

/// A PCCS, and how often it was asked for TCB info.
async fn pccs(collateral: Collateral) -> (reqwest::Url, Arc<AtomicUsize>) {
    gated_pccs(collateral, Arc::new(Semaphore::new(10_000))).await
}

async fn gated_pccs(collateral: Collateral, gate: Arc<Semaphore>) -> (reqwest::Url, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/tdx/certification/v4/tcb", get(tcb))
        .route("/tdx/certification/v4/qe/identity", get(qe))
        .route("/sgx/certification/v4/pckcrl", get(pck_crl))
        .route("/sgx/certification/v4/rootcacrl", get(root_crl))
        .with_state(Recorded { collateral: Arc::new(collateral), asked: asked.clone(), gate });
    (listen(router).await, asked)
}

async fn listen(router: Router) -> reqwest::Url {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn what_a_pccs_serves_is_fetched_once_and_is_what_was_signed() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let (url, asked) = pccs(recorded.clone()).await;
    let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
    assert_eq!(cache.of(family, NOW, None).await.unwrap(), recorded);
    assert_eq!(cache.of(family, NOW + DAY, None).await.unwrap(), recorded);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn it_is_never_given_out_outside_its_window() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let valid = window(&recorded).unwrap();
    let (url, _) = pccs(recorded.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collateral.json");
    std::fs::write(&file, serde_json::to_vec(&recorded).unwrap()).unwrap();
    for (files, url) in [(Vec::new(), Some(url)), (vec![file], None)] {
        let cache = CollateralCache::new(files, url).unwrap();
        assert!(cache.of(family, valid.valid_from, None).await.is_ok());
        assert!(cache.of(family, valid.expires_at - 1, None).await.is_ok());
        for now in [valid.expires_at, valid.expires_at + DAY, valid.valid_from - 1] {
            let refused = cache.of(family, now, None).await.unwrap_err();
            assert!(matches!(refused, CollateralError::OutsideWindow { .. }), "{now}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_file_is_imported_again_when_its_collateral_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collateral.json");
    let write = |now| std::fs::write(&file, serde_json::to_vec(&collateral(now)).unwrap()).unwrap();
    write(NOW);
    let family = family_of(&collateral(NOW)).unwrap();
    let cache = CollateralCache::new(vec![file.clone()], None).unwrap();
    assert!(cache.of(family, NOW, None).await.is_ok());
    write(NOW + 40 * DAY);
    assert_eq!(cache.of(family, NOW + 40 * DAY, None).await.unwrap(), collateral(NOW + 40 * DAY));
    std::fs::write(&file, "{}").unwrap();
    assert!(cache.of(family, NOW + 50 * DAY, None).await.is_ok(), "what it has stays good");
}

#[tokio::test]
async fn another_familys_a_broken_and_a_silent_pccs_give_nothing() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let other = Family { fmspc: [9; 6], ..family };
    let (url, asked) = pccs(recorded).await;
    let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
    assert!(matches!(cache.of(other, NOW, None).await, Err(CollateralError::Fetch { .. })));
    assert!(cache.of(other, NOW, None).await.is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a failure is remembered");
    let broken = Router::new().fallback(async || (StatusCode::INTERNAL_SERVER_ERROR, "no"));
    let nobody = "http://127.0.0.1:9/".parse().unwrap();
    for url in [listen(broken).await, nobody] {
        let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
        assert!(matches!(cache.of(family, NOW, None).await, Err(CollateralError::Fetch { .. })));
    }
    let none = CollateralCache::new(Vec::new(), None).unwrap();
    assert_eq!(none.of(family, NOW, None).await, Err(CollateralError::Unknown(family)));
}

fn peer(last: u8) -> Option<Peer> {
    Some(Peer::of(Ipv4Addr::new(10, 0, 0, last).into()))
}

fn false_family(of: Family, number: u16) -> Family {
    let [a, b] = number.to_be_bytes();
    Family { fmspc: [9, 9, 9, 9, a, b], ..of }
}

/// Two strangers name forty false families each while the PCCS answers none: each has one of them asked for, and the
/// genuine one that comes then is the third.
#[tokio::test]
async fn strangers_who_name_false_families_hold_one_place_each() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (url, asked) = gated_pccs(recorded.clone(), gate.clone()).await;
    let cache = Arc::new(CollateralCache::new(Vec::new(), Some(url)).unwrap());
    let ask = |family, peer| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.of(family, NOW, peer).await })
    };
    let mut first = Vec::new();
    for stranger in [1, 2] {
        let number = |n: u16| u16::from(stranger) << 8 | n;
        first.push(ask(false_family(family, number(0)), peer(stranger)));
        // Lets it come into the line: nothing that it does before that waits for anything.
        tokio::task::yield_now().await;
        for n in 1..40 {
            let refused = cache.of(false_family(family, number(n)), NOW, peer(stranger));
            let refused = tokio::time::timeout(Duration::from_secs(5), refused).await;
            assert!(matches!(refused, Ok(Err(CollateralError::Waiting { .. }))), "{refused:?}");
        }
    }
    let genuine = [ask(family, peer(3)), ask(family, peer(3)), ask(family, None)];
    gate.add_permits(3);
    for answer in genuine {
        assert_eq!(answer.await.unwrap().unwrap(), recorded);
    }
    for answer in first {
        assert!(matches!(answer.await.unwrap(), Err(CollateralError::Fetch { .. })));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // A place is given back.
    gate.add_permits(1);
    let later = cache.of(false_family(family, 3), NOW, peer(1)).await;
    assert!(matches!(later, Err(CollateralError::Fetch { .. })), "{later:?}");
}

/// More failures than are remembered leave room for a new family.
#[tokio::test]
async fn failures_make_room() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let (url, asked) = pccs(recorded.clone()).await;
    let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
    for number in 0..260 {
        let refused = cache.of(false_family(family, number), NOW, peer(1)).await;
        assert!(matches!(refused, Err(CollateralError::Fetch { .. })), "{number}: {refused:?}");
    }
    assert_eq!(cache.of(family, NOW, peer(2)).await.unwrap(), recorded);
    assert_eq!(asked.load(Ordering::SeqCst), 261);
    assert!(cache.of(false_family(family, 259), NOW, peer(1)).await.is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 261, "what failed last is remembered");
}
