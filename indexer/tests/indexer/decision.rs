//! Release decisions from rows: every reason, at both positions.

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    abi::{
        self,
        IDstackApp::{DatasetRegistered, EraStarted, OwnerRemoved, ProposalRejected, ThresholdSet},
    },
    chain::ReleaseDecisions,
    decision::Decision,
};

use crate::{
    running::{Running, config, dumped},
    study::*,
};

async fn decided(running: &Running, question: &str) -> ReleaseDecisions {
    let (status, body) = running.get(question).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

/// Each reason from the events that cause it, on one chain that is taken back to the same base every time.
#[tokio::test]
async fn every_reason_follows_from_its_events() {
    let ask = question();
    let other = B256::repeat_byte(0x99);
    let newer = dataset_id(9);
    let second_round = vec![created(1), approved(1, 0b111, 0b111), activated(1, proposal_id(0))];
    let removed = by_app(OwnerRemoved { ownerId: owner_word(0), account: account(0), index: 0 });
    let fourth = approved(0, 0b1000, 0b1111);
    let table: Vec<(Decision, Logs, String)> = vec![
        (Decision::Allow, vec![], ask.clone()),
        (Decision::ProposalUnknown, vec![], question_of(OWNERS[0], dataset_id(0), COMPOSE, RUN, 5)),
        (
            Decision::ProposalRevoked, // before anybody has approved it
            vec![revoked(5, 0)],
            question_of(OWNERS[0], dataset_id(0), COMPOSE, RUN, 5),
        ),
        (Decision::ProposalRevoked, vec![revoked(0, 2)], ask.clone()),
        (Decision::ProposalSuperseded, second_round, ask.clone()),
        (Decision::EraEnded, vec![by_app(EraStarted { era: 1, ownerIndex: 1, by: account(1) })], ask.clone()),
        (Decision::NoQuorum, vec![by_app(ThresholdSet { threshold: 4 })], ask.clone()),
        (
            Decision::NoQuorum,
            vec![by_app(OwnerRemoved { ownerId: owner_word(1), account: account(1), index: 1 })],
            ask.clone(),
        ),
        (Decision::ComposeMismatch, vec![], question_of(OWNERS[0], dataset_id(0), other, RUN, 0)),
        (Decision::NotAnOwner, vec![fourth, removed], ask.clone()),
        (Decision::NotAnOwner, vec![], question_of("stranger", dataset_id(0), COMPOSE, RUN, 0)),
        (Decision::OwnerNotApproved, vec![], question_of(OWNERS[3], dataset_id(3), COMPOSE, RUN, 0)),
        (Decision::DatasetUnknown, vec![], question_of(OWNERS[0], other, COMPOSE, RUN, 0)),
        (Decision::DatasetUnknown, vec![], question_of(OWNERS[0], dataset_id(1), COMPOSE, RUN, 0)),
        (Decision::DatasetSuperseded, vec![dataset(0, newer, dataset_id(0))], ask.clone()),
        (Decision::RunUnknown, vec![], question_of(OWNERS[0], dataset_id(0), COMPOSE, other, 0)),
        (Decision::RunClosed, vec![receipt(RUN)], ask.clone()),
        (Decision::OwnerNotInRun, vec![], question_of(OWNERS[2], dataset_id(2), COMPOSE, RUN, 0)),
    ];

    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine_empty(3);
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let mut seen = vec![Decision::ProposalExpired]; // has a test of its own
    for (want, logs, ask) in table {
        node.chain().mine(logs);
        running.reaches_tip(&node).await;
        assert_eq!(decided(&running, &ask).await.head.decision, want);
        // The cause has aged: both positions agree.
        node.chain().mine_empty(2);
        running.reaches_tip(&node).await;
        assert_eq!(decided(&running, &ask).await.confirmed.decision, want);
        seen.push(want);
        node.chain().drop_blocks(3);
    }
    assert!(Decision::ALL.iter().all(|decision| seen.contains(decision)));
    running.stop().await.unwrap();
}

/// Several questions in one call: each gets the answer that it gets alone, in their order.
#[tokio::test]
async fn several_are_answered_as_each_alone() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let owners = [3, 0, 2, 0];
    let (status, body) = running.get(&questions(&owners)).await;
    assert_eq!(status, 200, "{body}");
    let together: Vec<ReleaseDecisions> = serde_json::from_value(body).unwrap();
    let mut alone = Vec::new();
    for owner in owners {
        let ask = question_of(OWNERS[owner], dataset_id(owner as u8), COMPOSE, RUN, 0);
        alone.push(decided(&running, &ask).await);
    }
    assert_eq!(together, alone);
    assert_eq!(together[1].head.decision, Decision::Allow);
    assert_eq!(together[2].head.decision, Decision::OwnerNotInRun);

    let most = questions(&[0; 16]);
    assert_eq!(running.get(&most).await.0, 200);
    for refused in [
        questions(&[0; 17]),
        most.replacen("hospital-A,", "", 1),
        most.replacen("hospital-A,", ",", 1),
        most.replacen("&owner=", "&owner=hospital-A,", 1),
        questions(&[0, 2]).replace("release-decisions", "release-decision"),
    ] {
        let (status, body) = running.get(&refused).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad_request")), "{refused}: {body}");
    }
    running.stop().await.unwrap();
}

