//! Reading events as of a block.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::chain::Position;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    Source, StoreError,
    feed::Registered,
    header, integer, key,
    pack::unpack,
    sql::{Row, Sql, Tx, Value, statements},
};
use crate::{
    event::{AppEvent, ChainEvent, Keys, RegistryEvent},
    rpc::Header,
    schema as s,
};

/// A place in the order of events; text and JSON `block:log_index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Block number.
    pub block_number: u64,
    /// Place in the block.
    pub log_index: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.block_number, self.log_index)
    }
}

impl std::str::FromStr for Cursor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(block, index)| {
            let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            // Databases count to 2^63 - 1.
            let number = |s: &str| digits(s).then(|| s.parse::<i64>().ok()?.try_into().ok())?;
            Some(Self { block_number: number(block)?, log_index: number(index)? })
        });
        parsed.ok_or_else(|| "must be block:log_index, e.g. 12:3".to_owned())
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Where a page ended, and in which block: text and JSON `block:log_index@block_hash`. A reader may also give a bare
/// cursor, which holds on whatever chain there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The last item of the page.
    pub cursor: Cursor,
    /// Hash of its block.
    pub block_hash: Option<B256>,
}

impl From<Stamp> for Bookmark {
    fn from(stamp: Stamp) -> Self {
        Self { cursor: stamp.cursor, block_hash: Some(stamp.block.hash) }
    }
}

impl std::str::FromStr for Bookmark {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((cursor, hash)) = text.split_once('@') else {
            return Ok(Self { cursor: text.parse()?, block_hash: None });
        };
        let hash = hash.parse().ok().filter(|_| hash.starts_with("0x"));
        let hash = hash.ok_or_else(|| "must be the next of a page, or block:log_index".to_owned())?;
        Ok(Self { cursor: cursor.parse()?, block_hash: Some(hash) })
    }
}

impl Serialize for Bookmark {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.block_hash {
            None => self.cursor.serialize(s),
            Some(hash) => s.collect_str(&format_args!("{}@0x{}", self.cursor, hex::encode(hash))),
        }
    }
}

/// An event that rows can hold.
pub trait Stored: Sized {
    /// Decodes a row's topics and data; `Err`: what is wrong with them.
    fn read(topics: &[B256], data: &[u8]) -> Result<Self, String>;
    /// What it is looked up by.
    fn keys(&self) -> Keys;
}

impl Stored for AppEvent {
    fn read(topics: &[B256], data: &[u8]) -> Result<Self, String> {
        Self::decode(topics, data).ok_or_else(|| "no event of this version".to_owned())
    }

    fn keys(&self) -> Keys {
        Self::keys(self)
    }
}

impl Stored for RegistryEvent {
    fn read(topics: &[B256], data: &[u8]) -> Result<Self, String> {
        Self::decode(topics, data).map_err(|unknown| unknown.to_string())
    }

    fn keys(&self) -> Keys {
        Self::keys(self)
    }
}

/// When and where an event happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stamp {
    /// Its place in the order of events.
    #[schema(value_type = s::Cursor)]
    pub cursor: Cursor,
    /// Block that it is in.
    #[schema(value_type = s::Position)]
    pub block: Position,
    /// Transaction that emitted it.
    #[schema(value_type = s::Hash)]
    pub transaction_hash: B256,
}

/// An event and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Recorded<E> {
    /// When and where.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// What it says.
    #[serde(flatten)]
    pub event: E,
}

/// By which column events are looked up, besides the contract.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// The contract alone.
    Contract,
    /// The app that the registry names.
    App(Address),
    /// The proposal it is about.
    Proposal(B256),
    /// The compose hash it is about.
    Compose(B256),
    /// The run it is about.
    Run(B256),
    /// The dataset it is about.
    Dataset(B256),
    /// The proposal or dataset that it replaces.
    Superseded(B256),
}

