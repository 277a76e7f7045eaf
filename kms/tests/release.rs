//! Release requests over HTTP, with quotes of the development platform, against dependencies that fail in every way
//! this test could think of: no key goes out, the reason is the right one, and the log tells.

mod support;
mod world;

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use cohort_attestation::{KmsEvidence, TcbStatus, dev};
use cohort_kms::release_log::{Entry, Outcome, Page};
use cohort_protocol::{
    decision::Decision,
    eip712,
    hpke::{self, SecretBytes},
    release::{LeaseAnswer, LeaseRequest, Refusal, ReleaseAnswer, WrapKeys},
    root::RootAnswer,
    sealed,
    sign_rpc::evidence_hash,
};
use support::{CHAIN_ID, PLAINTEXT, unix_now};
use world::{Endpoint, IndexerMode, Options, World};

#[tokio::test(flavor = "multi_thread")]
async fn an_attested_agent_gets_the_key_once_and_the_log_says_so() {
    let world = World::new(Options::default()).await;
    let asked = world.request(|_| ()).await;
    let response = world.send(&asked.request).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    let answer: ReleaseAnswer = response.json().await.unwrap();
    assert_eq!((answer.log_index, answer.platform.as_str()), (0, "development"));

    let keys = WrapKeys::open(&asked.agent, &asked.request.binding, &answer).unwrap();
    let wrap_key = SecretBytes::from_slice(&hex::decode(&keys.keys[0].wrap_key).unwrap()).unwrap();
    let (plain, _) = sealed::open(&mut world.sealed.as_slice(), &wrap_key, 1 << 20).unwrap();
    assert_eq!(plain.as_slice(), PLAINTEXT);
    let domain = eip712::app_domain(CHAIN_ID, asked.request.binding.app);
    assert_eq!(answer.certificate.signer(&domain), Some(world.root));

    assert_eq!(world.refused(&asked.request).await, (403, "challenge_used".to_owned()));
    let url = world.url.join("v1/log?from=0").unwrap();
    let page: Page = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let [line] = page.entries.as_slice() else { panic!("{page:?}") };
    let record = &line.entry.record;
    assert_eq!((record.outcome, record.code.as_str()), (Outcome::Released, "allow"));
    assert_eq!(record.run_id, asked.request.binding.run_id);
    assert_eq!(record.datasets[0].dataset_id, keys.keys[0].dataset_id);
    let hash = evidence_hash(&asked.request.binding, &asked.request.evidence).unwrap();
    assert_eq!((record.evidence_hash, record.heads.len()), (hash, 2));
    assert_eq!(page.head.hash, line.hash);
}

