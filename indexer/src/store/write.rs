//! Applying a range of blocks, and taking blocks back after a reorganisation.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use alloy::primitives::{Address, B256, Bytes};
use sqlx::{Postgres, postgres::PgArguments, query::Query};

use super::{
    Store, StoreError, header, integer, key,
    pack::pack,
    read::text as read,
    sql::{Sql, Statement, Tx, Value, postgres, statements},
};
use crate::{config::HEADER_WINDOW, event::Keys, rpc::Header};

/// Rows of one insert statement; 12 columns each stay far below the 32,766 parameters of SQLite and the 65,535 of PostgreSQL.
pub(super) const ROWS_PER_INSERT: usize = 500;

/// Rows of one insert of whole columns.
const COLUMN_ROWS: usize = 5_000;

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
    /// Signature of the event and its indexed arguments.
    pub topics: Vec<B256>,
    /// The other arguments, ABI-encoded.
    pub data: Bytes,
    /// Name of the event, snake_case.
    pub kind: &'static str,
    /// What it is looked up by.
    pub keys: Keys,
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

/// The statements that are written with; a test prepares each of them on both databases.
pub(super) mod text {
    super::statements! {
        CLAIM =
            "insert into source (source_id, chain_id, registry) values (1, $1, $2) on conflict do nothing";
        HASHES = "select number, hash from block where number >= $1 and number <= $2";
        CONTRACT = "select contract_id as id from contract where address = $1";
        NEW_CONTRACT = "insert into contract (contract_id, address)
             select coalesce(max(contract_id), 0) + 1, $1 from contract returning contract_id as id";
        KIND = "select kind_id as id from event_kind where kind = $1";
        NEW_KIND = "insert into event_kind (kind_id, kind)
             select coalesce(max(kind_id), 0) + 1, $1 from event_kind returning kind_id as id";
        ORPHANS = "select number from orphan limit 1";
        NOT_ORPHAN = "delete from orphan where hash = $1";
        /// Streams resume by the hash of a block: of one that is gone, they must learn what was kept.
        MAKE_ORPHANS = "insert into orphan (hash, number, kept_number, kept_hash)
             select gone.hash, gone.number, kept.number, kept.hash
             from block gone left join block kept on kept.number = $1 where gone.number > $1
             on conflict (hash) do update set kept_number = excluded.kept_number, kept_hash = excluded.kept_hash";
        DROP_EVENTS = "delete from event where block_number > $1";
        DROP_UNREGISTERED = "delete from event where contract_id not in
             (select contract_id from contract where address = $1 or address in
             (select app from event where app is not null and contract_id = (select contract_id from contract where address = $1)))";
        DROP_BLOCKS = "delete from block where number > $1";
        PRUNE = "delete from block where number <= $1 and number > $2 and number % $3 <> 0
             and not exists (select 1 from event where event.block_number = block.number)";
    }

    /// Beginnings; the test has their ends.
    pub(crate) mod open {
        crate::store::sql::statements! {
            /// Goes on with rows.
            INSERT_BLOCKS = "insert into block (number, hash, parent_hash, timestamp) values ";
            /// Goes on with rows.
            INSERT_EVENTS = "insert or fail into event (block_number, log_index, contract_id, kind_id, transaction_hash, log, \
                 app, proposal_key, compose_key, run_key, dataset_key, superseded_key) values ";
        }
    }
}