impl By {
    /// Whether an event with these identifiers is one that is asked for.
    fn is_of(self, keys: &Keys) -> bool {
        match self {
            Self::Contract => true,
            Self::App(app) => keys.app == Some(app),
            Self::Proposal(id) => keys.proposal_id == Some(id),
            Self::Compose(id) => keys.compose_hash == Some(id),
            Self::Run(id) => keys.run_id == Some(id),
            Self::Dataset(id) => keys.dataset_id == Some(id),
            Self::Superseded(id) => keys.superseded_id == Some(id),
        }
    }
}

/// Which kinds of events.
#[derive(Debug, Clone, Copy)]
pub enum Kinds<'a> {
    /// All.
    All,
    /// Exactly one.
    One(&'a str),
    /// Any of these.
    Any(&'a [&'static str]),
}

/// A question about the events of one contract.
#[derive(Debug, Clone, Copy)]
pub struct Select<'a> {
    /// Which contract.
    pub address: Address,
    /// Which events of it.
    pub by: By,
    /// Which kinds.
    pub kinds: Kinds<'a>,
    /// As of this block: later ones do not exist.
    pub at: u64,
    /// Only what comes after this place.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: Option<u32>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

impl<'a> Select<'a> {
    /// All events of these kinds, oldest first.
    pub fn new(address: Address, by: By, kinds: Kinds<'a>, at: u64) -> Self {
        Self { address, by, kinds, at, after: None, limit: None, newest_first: false }
    }

    /// The newest one only.
    pub fn newest(self) -> Self {
        Self { limit: Some(1), newest_first: true, ..self }
    }

    /// One page.
    pub fn page(self, after: Option<Cursor>, limit: u32) -> Self {
        Self { after, limit: Some(limit), ..self }
    }

    /// SQLite, without statistics, would rather read all events of the contract in order than look up a
    /// few and sort them, so the index is named to it.
    pub(super) fn sql(&self, sqlite: bool) -> Result<Sql, StoreError> {
        let (index, column, value) = match (self.by, self.kinds) {
            (By::Contract, Kinds::All) => ("event_by_position", "", None),
            (By::Contract, _) => ("event_by_kind", "", None),
            (By::App(app), _) => ("event_by_app", " and e.app = ", Some(Value::from(app))),
            (By::Proposal(id), _) => ("event_by_proposal", " and e.proposal_key = ", Some(key(&id).into())),
            (By::Compose(id), _) => ("event_by_compose", " and e.compose_key = ", Some(key(&id).into())),
            (By::Run(id), _) => ("event_by_run", " and e.run_key = ", Some(key(&id).into())),
            (By::Dataset(id), _) => ("event_by_dataset", " and e.dataset_key = ", Some(key(&id).into())),
            (By::Superseded(id), _) => {
                ("event_by_superseded", " and e.superseded_key = ", Some(key(&id).into()))
            }
        };
        let mut sql = Sql::begin(text::open::EVENTS, sqlite);
        if sqlite {
            sql.push(" indexed by ").push(index);
        }
        sql.push(" join block b on b.number = e.block_number where e.contract_id = ");
        sql.push("(select contract_id from contract where address = ").value(self.address).push(")");
        if let Some(value) = value {
            sql.push(column).value(value);
        }
        let kind = "(select kind_id from event_kind where kind = ";
        match self.kinds {
            Kinds::All => {}
            Kinds::One(one) => {
                sql.push(" and e.kind_id = ").push(kind).value(one).push(")");
            }
            Kinds::Any(kinds) => {
                sql.push(" and e.kind_id in (");
                for (place, any) in kinds.iter().enumerate() {
                    sql.push(if place == 0 { "" } else { ", " }).push(kind).value(*any).push(")");
                }
                sql.push(")");
            }
        }
        sql.push(" and e.block_number <= ").value(integer("block number", self.at)?);
        if let Some(after) = self.after {
            let block = integer("block number", after.block_number)?;
            sql.push(" and (e.block_number, e.log_index) > (").value(block);
            sql.push(", ").value(integer("log index", after.log_index)?).push(")");
        }
        sql.push(match self.newest_first {
            true => " order by e.block_number desc, e.log_index desc",
            false => " order by e.block_number, e.log_index",
        });
        if let Some(limit) = self.limit {
            sql.push(" limit ").value(i64::from(limit));
        }
        Ok(sql)
    }
}

