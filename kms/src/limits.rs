//! How much anonymous callers may ask: token buckets for each address and for all together, and places of which no
//! address can have more than a part.
//!
//! A release costs ten times what another request costs. An address is an IPv4 address or an IPv6 /64 network, so that
//! one subscriber cannot be many. All of it is a function of the time that is passed in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a release request costs.
pub const RELEASE_COST: f64 = 10.0;
/// What every other request costs.
pub const REQUEST_COST: f64 = 1.0;
/// One address may have this part of anything that there are places for: `1 / n`.
pub const PART_OF_ONE: usize = 4;
/// Addresses remembered at once. Beyond, new ones share one bucket until others have been idle.
const ADDRESSES_MAX: usize = 1 << 16;
/// A bucket holds what flows in during this many seconds.
const BURST_SECONDS: f64 = 2.0;
/// All addresses together may ask this many times as much as one.
const ALL_FACTOR: f64 = 100.0;

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

    fn state(&self) -> MutexGuard<'_, State> {
        // Tokens are taken in the last two lines, which cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places of one kind. They are counted, not named: requests in work, or bytes of their bodies.
#[derive(Debug)]
pub struct Places {
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Peer, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The address has its part.
    ForOne,
    /// All are taken.
    ForAll,
}

/// Taken places; dropping gives them back.
#[derive(Debug)]
pub struct Place {
    of: Arc<Places>,
    peer: Peer,
    count: usize,
}

impl Places {
    /// So many in all.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::default() })
    }

    /// Takes `count` places for `peer`.
    pub fn take(self: &Arc<Self>, peer: Peer, count: usize) -> Result<Place, Full> {
        let mut place = Place { of: self.clone(), peer, count: 0 };
        place.more(count)?;
        Ok(place)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Whatever panics does so before anything is counted.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes further ones.
    pub fn more(&mut self, count: usize) -> Result<(), Full> {
        let mut taken = self.of.taken();
        let own = taken.by.get(&self.peer).copied().unwrap_or_default() + count;
        if own > self.of.all / PART_OF_ONE {
            return Err(Full::ForOne);
        }
        if taken.all + count > self.of.all {
            return Err(Full::ForAll);
        }
        taken.all += count;
        taken.by.insert(self.peer, own);
        self.count += count;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.all = taken.all.saturating_sub(self.count);
        if let Some(own) = taken.by.get_mut(&self.peer) {
            *own = own.saturating_sub(self.count);
            if *own == 0 {
                taken.by.remove(&self.peer);
            }
        }
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
    fn where_all_have_been_idle_the_next_one_clears_them_away() {
        let limits = Limits::new(Some(200.0));
        let crowd = (0..ADDRESSES_MAX as u32).map(|n| (peer(n), Bucket { tokens: 0.0, at: at(0) }));
        limits.state().addresses.extend(crowd);
        assert!(limits.take(peer(100_000), REQUEST_COST, at(1)));
        assert_eq!(limits.state().addresses.len(), ADDRESSES_MAX, "they were asking a second ago");
        assert!(limits.take(peer(100_000), REQUEST_COST, at(100)));
        assert_eq!(limits.state().addresses.len(), 1);
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
        let places = Places::new(64);
        let own: Vec<_> = (0..16).map(|_| places.take(peer(1), 1).unwrap()).collect();
        assert_eq!(places.take(peer(1), 1).unwrap_err(), Full::ForOne);
        let others: Vec<_> = (2..5).map(|n| places.take(peer(n), 16).unwrap()).collect();
        assert_eq!(places.take(peer(9), 1).unwrap_err(), Full::ForAll);
        drop(own);
        let mut place = places.take(peer(9), 10).unwrap();
        assert_eq!((place.more(6), place.more(1)), (Ok(()), Err(Full::ForOne)));
        drop((others, place));
        assert!(places.taken().all == 0 && places.taken().by.is_empty());
    }
}
