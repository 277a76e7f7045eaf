//! The event stream: from any position, without gaps or repeats, across reorganisations.

use std::time::Duration;

use alloy::primitives::{B256, U256};
use serde_json::{Value, json};

use crate::{
    chain::{Node, Random},
    running::{Running, config},
    study::*,
};

/// What a client makes of the stream: it keeps what it is told and forgets what is taken back.
#[derive(Default)]
struct Client {
    last: Option<String>,
    log: Vec<(String, Value)>,
    rewinds: Vec<Value>,
    head: Value,
}

impl Client {
    fn hears(&mut self, kind: &str, id: Option<&str>, data: Value) {
        match kind {
            "log" => {
                let id = id.expect("an event has an id").to_owned();
                assert!(!self.log.iter().any(|(known, _)| *known == id), "repeated: {id}");
                self.log.push((id, data));
            }
            "rewind" => {
                let keep = data["keep"].as_u64();
                self.log.retain(|(id, _)| keep.is_some_and(|keep| block_of(id) <= keep));
                self.rewinds.push(data);
            }
            "head" => self.head = data["head"].clone(),
            other => panic!("unknown event {other}"),
        }
        self.last = id.map(str::to_owned).or(self.last.take());
    }

    /// Connects where it left off and listens until it is told this head, or for so many messages.
    async fn listens(&mut self, running: &Running, app: &str, until: (u64, B256), most: usize) {
        let mut stream = running.stream(&format!("/v1/events{app}"), self.last.as_deref()).await;
        for _ in 0..most {
            let wait = tokio::time::timeout(Duration::from_secs(120), stream.next()).await;
            let (kind, id, data) = wait.expect("the stream goes on").expect("the stream is open");
            self.hears(&kind, id.as_deref(), data);
            if self.head["hash"] == json!(until.1) {
                return;
            }
        }
    }

    fn kinds(&self) -> Vec<&str> {
        self.log.iter().map(|(_, data)| data["kind"].as_str().unwrap()).collect()
    }
}

fn block_of(id: &str) -> u64 {
    id.split([':', '@']).next().unwrap().parse().unwrap()
}

/// All events by the timeline and the registry's own, as the stream tells them.
async fn told_at_once(running: &Running, node: &Node) -> Vec<(String, Value)> {
    let mut client = Client::default();
    let tip = node.chain().tip();
    client.listens(running, "", tip, usize::MAX).await;
    assert!(client.rewinds.is_empty());
    client.log
}

#[tokio::test]
async fn older_events_of_an_app_come_with_its_registration() {
    let (node, running, _dir) = crate::api::study().await;
    let mut client = Client::default();
    let tip = node.chain().tip();
    client.listens(&running, "", tip, usize::MAX).await;
    let kinds = client.kinds();
    assert_eq!(kinds[..3], ["app_registered", "app_created", "owner_added"], "{kinds:?}");
    let timeline = running.ok(&format!("/v1/apps/{APP}/timeline?limit=500")).await;
    let (events, ours): (Vec<_>, Vec<_>) = (
        timeline["events"].as_array().unwrap().iter().map(|event| event["cursor"].clone()).collect(),
        client.log[1..].iter().map(|(_, data)| data["cursor"].clone()).collect(),
    );
    assert_eq!(ours, events, "each once, in order");
    assert_eq!(client.log[1].1["address"], json!(APP));
    assert!(client.log[1].0.starts_with("3:0/0:0@0x"), "{}", client.log[1].0);

    // From every single position on, exactly the rest.
    for (index, (id, _)) in client.log.iter().enumerate() {
        let mut rest = Client { last: Some(id.clone()), ..Client::default() };
        rest.listens(&running, "", tip, usize::MAX).await;
        assert_eq!(rest.log, client.log[index + 1..], "after {id}");
    }
    // A position of an answer is one, too.
    let after = format!("?after={}@0x{}", tip.0, hex::encode(tip.1));
    let mut idle = Client::default();
    idle.listens(&running, &after, tip, 1).await;
    assert!(idle.log.is_empty() && idle.rewinds.is_empty());

    let mut of_app = Client::default();
    of_app.listens(&running, &format!("?app={APP}"), tip, usize::MAX).await;
    assert_eq!(of_app.log, client.log);
    let mut of_none = Client::default();
    of_none.listens(&running, &format!("?app={REGISTRY}"), tip, usize::MAX).await;
    assert!(of_none.log.is_empty());
    assert_eq!(running.get("/v1/events?after=12").await.0, 400);
    running.stop().await.unwrap();
}