/// The statements that are read with; a test prepares each of them on both databases.
pub(super) mod text {
    super::statements! {
        SOURCE = "select chain_id, registry from source";
        HEAD = "select number, hash, parent_hash, timestamp from block order by number desc limit 1";
        BLOCK = "select number, hash, parent_hash, timestamp from block where number = $1";
        BLOCK_UP_TO =
            "select number, hash, parent_hash, timestamp from block where number <= $1 order by number desc limit 1";
        BLOCK_COUNT = "select count(*) as blocks from block";
        BLOCK_FROM_HEAD =
            "select number, hash, parent_hash, timestamp from block order by number desc limit 1 offset $1";
        REGISTRATIONS = "select app, block_number, log_index from event
             where contract_id = (select contract_id from contract where address = $1)
             and app is not null and app <> $1 and block_number <= $2
             order by block_number, log_index";
        TAKEN_BACK = "select kept_number, kept_hash from orphan where hash = $1";
        ALL_EVENTS =
            "select c.address, e.block_number, e.log_index, e.transaction_hash, e.log, b.hash, b.timestamp
             from event e join block b on b.number = e.block_number join contract c on c.contract_id = e.contract_id
             where (e.block_number, e.log_index) > ($1, $2) and e.block_number <= $3
             order by e.block_number, e.log_index limit $4";
        ALL_SIZES = "select length(log) as bytes from event
             where (block_number, log_index) > ($1, $2) and block_number <= $3
             order by block_number, log_index limit $4";
        SIZES = "select length(log) as bytes from event
             where contract_id = (select contract_id from contract where address = $1)
             and (block_number, log_index) > ($2, $3) and block_number <= $4
             order by block_number, log_index limit $5";
        NEWEST_EVENT_BLOCK = "select number, hash, parent_hash, timestamp from block
             where number = (select max(block_number) from event)";
    }

    /// Beginnings; the test has their ends.
    pub(crate) mod open {
        crate::store::sql::statements! {
            /// Goes on with what [`super::super::Select`] asks for.
            EVENTS = "select e.block_number, e.log_index, e.transaction_hash, e.log, b.hash, b.timestamp
                 from event e";
        }
    }
}

/// One consistent state of the database.
#[derive(Debug)]
pub struct Snapshot {
    tx: Tx,
    /// Read once a block, however many streams ask.
    registered: Arc<Mutex<Option<Arc<Registered>>>>,
}

impl Snapshot {
    pub(super) fn new(tx: Tx, registered: Arc<Mutex<Option<Arc<Registered>>>>) -> Self {
        Self { tx, registered }
    }

    /// What the database mirrors.
    pub async fn source(&mut self) -> Result<Option<Source>, StoreError> {
        let row = self.tx.row(Sql::new(text::SOURCE)).await?;
        row.map(|row| Ok(Source { chain_id: row.number("chain_id")?, registry: row.address("registry")? }))
            .transpose()
    }

    /// The newest mirrored block.
    pub async fn head(&mut self) -> Result<Option<Header>, StoreError> {
        self.header(Sql::new(text::HEAD)).await
    }

    /// A stored block.
    pub async fn block(&mut self, number: u64) -> Result<Option<Header>, StoreError> {
        self.header(Sql::new(text::BLOCK).with(integer("block number", number)?)).await
    }

