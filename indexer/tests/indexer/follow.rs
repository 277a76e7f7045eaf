//! Following: reorganisations, restarts, rebuilding, and endpoints that fail or lie.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, LogData};
use cohort_indexer::{Config, RunError, follow::StopReason};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    chain::Node,
    running::{Running, config, dumped, rebuilt, rebuilt_from},
    study::*,
};

async fn head_decision(running: &Running) -> String {
    let (status, body) = running.get(&question()).await;
    assert_eq!(status, 200, "{body}");
    body["head"]["decision"].as_str().unwrap().to_owned()
}

/// A chain with an open run, and its mirror.
async fn open_run_mirrored() -> (Node, Config, Running, tempfile::TempDir) {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[&node], dir.path().join("mirror.sqlite"));
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    (node, config, running, dir)
}

#[tokio::test]
async fn events_before_registration_are_mirrored() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine_empty(1_000);
    with_open_run(&mut node.chain());
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    running.reaches_tip(&node).await;
    let timeline = running.ok(&format!("/v1/apps/{APP}/timeline")).await;
    let kinds: Vec<_> =
        timeline["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..2], ["app_created", "owner_added"]);
    assert_eq!(kinds.len(), until_open_run().concat().len() - 1); // all but the registry's own
    assert_eq!(head_decision(&running).await, "allow");
    running.stop().await.unwrap();
}

/// What an app did before its registration is read after the registration: it must have led there.
#[tokio::test]
async fn older_events_are_of_the_same_chain() {
    let (node, fork) = (Node::start().await, Node::start().await);
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine_empty(20);
    fork.chain().mine(founded());
    fork.chain().mine_empty(19);
    for node in [&node, &fork] {
        node.chain().mine(vec![registered(APP)]);
    }
    node.chain().second_opinion = fork.chain().blocks.clone();
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    let (_, ready) = running.says_why_not().await;
    assert!(ready["last_error"].as_str().unwrap().contains("vanished or changed"), "{ready}");
    assert_eq!(ready["head"], Value::Null);
    node.chain().second_opinion.clear();
    running.reaches_tip(&node).await;
    assert_eq!(running.ok(&format!("/v1/apps/{APP}/timeline")).await["events"], json!([]));
    running.stop().await.unwrap();
}

/// A reorganisation takes back exactly what it removed, at any depth, and leaves what a rebuild from nothing gives.
#[tokio::test]
async fn reorganisations_rewind_at_every_depth() {
    for depth in [1, 2, 5, 64, 300, 700] {
        let node = Node::start().await;
        let dir = tempfile::tempdir().unwrap();
        let config = config(&[&node], dir.path().join("mirror.sqlite"));
        with_open_run(&mut node.chain());
        let running = Running::start(&config).await;
        running.reaches_tip(&node).await;
        node.chain().mine(vec![revoked(0, 1)]);
        running.reaches_tip(&node).await;
        assert_eq!(head_decision(&running).await, "proposal_revoked");
        node.chain().mine_empty(depth - 1);
        running.reaches_tip(&node).await;

        node.chain().drop_blocks(depth); // the revocation goes with the oldest of them
        // The block that is confirmed then may be one whose header had been forgotten.
        node.chain().mine_empty(1);
        running.reaches_tip(&node).await;
        assert_eq!(head_decision(&running).await, "allow", "depth {depth}");
        node.chain().mine_empty(depth);
        running.reaches_tip(&node).await;
        node.chain().mine(vec![revoked(0, 3)]);
        running.reaches_tip(&node).await;
        assert_eq!(head_decision(&running).await, "proposal_revoked", "depth {depth}");
        running.stop().await.unwrap();
        assert_eq!(dumped(&config.database).await, rebuilt(&node).await, "depth {depth}");
    }
}

