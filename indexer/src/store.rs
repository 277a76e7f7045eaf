//! The mirror in SQLite: headers and events, written only in whole ranges and whole rewinds.
//!
//! Invariants: every event's block is stored; the last [`crate::config::HEADER_WINDOW`] headers below the head have
//! no gap; each write is one transaction, so a crash leaves the state of some applied range.

mod feed;
mod read;
mod write;

use std::{path::Path, time::Duration};

use alloy::primitives::{Address, B256};
use sqlx::{
    Row, SqlSafeStr, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

pub use self::{
    feed::{Fed, Feed, Page, Place, Within},
    read::{By, Cursor, Kinds, Recorded, Select, Snapshot, Stamp, Stored},
    write::{Batch, ChainEvent, NewEvent},
};
use tokio::sync::watch;

use crate::rpc::Header;

/// Why the mirror could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema is not this version's.
    #[error("database schema: {0}; use another --database path to start afresh")]
    Migrate(#[from] MigrateError),
    /// The file mirrors something else.
    #[error("the database mirrors {have}, not {want}; use another --database path for it")]
    OtherSource {
        /// What it holds.
        have: Source,
        /// What was asked for.
        want: Source,
    },
    /// Somebody else moved the head meanwhile.
    #[error(
        "the database's head is not the one that this range follows; another indexer writes to the same file"
    )]
    HeadMoved,
    /// A block is stored under this number with another hash.
    #[error("block {number} is stored with another hash")]
    OtherBlock {
        /// Its number.
        number: u64,
    },
    /// A number that SQLite's integers cannot hold.
    #[error("{field} {value} does not fit the database")]
    OutOfRange {
        /// Which column.
        field: &'static str,
        /// The number.
        value: u64,
    },
    /// A row that this version did not write.
    #[error("event {block_number}:{log_index} in the database is unreadable: {reason}")]
    Unreadable {
        /// Block of the row.
        block_number: u64,
        /// Log index of the row.
        log_index: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What a database mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The `DstackKms`.
    pub registry: Address,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "registry {} on chain {}", self.registry, self.chain_id)
    }
}

/// The mirror. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// One connection: SQLite has one writer, and waiting for it here is fairer than in SQLite.
    writer: SqlitePool,
    readers: SqlitePool,
    /// Counts applied ranges and rewinds, for those who wait for them.
    changed: watch::Sender<u64>,
}

impl Store {
    /// Opens or creates the database and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode this survives kill -9; after a power failure the last ranges are fetched again.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        migrator().run(&writer).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(4).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers, changed: watch::Sender::default() })
    }

    /// Opens an existing database for reading only.
    pub async fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let options =
            SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(5));
        let readers = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        Ok(Self { writer: readers.clone(), readers, changed: watch::Sender::default() })
    }

    /// What the database mirrors, once that is known.
    pub async fn source(&self) -> Result<Option<Source>, StoreError> {
        self.snapshot().await?.source().await
    }

    /// Declares what the database mirrors; refuses if it already mirrors something else.
    pub async fn claim(&self, want: Source) -> Result<(), StoreError> {
        sqlx::query(
            "insert into source (source_id, chain_id, registry) values (1, ?, ?) on conflict do nothing",
        )
        .bind(integer("chain id", want.chain_id)?)
        .bind(want.registry.to_vec())
        .execute(&self.writer)
        .await?;
        match self.source().await? {
            Some(have) if have != want => Err(StoreError::OtherSource { have, want }),
            _ => Ok(()),
        }
    }

    /// A consistent view of the whole database, for several reads.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::new(self.readers.begin().await?))
    }

    /// The newest mirrored block.
    pub async fn head(&self) -> Result<Option<Header>, StoreError> {
        self.snapshot().await?.head().await
    }

    /// Changes with every applied range and every rewind.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Closes all connections, which also empties the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn migrator() -> Migrator {
    let mirror = include_str!("../migrations/1_mirror.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "mirror".into(), MigrationType::Simple, mirror, false)])
}

fn integer(field: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { field, value })
}

fn number(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|e| undecodable(column, e))
}

fn word(row: &SqliteRow, column: &'static str) -> Result<B256, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    B256::try_from(bytes).map_err(|e| undecodable(column, e))
}

fn address(row: &SqliteRow, column: &'static str) -> Result<Address, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Address::try_from(bytes).map_err(|e| undecodable(column, e))
}

fn header(row: &SqliteRow) -> Result<Header, StoreError> {
    Ok(Header {
        number: number(row, "number")?,
        hash: word(row, "hash")?,
        parent_hash: word(row, "parent_hash")?,
        timestamp: number(row, "timestamp")?,
    })
}

fn undecodable(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Sql(sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) })
}
