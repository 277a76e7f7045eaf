//! Real answers and requests are what `docs/openapi/kms.json` says, which is what outsiders build against.

mod support;
mod world;

use std::{collections::BTreeSet, sync::Mutex};

use alloy::{primitives::B256, signers::local::PrivateKeySigner};
use cohort_attestation::{KmsEvidence, collateral::family_of_quote};
use cohort_kms::{
    onboard::{self, OnboardRequest},
    release_log::Outcome,
    replicas::message::{Mac, Vote, VoteAnswer, VoteRequest, VotesAnswer, VotesRequest},
};
use cohort_protocol::{
    eip712,
    hpke::{KeyPair, SecretBytes},
    ids::RunId,
    release::{CertifyAnswer, LeaseRequest, ReceiptAnswer, ReceiptQuestion, ReleaseAnswer, WrapKeys},
    root::RootStatement,
};
use serde::Serialize;
use serde_json::{Value, json};
use support::{
    CHAIN_ID,
    document::{check_answer, check_request, operations},
};
use world::{Endpoint, Options, World};

fn value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).unwrap()
}

/// Every route there is, asked so that it answers and so that it refuses.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_the_document_says() {
    let world = World::new(Options::default()).await;
    let asked_for = Mutex::new(BTreeSet::new());
    let note = |method: &str, path: &str| {
        asked_for.lock().unwrap().insert((method.to_owned(), path.to_owned()));
    };
    let ask = async |method: &str, path: &str, body: Option<Value>, status: u16| {
        let (have, answer) = world.exchange(method, path, body).await;
        assert_eq!(have, status, "{path}: {answer}");
        note(method, path.split('?').next().unwrap());
        answer
    };
    for path in ["/healthz", "/readyz", "/v1/root", "/v1/log", "/v1/log/head"] {
        ask("GET", path, None, 200).await;
    }
    let key = PrivateKeySigner::random();
    let body = value(&world.request(|binding| binding.receipt_key = key.address()).await.request);
    ask("POST", "/v1/release", Some(body.clone()), 200).await;
    ask("POST", "/v1/release", Some(body), 403).await;
    ask("GET", "/v1/log?from=0", None, 200).await;
    let body = value(&world.request(|binding| binding.receipt_key = key.address()).await.request);
    ask("POST", "/v1/certify", Some(body), 200).await;
    ask("POST", "/v1/challenge", None, 200).await;
    let family = family_of_quote(&world.request(|_| ()).await.request.evidence.quote).unwrap();
    for (path, status) in [
        (family.to_string(), 200),
        (format!("000000000000/{}", family.ca()), 503),
        (format!("{}/root", hex::encode(family.fmspc)), 400),
        ("../platform".to_owned(), 404),
    ] {
        let response =
            world.http.get(world.url.join(&format!("/v1/collateral/{path}")).unwrap()).send().await;
        let response = response.unwrap();
        assert_eq!(response.status(), status, "{path}");
        check_answer("GET", "/v1/collateral/{fmspc}/{ca}", status, &response.json().await.unwrap());
    }
    note("GET", "/v1/collateral/{fmspc}/{ca}");

    let asked = world.request(|binding| binding.receipt_key = key.address()).await.request;
    let (run, domain) = (asked.binding.run_id, eip712::app_domain(CHAIN_ID, asked.binding.app));
    let lease = LeaseRequest::issue(&key, &domain, run, B256::repeat_byte(5)).unwrap();
    ask("POST", "/v1/lease", Some(value(&lease)), 200).await;
    let other = LeaseRequest { run_id: RunId(B256::ZERO), ..lease };
    ask("POST", "/v1/lease", Some(value(&other)), 403).await;
    let question = ReceiptQuestion { run_id: run, digest: world::RECEIPT };
    ask("POST", "/v1/receipt", Some(value(&question)), 200).await;
    ask("POST", "/v1/receipt", Some(value(&ReceiptQuestion { digest: B256::ZERO, ..question })), 403).await;
    world.set(0, Endpoint::Retired);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await; // the registry's answer is remembered
    for path in ["/readyz", "/v1/root", "/v1/log/head"] {
        let status = if path == "/readyz" { 503 } else { 403 };
        assert_eq!(ask("GET", path, None, status).await["code"], "root_not_registered");
    }
    ask("POST", "/v1/challenge", None, 403).await;

    // What only replicas and KMS machines send is refused here; its messages have a test below.
    for path in ["/v1/onboard", "/v1/replica/vote", "/v1/replica/votes"] {
        let response = world.http.post(world.url.join(path).unwrap()).body("{}").send().await.unwrap();
        let status = response.status().as_u16();
        check_answer("POST", path, status, &response.json().await.unwrap());
        assert_eq!(status, 400, "{path}");
        note("POST", path);
    }

    let text =
        world.http.get(world.url.join("/metrics").unwrap()).send().await.unwrap().text().await.unwrap();
    note("GET", "/metrics");
    for line in [
        "cohort_kms_ready 0",
        "cohort_kms_log_entries 2",
        "cohort_kms_leases 1",
        "cohort_kms_challenges_used 2",
        "cohort_kms_answers_total{route=\"/v1/release\",code=\"ok\"} 1",
        "cohort_kms_answers_total{route=\"/v1/release\",code=\"challenge_used\"} 1",
        "cohort_kms_answer_seconds_count{route=\"/v1/release\"} 2",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert_eq!(
        asked_for.into_inner().unwrap(),
        operations().into_iter().collect(),
        "the document has other routes"
    );
}