/// The block's own time decides, at each position.
#[tokio::test]
async fn a_proposal_expires_by_block_time() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine_empty(5_001 - 7);
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let decisions = decided(&running, &question()).await;
    assert_eq!(decisions.head.position.timestamp, EXPIRY);
    assert_eq!(decisions.head.decision, Decision::ProposalExpired);
    assert_eq!(decisions.confirmed.decision, Decision::Allow);
    running.stop().await.unwrap();
}

/// Approvals must age, revocations count at once (R9).
#[tokio::test]
async fn positions_differ_while_events_are_young() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let young = decided(&running, &question()).await;
    assert_eq!(young.chain_id, crate::chain::CHAIN_ID);
    assert_eq!((young.head.decision, young.confirmed.decision), (Decision::Allow, Decision::NoQuorum));
    assert_eq!((young.head.position.number, young.confirmed.position.number), (6, 4));
    assert_eq!(young.confirmed.position.hash, node.chain().blocks[4].hash);

    node.chain().mine_empty(3);
    node.chain().mine(vec![revoked(0, 2)]);
    running.reaches_tip(&node).await;
    let stopped = decided(&running, &question()).await;
    assert_eq!(
        (stopped.head.decision, stopped.confirmed.decision),
        (Decision::ProposalRevoked, Decision::Allow)
    );
    running.stop().await.unwrap();
}

/// Whatever anybody registers, it opens nothing and stops nothing.
#[tokio::test]
async fn contracts_that_are_not_ours_are_marked_and_open_nothing() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let stranger = Address::repeat_byte(0x66);
    let mut torn = by_app(ThresholdSet { threshold: 1 });
    torn.1 = alloy::primitives::LogData::new_unchecked(torn.1.topics().to_vec(), vec![1, 2, 3].into());
    let foreign = alloy::primitives::LogData::new_unchecked(vec![B256::repeat_byte(5)], vec![1].into());
    let anonymous = alloy::primitives::LogData::new_unchecked(vec![], vec![1].into());
    node.chain().mine(vec![(stranger, foreign.clone()), registered(stranger), registered(REGISTRY)]);
    node.chain().mine(vec![(APP, foreign), (APP, anonymous), (stranger, torn.1.clone())]);
    node.chain().mine_empty(3);
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    assert_eq!(decided(&running, &question()).await.head.decision, Decision::Allow);
    let list = running.ok("/v1/apps").await;
    let supported: Vec<_> =
        list["apps"].as_array().unwrap().iter().map(|app| app["supported"].clone()).collect();
    assert_eq!(supported, [true, false], "{list}");
    let ask = question().replace(&APP.to_string(), &stranger.to_string());
    assert_eq!(running.get(&ask).await.1["code"], "app_unsupported");
    let ask = question().replace(&APP.to_string(), &REGISTRY.to_string());
    assert_eq!(running.get(&ask).await.1["code"], "app_unknown");

    // An app that was ours until it said something that cannot be read.
    node.chain().mine(vec![torn]);
    running.reaches_tip(&node).await;
    let (status, body) = running.get(&question()).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("app_unsupported")));
    running.stop().await.unwrap();
}

/// Owners may say what JSON is bad at; it is told whole and stops nothing.
#[tokio::test]
async fn odd_words_and_numbers_are_told_whole() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let reason = "no UTF-8: ?, a quote \", \u{0}";
    let mut rejected =
        by_app(ProposalRejected { proposalId: proposal_id(0), ownerIndex: 3, reason: reason.to_owned() });
    let data: Vec<u8> = rejected.1.data.iter().map(|byte| if *byte == b'?' { 0xff } else { *byte }).collect();
    rejected.1.data = data.into();
    let large = [u64::MAX, u64::MAX - 1, (1 << 53) - 1];
    let datasets = large.into_iter().zip(1..).map(|(records, number)| {
        let info = abi::DatasetInfo {
            datasetId: B256::repeat_byte(number),
            composeHash: COMPOSE,
            region: B256::repeat_byte(0xff),
            kind: label("EHR"),
            records,
            sizeBytes: records,
            supersedes: B256::ZERO,
        };
        by_app(DatasetRegistered { datasetId: info.datasetId, ownerIndex: 1, info })
    });
    node.chain().mine(datasets.chain([rejected]).collect());
    node.chain().mine_empty(3);
    let config = config(&[&node], dir.path().join("mirror.sqlite"));
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    assert_eq!(decided(&running, &question()).await.head.decision, Decision::Allow);
    let proposal = running.ok(&format!("/v1/apps/{APP}/proposals/{}", proposal_id(0))).await;
    assert_eq!(proposal["rejections"][0]["reason"], reason.replace('?', "\u{fffd}"));
    let datasets = running.ok(&format!("/v1/apps/{APP}/datasets")).await;
    let told: Vec<_> =
        datasets["datasets"].as_array().unwrap().iter().skip(4).map(|it| it["records"].as_u64()).collect();
    assert_eq!(told, large.map(Some));
    running.stop().await.unwrap();
    let dump = dumped(&config.database).await;
    for number in ["\"18446744073709551615\"", "\"18446744073709551614\"", "9007199254740991"] {
        assert!(dump.contains(&format!("\"records\":{number}")), "{number}: {dump}");
    }
}
