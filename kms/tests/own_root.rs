//! A KMS in a virtual machine: its root secret and its quote come from the guest agent.

mod support;

use std::sync::Arc;

use axum::{Json, Router, http::StatusCode, routing::post};
use cohort_attestation::{self as attestation, AppId, TrustedRoot, dev};
use cohort_guest::{GuestAgent, GuestError};
use cohort_kms::{
    collateral::CollateralCache,
    guest::{KeyApi, ROOT_KEY, root_secret},
    own_evidence::OwnEvidence,
    roots::Roots,
};
use serde_json::json;

const APP_COMPOSE: &str = r#"{"name":"kms"}"#;

fn guest() -> dev::DevGuest {
    let platform = dev::DevPlatform::from_seed([3; 32]).unwrap();
    dev::DevGuest::new(platform, AppId([4; 20]), APP_COMPOSE, &[5; 32]).unwrap()
}

fn serve(dir: &tempfile::TempDir, router: Router) -> GuestAgent {
    let path = dir.path().join("dstack.sock");
    support::guest::serve(&path, router);
    GuestAgent::new(&path)
}

fn honest() -> Router {
    support::guest::router(guest())
}

#[tokio::test]
async fn the_root_secret_is_dstacks_key_under_the_fixed_name() {
    let dir = tempfile::tempdir().unwrap();
    let agent = serve(&dir, honest());
    let keys = guest().app_keys().unwrap();
    let v0 = root_secret(&agent, KeyApi::V0).await.unwrap();
    assert_eq!(v0.expose_secret(), &keys.get_key(ROOT_KEY, "any", "").unwrap().key);
    let v1 = root_secret(&agent, KeyApi::V1).await.unwrap();
    assert_eq!(v1.expose_secret(), &keys.get_key_v1(ROOT_KEY, "secp256k1").unwrap().0.key);
    assert_ne!(v0.expose_secret(), v1.expose_secret());
}

#[tokio::test]
async fn its_quote_binds_the_statement_of_each_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let agent = serve(&dir, honest());
    let secret = root_secret(&agent, KeyApi::V0).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let collateral = guest().platform().collateral(now).unwrap();
    let file = dir.path().join("collateral.json");
    std::fs::write(&file, serde_json::to_vec(&collateral).unwrap()).unwrap();
    let root = guest().platform().root_certificate_der().unwrap();
    let policy = attestation::Policy::production().with_root(TrustedRoot::development(&root).unwrap());
    let own =
        OwnEvidence::new(agent, Arc::new(CollateralCache::new(vec![file], None).unwrap()), policy.clone());
    let roots = Roots::derive(&secret, &[0, 1]).unwrap();
    let statement = |epoch| roots.epoch(epoch).unwrap().statement(31337, [9; 20].into()).unwrap();
    for epoch in [0, 1] {
        let evidence = own.of(&statement(epoch)).await.unwrap();
        let kms = attestation::kms::verify(&statement(epoch), &evidence, None, &policy, now).unwrap();
        assert_eq!(kms.mr_aggregated(), guest().mr_aggregated());
        assert!(attestation::kms::verify(&statement(1 - epoch), &evidence, None, &policy, now).is_err());
        assert_eq!(own.of(&statement(epoch)).await.unwrap(), evidence);
        let machine = own.machine(&statement(epoch)).await.unwrap();
        assert_eq!(machine.mrAggregated.0, guest().mr_aggregated().0);
    }
}

/// A wrong or missing answer gives no root, and no text with the key in it.
#[tokio::test]
async fn anything_else_gives_no_root() {
    let answers = [
        (StatusCode::OK, json!({ "key": "zz" })),
        (StatusCode::OK, json!({ "key": "ab".repeat(31) })),
        (StatusCode::OK, json!({ "key": 5, "secret": "5ec7e7" })),
        (StatusCode::BAD_REQUEST, json!({ "error": "no" })),
    ];
    for (status, body) in answers {
        let dir = tempfile::tempdir().unwrap();
        let router = Router::new().route("/GetKey", post(async move || (status, Json(body))));
        let agent = serve(&dir, router);
        let error = root_secret(&agent, KeyApi::V0).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("5ec7e7") && !text.contains("abab"), "{text}");
        // v1 is not there: never a silent change to the other derivation
        assert!(matches!(root_secret(&agent, KeyApi::V1).await, Err(GuestError::Missing { .. })));
    }
    let nobody = GuestAgent::new(std::path::Path::new("/nonexistent/dstack.sock"));
    assert!(matches!(root_secret(&nobody, KeyApi::V0).await, Err(GuestError::Connect { .. })));
}
