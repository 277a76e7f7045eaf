//! Every statement is one that both databases take, with the migrated schema.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::SolEvent as _,
};
use cohort_protocol::abi::IDstackApp::RunOpened;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use super::{sql::Statement, *};
use crate::event::{AppEvent, Keys};

fn some_event(block_number: u64) -> NewEvent {
    NewEvent {
        block_number,
        log_index: 0,
        transaction_hash: B256::ZERO,
        address: Address::ZERO,
        topics: Vec::new(),
        data: Bytes::new(),
        kind: "a",
        keys: Keys::default(),
    }
}

fn header(number: u64) -> Header {
    Header { number, hash: B256::ZERO, parent_hash: B256::ZERO, timestamp: 0 }
}

async fn empty() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("mirror.sqlite").into()).await.unwrap();
    (dir, store)
}

/// Texts of all statements: the fixed ones, inserts of one row and of many, selects by every index and option.
fn statements(sqlite: bool) -> Vec<String> {
    let fixed = [read::text::ALL, write::text::ALL].concat();
    let mut texts: Vec<String> = fixed.into_iter().map(|statement| statement.text().to_owned()).collect();
    if !sqlite {
        texts.extend(sql::postgres::ALL.iter().map(|statement| statement.text().to_owned()));
    }
    let (word, app) = (B256::ZERO, Address::ZERO);
    let header = header(0);
    let event = some_event(0);
    for rows in [1, write::ROWS_PER_INSERT] {
        texts.push(write::block_rows(&vec![&header; rows], sqlite).unwrap().into_text());
        if sqlite {
            let numbered = write::Numbered { contract_id: 1, kind_id: 1, event: &event };
            texts.push(write::event_rows(&vec![numbered; rows]).unwrap().into_text());
        }
    }
    for by in [
        By::Contract,
        By::App(app),
        By::Proposal(word),
        By::Compose(word),
        By::Run(word),
        By::Dataset(word),
        By::Superseded(word),
    ] {
        for kinds in [Kinds::All, Kinds::One("a"), Kinds::Any(&["a", "b"])] {
            let select = Select::new(app, by, kinds, 1);
            let after = Some(Cursor { block_number: 0, log_index: 0 });
            for select in [select, select.newest(), select.page(after, 2)] {
                texts.push(select.sql(sqlite).unwrap().into_text());
            }
        }
    }
    let begun: Vec<_> = [read::text::open::ALL, write::text::open::ALL].concat();
    let ended = |begun: &Statement| texts.iter().any(|text| text.starts_with(begun.text()));
    assert!(!sqlite || begun.iter().all(ended), "a beginning without an end here");
    texts
}

#[tokio::test]
async fn events_come_with_their_blocks() {
    let (_dir, store) = empty().await;
    let headers = vec![header(0), header(2)];
    let refused = store.apply(&Batch { after: None, headers, events: vec![some_event(1)] }).await;
    assert!(matches!(refused, Err(StoreError::NoBlock { number: 1 })), "{refused:?}");
    assert_eq!(store.head().await.unwrap(), None);
}

/// Statements stop where they fail and leave what they did; the transaction does not.
#[tokio::test]
async fn a_range_that_fails_half_way_leaves_nothing() {
    let (_dir, store) = empty().await;
    let headers = vec![header(0), header(1)];
    let batch = |events| Batch { after: None, headers: headers.clone(), events };
    let refused = store.apply(&batch([0, 1, 1].map(some_event).into())).await;
    assert!(matches!(refused, Err(StoreError::Sql(_))), "{refused:?}");
    assert_eq!(store.head().await.unwrap(), None);
    store.apply(&batch([0, 1].map(some_event).into())).await.unwrap();
    assert_eq!(store.head().await.unwrap(), Some(header(1)));
}

/// Contracts that are not ours may emit logs as long as a block allows.
#[tokio::test]
async fn what_a_stream_holds_at_once_is_bounded_in_bytes() {
    let (_dir, store) = empty().await;
    let long = |number| NewEvent {
        topics: vec![RunOpened::SIGNATURE_HASH],
        data: vec![7; 300_000].into(),
        ..some_event(number)
    };
    let events = (0..20).map(long).collect();
    store.apply(&Batch { after: None, headers: (0..20).map(header).collect(), events }).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = snapshot.all_events(after, 99, Address::repeat_byte(1), 500, 1 << 20).await;
        let (rows, more) = page.unwrap();
        pages.push(rows.len());
        after = rows.last().map(|(_, row)| row.stamp.cursor);
        if !more {
            break;
        }
    }
    assert_eq!(pages, [3, 3, 3, 3, 3, 3, 2]);
    let (rows, more) = snapshot.all_events(None, 99, Address::repeat_byte(1), 500, 1_000).await.unwrap();
    assert_eq!((rows.len(), more), (1, true), "one that is too long comes alone");
}

