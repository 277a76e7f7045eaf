//! How much anonymous callers may ask: token buckets for each address and for all together, and places for releases.
//!
//! A release costs ten times what another request costs. An address is an IPv4 address or an IPv6 /64 network, so that
//! one subscriber cannot be many. All of it is a function of the time that is passed in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a release request costs.
pub const RELEASE_COST: f64 = 10.0;
/// What every other request costs.
pub const REQUEST_COST: f64 = 1.0;
/// Addresses remembered at once. Beyond, new ones share one bucket until others have been idle.
const ADDRESSES_MAX: usize = 1 << 16;
/// A bucket holds what flows in during this many seconds.
const BURST_SECONDS: f64 = 2.0;
/// All addresses together may ask this many times as much as one.
const ALL_FACTOR: f64 = 100.0;
/// Release requests in work for one address, of [`crate::http::RELEASES_AT_ONCE`] for all.
const RELEASES_OF_ONE: usize = 16;

/// Who asks, as far as it is known: the peer of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// The address, or the network of an IPv6 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64))),
            v4 => Self(v4),
        }
    }
}

/// The limits.
#[derive(Debug)]
pub struct Limits {
    per_second: Option<f64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: Option<Bucket>,
    /// For addresses beyond [`ADDRESSES_MAX`].
    others: Option<Bucket>,
    addresses: HashMap<Peer, Bucket>,
    releases: HashMap<Peer, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn full(rate: f64, now: Duration) -> Self {
        Self { tokens: rate * BURST_SECONDS, at: now }
    }

    fn fill(&mut self, rate: f64, now: Duration) {
        let flowed = now.saturating_sub(self.at).as_secs_f64() * rate;
        self.tokens = (self.tokens + flowed).min(rate * BURST_SECONDS);
        self.at = now;
    }

    fn is_full(mut self, rate: f64, now: Duration) -> bool {
        self.fill(rate, now);
        self.tokens >= rate * BURST_SECONDS
    }
}

/// A release in work; dropping it gives the place back.
#[derive(Debug)]
pub struct Place(Arc<Limits>, Peer);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(count) = state.releases.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.releases.remove(&self.1);
            }
        }
    }
}

impl Limits {
    /// `per_second` for one address, in units of [`REQUEST_COST`]; `None`: no limits on rates, for tests and benchmarks.
    pub fn new(per_second: Option<f64>) -> Self {
        Self { per_second, state: Mutex::default() }
    }

    /// May `peer` ask for something of this cost at `now`, the time since the process began? Takes the tokens if so.
    pub fn take(&self, peer: Peer, cost: f64, now: Duration) -> bool {
        let Some(rate) = self.per_second else { return true };
        let mut state = self.state();
        let State { all, others, addresses, .. } = &mut *state;
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&peer) {
            addresses.retain(|_, bucket| !bucket.is_full(rate, now));
        }
        let there_is_room = addresses.len() < ADDRESSES_MAX || addresses.contains_key(&peer);
        let own = if there_is_room {
            addresses.entry(peer).or_insert_with(|| Bucket::full(rate, now))
        } else {
            others.get_or_insert_with(|| Bucket::full(rate, now))
        };
        let all = all.get_or_insert_with(|| Bucket::full(rate * ALL_FACTOR, now));
        own.fill(rate, now);
        all.fill(rate * ALL_FACTOR, now);
        // An address that is over its own limit takes nothing from all the others.
        if own.tokens < cost || all.tokens < cost {
            return false;
        }
        own.tokens -= cost;
        all.tokens -= cost;
        true
    }

    /// A place for a release request of `peer`; none where it has too many in work.
    pub fn place(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut state = self.state();
        let count = state.releases.entry(peer).or_default();
        if self.per_second.is_some() && *count >= RELEASES_OF_ONE {
            return None;
        }
        *count += 1;
        drop(state);
        Some(Place(self.clone(), peer))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Tokens are taken in the last two lines, which cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Peer {
        Peer::of(IpAddr::from(number.to_be_bytes()))
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn taken(limits: &Limits, peer: Peer, cost: f64, now: Duration) -> usize {
        (0..100_000).take_while(|_| limits.take(peer, cost, now)).count()
    }

    #[test]
    fn an_address_gets_its_burst_and_then_its_rate() {
        let limits = Limits::new(Some(200.0));
        assert_eq!(taken(&limits, peer(1), RELEASE_COST, at(0)), 40);
        assert_eq!(taken(&limits, peer(1), REQUEST_COST, at(0)), 0);
        assert_eq!(taken(&limits, peer(1), RELEASE_COST, at(1)), 20);
        assert_eq!(taken(&limits, peer(1), RELEASE_COST, at(1000)), 40);
    }

    #[test]
    fn a_flood_from_one_address_takes_nothing_from_another() {
        let limits = Limits::new(Some(200.0));
        for _ in 0..100_000 {
            limits.take(peer(1), RELEASE_COST, at(0));
        }
        assert_eq!(taken(&limits, peer(2), RELEASE_COST, at(0)), 40);
    }

    #[test]
    fn all_together_are_limited_and_memory_is_bounded() {
        let limits = Limits::new(Some(200.0));
        let total: usize = (0..70_000).map(|n| usize::from(limits.take(peer(n), REQUEST_COST, at(0)))).sum();
        assert_eq!(total, 40_000);
        assert!(limits.state().addresses.len() <= ADDRESSES_MAX);
        // Long after, the idle ones make room for as many others.
        let later: usize =
            (100_000..170_000).map(|n| usize::from(limits.take(peer(n), REQUEST_COST, at(100)))).sum();
        assert_eq!(later, 40_000);
        assert!(limits.state().addresses.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn an_address_has_a_part_of_the_places_and_gives_them_back() {
        let limits = Arc::new(Limits::new(Some(200.0)));
        let places: Vec<_> = (0..20).filter_map(|_| limits.place(peer(1))).collect();
        assert_eq!(places.len(), RELEASES_OF_ONE);
        assert!(limits.place(peer(2)).is_some());
        drop(places);
        assert!(limits.place(peer(1)).is_some());
        assert!(limits.state().releases.is_empty());
    }
}
