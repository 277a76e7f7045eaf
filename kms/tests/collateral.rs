//! The collateral cache against a PCCS that serves recorded (here: the development platform's) collateral.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
use cohort_kms::collateral::{CollateralCache, CollateralError};
use tokio::net::TcpListener;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn collateral(now: u64) -> Collateral {
    DevPlatform::from_seed([3; 32]).unwrap().collateral(now).unwrap()
}

#[derive(Clone)]
struct Recorded {
    collateral: Arc<Collateral>,
    asked: Arc<AtomicUsize>,
}

fn encoded(pem: &str) -> String {
    pem.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn tcb(State(recorded): State<Recorded>) -> Response {
    recorded.asked.fetch_add(1, Ordering::SeqCst);
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
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/tdx/certification/v4/tcb", get(tcb))
        .route("/tdx/certification/v4/qe/identity", get(qe))
        .route("/sgx/certification/v4/pckcrl", get(pck_crl))
        .route("/sgx/certification/v4/rootcacrl", get(root_crl))
        .with_state(Recorded { collateral: Arc::new(collateral), asked: asked.clone() });
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
    assert_eq!(cache.of(family, NOW).await.unwrap(), recorded);
    assert_eq!(cache.of(family, NOW + DAY).await.unwrap(), recorded);
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
        assert!(cache.of(family, valid.valid_from).await.is_ok());
        assert!(cache.of(family, valid.expires_at - 1).await.is_ok());
        for now in [valid.expires_at, valid.expires_at + DAY, valid.valid_from - 1] {
            let refused = cache.of(family, now).await.unwrap_err();
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
    assert!(cache.of(family, NOW).await.is_ok());
    write(NOW + 40 * DAY);
    assert_eq!(cache.of(family, NOW + 40 * DAY).await.unwrap(), collateral(NOW + 40 * DAY));
    std::fs::write(&file, "{}").unwrap();
    assert!(cache.of(family, NOW + 50 * DAY).await.is_ok(), "what it has stays good");
}

#[tokio::test]
async fn another_familys_a_broken_and_a_silent_pccs_give_nothing() {
    let recorded = collateral(NOW);
    let family = family_of(&recorded).unwrap();
    let other = Family { fmspc: [9; 6], ..family };
    let (url, asked) = pccs(recorded).await;
    let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
    assert!(matches!(cache.of(other, NOW).await, Err(CollateralError::Fetch { .. })));
    assert!(cache.of(other, NOW).await.is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a failure is remembered");
    let broken = Router::new().fallback(async || (StatusCode::INTERNAL_SERVER_ERROR, "no"));
    let nobody = "http://127.0.0.1:9/".parse().unwrap();
    for url in [listen(broken).await, nobody] {
        let cache = CollateralCache::new(Vec::new(), Some(url)).unwrap();
        assert!(matches!(cache.of(family, NOW).await, Err(CollateralError::Fetch { .. })));
    }
    let none = CollateralCache::new(Vec::new(), None).unwrap();
    assert_eq!(none.of(family, NOW).await, Err(CollateralError::Unknown(family)));
}