/// Long random histories; the client comes and goes, and ends with what one who was never away has.
#[tokio::test]
async fn random_reorganisations_leave_no_gap_and_no_repetition() {
    for seed in 1..=6u64 {
        let mut random = Random(seed);
        let node = Node::start().await;
        let dir = tempfile::tempdir().unwrap();
        let setting = config(&[&node], dir.path().join("mirror.sqlite"));
        node.chain().mine(founded());
        let mut running = Running::start(&setting).await;
        let mut client = Client::default();
        for step in 0..40u64 {
            {
                let mut chain = node.chain();
                let height = chain.blocks.len();
                match random.below(4) {
                    0 if height > 3 => {
                        let depth = 1 + random.below(height.min(12) as u64 - 1) as usize;
                        chain.drop_blocks(depth);
                        // Sometimes the chain gets shorter, and only grows again later.
                        chain.mine_empty(1 + random.below(depth as u64 + 1) as usize);
                    }
                    1 => drop(chain.mine(vec![registered(APP)])),
                    2 => {
                        let run = B256::from(U256::from(seed << 32 | step));
                        chain.mine(vec![run_opened(run, 0b11, step), run_opened(!run, 0b11, step)]);
                    }
                    _ => drop(chain.mine(vec![approved(0, 1, 1)])),
                }
            }
            if step % 9 == 8 {
                running.stop().await.unwrap();
                running = Running::start(&setting).await;
            }
            if random.below(3) == 0 {
                let tip = node.chain().tip();
                running.reaches(tip).await;
                let most = 1 + random.below(6) as usize;
                client.listens(&running, "", tip, most).await;
            }
        }
        running.reaches_tip(&node).await;
        let tip = node.chain().tip();
        client.listens(&running, "", tip, usize::MAX).await;
        assert_eq!(client.log, told_at_once(&running, &node).await, "seed {seed}");
        running.stop().await.unwrap();
    }
}

/// Whoever listens while it happens is told at once.
#[tokio::test]
async fn a_listener_is_told_what_happens() {
    let (node, running, _dir) = crate::api::study().await;
    let mut stream = running.stream("/v1/events", None).await;
    let mut client = Client::default();
    let mut until = async |client: &mut Client, hash: B256| {
        while client.head["hash"] != json!(hash) {
            let (kind, id, data) = stream.next().await.unwrap();
            client.hears(&kind, id.as_deref(), data);
        }
    };
    let tip = node.chain().tip();
    until(&mut client, tip.1).await;
    node.chain().mine(vec![revoked(0, 2)]);
    let tip = node.chain().tip();
    until(&mut client, tip.1).await;
    assert_eq!(client.kinds().last(), Some(&"proposal_revoked"));
    node.chain().drop_blocks(1);
    node.chain().mine_empty(1);
    let tip = node.chain().tip();
    until(&mut client, tip.1).await;
    assert_eq!((client.kinds().last(), client.rewinds.len()), (Some(&"receipt_posted"), 1));
    // It ends with the service, and does not hold it up.
    running.stop().await.unwrap();
    assert!(stream.next().await.is_none());
}

/// An id that this mirror cannot place takes the client back to the start: never a gap.
#[tokio::test]
async fn unknown_positions_start_over() {
    let (node, running, _dir) = crate::api::study().await;
    let whole = told_at_once(&running, &node).await;
    for id in [format!("2@{}", B256::repeat_byte(1)), format!("900:1@{}", B256::repeat_byte(2))] {
        let mut client = Client { last: Some(id), ..Client::default() };
        let tip = node.chain().tip();
        client.listens(&running, "", tip, usize::MAX).await;
        assert_eq!((client.rewinds, client.log), (vec![json!({ "keep": null })], whole.clone()));
    }
    running.stop().await.unwrap();
}

/// A client that was told of the head, and of nothing since, comes back when that header has long been forgotten.
#[tokio::test]
async fn a_quiet_time_repeats_nothing() {
    let node = node_with_open_run().await;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(&config(&[&node], dir.path().join("mirror.sqlite"))).await;
    node.chain().mine_empty(5);
    running.reaches_tip(&node).await;
    let (number, hash) = node.chain().tip();
    let mut client = Client { last: Some(format!("{number}@{hash}")), ..Client::default() };
    client.listens(&running, "", (number, hash), usize::MAX).await;
    for _ in 0..3 {
        node.chain().mine_empty(400);
        running.reaches_tip(&node).await;
        let tip = node.chain().tip();
        client.listens(&running, "", tip, usize::MAX).await;
    }
    assert!(client.log.is_empty() && client.rewinds.is_empty(), "{:?} {:?}", client.log, client.rewinds);
    node.chain().mine(vec![revoked(0, 1)]);
    running.reaches_tip(&node).await;
    let tip = node.chain().tip();
    client.listens(&running, "", tip, usize::MAX).await;
    assert_eq!((client.kinds(), client.rewinds.len()), (vec!["proposal_revoked"], 0));
    running.stop().await.unwrap();
}
