//! Applying a range of blocks, and taking blocks back after a reorganisation.

use alloy::primitives::{Address, B256};
use serde::Serialize;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{Store, StoreError, header, integer};
use crate::{
    config::HEADER_WINDOW,
    event::{AppEvent, Keys, RegistryEvent},
    rpc::Header,
};

/// Rows of one insert statement; 15 columns each stay far below SQLite's 32,766 parameters.
const ROWS_PER_INSERT: usize = 500;

/// A decoded event of the registry or of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ChainEvent {
    /// By the registry.
    Registry(RegistryEvent),
    /// By an app.
    App(Box<AppEvent>),
}

impl ChainEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registry(event) => event.kind(),
            Self::App(event) => event.kind(),
        }
    }

    fn args_json(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Registry(event) => event.args_json(),
            Self::App(event) => event.args_json(),
        }
    }

    fn keys(&self) -> Keys {
        match self {
            Self::Registry(event) => event.keys(),
            Self::App(event) => event.keys(),
        }
    }
}

/// An event to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Block that it is in.
    pub block_number: u64,
    /// Its place in the block.
    pub log_index: u64,
    /// Transaction that emitted it.
    pub transaction_hash: B256,
    /// Contract that emitted it.
    pub address: Address,
    /// What it says.
    pub event: ChainEvent,
}

/// A range of blocks, fetched and checked.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The head that it follows.
    pub after: Option<Header>,
    /// Ascending; the last is the new head. Holds every block that has one of `events`.
    pub headers: Vec<Header>,
    /// All events of the range, and the older ones of apps registered in it.
    pub events: Vec<NewEvent>,
}

impl Store {
    /// Applies a range in one transaction.
    pub async fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut tx = self.writer.begin_with("begin immediate").await?;
        if stored_head(&mut tx).await? != batch.after {
            return Err(StoreError::HeadMoved);
        }
        insert_headers(&mut tx, &batch.headers).await?;
        reinstate(&mut tx, &batch.headers).await?;
        insert_events(&mut tx, &batch.events).await?;
        if let Some(head) = batch.headers.last() {
            prune(&mut tx, head.number).await?;
        }
        tx.commit().await?;
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }

    /// Takes back all blocks above `keep`, or all, in one transaction. Apps whose registration is gone lose their older
    /// events as well: they would not be here had they never been registered.
    pub async fn rewind(&self, registry: Address, keep: Option<u64>) -> Result<(), StoreError> {
        let above = keep.map(|number| integer("block number", number)).transpose()?.unwrap_or(-1);
        let mut tx = self.writer.begin_with("begin immediate").await?;
        // Streams resume by the hash of a block: of one that is gone, they must learn what was kept.
        sqlx::query(
            "insert into orphan (hash, number, kept_number, kept_hash)
             select gone.hash, gone.number, kept.number, kept.hash
             from block gone left join block kept on kept.number = ? where gone.number > ? and true
             on conflict (hash) do update set kept_number = excluded.kept_number, kept_hash = excluded.kept_hash",
        )
        .bind(above)
        .bind(above)
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from event where block_number > ?").bind(above).execute(&mut *tx).await?;
        sqlx::query(
            "delete from event where address <> ? and address not in
               (select app from event where address = ? and kind = 'app_registered' and app is not null)",
        )
        .bind(registry.to_vec())
        .bind(registry.to_vec())
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from block where number > ?").bind(above).execute(&mut *tx).await?;
        tx.commit().await?;
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }
}

async fn stored_head(tx: &mut SqliteConnection) -> Result<Option<Header>, StoreError> {
    let row =
        sqlx::query("select number, hash, parent_hash, timestamp from block order by number desc limit 1")
            .fetch_optional(tx)
            .await?;
    row.as_ref().map(header).transpose()
}