    /// The highest stored block up to a height.
    pub async fn block_up_to(&mut self, number: u64) -> Result<Option<Header>, StoreError> {
        self.header(Sql::new(text::BLOCK_UP_TO).with(integer("block number", number)?)).await
    }

    /// Number of stored blocks.
    pub async fn block_count(&mut self) -> Result<u64, StoreError> {
        let row = self.tx.row(Sql::new(text::BLOCK_COUNT)).await?;
        row.map_or(Ok(0), |row| row.number("blocks"))
    }

    /// The `place`-th stored block below the head: 0 is the head itself.
    pub async fn block_from_head(&mut self, place: u64) -> Result<Option<Header>, StoreError> {
        self.header(Sql::new(text::BLOCK_FROM_HEAD).with(integer("place", place)?)).await
    }

    async fn header(&mut self, sql: Sql) -> Result<Option<Header>, StoreError> {
        self.tx.row(sql).await?.as_ref().map(header).transpose()
    }

    /// Events that answer a question.
    pub async fn events<E: Stored>(&mut self, select: Select<'_>) -> Result<Vec<Recorded<E>>, StoreError> {
        let sql = select.sql(self.tx.is_sqlite())?;
        let mut rows: Vec<Recorded<E>> =
            self.tx.rows(sql).await?.iter().map(recorded).collect::<Result<_, _>>()?;
        let found = rows.len();
        rows.retain(|row| select.by.is_of(&row.event.keys()));
        let Some(limit) = select.limit.filter(|_| rows.len() < found) else { return Ok(rows) };
        // Another identifier ends alike, and its events took the place of others.
        rows = Box::pin(self.events(Select { limit: None, ..select })).await?;
        rows.truncate(limit as usize);
        Ok(rows)
    }

    /// The apps registered as of a block, in the order of their registration.
    pub async fn registered_apps(&mut self, registry: Address, at: u64) -> Result<Vec<Address>, StoreError> {
        Ok(self.registrations(registry, at).await?.into_iter().map(|(app, _)| app).collect())
    }

    /// The newest block that has an event: its header is never forgotten.
    pub async fn newest_event_block(&mut self) -> Result<Option<Header>, StoreError> {
        self.header(Sql::new(text::NEWEST_EVENT_BLOCK)).await
    }

