//! What several tests and the benchmark share.
#![allow(dead_code, unreachable_pub)] // each of them uses a part

pub(crate) mod anvil;
pub(crate) mod consortium;
pub(crate) mod document;
pub(crate) mod guest;

use std::{
    io::Cursor,
    ops::ControlFlow,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::primitives::{Address, B256, Bytes};
use axum::Router;
use cohort_attestation::{self as attestation, dev};
use cohort_kms::{roots::Roots, server, service::Request};
use cohort_protocol::{
    hpke::KeyPair,
    ids::{ComposeHash, RunId},
    json::sha256,
    release::{Binding, Challenge, DatasetRequest, ReleaseRequest},
    sealed::{self, CHUNK_BYTES_MIN, ContentKind, SealParams},
    terms::{SignedRunRequest, Terms},
};
use tokio::net::TcpListener;

/// Anvil's own.
pub(crate) const CHAIN_ID: u64 = 31337;
/// What the guest runs.
pub(crate) const APP_COMPOSE: &str = r#"{"cohort":{},"name":"test"}"#;
/// What is sealed.
pub(crate) const PLAINTEXT: &[u8] = b"age,sex\n63,1\n";
/// Of the agent whose requests these are.
pub(crate) const RECEIPT_KEY: Address = Address::repeat_byte(0xa4);

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn compose_hash() -> ComposeHash {
    ComposeHash(sha256(APP_COMPOSE.as_bytes()))
}

/// Serves a router on a free port until the test ends.
pub(crate) async fn listen(router: Router) -> reqwest::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(server::serve(listener, router, std::future::pending()));
    url
}

/// A file that an owner sealed to epoch 0, and what a request says of it.
pub(crate) fn seal(roots: &Roots, app: Address, owner: &str) -> (Vec<u8>, DatasetRequest) {
    let params = SealParams {
        chain_id: CHAIN_ID,
        app,
        compose_hash: compose_hash(),
        owner: owner.parse().unwrap(),
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

/// What a quote for this challenge, run and key commits to.
pub(crate) fn binding(challenge: &Challenge, app: Address, run_id: RunId, agent: &KeyPair) -> Binding {
    Binding {
        chain_id: CHAIN_ID,
        app,
        kms_root: challenge.kms_root,
        challenge: challenge.challenge,
        run_id,
        encryption_key_hash: sha256(agent.public_key().as_bytes()),
        receipt_key: RECEIPT_KEY,
        gpu_evidence_hash: None,
    }
}

/// The guest's evidence about a binding, with collateral.
pub(crate) fn evidence(guest: &dev::DevGuest, binding: &Binding) -> attestation::Evidence {
    let evidence = guest.evidence(&binding.report_data()).unwrap();
    evidence.with_collateral(guest.platform().collateral(unix_now()).unwrap())
}

/// The body of a release request.
pub(crate) fn request(
    terms: Terms,
    run: SignedRunRequest,
    binding: Binding,
    agent: &KeyPair,
    datasets: Vec<DatasetRequest>,
    evidence: attestation::Evidence,
) -> Request {
    let encryption_key = Bytes::copy_from_slice(agent.public_key().as_bytes());
    ReleaseRequest { terms, run, binding, encryption_key, datasets, evidence }
}