/// Whoever reads the API's lists takes no connection that following and release decisions need.
#[tokio::test]
async fn lists_do_not_keep_following_waiting() {
    let (_dir, store) = empty().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(store.snapshot().await.unwrap());
    }
    let wait = Duration::from_millis(200);
    assert!(tokio::time::timeout(wait, store.snapshot()).await.is_err(), "all are taken");
    let head = tokio::time::timeout(Duration::from_secs(5), store.reserved().head()).await;
    assert_eq!(head.expect("one is free").unwrap(), None);
}

/// Indexes hold the ends of identifiers only.
#[tokio::test]
async fn identifiers_that_end_alike_are_told_apart() {
    let (_dir, store) = empty().await;
    let [one, other] = [1, 2].map(|first| B256::right_padding_from(&[first]));
    let opened = |(number, id): (u64, B256)| {
        let event = RunOpened {
            runId: id,
            proposalId: id,
            analyst: Address::ZERO,
            participants: 1,
            epsilon: 1,
            delta: 0,
            epsilonSpent: number,
            deltaSpent: 0,
        };
        let (topics, data) = event.encode_log_data().split();
        let decoded = AppEvent::decode(&topics, &data).unwrap();
        let (kind, keys) = (decoded.kind(), decoded.keys());
        NewEvent { topics, data, kind, keys, ..some_event(number) }
    };
    let events: Vec<_> = [(1, one), (2, one), (3, other), (4, other)].map(opened).into();
    let batch = Batch { after: None, headers: (1..=4).map(header).collect(), events };
    store.apply(&batch).await.unwrap();

    let mut snapshot = store.snapshot().await.unwrap();
    for (id, expected) in [(one, [1, 2]), (other, [3, 4]), (B256::ZERO, [0, 0])] {
        let expected: Vec<u64> = expected.into_iter().filter(|number| *number > 0).collect();
        let newest: Vec<u64> = expected.last().copied().into_iter().collect();
        for by in [By::Run(id), By::Proposal(id)] {
            let all = Select::new(Address::ZERO, by, Kinds::One("run_opened"), 9);
            for (select, expected) in [(all, &expected), (all.newest(), &newest)] {
                let found: Vec<Recorded<AppEvent>> = snapshot.events(select).await.unwrap();
                let found: Vec<_> = found.iter().map(|row| row.stamp.cursor.block_number).collect();
                assert_eq!(found, *expected, "{by:?}");
            }
        }
    }
}

#[tokio::test]
async fn sqlite_prepares_every_statement() {
    let (_dir, store) = empty().await;
    let Pool::Sqlite(pool) = &store.writer else { panic!("a file") };
    for text in statements(true) {
        let prepared = pool.prepare(AssertSqlSafe(text.clone()).into_sql_str()).await;
        assert!(prepared.is_ok(), "{text}: {:?}", prepared.err());
    }
    assert!(pool.prepare(AssertSqlSafe("select nothing from event").into_sql_str()).await.is_err());
}

#[tokio::test]
async fn postgres_prepares_every_statement() {
    let Some(server) = Server::start() else { return };
    let store = Store::open(&server.database()).await.unwrap();
    let Pool::Postgres(pool) = &store.writer else { panic!("a server") };
    for text in statements(false) {
        let prepared = pool.prepare(AssertSqlSafe(text.clone()).into_sql_str()).await;
        assert!(prepared.is_ok(), "{text}: {:?}", prepared.err());
    }
    // One replica leads; when its session ends, another may.
    let second = Store::open(&server.database()).await.unwrap();
    assert!(store.leads().await.unwrap() && !second.leads().await.unwrap() && store.leads().await.unwrap());
    store.close().await;
    while !second.leads().await.unwrap() {}
    second.close().await;
}

include!("../../tests/indexer/server.inc.rs");

impl Server {
    fn database(&self) -> Database {
        self.url().parse().unwrap()
    }
}