    /// The registrations as of the head.
    pub(crate) async fn registered(
        &mut self,
        registry: Address,
        head: (u64, B256),
    ) -> Result<Arc<Registered>, StoreError> {
        let known = || self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registered) = known().as_ref().filter(|registered| registered.head == head) {
            return Ok(registered.clone());
        }
        let registered = Arc::new(Registered::new(head, self.registrations(registry, head.0).await?));
        *self.registered.lock().unwrap_or_else(PoisonError::into_inner) = Some(registered.clone());
        Ok(registered)
    }

    /// The first registration of each app as of a block, in order.
    pub(super) async fn registrations(
        &mut self,
        registry: Address,
        at: u64,
    ) -> Result<Vec<(Address, Cursor)>, StoreError> {
        let sql = Sql::new(text::REGISTRATIONS).with(registry).with(integer("block number", at)?);
        let rows = self.tx.rows(sql).await?;
        let mut seen = BTreeSet::new();
        let mut registrations = Vec::new();
        for row in &rows {
            let app = row.address("app")?;
            if seen.insert(app) {
                registrations.push((app, cursor(row)?));
            }
        }
        Ok(registrations)
    }

    /// If this block was taken back: the block that was kept then, `None` where none was.
    pub(super) async fn taken_back(&mut self, hash: B256) -> Result<Option<Option<(u64, B256)>>, StoreError> {
        let row = self.tx.row(Sql::new(text::TAKEN_BACK).with(hash)).await?;
        row.map(|row| match row.optional("kept_number")? {
            None => Ok(None),
            Some(number) => Ok(Some((number, row.word("kept_hash")?))),
        })
        .transpose()
    }

    /// Events of an app before a place, after another: so many at most, and bytes of their logs, but one at least. And
    /// whether there may be more.
    pub(super) async fn older_events(
        &mut self,
        app: Address,
        before: Cursor,
        after: Option<Cursor>,
        limit: u32,
        bytes: u64,
    ) -> Result<(Vec<Recorded<AppEvent>>, bool), StoreError> {
        let (block, log) = numbers(after)?;
        let sizes = Sql::new(text::SIZES).with(app).with(block).with(log);
        let sizes = sizes.with(integer("block number", before.block_number)?).with(i64::from(limit));
        let (rows, full) = self.fitting(sizes, limit, bytes).await?;
        let select = Select::new(app, By::Contract, Kinds::All, before.block_number).page(after, rows);
        let mut rows = self.events(select).await?;
        rows.retain(|row: &Recorded<AppEvent>| row.stamp.cursor < before);
        Ok((rows, full))
    }

    /// How many of the rows with these sizes fit, and whether there may be more.
    async fn fitting(&mut self, sizes: Sql, limit: u32, bytes: u64) -> Result<(u32, bool), StoreError> {
        let (mut rows, mut total) = (0u32, 0u64);
        for row in self.tx.rows(sizes).await? {
            total = total.saturating_add(row.number("bytes")?);
            if rows > 0 && total > bytes {
                return Ok((rows, true));
            }
            rows += 1;
        }
        Ok((rows, rows == limit))
    }

    /// Events of all contracts after a place: so many at most, and bytes of their logs, but one at least. And whether there
    /// may be more.
    pub(super) async fn all_events(
        &mut self,
        after: Option<Cursor>,
        at: u64,
        registry: Address,
        limit: u32,
        bytes: u64,
    ) -> Result<(Vec<(Address, Recorded<ChainEvent>)>, bool), StoreError> {
        let (block, log) = numbers(after)?;
        let at = integer("block number", at)?;
        let sizes = Sql::new(text::ALL_SIZES).with(block).with(log).with(at).with(i64::from(limit));
        let (rows, full) = self.fitting(sizes, limit, bytes).await?;
        let sql = Sql::new(text::ALL_EVENTS).with(block).with(log).with(at);
        let rows = self.tx.rows(sql.with(i64::from(rows))).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let by = row.address("address")?;
            let event = match by == registry {
                true => recorded::<RegistryEvent>(row)?.map(ChainEvent::Registry),
                false => recorded::<AppEvent>(row)?.map(|event| ChainEvent::App(Box::new(event))),
            };
            events.push((by, event));
        }
        Ok((events, full))
    }
}

/// What a place is in the database; before everything where there is none.
fn numbers(after: Option<Cursor>) -> Result<(i64, i64), StoreError> {
    Ok(match after {
        None => (-1, 0),
        Some(after) => (integer("block number", after.block_number)?, integer("log index", after.log_index)?),
    })
}

impl<E> Recorded<E> {
    fn map<F>(self, event: impl FnOnce(E) -> F) -> Recorded<F> {
        Recorded { stamp: self.stamp, event: event(self.event) }
    }
}

fn cursor(row: &Row) -> Result<Cursor, StoreError> {
    Ok(Cursor { block_number: row.number("block_number")?, log_index: row.number("log_index")? })
}

fn recorded<E: Stored>(row: &Row) -> Result<Recorded<E>, StoreError> {
    let cursor = cursor(row)?;
    let log = unpack(row.bytes("log")?);
    let event = log.and_then(|(topics, data)| E::read(&topics, &data)).map_err(|reason| {
        StoreError::Unreadable { block_number: cursor.block_number, log_index: cursor.log_index, reason }
    })?;
    let block = Position {
        number: cursor.block_number,
        hash: row.word("hash")?,
        timestamp: row.number("timestamp")?,
    };
    Ok(Recorded { stamp: Stamp { cursor, block, transaction_hash: row.word("transaction_hash")? }, event })
}
