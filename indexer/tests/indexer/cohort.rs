//! The cohort directory, by the rules of `docs/spec/indexer-api.md`.

use alloy::primitives::{Address, B256, FixedBytes};
use cohort_protocol::abi::{
    DatasetInfo,
    IDstackApp::{AppCreated, DatasetRegistered, OwnerAdded, OwnerRemoved},
};
use serde_json::{Value, json};

use crate::{
    chain::Node,
    running::{Running, config},
    study::*,
};

const HIPAA: u16 = 1;
const PCI: u16 = 8;

/// A consortium at an address of its own: owners by jurisdiction and grades, datasets by owner and region.
fn consortium(app: Address, owners: &[(&[u8; 2], u16)], datasets: &[(u8, &str, u64)]) -> Logs {
    let log = |event: alloy::primitives::LogData| (app, event);
    let mut logs = vec![log(alloy::sol_types::SolEvent::encode_log_data(&AppCreated {
        name: label("cohort"),
        sector: label("finance"),
        threshold: 2,
        kmsRoot: Address::repeat_byte(9),
        governanceDelaySeconds: 0,
    }))];
    for (index, (jurisdiction, grades)) in (0u8..).zip(owners) {
        logs.push(log(alloy::sol_types::SolEvent::encode_log_data(&OwnerAdded {
            ownerId: B256::repeat_byte(index + 1),
            account: account(index),
            revoker: Address::ZERO,
            jurisdiction: FixedBytes(**jurisdiction),
            grades: *grades,
            index,
        })));
    }
    for (place, (owner, region, records)) in (0u8..).zip(datasets) {
        let info = DatasetInfo {
            datasetId: B256::repeat_byte(0x40 + place),
            composeHash: COMPOSE,
            region: label(region),
            kind: label("tx"),
            records: *records,
            sizeBytes: 10,
            supersedes: B256::ZERO,
        };
        let event = DatasetRegistered { datasetId: info.datasetId, ownerIndex: *owner, info };
        logs.push(log(alloy::sol_types::SolEvent::encode_log_data(&event)));
    }
    logs.push(registered(app));
    logs
}

async fn directory(running: &Running, query: &str) -> Vec<Value> {
    let body = running.ok(&format!("/v1/cohorts{query}")).await;
    body["cohorts"].as_array().unwrap().clone()
}

#[tokio::test]
async fn criteria_follow_from_what_is_on_chain() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (eu, us) = ((b"HU", 3u16), (b"US", HIPAA));
    let one = |bits| (b"US", bits);
    let cases: Vec<(Logs, Value)> = vec![
        (
            consortium(account(0), &[eu, us, eu], &[(0, "EU", 5), (1, "US", 6), (2, "EU", 7)]),
            json!(["match", "match", "match"]),
        ),
        // Three owners, of whom two have data; one jurisdiction, but two regions; one owner without a grade that counts.
        (
            consortium(account(1), &[us, us, one(PCI)], &[(0, "EU", 5), (1, "US", 6)]),
            json!(["partial", "partial", "partial"]),
        ),
        (
            consortium(account(2), &[one(PCI), one(0)], &[(0, "US", 5), (1, "US", 6)]),
            json!(["miss", "miss", "miss"]),
        ),
        // Bytes that are no country count for nothing; nor do no owners at all.
        (
            consortium(account(3), &[us, (b"u1", HIPAA), (&[0, 1], HIPAA)], &[]),
            json!(["partial", "miss", "match"]),
        ),
        (consortium(account(4), &[], &[]), json!(["miss", "miss", "miss"])),
    ];
    for (logs, _) in &cases {
        node.chain().mine(logs.clone());
    }
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let cohorts = directory(&running, "").await;
    for (cohort, (_, expected)) in cohorts.iter().zip(&cases) {
        let criteria = &cohort["criteria"];
        let have = json!([criteria["owners"], criteria["jurisdictions"], criteria["grades"]]);
        assert_eq!(have, *expected, "{cohort}");
        assert_eq!(cohort["status"], "forming");
    }
    assert_eq!(cohorts.len(), cases.len());
    assert_eq!((&cohorts[0]["records"], &cohorts[0]["regions"]), (&json!(18), &json!(["EU", "US"])));
    assert_eq!(cohorts[0]["grades"], json!(["HIPAA"]), "those that all owners have");

    let found = directory(&running, "?owners=match&jurisdictions=match&grades=match").await;
    assert_eq!(found.len(), 1);
    assert_eq!(directory(&running, "?grades=miss").await.len(), 2);
    assert_eq!(directory(&running, "?status=live").await.len(), 0);
    assert_eq!(running.get("/v1/cohorts?owners=most").await.0, 400);

    // An owner that leaves takes its data and its grade with it.
    let removed = OwnerRemoved { ownerId: B256::repeat_byte(3), account: account(2), index: 2 };
    node.chain().mine(vec![(account(0), alloy::sol_types::SolEvent::encode_log_data(&removed))]);
    running.reaches_tip(&node).await;
    let cohort = directory(&running, "").await.remove(0);
    assert_eq!((&cohort["criteria"]["owners"], &cohort["records"]), (&json!("miss"), &json!(11)));
    running.stop().await.unwrap();
}

/// Live is what the contract calls live, at both positions.
#[tokio::test]
async fn a_cohort_is_live_while_a_proposal_is() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    let mut status = Vec::new();
    for logs in until_open_run().into_iter().chain([vec![], vec![revoked(0, 1)]]) {
        node.chain().mine(logs);
        running.reaches_tip(&node).await;
        let cohorts = directory(&running, "").await;
        status.extend(cohorts.first().map(|cohort| cohort["status"].as_str().unwrap().to_owned()));
    }
    // Activated at 5, confirmed two blocks later, revoked in the last.
    assert_eq!(status, ["forming", "forming", "forming", "forming", "live", "forming"]);
    running.stop().await.unwrap();
}

/// Bytes are the same at the same positions, so a client that has them is told that.
#[tokio::test]
async fn unchanged_answers_are_not_sent_again() {
    let (node, running, _dir) = crate::api::study().await;
    for path in
        ["/v1/cohorts".to_owned(), format!("/v1/apps/{APP}"), format!("/v1/apps/{APP}/timeline?limit=2")]
    {
        let tag = running.tag(&path).await.expect("an entity tag");
        assert_eq!(running.status_with(&path, &tag).await, 304);
        assert_eq!(running.status_with(&path, &format!("\"other\", W/{tag}")).await, 304);
        assert_eq!(running.status_with(&path, "\"other\"").await, 200);
    }
    let before = running.tag("/v1/cohorts").await.unwrap();
    node.chain().mine_empty(1);
    running.reaches_tip(&node).await;
    assert_eq!(running.status_with("/v1/cohorts", &before).await, 200, "positions are part of the answer");
    // What depends on time is never called unchanged.
    for path in ["/v1/status".to_owned(), "/readyz".to_owned(), question()] {
        assert_eq!(running.tag(&path).await, None, "{path}");
    }
    running.stop().await.unwrap();
}
