//! The order in which the mirror learns of events, and resuming anywhere in it (see `crate::api`, stream).

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use alloy::primitives::{Address, B256};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, Ref},
    },
};

use super::{Cursor, Recorded, Snapshot, StoreError};
use crate::event::{ChainEvent, RegistryEvent};

/// Rows read at once, and bytes of their logs: events of contracts that are not ours may be as long as a block allows.
const PAGE_ROWS: u32 = 500;
const PAGE_BYTES: u64 = 1 << 20;

impl PartialSchema for ChainEvent {
    fn schema() -> RefOr<Schema> {
        let one = |name| Ref::from_schema_name(name);
        // Both have events of the same name.
        AnyOfBuilder::new().item(one("RegistryEvent")).item(one("AppEvent")).into()
    }
}

impl ToSchema for ChainEvent {}

/// A place in the order of learning. Text: `start`, `12@0xhash` (after all of block 12), `12:3@0xhash` (after that
/// event), `12:3/7:1@0xhash` (after the older event 7:1, which was learnt with the registration 12:3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Before everything.
    #[default]
    Start,
    /// After a block, or after a part of it.
    After {
        /// Block number.
        number: u64,
        /// Its hash.
        hash: B256,
        /// `None`: the whole block.
        within: Option<Within>,
    },
}

/// After which part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// After this log.
    pub log_index: u64,
    /// The log is a registration: after this older event of the app as well.
    pub older: Option<Cursor>,
}

impl Place {
    /// The block that it is in.
    pub fn block(&self) -> Option<(u64, B256)> {
        match self {
            Self::Start => None,
            Self::After { number, hash, .. } => Some((*number, *hash)),
        }
    }

    /// After all of a block.
    pub(crate) fn after_block((number, hash): (u64, B256)) -> Self {
        Self::After { number, hash, within: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::After { number, hash, within } = self else { return f.write_str("start") };
        write!(f, "{number}")?;
        if let Some(Within { log_index, older }) = within {
            write!(f, ":{log_index}")?;
            if let Some(older) = older {
                write!(f, "/{older}")?;
            }
        }
        write!(f, "@0x{}", hex::encode(hash))
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "start" {
            return Ok(Self::Start);
        }
        let read = || {
            let (place, hash) = text.split_once('@')?;
            let (place, older) = match place.split_once('/') {
                Some((place, older)) => (place, Some(older.parse::<Cursor>().ok()?)),
                None => (place, None),
            };
            let (number, log_index) = match place.split_once(':') {
                Some((number, log_index)) => (number, Some(log_index.parse().ok()?)),
                None => (place, None),
            };
            let within = log_index.map(|log_index| Within { log_index, older });
            Some(Self::After { number: number.parse().ok()?, hash: hash.parse().ok()?, within })
        };
        // Only the one form that ids are written in, and no numbers that no database has.
        let storable = |number: u64| i64::try_from(number).is_ok();
        let place = read().filter(|place: &Self| {
            let Self::After { number, within, .. } = place else { return false };
            place.to_string() == text
                && storable(*number)
                && within.is_none_or(|within| storable(within.log_index))
        });
        place
            .ok_or_else(|| "must be an id of this stream: start, number@hash or number:index@hash".to_owned())
    }
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fed {
    /// An event.
    Log {
        /// Its place in the order of learning.
        place: Place,
        /// Who emitted it.
        address: Address,
        /// The event.
        recorded: Box<Recorded<ChainEvent>>,
    },
    /// Everything after this place is gone.
    Rewind {
        /// The end of the last block that stays.
        place: Place,
    },
}

/// A part of the feed.
#[derive(Debug)]
pub struct Page {
    /// In order.
    pub items: Vec<Fed>,
    /// It ends at the head.
    pub complete: bool,
}

/// A reader of the feed with its place.
#[derive(Debug)]
pub struct Feed {
    place: Place,
    /// The place was taken from this database, not from a client.
    own: bool,
    app: Option<Address>,
}

/// What a page needs to know of the mirror.
struct Mirror {
    registry: Address,
    head: (u64, B256),
    registered: Arc<Registered>,
}

/// First registration of each app, and the apps by it, as of a block.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(super) head: (u64, B256),
    since: BTreeMap<Address, Cursor>,
    at: BTreeMap<Cursor, Address>,
}

impl Registered {
    pub(super) fn new(head: (u64, B256), registrations: Vec<(Address, Cursor)>) -> Self {
        let at = registrations.iter().map(|(app, cursor)| (*cursor, *app)).collect();
        Self { head, at, since: registrations.into_iter().collect() }
    }

    /// Where this app was first registered, if it was.
    pub(crate) fn since(&self, app: Address) -> Option<Cursor> {
        self.since.get(&app).copied()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }
}

impl Feed {
    /// A reader of what comes after a place, of one app or of everything.
    pub fn new(after: Place, app: Option<Address>) -> Self {
        Self { place: after, own: false, app }
    }