async fn insert_headers(tx: &mut SqliteConnection, headers: &[Header]) -> Result<(), StoreError> {
    for header in headers {
        let number = integer("block number", header.number)?;
        // A block that is stored already must be the same one.
        let known: Option<Vec<u8>> = sqlx::query_scalar("select hash from block where number = ?")
            .bind(number)
            .fetch_optional(&mut *tx)
            .await?;
        match known {
            Some(hash) if hash != header.hash.as_slice() => {
                return Err(StoreError::OtherBlock { number: header.number });
            }
            Some(_) => {}
            None => {
                sqlx::query("insert into block (number, hash, parent_hash, timestamp) values (?, ?, ?, ?)")
                    .bind(number)
                    .bind(header.hash.to_vec())
                    .bind(header.parent_hash.to_vec())
                    .bind(integer("timestamp", header.timestamp)?)
                    .execute(&mut *tx)
                    .await?;
            }
        }
    }
    Ok(())
}

/// A block that was taken back and is there again is no orphan any more.
async fn reinstate(tx: &mut SqliteConnection, headers: &[Header]) -> Result<(), StoreError> {
    let any: Option<i64> =
        sqlx::query_scalar("select number from orphan limit 1").fetch_optional(&mut *tx).await?;
    if any.is_some() {
        for header in headers {
            sqlx::query("delete from orphan where hash = ?")
                .bind(header.hash.to_vec())
                .execute(&mut *tx)
                .await?;
        }
    }
    Ok(())
}

async fn insert_events(tx: &mut SqliteConnection, events: &[NewEvent]) -> Result<(), StoreError> {
    for chunk in events.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(Columns::of).collect::<Result<Vec<_>, _>>()?;
        let mut insert = QueryBuilder::<Sqlite>::new(
            "insert into event (block_number, log_index, transaction_hash, address, kind, args, app, proposal_id, \
             compose_hash, run_id, dataset_id, superseded_id) ",
        );
        insert.push_values(rows, |mut row, columns| {
            let id = |word: Option<B256>| word.map(|word| word.to_vec());
            row.push_bind(columns.block_number)
                .push_bind(columns.log_index)
                .push_bind(columns.event.transaction_hash.to_vec())
                .push_bind(columns.event.address.to_vec())
                .push_bind(columns.event.event.kind())
                .push_bind(columns.args)
                .push_bind(columns.keys.app.map(|app| app.to_vec()))
                .push_bind(id(columns.keys.proposal_id))
                .push_bind(id(columns.keys.compose_hash))
                .push_bind(id(columns.keys.run_id))
                .push_bind(id(columns.keys.dataset_id))
                .push_bind(id(columns.keys.superseded_id));
        });
        insert.build().execute(&mut *tx).await?;
    }
    Ok(())
}

struct Columns<'a> {
    event: &'a NewEvent,
    block_number: i64,
    log_index: i64,
    args: String,
    keys: Keys,
}

impl<'a> Columns<'a> {
    fn of(event: &'a NewEvent) -> Result<Self, StoreError> {
        let unreadable = |e: serde_json::Error| StoreError::Unreadable {
            block_number: event.block_number,
            log_index: event.log_index,
            reason: e.to_string(),
        };
        Ok(Self {
            event,
            block_number: integer("block number", event.block_number)?,
            log_index: integer("log index", event.log_index)?,
            args: event.event.args_json().map_err(unreadable)?,
            keys: event.event.keys(),
        })
    }
}

/// Forgets headers below the window that carry no event, except one in every window as an anchor for deep
/// reorganisations.
async fn prune(tx: &mut SqliteConnection, head: u64) -> Result<(), StoreError> {
    let window = integer("window", HEADER_WINDOW)?;
    sqlx::query(
        "delete from block where number <= ? and number > ? and number % ? <> 0
           and not exists (select 1 from event where event.block_number = block.number)",
    )
    .bind(integer("block number", head.saturating_sub(HEADER_WINDOW))?)
    // Only what the last ranges may have left behind: older headers were looked at before.
    .bind(integer("block number", head.saturating_sub(HEADER_WINDOW * 16))?)
    .bind(window)
    .execute(tx)
    .await?;
    Ok(())
}
