//! The mirror on a real PostgreSQL server: the same state as in SQLite, and several replicas on one database.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use cohort_indexer::store::Database;

use crate::{
    running::{Running, config, dumped, rebuilt},
    study::*,
};

include!("server.inc.rs");

/// Two replicas share one database: one follows, both serve; when it ends, the other goes on.
#[tokio::test]
async fn replicas_share_a_database() {
    let Some(server) = Server::start() else { return };
    let database: Database = server.url().parse().unwrap();
    let node = node_with_open_run().await;
    let config = config(&[&node], database.clone());
    let first = Running::start(&config).await;
    first.reaches_tip(&node).await;
    let second = Running::start(&config).await;
    second.reaches_tip(&node).await;
    node.chain().mine(vec![revoked(0, 1)]);
    first.reaches_tip(&node).await;
    second.reaches_tip(&node).await;
    for replica in [&first, &second] {
        let answer = replica.ok(&question()).await;
        assert_eq!(answer["head"]["decision"], "proposal_revoked");
    }
    first.stop().await.unwrap();

    node.chain().drop_blocks(2);
    node.chain().mine(vec![run_opened(RUN, 0b11, 1_500_000_000)]);
    node.chain().mine_empty(3);
    second.reaches_tip(&node).await;
    assert_eq!(second.ok(&question()).await["head"]["decision"], "allow");
    second.stop().await.unwrap();
    assert_eq!(dumped(&database).await, rebuilt(&node).await, "the same bytes as SQLite gives");
}