/// Messages between KMS processes: the ones that the types here write.
#[tokio::test(flavor = "multi_thread")]
async fn messages_between_processes_are_what_the_document_says() {
    let world = World::new(Options::default()).await;
    let mac = Mac::new(&SecretBytes::new([1; 32]));
    let asked = world.request(|_| ()).await.request;
    let (run_id, word) = (asked.binding.run_id, B256::repeat_byte(1));
    let vote = Vote { run_id, app: asked.binding.app, kms_root: world.root, receipt_key: world.root };
    let request = VoteRequest::new(&mac, word, "a", word, vote);
    check_request("/v1/replica/vote", &value(&request));
    check_answer("POST", "/v1/replica/vote", 200, &value(&VoteAnswer::new(&mac, &request, "b", true)));
    for after in [None, Some(run_id)] {
        let request = VotesRequest::new(&mac, word, "a", after).unwrap();
        check_request("/v1/replica/votes", &value(&request));
        let answer = VotesAnswer::new(&mac, &request, "b", vec![vote]);
        check_answer("POST", "/v1/replica/votes", 200, &value(&answer));
    }

    let key = KeyPair::derive(&SecretBytes::new([2; 32]));
    let evidence: KmsEvidence = serde_json::from_value(json!({
        "quote": hex::encode(&asked.evidence.quote),
        "event_log": asked.evidence.event_log,
        "app_compose": asked.evidence.app_compose,
        "collateral": asked.evidence.collateral,
    }))
    .unwrap();
    let encryption_key = key.public_key().as_bytes().to_vec().into();
    let request = OnboardRequest { challenge: word, encryption_key, evidence: evidence.clone() };
    check_request("/v1/onboard", &value(&request));
    let answer = onboard::seal(&SecretBytes::new([3; 32]), key.public_key(), &[0; 64]).unwrap();
    check_answer("POST", "/v1/onboard", 200, &value(&answer));
    let statement: Value = world.exchange("GET", "/v1/root", None).await.1["statement"].clone();
    let _: RootStatement = serde_json::from_value(statement.clone()).unwrap();
    check_answer("GET", "/v1/root", 200, &json!({ "statement": statement, "evidence": evidence }));
}

