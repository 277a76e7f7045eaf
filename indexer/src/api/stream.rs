//! Server-sent events: everything that the mirror learns, in an order that only grows, and what a reorganisation takes
//! back.
//!
//! Order: events by block and log index; an app's events from before its registration come right after the
//! registration, since that is when the mirror learns of them. An id names the block's hash as well, so a client that
//! comes back with an id of a branch that is gone is told how far to go back before it is told anything else.

use std::{convert::Infallible, sync::Arc, time::Duration};

use alloy::primitives::Address;
use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use cohort_protocol::chain::Position;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::{Api, ApiError};
use crate::{
    event::ChainEvent,
    metrics::Counters,
    schema as s,
    store::{Fed, Feed, Place, Recorded},
    view::Positions,
};

/// Items that wait for a slow client; the stream itself waits then.
const BUFFERED: usize = 8;
/// A comment goes out when nothing else has, so that dead connections end.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Data of `log`: an event and the contract that emitted it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Streamed {
    /// The registry or an app.
    #[schema(value_type = s::Address)]
    address: Address,
    #[serde(flatten)]
    recorded: Box<Recorded<ChainEvent>>,
}

/// Data of `rewind`: the blocks above `keep` are gone. Forget every event whose id starts with a higher block number.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rewind {
    /// Number of the last block that stays; `null`: none does.
    keep: Option<u64>,
}

/// Data of `head`: everything up to here has been told.
#[derive(Debug, Serialize, ToSchema)]
pub struct Head {
    /// EIP-155 chain id.
    chain_id: u64,
    /// The newest mirrored block.
    #[schema(value_type = s::Position)]
    head: Position,
    /// The block at the configured depth below the head.
    #[schema(value_type = s::Position)]
    confirmed: Position,
    /// The newest block that the chain calls finalized, if that is known.
    #[schema(value_type = Option<s::Position>)]
    finalized: Option<Position>,
}

/// Opens a stream of what comes after a place.
pub(super) async fn open(api: &Arc<Api>, after: Place, app: Option<Address>) -> Result<Response, ApiError> {
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| ApiError::TooManyStreams)?;
    let (sender, receiver) = mpsc::channel(BUFFERED);
    let (api, mut stopping) = (api.clone(), api.stopping.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = tell(&api, Feed::new(after, app), &sender) => {}
            // Its sender is dropped when the service stops, or the client is gone.
            _ = stopping.changed() => {}
            () = sender.closed() => {}
        }
        drop(permit);
    });
    let stream = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([("cache-control", "no-store"), ("x-accel-buffering", "no")], stream).into_response())
}

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Tells all there is, then waits for more, until the client is gone or the mirror cannot be read.
async fn tell(api: &Api, mut feed: Feed, sender: &Sender) {
    let mut changes = api.store.changes();
    let mut told: Option<Positions> = None;
    loop {
        changes.mark_unchanged();
        match tell_all(api, &mut feed, &mut told, sender).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // The client comes back with its last id.
                tracing::error!(target: "indexer::api", %error, "event stream ended");
                return;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// `false`: the client is gone.
async fn tell_all(
    api: &Api,
    feed: &mut Feed,
    told: &mut Option<Positions>,
    sender: &Sender,
) -> Result<bool, ApiError> {
    loop {
        let mut snapshot = api.store.snapshot().await?;
        let page = feed.page(&mut snapshot).await?;
        let (positions, newest) = match page.complete {
            true => (api.positions(&mut snapshot).await?, snapshot.newest_event_block().await?),
            false => (None, None),
        };
        // A slow client must not hold a snapshot.
        drop(snapshot);
        for item in page.items {
            if sender.send(Ok(event(item)?)).await.is_err() {
                return Ok(false);
            }
            Counters::add(&api.counters.streamed, 1);
        }
        if !page.complete {
            continue;
        }
        if let Some(positions) = positions.filter(|positions| *told != Some(*positions)) {
            *told = Some(positions);
            let Positions { source, head, confirmed, finalized } = positions;
            let head = Head { chain_id: source.chain_id, head, confirmed, finalized };
            // A header without events may be forgotten before the client comes back; nothing comes after this one.
            let id = newest.map_or(Place::Start, |newest| Place::after_block((newest.number, newest.hash)));
            let event = Event::default().event("head").id(id.to_string());
            let event = event.json_data(head).map_err(ApiError::Unwritable)?;
            if sender.send(Ok(event)).await.is_err() {
                return Ok(false);
            }
        }
        return Ok(true);
    }
}

fn event(item: Fed) -> Result<Event, ApiError> {
    let event = match item {
        Fed::Log { place, address, recorded } => {
            Event::default().event("log").id(place.to_string()).json_data(Streamed { address, recorded })
        }
        Fed::Rewind { place } => {
            let keep = place.block().map(|(number, _)| number);
            Event::default().event("rewind").id(place.to_string()).json_data(Rewind { keep })
        }
    };
    event.map_err(ApiError::Unwritable)
}
