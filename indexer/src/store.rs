//! The mirror in SQLite or PostgreSQL: headers and events, written only in whole ranges and whole rewinds.
//!
//! Invariants: every event's block is stored; the last [`crate::config::HEADER_WINDOW`] headers below the head have
//! no gap; each write is one transaction, so a crash leaves the state of some applied range.

mod feed;
mod pack;
mod place;
mod read;
mod sql;
mod write;

use std::{borrow::Cow, sync::Arc, time::Duration};

use alloy::primitives::{Address, B256};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, watch};

pub(crate) use self::feed::Registered;
use self::sql::{Pool, Row, Sql};
pub use self::{
    feed::{Fed, Feed, Page, Place, Within},
    place::{Database, ServerUrl},
    read::{Bookmark, By, Cursor, Kinds, Recorded, Select, Snapshot, Stamp, Stored},
    write::{Batch, NewEvent},
};
use crate::rpc::Header;

/// Why the mirror could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema is not this version's.
    #[error("database schema: {0}; use another --database to start afresh")]
    Migrate(#[from] MigrateError),
    /// The file mirrors something else.
    #[error("the database mirrors {have}, not {want}; use another --database for it")]
    OtherSource {
        /// What it holds.
        have: Source,
        /// What was asked for.
        want: Source,
    },
    /// Somebody else moved the head meanwhile.
    #[error("the database's head is not the one that this range follows; another indexer writes to it")]
    HeadMoved,
    /// A block is stored under this number with another hash.
    #[error("block {number} is stored with another hash")]
    OtherBlock {
        /// Its number.
        number: u64,
    },
    /// An event whose block is not among those that are written with it; our bug.
    #[error("an event of block {number} would be stored without its block")]
    NoBlock {
        /// The block's number.
        number: u64,
    },
    /// A number that the database's integers cannot hold.
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
    /// One connection: there is one writer, and waiting for it here is fairer than in SQLite.
    writer: Pool,
    readers: Pool,
    /// Connections that no list of the API takes: for following, readiness and release decisions.
    reserved: Pool,
    /// The apps, as of some block.
    registered: Arc<std::sync::Mutex<Option<Arc<Registered>>>>,
    /// Counts applied ranges and rewinds, for those who wait for them.
    changed: watch::Sender<u64>,
    /// Of several replicas on one server, one follows the chain; `None` in a file.
    leadership: Option<Arc<Leadership>>,
}

/// A PostgreSQL session whose advisory lock makes this process the one that writes.
#[derive(Debug)]
struct Leadership {
    server: PgConnectOptions,
    session: Mutex<Option<PgConnection>>,
}

/// Any number, the same in all replicas: "cohort" in ASCII.
const ADVISORY_LOCK: i64 = 0x636f_686f_7274;
/// Bytes of a page of a new file. Each page that is written costs some calls of the kernel, so they are eight times as large
/// as SQLite would make them.
const PAGE_BYTES: u32 = 32 << 10;
/// Pages that a writer may leave in the write-ahead log, 128 MiB, before they go into the file. A backfill changes the same
/// pages again and again: each goes into the file once for all that came together here.
const CHECKPOINT_PAGES: &str = "4096";
/// KiB of pages that the writer keeps in memory, and each reader; SQLite wants them negative.
const WRITER_CACHE: &str = "-65536";
const READER_CACHE: &str = "-8192";
/// A reader waits so long for a connection.
const READER_WAIT: Duration = Duration::from_secs(5);