/// `/v1/certify` makes every check of `/v1/release`, leaves the same entry, and hands out a certificate and no keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_costs_what_keys_cost() {
    let world = World::new(Options::default()).await;
    let certify = async |request: &cohort_kms::service::Request| {
        world.exchange("POST", "/v1/certify", Some(value(request))).await
    };
    let asked = world.request(|_| ()).await;
    let (status, body) = certify(&asked.request).await;
    assert_eq!(status, 200, "{body}");
    let answer: CertifyAnswer = serde_json::from_value(body).unwrap();
    let binding = &asked.request.binding;
    let domain = eip712::app_domain(CHAIN_ID, binding.app);
    assert_eq!(answer.certificate.signer(&domain), Some(world.root));
    assert_eq!(answer.certificate.agent, binding.receipt_key);
    assert_eq!(answer.certificate.compose_hash, asked.request.terms.compose_hash);
    assert_eq!((answer.log_index, answer.platform.as_str()), (0, "development"));

    let code = async |request: &_, want: &str| {
        let (status, body) = certify(request).await;
        assert_eq!((status, body["code"].as_str()), (403, Some(want)), "{body}");
    };
    code(&asked.request, "challenge_used").await;
    let mut stale = world.request(|_| ()).await;
    stale.request.evidence = asked.request.evidence.clone();
    code(&stale.request, "evidence_report_data_mismatch").await;
    let denied = world.request(|_| ()).await;
    world.set(1, Endpoint::Denies(cohort_protocol::decision::Decision::RunClosed));
    code(&denied.request, "run_closed").await;
    world.set(1, Endpoint::Honest);

    // From now on the run is this agent's: another gets neither keys nor certificate, the same gets its keys.
    let other = world.request(|binding| binding.receipt_key = world.root).await;
    code(&other.request, "run_released").await;
    let same = world.request(|_| ()).await;
    let answer: ReleaseAnswer = world.send(&same.request).await.json().await.unwrap();
    assert!(WrapKeys::open(&same.agent, &same.request.binding, &answer).is_ok());
    let outcomes: Vec<_> = world.entries().into_iter().map(|entry| entry.record.outcome).collect();
    use Outcome::{Denied, Released};
    assert_eq!(outcomes, [Released, Denied, Denied, Released]);
}

/// The KMS signs that it sees a receipt only where every endpoint shows it at both of its blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_must_be_seen_by_every_endpoint_at_both_depths() {
    let world = World::new(Options { ask_seconds: 2, ..Options::default() }).await;
    let asked = world.request(|_| ()).await.request;
    let run_id = asked.binding.run_id;
    let ask = async |digest: B256| {
        let question = ReceiptQuestion { run_id, digest };
        let (status, body) = world.exchange("POST", "/v1/receipt", Some(value(&question))).await;
        (status, body["code"].as_str().unwrap_or_default().to_owned(), body)
    };
    let refused = async |digest, status: u16, code: &str| {
        let answer = ask(digest).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, code));
    };
    refused(world::RECEIPT, 403, "run_not_released").await;
    assert_eq!(world.send(&asked).await.status(), 200);
    let (status, _, body) = ask(world::RECEIPT).await;
    assert_eq!(status, 200, "{body}");
    let answer: ReceiptAnswer = serde_json::from_value(body).unwrap();
    let domain = eip712::app_domain(CHAIN_ID, asked.binding.app);
    let question = ReceiptQuestion { run_id, digest: world::RECEIPT };
    assert_eq!(answer.signer(&domain, &question), Some(world.root));
    refused(B256::repeat_byte(1), 403, "receipt_not_seen").await;
    // Zero is what the contract says of a run that has none.
    (0..2).for_each(|endpoint| world.set(endpoint, Endpoint::NoReceipt));
    refused(B256::ZERO, 403, "receipt_not_seen").await;
    (0..2).for_each(|endpoint| world.set(endpoint, Endpoint::Honest));
    for (row, (mode, status, code)) in [
        (Endpoint::NoReceipt, 403, "receipt_not_seen"),
        (Endpoint::YoungReceipt, 403, "receipt_not_seen"),
        (Endpoint::Slow, 503, "rpc_unreachable"),
        (Endpoint::Down, 503, "rpc_unreachable"),
        (Endpoint::Empty, 503, "rpc_unreachable"),
        (Endpoint::OtherChain, 503, "rpc_wrong_chain"),
        (Endpoint::Frozen, 503, "head_stale"),
    ]
    .into_iter()
    .enumerate()
    {
        world.set(row % 2, mode);
        refused(world::RECEIPT, status, code).await;
        world.set(row % 2, Endpoint::Honest);
    }
}