    /// The next part.
    pub async fn page(&mut self, snapshot: &mut Snapshot) -> Result<Page, StoreError> {
        let (Some(source), Some(head)) = (snapshot.source().await?, snapshot.head().await?) else {
            return Ok(Page { items: Vec::new(), complete: true });
        };
        let mut items = Vec::new();
        let settled = self.settle(snapshot).await?;
        if settled != self.place {
            self.place = settled;
            items.push(Fed::Rewind { place: settled });
        }
        self.own = true;
        let head = (head.number, head.hash);
        if matches!(self.place, Place::After { number, within: None, .. } if number == head.0) {
            return Ok(Page { items, complete: true });
        }
        let registered = snapshot.registered(source.registry, head).await?;
        let mirror = Mirror { registry: source.registry, head, registered };
        let complete = self.older(snapshot, &mirror, &mut items).await?
            && self.newer(snapshot, &mirror, &mut items).await?;
        Ok(Page { items, complete })
    }

    /// The place itself, or where its branch left the mirrored chain.
    async fn settle(&self, snapshot: &mut Snapshot) -> Result<Place, StoreError> {
        let mut place = self.place;
        let mut own = self.own;
        while let Some((number, hash)) = place.block() {
            if let Some(kept) = snapshot.taken_back(hash).await? {
                place = kept.map_or(Place::Start, Place::after_block);
                own = true;
                continue;
            }
            let known = match snapshot.block(number).await? {
                Some(stored) => stored.hash == hash,
                // Old headers without events are forgotten. What this database itself said about them still stands:
                // it would have noted that it took them back.
                None => own,
            };
            return Ok(if known { place } else { Place::Start });
        }
        Ok(place)
    }

    /// Events of the app whose registration is the present place, from before it. `false`: there may be more.
    async fn older(
        &mut self,
        snapshot: &mut Snapshot,
        mirror: &Mirror,
        items: &mut Vec<Fed>,
    ) -> Result<bool, StoreError> {
        let Place::After { number, hash, within: Some(Within { log_index, older }) } = self.place else {
            return Ok(true);
        };
        let registration = Cursor { block_number: number, log_index };
        let Some(app) =
            mirror.registered.at.get(&registration).filter(|app| self.app.is_none_or(|only| only == **app))
        else {
            return Ok(true);
        };
        let (rows, full) = snapshot.older_events(*app, registration, older, PAGE_ROWS, PAGE_BYTES).await?;
        for row in rows {
            let within = Within { log_index, older: Some(row.stamp.cursor) };
            self.place = Place::After { number, hash, within: Some(within) };
            let event = ChainEvent::App(Box::new(row.event));
            items.push(Fed::Log {
                place: self.place,
                address: *app,
                recorded: Box::new(Recorded { stamp: row.stamp, event }),
            });
        }
        Ok(!full)
    }

    /// Events after the present place, up to the next registration. `false`: there may be more.
    async fn newer(
        &mut self,
        snapshot: &mut Snapshot,
        mirror: &Mirror,
        items: &mut Vec<Fed>,
    ) -> Result<bool, StoreError> {
        let after = match self.place {
            Place::Start => None,
            Place::After { number, within, .. } => {
                let log_index = within.map_or(u64::from(u32::MAX), |within| within.log_index);
                Some(Cursor { block_number: number, log_index })
            }
        };
        let (rows, full) =
            snapshot.all_events(after, mirror.head.0, mirror.registry, PAGE_ROWS, PAGE_BYTES).await?;
        for (address, recorded) in rows {
            let cursor = recorded.stamp.cursor;
            let (number, hash) = (cursor.block_number, recorded.stamp.block.hash);
            let within = Some(Within { log_index: cursor.log_index, older: None });
            self.place = Place::After { number, hash, within };
            if self.tells(mirror, address, &recorded) {
                items.push(Fed::Log { place: self.place, address, recorded: Box::new(recorded) });
            }
            if mirror.registered.at.contains_key(&cursor) {
                return Ok(false); // its older events come next
            }
        }
        if !full {
            self.place = Place::after_block(mirror.head);
        }
        Ok(!full)
    }

    fn tells(&self, mirror: &Mirror, address: Address, recorded: &Recorded<ChainEvent>) -> bool {
        match &recorded.event {
            ChainEvent::Registry(RegistryEvent::AppRegistered { app }) => {
                self.app.is_none_or(|only| only == *app)
            }
            ChainEvent::Registry(_) => self.app.is_none(),
            // An app's events from before its registration are told with the registration.
            ChainEvent::App(_) => {
                self.app.is_none_or(|only| only == address)
                    && mirror.registered.since(address).is_some_and(|at| at < recorded.stamp.cursor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_in_one_form_only() {
        let hash = format!("@0x{}", "ab".repeat(32));
        for text in
            ["start".to_owned(), format!("12{hash}"), format!("12:3{hash}"), format!("12:3/7:1{hash}")]
        {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "12", "12:3", "0x", "12@0xab"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        for text in [format!("{}{hash}", u64::MAX), format!("0:{}{hash}", 1u64 << 63)] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        for text in
            [format!("012{hash}"), format!("+1{hash}"), format!("1:{hash}"), hash.to_uppercase(), hash]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