impl Store {
    /// Applies a range in one transaction.
    pub async fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut tx = self.writer.write().await?;
        let head = tx.row(Sql::new(read::HEAD)).await?.as_ref().map(header).transpose()?;
        if head != batch.after {
            return Err(StoreError::HeadMoved);
        }
        let has_block = |event: &&NewEvent| {
            batch.headers.binary_search_by_key(&event.block_number, |header| header.number).is_ok()
        };
        if let Some(event) = batch.events.iter().find(|event| !has_block(event)) {
            return Err(StoreError::NoBlock { number: event.block_number });
        }
        insert_headers(&mut tx, &batch.headers).await?;
        reinstate(&mut tx, &batch.headers).await?;
        insert_events(&mut tx, &batch.events).await?;
        if let Some(head) = batch.headers.last() {
            prune(&mut tx, batch.after.map_or(0, |after| after.number), head.number).await?;
        }
        tx.commit().await?;
        self.announce();
        Ok(())
    }

    /// Adds headers that were forgotten, up to `head`, which must still be the head.
    pub async fn fill(&self, head: Header, headers: &[Header]) -> Result<(), StoreError> {
        let mut tx = self.writer.write().await?;
        if tx.row(Sql::new(read::HEAD)).await?.as_ref().map(header).transpose()? != Some(head) {
            return Err(StoreError::HeadMoved);
        }
        insert_headers(&mut tx, headers).await?;
        tx.commit().await
    }

    /// Takes back all blocks above `keep`, or all, in one transaction. Apps whose registration is gone lose their older
    /// events as well: they would not be here had they never been registered.
    pub async fn rewind(&self, registry: Address, keep: Option<u64>) -> Result<(), StoreError> {
        let above = keep.map(|number| integer("block number", number)).transpose()?.unwrap_or(-1);
        let mut tx = self.writer.write().await?;
        tx.execute(Sql::new(text::MAKE_ORPHANS).with(above)).await?;
        tx.execute(Sql::new(text::DROP_EVENTS).with(above)).await?;
        tx.execute(Sql::new(text::DROP_UNREGISTERED).with(registry)).await?;
        tx.execute(Sql::new(text::DROP_BLOCKS).with(above)).await?;
        tx.commit().await?;
        self.announce();
        Ok(())
    }
}

/// A block that is stored already must be the same one.
async fn insert_headers(tx: &mut Tx, headers: &[Header]) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else { return Ok(()) };
    let ends = Sql::new(text::HASHES)
        .with(integer("block number", first.number)?)
        .with(integer("block number", last.number)?);
    let mut known = BTreeMap::new();
    for row in tx.rows(ends).await? {
        known.insert(row.number("number")?, row.word("hash")?);
    }
    let mut new = Vec::with_capacity(headers.len());
    for header in headers {
        match known.get(&header.number) {
            Some(hash) if *hash != header.hash => {
                return Err(StoreError::OtherBlock { number: header.number });
            }
            Some(_) => {}
            None => new.push(header),
        }
    }
    for chunk in new.chunks(ROWS_PER_INSERT) {
        tx.execute(block_rows(chunk, tx.is_sqlite())?).await?;
    }
    Ok(())
}

pub(super) fn block_rows(headers: &[&Header], sqlite: bool) -> Result<Sql, StoreError> {
    let mut sql = Sql::begin(text::open::INSERT_BLOCKS, sqlite);
    for (place, header) in headers.iter().enumerate() {
        sql.push(if place == 0 { "(" } else { ", (" });
        sql.value(integer("block number", header.number)?).push(", ").value(header.hash);
        sql.push(", ").value(header.parent_hash);
        sql.push(", ").value(integer("timestamp", header.timestamp)?).push(")");
    }
    Ok(sql)
}

/// A block that was taken back and is there again is no orphan any more.
async fn reinstate(tx: &mut Tx, headers: &[Header]) -> Result<(), StoreError> {
    if tx.row(Sql::new(text::ORPHANS)).await?.is_some() {
        for header in headers {
            tx.execute(Sql::new(text::NOT_ORPHAN).with(header.hash)).await?;
        }
    }
    Ok(())
}

async fn insert_events(tx: &mut Tx, events: &[NewEvent]) -> Result<(), StoreError> {
    let events = numbered(tx, events).await?;
    match tx {
        Tx::Sqlite(_) => {
            for chunk in events.chunks(ROWS_PER_INSERT) {
                tx.execute(event_rows(chunk)?).await?;
            }
        }
        Tx::Postgres(tx) => {
            for chunk in events.chunks(COLUMN_ROWS) {
                event_columns(chunk)?.execute(&mut **tx).await?;
            }
        }
    }
    Ok(())
}

/// An event with this database's numbers of its contract and its kind.
#[derive(Debug, Clone)]
pub(super) struct Numbered<'a> {
    pub(super) contract_id: i64,
    pub(super) kind_id: i64,
    pub(super) event: &'a NewEvent,
}