#[tokio::test]
async fn a_reorganisation_can_take_back_approvals_and_the_registration() {
    let (node, config, running, _dir) = open_run_mirrored().await;
    assert_eq!(head_decision(&running).await, "allow");

    // The run and the third approval are gone; a shorter chain than before is noticed by its other hashes.
    node.chain().drop_blocks(2);
    node.chain().mine_empty(1);
    running.reaches_tip(&node).await;
    assert_eq!(head_decision(&running).await, "no_quorum");

    // The registration as well: the app and its older events are no longer there.
    node.chain().drop_blocks(3);
    node.chain().mine_empty(8);
    running.reaches_tip(&node).await;
    assert_eq!(running.get(&question()).await.1["code"], "app_unknown");
    let before = running.ok("/v1/apps").await;
    assert_eq!(before["apps"], serde_json::json!([]));

    // Registered again, later, its events are back.
    node.chain().mine(vec![registered(APP)]);
    running.reaches_tip(&node).await;
    assert_eq!(head_decision(&running).await, "no_quorum");
    running.stop().await.unwrap();
    assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
}

/// Another chain altogether under the same chain id, as a restarted anvil is.
#[tokio::test]
async fn a_chain_that_starts_anew_is_mirrored_anew() {
    let (node, config, running, _dir) = open_run_mirrored().await;
    {
        let mut chain = node.chain();
        let all = chain.blocks.len();
        chain.drop_blocks(all);
        chain.mine_empty(20);
    }
    running.reaches_tip(&node).await;
    assert_eq!(running.ok("/v1/apps").await["apps"], serde_json::json!([]));
    running.stop().await.unwrap();
    assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
}

#[tokio::test]
async fn a_restart_resumes_where_it_was() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[&node], dir.path().join("mirror.sqlite"));
    with_open_run(&mut node.chain());
    node.chain().mine_empty(600);
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    running.stop().await.unwrap();

    node.chain().asked.clear();
    node.chain().mine(vec![receipt(RUN)]);
    node.chain().mine_empty(50);
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    assert_eq!(head_decision(&running).await, "run_closed");
    running.stop().await.unwrap();
    let asked = node.chain().asked.clone();
    assert!(asked.iter().all(|number| *number > 600 || *number == 0), "{asked:?}");
    assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
}

/// Random histories with reorganisations, followed live, end as a rebuild from nothing does.
#[tokio::test]
async fn random_histories_end_like_a_rebuild() {
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[&node], dir.path().join("mirror.sqlite"));
    node.chain().mine(founded());
    let running = Running::start(&config).await;
    for step in 0..150u64 {
        {
            let mut chain = node.chain();
            let depth = random(6) as usize;
            if step % 5 == 4 && chain.blocks.len() > depth + 2 {
                chain.drop_blocks(depth);
            }
            for _ in 0..=random(4) {
                let (round, owner) = (random(3) as u32, random(4) as u8);
                let other = Address::repeat_byte(random(3) as u8 + 1);
                let logs = match random(9) {
                    0 => vec![registered(APP)],
                    1 => vec![created(round), approved(round, 1, 1)],
                    2 => vec![approved(round, 1 << owner, u128::from(random(16) as u8))],
                    3 => vec![activated(round, proposal_id((round + 1) % 3))],
                    4 => vec![revoked(round, owner)],
                    5 => vec![dataset(
                        owner,
                        B256::from([random(5) as u8; 32]),
                        B256::from([random(5) as u8; 32]),
                    )],
                    6 => vec![run_opened(B256::from([random(5) as u8; 32]), 3, random(9))],
                    7 => vec![
                        receipt(B256::from([random(5) as u8; 32])),
                        registered(other),
                        (other, founded().remove(1).1),
                    ],
                    _ => vec![],
                };
                chain.mine(logs);
            }
        }
        if random(3) == 0 {
            running.reaches_tip(&node).await;
        }
    }
    running.reaches_tip(&node).await;
    running.stop().await.unwrap();
    let dump = dumped(&config.database).await;
    assert!(dump.lines().count() > 100);
    assert_eq!(dump, rebuilt(&node).await);
}

