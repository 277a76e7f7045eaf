//! Every statement is one that both databases take, with the migrated schema.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use alloy::primitives::{Address, B256};
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use super::*;

/// Texts of all statements: the fixed ones, rows of the inserts, and selects by every index and option.
fn statements(sqlite: bool) -> Vec<String> {
    let fixed = [read::text::ALL, write::text::ALL].concat();
    let mut texts: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
    texts.push(format!("{} ($1, $2, $3, $4)", write::text::INSERT_BLOCKS));
    let columns: Vec<String> = (1..=13).map(|place| format!("${place}")).collect();
    texts.push(format!("{} ({})", write::text::INSERT_EVENTS, columns.join(", ")));
    let (word, app) = (B256::ZERO, Address::ZERO);
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
                texts.push(select.sql(sqlite).unwrap().text().to_owned());
            }
        }
    }
    texts
}

#[tokio::test]
async fn sqlite_prepares_every_statement() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("mirror.sqlite").into()).await.unwrap();
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