async fn numbered<'a>(tx: &mut Tx, events: &'a [NewEvent]) -> Result<Vec<Numbered<'a>>, StoreError> {
    let (mut contracts, mut kinds) = (HashMap::new(), HashMap::new());
    let mut numbered = Vec::with_capacity(events.len());
    for event in events {
        let contract_id = match contracts.entry(event.address) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                *new.insert(number(tx, text::CONTRACT, text::NEW_CONTRACT, event.address).await?)
            }
        };
        let kind_id = match kinds.entry(event.kind) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(number(tx, text::KIND, text::NEW_KIND, event.kind).await?),
        };
        numbered.push(Numbered { contract_id, kind_id, event });
    }
    Ok(numbered)
}

/// The number of a contract or kind; a new one for one that has none.
async fn number(
    tx: &mut Tx,
    known: Statement,
    new: Statement,
    value: impl Into<Value> + Copy,
) -> Result<i64, StoreError> {
    let row = match tx.row(Sql::new(known).with(value)).await? {
        Some(row) => row,
        None => tx.row(Sql::new(new).with(value)).await?.ok_or(sqlx::Error::RowNotFound)?,
    };
    row.id("id")
}

/// For SQLite.
pub(super) fn event_rows(events: &[Numbered<'_>]) -> Result<Sql, StoreError> {
    let mut sql = Sql::begin(text::open::INSERT_EVENTS, true);
    for (place, Numbered { contract_id, kind_id, event }) in events.iter().enumerate() {
        let keys = event.keys;
        sql.push(if place == 0 { "(" } else { ", (" });
        sql.value(integer("block number", event.block_number)?);
        sql.push(", ").value(integer("log index", event.log_index)?);
        sql.push(", ").value(*contract_id).push(", ").value(*kind_id);
        sql.push(", ").value(event.transaction_hash);
        sql.push(", ").value(pack(&event.topics, &event.data));
        sql.push(", ").value(keys.app);
        for id in [keys.proposal_id, keys.compose_hash, keys.run_id, keys.dataset_id, keys.superseded_id] {
            sql.push(", ").value(id.as_ref().map(key));
        }
        sql.push(")");
    }
    Ok(sql)
}

/// For PostgreSQL.
fn event_columns<'a>(events: &[Numbered<'a>]) -> Result<Query<'a, Postgres, PgArguments>, StoreError> {
    fn column<'a, T>(events: &[Numbered<'a>], value: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
        events.iter().map(|numbered| value(numbered.event)).collect()
    }
    let ids = |id: fn(&Keys) -> &Option<B256>| column(events, |event| id(&event.keys).as_ref().map(key));
    let integers = |field, value: fn(&NewEvent) -> u64| -> Result<Vec<i64>, StoreError> {
        events.iter().map(|numbered| integer(field, value(numbered.event))).collect()
    };
    Ok(sqlx::query(postgres::INSERT_EVENTS.text())
        .bind(integers("block number", |event| event.block_number)?)
        .bind(integers("log index", |event| event.log_index)?)
        .bind(events.iter().map(|numbered| numbered.contract_id).collect::<Vec<_>>())
        .bind(events.iter().map(|numbered| numbered.kind_id).collect::<Vec<_>>())
        .bind(column(events, |event| event.transaction_hash.as_slice()))
        .bind(column(events, |event| pack(&event.topics, &event.data)))
        .bind(column(events, |event| event.keys.app.as_ref().map(|app| app.as_slice())))
        .bind(ids(|keys| &keys.proposal_id))
        .bind(ids(|keys| &keys.compose_hash))
        .bind(ids(|keys| &keys.run_id))
        .bind(ids(|keys| &keys.dataset_id))
        .bind(ids(|keys| &keys.superseded_id)))
}

/// Forgets headers that fell out of the window and carry no event, except one in every window as an anchor for deep
/// reorganisations. `before` is the head that the range followed: what was out of its window was looked at then.
async fn prune(tx: &mut Tx, before: u64, head: u64) -> Result<(), StoreError> {
    let below = |head: u64| integer("block number", head.saturating_sub(HEADER_WINDOW));
    let sql = Sql::new(text::PRUNE).with(below(head)?).with(below(before)? - 1);
    tx.execute(sql.with(integer("window", HEADER_WINDOW)?)).await
}