#[tokio::test]
async fn endpoints_of_another_chain_are_refused() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[&node], dir.path().join("mirror.sqlite"));
    node.chain().mine(founded());
    config.chain_id = Some(1);
    let reason = Running::start(&config).await.ends().await;
    assert!(
        matches!(reason, RunError::Stopped(StopReason::WrongChain { have: 31337, want: 1, .. })),
        "{reason}"
    );

    config.chain_id = None;
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    running.stop().await.unwrap();
    config.registry = APP; // a database holds one registry only
    let reason = Running::start(&config).await.ends().await;
    assert!(matches!(reason, RunError::Stopped(StopReason::OtherSource(_))), "{reason}");
}

#[tokio::test]
async fn an_unknown_event_of_the_registry_stops_it_with_a_reason() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let unknown = LogData::new_unchecked(vec![B256::repeat_byte(0x42)], vec![].into());
    node.chain().mine(vec![registered(APP)]);
    node.chain().mine(vec![(REGISTRY, unknown)]);
    let reason = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await.ends().await;
    assert!(reason.to_string().contains("block 1, log 0"), "{reason}");
}

/// What is not in a block, as its hash commits to it, is never applied; an honest second endpoint is asked instead.
#[tokio::test]
async fn forged_logs_are_refused() {
    let (proved, told) = ("are not those that its header commits to", "is of another block");
    for (crowded, insecure_unproved, reason) in
        [(false, false, proved), (true, false, proved), (false, true, told)]
    {
        let node = Node::start().await;
        let dir = tempfile::tempdir().unwrap();
        node.chain().mine_empty(3);
        let alone = config(&[&node], dir.path().join("alone.sqlite"));
        let running = Running::start(&Config { insecure_unproved, ..alone }).await;
        running.reaches_tip(&node).await;
        {
            let mut chain = node.chain();
            (chain.crowded, chain.forged_receipts, chain.foreign_logs) = (crowded, true, true);
        }
        with_open_run(&mut node.chain());
        let (status, body) = running.says_why_not().await;
        assert!(body["last_error"].as_str().unwrap().contains(reason), "{status} {body}");
        let status = running.ok("/v1/status").await;
        assert_eq!(
            (&status["head"]["number"], &status["apps"]),
            (&serde_json::json!(2), &serde_json::json!(0))
        );
        running.stop().await.unwrap();

        let honest = node.twin().await;
        let both = config(&[&node, &honest], dir.path().join("both.sqlite"));
        let running = Running::start(&Config { insecure_unproved, ..both }).await;
        running.reaches_tip(&honest).await;
        assert_eq!(head_decision(&running).await, "allow");
        running.stop().await.unwrap();
    }
}

/// Logs of blocks whose filters promise everything, and of a chain that is believed: `eth_getLogs` is what they come by.
const BY_LOGS: [(bool, bool); 2] = [(true, false), (false, true)];

/// Small ranges, repeated and reordered logs, and endpoints that go away cost time only.
#[tokio::test]
async fn provider_limits_and_failures_are_lived_with() {
    for (crowded, insecure_unproved) in BY_LOGS {
        let node = Node::start().await;
        let dir = tempfile::tempdir().unwrap();
        {
            let mut chain = node.chain();
            (chain.crowded, chain.max_range, chain.shuffled_logs) = (crowded, Some(7), true);
        }
        with_open_run(&mut node.chain());
        node.chain().mine_empty(600);
        let dead = Node::start().await;
        dead.chain().down = true;
        let config =
            Config { insecure_unproved, ..config(&[&dead, &node], dir.path().join("mirror.sqlite")) };
        let running = Running::start(&config).await;
        running.reaches_tip(&node).await;
        assert_eq!(head_decision(&running).await, "allow");
        running.stop().await.unwrap();
        node.chain().max_range = None;
        node.chain().shuffled_logs = false;
        assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
    }
}