impl Store {
    /// Opens or creates the database and brings its schema up to date.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let changed = watch::Sender::default();
        match database {
            Database::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .page_size(PAGE_BYTES)
                    .journal_mode(SqliteJournalMode::Wal)
                    // In WAL mode this survives kill -9; after a power failure the last ranges are fetched again.
                    .synchronous(SqliteSynchronous::Normal)
                    .foreign_keys(true)
                    .busy_timeout(Duration::from_secs(5))
                    .disable_statement_logging();
                let writing = options
                    .clone()
                    .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                    .pragma("cache_size", WRITER_CACHE);
                let writer = SqlitePoolOptions::new().max_connections(1).connect_with(writing).await?;
                migrator::<sqlx::Sqlite>().run(&writer).await?;
                let reading = options.read_only(true).pragma("cache_size", READER_CACHE);
                let readers = || {
                    let pool = SqlitePoolOptions::new().max_connections(4).acquire_timeout(READER_WAIT);
                    pool.connect_with(reading.clone())
                };
                let (readers, reserved) = (Pool::Sqlite(readers().await?), Pool::Sqlite(readers().await?));
                let (writer, registered) = (Pool::Sqlite(writer), Arc::default());
                Ok(Self { writer, readers, reserved, registered, changed, leadership: None })
            }
            Database::Postgres(url) => {
                let server = url.expose().parse::<PgConnectOptions>()?.disable_statement_logging();
                let writer = PgPoolOptions::new().max_connections(1).connect_with(server.clone()).await?;
                migrator::<sqlx::Postgres>().run(&writer).await?;
                let readers = || {
                    let pool = PgPoolOptions::new().max_connections(6).acquire_timeout(READER_WAIT);
                    pool.connect_with(server.clone())
                };
                let (readers, reserved) =
                    (Pool::Postgres(readers().await?), Pool::Postgres(readers().await?));
                let leadership = Some(Arc::new(Leadership { server, session: Mutex::default() }));
                let (writer, registered) = (Pool::Postgres(writer), Arc::default());
                Ok(Self { writer, readers, reserved, registered, changed, leadership })
            }
        }
    }

    /// Opens an existing database for reading only.
    pub async fn open_existing(database: &Database) -> Result<Self, StoreError> {
        let readers = match database {
            Database::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .busy_timeout(Duration::from_secs(5));
                Pool::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
            }
            Database::Postgres(url) => {
                Pool::Postgres(PgPoolOptions::new().max_connections(1).connect(url.expose()).await?)
            }
        };
        let (changed, registered) = (watch::Sender::default(), Arc::default());
        let (writer, reserved) = (readers.clone(), readers.clone());
        Ok(Self { writer, readers, reserved, registered, changed, leadership: None })
    }

    /// The same, read over connections that no list of the API takes.
    pub fn reserved(&self) -> Self {
        Self { readers: self.reserved.clone(), ..self.clone() }
    }

    /// Whether this process is the one that follows the chain; it becomes that if nobody is. PostgreSQL sets the lock
    /// free when the session ends, however it ends.
    pub async fn leads(&self) -> Result<bool, StoreError> {
        let Some(leadership) = &self.leadership else { return Ok(true) };
        let mut session = leadership.session.lock().await;
        if let Some(held) = session.as_mut() {
            if held.ping().await.is_ok() {
                return Ok(true);
            }
            *session = None;
        }
        let mut candidate = leadership.server.connect().await?;
        let locked: bool = sqlx::query_scalar(sql::postgres::TRY_TO_LEAD.text())
            .bind(ADVISORY_LOCK)
            .fetch_one(&mut candidate)
            .await?;
        *session = locked.then_some(candidate);
        Ok(locked)
    }

    /// What the database mirrors, once that is known.
    pub async fn source(&self) -> Result<Option<Source>, StoreError> {
        self.snapshot().await?.source().await
    }

    /// Declares what the database mirrors; refuses if it already mirrors something else.
    pub async fn claim(&self, want: Source) -> Result<(), StoreError> {
        let mut tx = self.writer.write().await?;
        let chain_id = integer("chain id", want.chain_id)?;
        tx.execute(Sql::new(write::text::CLAIM).with(chain_id).with(want.registry)).await?;
        tx.commit().await?;
        match self.source().await? {
            Some(have) if have != want => Err(StoreError::OtherSource { have, want }),
            _ => Ok(()),
        }
    }

    /// A consistent view of the whole database, for several reads.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::new(self.readers.read().await?, self.registered.clone()))
    }

    /// The newest mirrored block.
    pub async fn head(&self) -> Result<Option<Header>, StoreError> {
        self.snapshot().await?.head().await
    }

    /// Changes with every applied range and every rewind.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes those who wait for changes: this replica made one, or saw that another did.
    pub fn announce(&self) {
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Closes all connections, which also empties the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.reserved.close().await;
        self.writer.close().await;
        if let Some(leadership) = &self.leadership {
            drop(leadership.session.lock().await.take());
        }
    }
}

fn migrator<DB: sqlx::Database>() -> Migrator {
    let migrations = [(1, "mirror", include_str!("../migrations/1_mirror.sql"))];
    let migration = |(version, name, text)| {
        let text = sqlx::AssertSqlSafe(sql::dialect::<DB>(text)).into_sql_str();
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, text, false)
    };
    Migrator::with_migrations(migrations.into_iter().map(migration).collect())
}

fn integer(field: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { field, value })
}

/// What indexes hold of an identifier.
fn key(id: &B256) -> i64 {
    let [.., a, b, c, d, e, f, g, h] = id.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn header(row: &Row) -> Result<Header, StoreError> {
    Ok(Header {
        number: row.number("number")?,
        hash: row.word("hash")?,
        parent_hash: row.word("parent_hash")?,
        timestamp: row.number("timestamp")?,
    })
}

#[cfg(test)]
mod tests;