/// R13 and R4: a run's keys go to one receipt key, and the log tells who else asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_gets_no_keys_of_a_run_and_is_logged() {
    let world = World::new(Options::default()).await;
    let agents = [PrivateKeySigner::random(), PrivateKeySigner::random()].map(|key| key.address());
    for (agent, status) in [(0, 200), (1, 403), (0, 200)] {
        let asked = world.request(|binding| binding.receipt_key = agents[agent]).await;
        let response = world.send(&asked.request).await;
        assert_eq!(response.status(), status);
        if status == 403 {
            assert_eq!(response.json::<Refusal>().await.unwrap().code, "run_released");
        }
    }
    let entries = world.entries();
    let told = |entry: &Entry| (entry.record.code.clone(), entry.record.receipt_key);
    let [first, second] = agents;
    let want = [("allow", first), ("run_released", second), ("allow", first)];
    assert_eq!(entries.iter().map(told).collect::<Vec<_>>(), want.map(|(code, key)| (code.to_owned(), key)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_challenge_gives_one_answer_however_many_ask_at_once() {
    let world = World::new(Options::default()).await;
    let asked = world.request(|_| ()).await;
    let sends: Vec<_> = (0..8)
        .map(|_| {
            let url = world.url.join("v1/release").unwrap();
            tokio::spawn(world.http.post(url).json(&asked.request).send())
        })
        .collect();
    let mut released = 0;
    for send in sends {
        released += usize::from(send.await.unwrap().unwrap().status() == 200);
    }
    assert_eq!((released, world.log_entries()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_does_but_agree_is_a_denial() {
    let world = World::new(Options { ask_seconds: 2, ..Options::default() }).await;
    let table = [
        (Endpoint::Slow, 503, "rpc_unreachable"),
        (Endpoint::Down, 503, "rpc_unreachable"),
        (Endpoint::NotJson, 503, "rpc_unreachable"),
        (Endpoint::ServerError, 503, "rpc_unreachable"),
        (Endpoint::Error, 503, "rpc_unreachable"),
        (Endpoint::Nonsense, 503, "rpc_unreachable"),
        (Endpoint::OtherChain, 503, "rpc_wrong_chain"),
        (Endpoint::Forked, 503, "endpoints_disagree"),
        (Endpoint::Frozen, 503, "head_stale"),
        (Endpoint::Denies(Decision::NoQuorum), 403, "no_quorum"),
        (Endpoint::Denies(Decision::OwnerNotApproved), 403, "owner_not_approved"),
        (Endpoint::Denies(Decision::ProposalRevoked), 403, "proposal_revoked"),
        (Endpoint::Denies(Decision::RunUnknown), 403, "run_unknown"),
        (Endpoint::NotYet(Decision::OwnerNotApproved), 403, "not_confirmed"),
        (Endpoint::Empty, 403, "contract_missing"),
        (Endpoint::Unlisted, 403, "app_not_registered"),
        (Endpoint::Retired, 403, "root_retired"),
        (Endpoint::OtherSystem, 403, "system_not_allowed"),
        (Endpoint::OtherImage, 403, "os_image_not_allowed"),
        (Endpoint::OtherDevices, 403, "device_not_listed"),
    ];
    for (row, (mode, status, code)) in table.into_iter().enumerate() {
        let asked = world.request(|_| ()).await;
        world.set(row % 2, mode);
        assert_eq!(world.refused(&asked.request).await, (status, code.to_owned()), "{mode:?}");
        world.set(row % 2, Endpoint::Honest);
        assert_eq!(world.log_entries(), row as u64 + 1, "{mode:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let asked = world.request(|_| ()).await;
    assert_eq!(world.send(&asked.request).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_indexer_is_required_and_a_lie_of_it_gains_nothing() {
    let world = World::new(Options { ask_seconds: 2, ..Options::default() }).await;
    let table = [
        (IndexerMode::Slow, 503, "indexer_unreachable"),
        (IndexerMode::Down, 503, "indexer_unreachable"),
        (IndexerMode::NotJson, 503, "indexer_unreachable"),
        (IndexerMode::ServerError, 503, "indexer_unreachable"),
        (IndexerMode::Endless, 503, "indexer_unreachable"),
        (IndexerMode::OneMissing, 503, "indexer_unreachable"),
        (IndexerMode::OtherChain, 503, "indexer_fork"),
        (IndexerMode::Forked, 503, "indexer_fork"),
        (IndexerMode::Frozen, 503, "indexer_stale"),
        (IndexerMode::Denies(Decision::NoQuorum), 403, "indexer_denies"),
    ];
    for (mode, status, code) in table {
        let asked = world.request(|_| ()).await;
        world.set_indexer(mode);
        assert_eq!(world.refused(&asked.request).await, (status, code.to_owned()), "{mode:?}");
        world.set_indexer(IndexerMode::Honest);
    }
    // The indexer says allow; one of two endpoints knows of the revocation.
    let asked = world.request(|_| ()).await;
    world.set(1, Endpoint::Denies(Decision::ProposalRevoked));
    assert_eq!(world.refused(&asked.request).await, (403, "proposal_revoked".to_owned()));
    let asked = world.request(|_| ()).await;
    world.set_indexer(IndexerMode::Down);
    assert_eq!(world.refused(&asked.request).await, (403, "proposal_revoked".to_owned()));
}

/// R10 to R12 over the wire. Refused evidence leaves no entry: nobody genuine has asked.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_not_fresh_exact_and_acceptable_is_refused() {
    let world = World::new(Options::default()).await;
    let mut asked = world.request(|_| ()).await;
    asked.request.binding.receipt_key = Address::ZERO;
    let code = |code: &str| (403, code.to_owned());
    assert_eq!(world.refused(&asked.request).await, code("evidence_report_data_mismatch"));

    // Consumed, though the request was refused.
    assert_eq!(world.refused(&asked.request).await, code("challenge_used"));

    let first = world.request(|_| ()).await;
    let mut replay = world.request(|_| ()).await;
    replay.request.evidence = first.request.evidence.clone();
    assert_eq!(world.refused(&replay.request).await, code("evidence_report_data_mismatch"));

    let asked = world.request(|binding| binding.challenge = B256::ZERO).await;
    assert_eq!(world.refused(&asked.request).await, code("challenge_unknown"));
    let asked = world.request(|binding| binding.chain_id = 1).await;
    assert_eq!(world.refused(&asked.request).await, code("wrong_chain"));
    let asked = world.request(|binding| binding.kms_root = Address::ZERO).await;
    assert_eq!(world.refused(&asked.request).await, code("wrong_kms"));

    let mut asked = world.request(|_| ()).await;
    let mut events: Vec<serde_json::Value> = serde_json::from_str(&asked.request.evidence.event_log).unwrap();
    events.pop();
    asked.request.evidence.event_log = serde_json::to_string(&events).unwrap();
    assert!(world.refused(&asked.request).await.1.starts_with("evidence_"));

    let mut asked = world.request(|_| ()).await;
    asked.request.evidence.app_compose = Some("{}".to_owned());
    assert_eq!(world.refused(&asked.request).await, code("evidence_compose_hash_mismatch"));

    let mut asked = world.request(|_| ()).await;
    let mut options = dev::CollateralOptions::at(unix_now());
    options.tcb_status = TcbStatus::OutOfDate;
    asked.request.evidence.collateral = world.guest.platform().collateral_with(&options).unwrap();
    assert_eq!(world.refused(&asked.request).await, code("evidence_tcb_status_not_accepted"));
    assert_eq!(world.log_entries(), 0);

    // Genuine, but of another app: from here on the log tells.
    let asked = world.request(|binding| binding.app = Address::ZERO).await;
    assert_eq!(world.refused(&asked.request).await, code("app_mismatch"));
    assert_eq!(world.log_entries(), 1);
}

/// Even this build, which knows the flag, trusts Intel alone unless the flag is given.
#[tokio::test(flavor = "multi_thread")]
async fn development_evidence_never_passes_a_production_configuration() {
    let world = World::new(Options { trust_development: false, ..Options::default() }).await;
    let asked = world.request(|_| ()).await;
    assert_eq!(world.refused(&asked.request).await, (403, "evidence_root_not_trusted".to_owned()));
    assert_eq!(world.log_entries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_requests_get_stable_answers() {
    let world = World::new(Options::default()).await;
    let url = |path: &str| world.url.join(path).unwrap();
    let root: RootAnswer<KmsEvidence> =
        world.http.get(url("v1/root")).send().await.unwrap().json().await.unwrap();
    assert!(root.evidence.is_none());
    let root = root.statement;
    assert!(root.verify().is_ok());
    assert_eq!((root.root, root.chain_id), (world.root, CHAIN_ID));
    for path in ["healthz", "readyz", "v1/log"] {
        assert_eq!(world.http.get(url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    let post = |body: Vec<u8>| world.http.post(url("v1/release")).body(body).send();
    for (body, status) in [(b"{".to_vec(), 400), (b"{}".to_vec(), 400), (vec![b' '; 3 << 20], 413)] {
        let response = post(body).await.unwrap();
        assert_eq!(response.status(), status);
        let refusal: cohort_protocol::release::Refusal = response.json().await.unwrap();
        assert_eq!(refusal.code, "malformed");
    }
    assert_eq!(world.http.get(url("v1/release")).send().await.unwrap().status(), 405);
    assert_eq!(world.http.post(url("v1/log")).send().await.unwrap().status(), 405);
    assert_eq!(world.http.get(url("v1/keys")).send().await.unwrap().status(), 404);
    assert_eq!(world.http.get(url("v1/log?from=x")).send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registered_root_there_is_nothing_to_seal_to() {
    let world = World::new(Options::default()).await;
    world.set(1, Endpoint::Retired);
    let response = world.http.get(world.url.join("v1/root").unwrap()).send().await.unwrap();
    assert_eq!(response.status(), 403);
    let refusal: cohort_protocol::release::Refusal = response.json().await.unwrap();
    assert_eq!(refusal.code, "root_not_registered");
    let ready = world.http.get(world.url.join("readyz").unwrap()).send().await.unwrap();
    assert_eq!(ready.status(), 503);
}

/// A lease is renewed by the run's receipt key alone, while everything still allows the run; a denial ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_by_its_key_until_something_denies() {
    let world = World::new(Options::default()).await;
    let (agent, thief) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    let asked = world.request(|binding| binding.receipt_key = agent.address()).await;
    let run = asked.request.binding.run_id;
    let domain = eip712::app_domain(CHAIN_ID, asked.request.binding.app);
    let request = |key: &PrivateKeySigner| {
        LeaseRequest::issue(key, &domain, run, B256::from(*hpke::random_secret().unwrap().expose_secret()))
            .unwrap()
    };
    let renew = async |request: &LeaseRequest| -> Result<LeaseAnswer, String> {
        let url = world.url.join("v1/lease").unwrap();
        let response = world.http.post(url).json(request).send().await.unwrap();
        if response.status() == 200 {
            return Ok(response.json().await.unwrap());
        }
        Err(response.json::<cohort_protocol::release::Refusal>().await.unwrap().code)
    };
    assert_eq!(renew(&request(&agent)).await, Err("lease_unknown".to_owned()));
    let answer: ReleaseAnswer = world.send(&asked.request).await.json().await.unwrap();
    let keys = WrapKeys::open(&asked.agent, &asked.request.binding, &answer).unwrap();
    assert_eq!(keys.lease_seconds, 60);

    let question = request(&agent);
    let lease = renew(&question).await.unwrap();
    assert_eq!((lease.seconds, lease.signer(&domain, &question)), (60, Some(world.root)));
    assert_eq!(renew(&request(&thief)).await, Err("lease_signature".to_owned()));
    world.set(0, Endpoint::Down);
    assert_eq!(renew(&request(&agent)).await, Err("rpc_unreachable".to_owned()));
    world.set(0, Endpoint::Honest);
    assert!(renew(&request(&agent)).await.is_ok(), "what may pass does not end a lease");
    world.set(1, Endpoint::Denies(Decision::ProposalRevoked));
    assert_eq!(renew(&request(&agent)).await, Err("proposal_revoked".to_owned()));
    world.set(1, Endpoint::Honest);
    assert_eq!(renew(&request(&agent)).await, Err("lease_unknown".to_owned()));
    let text = std::fs::read_to_string(&world.log).unwrap();
    let codes: Vec<_> = text.lines().map(|line| line.contains(r#""code":"proposal_revoked""#)).collect();
    assert_eq!(codes, [false, false, true], "the release, and both denials of a renewal");
}