/// Answers that are silently short never become state: the headers' bloom filters tell.
#[tokio::test]
async fn ranges_without_some_logs_are_noticed() {
    for (crowded, insecure_unproved) in BY_LOGS {
        let node = Node::start().await;
        node.chain().crowded = crowded;
        with_open_run(&mut node.chain());
        for run in 0..120u64 {
            let id = B256::from(alloy::primitives::U256::from(run + 1));
            node.chain().mine(vec![run_opened(id, 3, run), run_opened(!id, 3, run)]);
        }
        node.chain().mine_empty(300);
        node.chain().mine(vec![revoked(0, 1)]);
        node.chain().mine_empty(20);
        let honest = rebuilt(&node).await;
        let config = Config { insecure_unproved, ..config(&[&node], PathBuf::new()) };
        for (max_logs, unindexed) in [(Some(50), 0), (Some(0), 0), (None, 40), (Some(3), 400)] {
            {
                let mut chain = node.chain();
                (chain.max_logs, chain.unindexed) = (max_logs, unindexed);
            }
            let tip = node.chain().tip();
            assert_eq!(rebuilt_from(&config, tip).await, honest, "{max_logs:?} {unindexed}");
        }
    }
}

/// An endpoint that stands still contradicts nothing; that it does is told by another. One that says it is farther but
/// has nothing to show does not keep the mirror from being current.
#[tokio::test]
async fn an_endpoint_that_stands_still_is_left_for_another() {
    let frozen = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    with_open_run(&mut frozen.chain());
    let alive = frozen.twin().await;
    let mut config = config(&[&frozen, &alive], dir.path().join("mirror.sqlite"));
    config.max_lag = Duration::from_secs(2);
    let running = Running::start(&config).await;
    running.reaches_tip(&frozen).await;
    alive.chain().mine(vec![revoked(0, 1)]);
    running.reaches_tip(&alive).await;
    assert_eq!(head_decision(&running).await, "proposal_revoked");

    // The other one's newest block is far away, and it has no other.
    frozen.chain().boasts = Some(1_000_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.get("/readyz").await.0, 200);
    alive.chain().mine_empty(1);
    running.reaches_tip(&alive).await;
    running.stop().await.unwrap();
    assert_eq!(dumped(&config.database).await, rebuilt(&alive).await);
}

/// An endpoint that announces heads which do not exist, without end, moves nothing and does not make the indexer ask
/// without end; it still hears at once of those that do.
#[tokio::test]
async fn announcements_are_hints_only() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    node.chain().mine_empty(3);
    let mut config = config(&[&node], dir.path().join("mirror.sqlite"));
    config.poll = Duration::from_secs(3_600);
    config.ws_urls = vec![crier().await];
    let running = Running::start(&config).await;
    running.reaches_tip(&node).await;
    running.follows_by("websocket").await;
    for _ in 0..5 {
        let (before, begun) = (node.chain().requests, Instant::now());
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = (node.chain().requests - before) as f64 / begun.elapsed().as_secs_f64();
        assert!(asked < 200.0, "{asked} requests each second");
        node.chain().mine(founded());
        running.reaches_tip(&node).await;
    }
    running.stop().await.unwrap();
    assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
}

/// A WebSocket endpoint that confirms a subscription and then announces as fast as it can.
async fn crier() -> reqwest::Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                let asked: Value =
                    serde_json::from_str(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str())
                        .unwrap();
                let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": "0x1" });
                let head = json!({ "number": "0xffffff", "hash": B256::repeat_byte(7) });
                let cry = json!({
                    "jsonrpc": "2.0", "method": "eth_subscription",
                    "params": { "subscription": "0x1", "result": head },
                });
                let mut said = socket.send(Message::text(answer.to_string())).await;
                while said.is_ok() {
                    said = socket.send(Message::text(cry.to_string())).await;
                    tokio::task::yield_now().await;
                }
            });
        }
    });
    url
}

