//! The listener: HTTP/1.1 with limits on connections and on slow senders, and an orderly end.
//!
//! A connection that waits for a request costs a caller nothing, so none has a right to stay: where its address, or all
//! together, have as many as they may, a new one takes the place of the one that has waited longest.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::limits::{PART_OF_ONE, Peer};
use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
};

/// Connections at once; one address has a part of them.
const CONNECTIONS_MAX: usize = 1024;
/// Longest time for a request's header to arrive, and for a connection to stay idle.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// Longest header of a request, and most that is read of a body at once, in bytes.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// How long requests in work may take after the end was announced.
const END_TIME: Duration = Duration::from_secs(5);
/// Pause after an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `end` completes, then lets requests in work finish for a few seconds.
pub async fn serve(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    let connections = Arc::new(Connections::default());
    let (announce_end, ended) = watch::channel(false);
    let (alive, mut all_over) = mpsc::channel::<()>(1);
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, address)) => (stream, Peer::of(address.ip())),
            Err(error) => {
                tracing::warn!(target: "kms", %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admitted) = connections.admit(peer, Instant::now()) else { continue };
        let (router, ended, alive) = (router.clone(), ended.clone(), alive.clone());
        tokio::spawn(async move {
            connection(stream, &admitted, router, ended).await;
            drop((admitted, alive));
        });
    }
    announce_end.send_replace(true);
    drop(alive);
    let _ = tokio::time::timeout(END_TIME, all_over.recv()).await;
}

async fn connection(
    stream: TcpStream,
    admitted: &Admitted,
    router: Router,
    mut ended: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(admitted.peer);
        admitted.waits_since(None);
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            admitted.waits_since(Some(Instant::now()));
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = admitted.evicted.notified() => return,
        _ = ended.wait_for(|ended| *ended) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The connections that there are.
#[derive(Default)]
struct Connections(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    all: HashMap<u64, Connection>,
}

struct Connection {
    peer: Peer,
    /// `None` while a request is in work.
    waits_since: Option<Instant>,
    evicted: Arc<Notify>,
}

/// A connection's place among all; dropping it gives it back.
struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    peer: Peer,
    evicted: Arc<Notify>,
}

impl Connections {
    /// Admits a connection, if need be in the place of one that waits. `None` where all those have a request in work.
    fn admit(self: &Arc<Self>, peer: Peer, now: Instant) -> Option<Admitted> {
        let mut table = self.table();
        if let Some(crowded) = table.crowded(peer) {
            let waits = |(id, other): (&u64, &Connection)| {
                other.waits_since.filter(|_| other.peer == crowded).map(|since| (since, *id))
            };
            let (_, id) = table.all.iter().filter_map(waits).min()?;
            if let Some(other) = table.all.remove(&id) {
                other.evicted.notify_one();
            }
        }
        let (id, evicted) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.all.insert(id, Connection { peer, waits_since: Some(now), evicted: evicted.clone() });
        Some(Admitted { connections: self.clone(), id, peer, evicted })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No user code runs while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Whose place a new connection of `peer` must take, if there is none left for it.
    fn crowded(&self, peer: Peer) -> Option<Peer> {
        let own = self.all.values().filter(|other| other.peer == peer).count();
        if own >= CONNECTIONS_MAX / PART_OF_ONE {
            return Some(peer);
        }
        if self.all.len() < CONNECTIONS_MAX {
            return None;
        }
        let mut counts: HashMap<Peer, usize> = HashMap::new();
        self.all.values().for_each(|other| *counts.entry(other.peer).or_default() += 1);
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer)
    }
}

impl Admitted {
    fn waits_since(&self, since: Option<Instant>) {
        if let Some(own) = self.connections.table().all.get_mut(&self.id) {
            own.waits_since = since;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.table().all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::of(Ipv4Addr::new(10, 0, 0, last).into())
    }

    fn is_there(connection: &Admitted) -> bool {
        connection.connections.table().all.contains_key(&connection.id)
    }

    #[test]
    fn who_waits_longest_makes_room_and_who_works_stays() {
        let (connections, start) = (Arc::new(Connections::default()), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let of_one = CONNECTIONS_MAX / PART_OF_ONE;
        let slow: Vec<_> =
            (0..of_one as u64).map(|second| connections.admit(peer(1), at(second)).unwrap()).collect();
        slow[0].waits_since(None);
        let other = connections.admit(peer(2), at(0)).unwrap();
        let genuine = connections.admit(peer(1), at(1000)).unwrap();
        assert!(is_there(&slow[0]) && !is_there(&slow[1]) && is_there(&slow[2]) && is_there(&other));

        // All places taken by four addresses: a fifth takes one of an address that has most.
        let more: Vec<_> = (3..6)
            .flat_map(|n| vec![peer(n); of_one])
            .filter_map(|n| connections.admit(n, at(2000)))
            .collect();
        assert_eq!(connections.table().all.len(), CONNECTIONS_MAX);
        let fifth = connections.admit(peer(9), at(3000)).unwrap();
        assert!(is_there(&fifth) && is_there(&other) && connections.table().all.len() == CONNECTIONS_MAX);

        // An address whose connections all work gets no further one.
        drop(slow);
        drop(genuine);
        let busy: Vec<_> = (0..of_one).filter_map(|_| connections.admit(peer(1), at(4000))).collect();
        busy.iter().for_each(|connection| connection.waits_since(None));
        assert!(connections.admit(peer(1), at(5000)).is_none());
        drop((busy, more, other, fifth));
        assert!(connections.table().all.is_empty());
    }
}