/// A story in which everything fits can be told from the chain by another endpoint only: as long as one has another block
/// in the place of a confirmed one, nothing is said to be current, however long the story is and however silent the other
/// becomes.
#[tokio::test]
async fn endpoints_that_show_different_chains_are_not_believed() {
    for (first, further) in [(0, 4), (1, 4), (0, 200), (1, 200)] {
        let honest = Node::start().await;
        let dir = tempfile::tempdir().unwrap();
        with_open_run(&mut honest.chain());
        let liar = honest.twin().await;
        honest.chain().mine(vec![revoked(0, 1)]); // which the other never shows
        honest.chain().mine_empty(3);
        liar.chain().mine_empty(further);
        let mut nodes = [&honest, &liar];
        nodes.swap(0, first);
        let running = Running::start(&config(&nodes, dir.path().join("mirror.sqlite"))).await;
        running.is_not_current("than the mirror").await;
        let (status, refused) = running.get(&question()).await;
        assert_eq!((status, &refused["code"]), (503, &json!("not_synced")));
        // It stays so, whatever is mined, and when nobody contradicts any more.
        honest.chain().mine_empty(3);
        liar.chain().mine_empty(3);
        for silent in [None, Some(&honest), Some(&liar)] {
            nodes.iter().for_each(|node| node.chain().down = false);
            silent.iter().for_each(|node| node.chain().down = true);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2_500) {
                let (status, ready) = running.get("/readyz").await;
                assert_eq!(status, 503, "{first} {further}, silent: {:?}, {ready}", silent.map(|it| &it.url));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        liar.chain().down = false;

        // A fork that is not confirmed is nothing unusual.
        let blocks = honest.chain().blocks.clone();
        liar.chain().blocks = blocks;
        liar.chain().drop_blocks(1);
        liar.chain().mine_empty(1);
        let begun = Instant::now();
        while running.get("/readyz").await.0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(head_decision(&running).await, "proposal_revoked");
        running.stop().await.unwrap();
    }
}

/// An endpoint that is behind contradicts nothing either, but it had shown more. When there is nothing new in the place of
/// what is gone, the state before that is not the current one.
#[tokio::test]
async fn blocks_that_are_gone_are_missed() {
    let (node, config, running, _dir) = open_run_mirrored().await;
    node.chain().mine(vec![revoked(0, 1)]);
    node.chain().mine_empty(5);
    running.reaches_tip(&node).await;
    let doubts = async || {
        let begun = Instant::now();
        while running.get("/readyz").await.0 == 200 {
            assert!(begun.elapsed() < Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    node.chain().hidden = 6;
    doubts().await;
    running.is_not_current("is gone, and nothing came in its place yet").await;
    // The same blocks again, but not all.
    node.chain().hidden = 5;
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.is_not_current("is gone, and nothing came in its place yet").await;
    node.chain().hidden = 0;
    running.reaches_tip(&node).await;
    assert_eq!(head_decision(&running).await, "proposal_revoked");

    // A chain that was really set back, as developers do, is believed from its first new block on.
    node.chain().drop_blocks(6);
    doubts().await;
    running.is_not_current("is gone, and nothing came in its place yet").await;
    node.chain().mine_empty(1);
    running.reaches_tip(&node).await;
    assert_eq!(head_decision(&running).await, "allow");
    running.stop().await.unwrap();
    assert_eq!(dumped(&config.database).await, rebuilt(&node).await);
}

/// Headers below the first event are read where there are any. A chain that is not there yet, or not any more, is named.
#[tokio::test]
async fn a_chain_without_its_first_blocks_is_read_from_where_it_begins() {
    let node = Node::start().await;
    node.chain().mine_empty(300);
    with_open_run(&mut node.chain());
    node.chain().mine_empty(10);
    let from_block = |from_block| Config { from_block, ..config(&[&node], PathBuf::new()) };
    let tip = node.chain().tip();
    let whole = rebuilt_from(&from_block(290), tip).await;
    assert_eq!(whole, rebuilt(&node).await);
    node.chain().pruned_below = 290;
    assert_eq!(rebuilt_from(&from_block(290), tip).await, whole);
    for (first, reason) in [(100, "has no block 100; give --from-block"), (1_000, "the chain ends at block")]
    {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("mirror.sqlite").into();
        let running = Running::start(&Config { database, ..from_block(first) }).await;
        running.is_not_current(reason).await;
        running.stop().await.unwrap();
    }
}
