//! Challenges: unpredictable, good for one request and for 60 seconds, in bounded memory.
//!
//! A challenge authenticates itself, so giving one out stores nothing and a flood of `POST /v1/challenge` costs no
//! memory. Only *consumed* challenges are remembered, until they would have expired anyway; that set has a cap, and
//! at the cap requests are refused rather than let through. A capped map of open challenges would instead let
//! whoever asks fastest push out everybody else's.
//!
//! The key lives as long as the process: after a restart all older challenges are unknown, which is what makes
//! "single use" survive a restart. Time is the process's monotonic clock, so that setting the host's clock back
//! cannot revive a challenge.
//!
//! Layout, 32 bytes: milliseconds at which it ends (6, big-endian) || random (10) || HMAC-SHA256 of both, first 16.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use alloy::primitives::B256;
use cohort_protocol::release::CHALLENGE_SECONDS;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Consumed challenges remembered at once: 4,369 release requests a second for a whole window.
pub const REMEMBERED_MAX: usize = 1 << 18;

const LIFETIME: Duration = Duration::from_secs(CHALLENGE_SECONDS);
const END_BYTES: usize = 6;
const SIGNED_BYTES: usize = 16;

/// Why a challenge is not good for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Not given out by this process.
    #[error("this KMS did not give out that challenge")]
    Unknown,
    /// Older than [`CHALLENGE_SECONDS`].
    #[error("the challenge is older than {CHALLENGE_SECONDS} seconds")]
    Expired,
    /// Presented before.
    #[error("the challenge was used before")]
    Used,
    /// Too many requests in this minute to remember another.
    #[error("too many requests in the last {CHALLENGE_SECONDS} seconds")]
    Busy,
}

/// A challenge that was good and is used up now. Only [`Challenges::take`] makes one.
#[derive(Debug)]
pub struct UsedChallenge(B256);

impl UsedChallenge {
    /// Which one.
    pub fn value(&self) -> B256 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(value: B256) -> Self {
        Self(value)
    }
}

/// Gives out and takes back challenges.
pub struct Challenges {
    key: Hmac<Sha256>,
    remembered_max: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    all: HashSet<B256>,
    by_end: VecDeque<(Duration, B256)>,
}

impl Used {
    /// Forgets what has expired. All challenges live equally long, but are not consumed in the order of their
    /// ends: an entry may be kept up to one lifetime longer, never shorter.
    fn forget_expired(&mut self, now: Duration) {
        while let Some((keep_until, challenge)) = self.by_end.front() {
            if *keep_until >= now {
                break;
            }
            self.all.remove(challenge);
            self.by_end.pop_front();
        }
    }
}

impl Challenges {
    /// A fresh key from the operating system.
    pub fn new() -> Result<Self, getrandom::Error> {
        Self::with_capacity(REMEMBERED_MAX)
    }

    fn with_capacity(remembered_max: usize) -> Result<Self, getrandom::Error> {
        let mut key = zeroize::Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut_slice())?;
        let key = Hmac::new_from_slice(key.as_slice()).expect("HMAC takes keys of any length");
        Ok(Self { key, remembered_max, used: Mutex::default() })
    }

    /// A new challenge at `now`, the time since the process began.
    pub fn issue(&self, now: Duration) -> Result<B256, getrandom::Error> {
        let mut value = [0u8; 32];
        let (signed, tag) = value.split_at_mut(SIGNED_BYTES);
        let (end, random) = signed.split_at_mut(END_BYTES);
        let millis = (now + LIFETIME).as_millis() as u64; // 2^48 ms are 8,900 years
        for (slot, byte) in end.iter_mut().zip(millis.to_be_bytes().into_iter().skip(2)) {
            *slot = byte;
        }
        getrandom::fill(random)?;
        let full = self.key.clone().chain_update(&*signed).finalize().into_bytes();
        for (slot, byte) in tag.iter_mut().zip(full) {
            *slot = byte;
        }
        Ok(B256::from(value))
    }

    /// How many are remembered as used at `now`.
    pub fn remembered(&self, now: Duration) -> usize {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_expired(now);
        used.all.len()
    }

    /// Consumes a challenge: whatever becomes of the request, nobody can present it again.
    pub fn take(&self, challenge: B256, now: Duration) -> Result<UsedChallenge, ChallengeError> {
        let (signed, tag) = challenge.split_at(SIGNED_BYTES);
        let checked = self.key.clone().chain_update(signed).verify_truncated_left(tag);
        checked.map_err(|_| ChallengeError::Unknown)?;
        let millis = signed.iter().take(END_BYTES).fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        if now > Duration::from_millis(millis) {
            return Err(ChallengeError::Expired);
        }
        // A panic while it was locked left the set whole: every change to it is one call.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_expired(now);
        if used.all.contains(&challenge) {
            return Err(ChallengeError::Used);
        }
        if used.all.len() >= self.remembered_max {
            return Err(ChallengeError::Busy);
        }
        used.all.insert(challenge);
        used.by_end.push_back((now + LIFETIME, challenge));
        Ok(UsedChallenge(challenge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn error(result: Result<UsedChallenge, ChallengeError>) -> Option<ChallengeError> {
        result.err()
    }

    #[test]
    fn a_challenge_is_good_once_and_for_sixty_seconds() {
        let challenges = Challenges::new().unwrap();
        let first = challenges.issue(at(5)).unwrap();
        assert_eq!(challenges.take(first, at(65)).unwrap().value(), first);
        assert_eq!(error(challenges.take(first, at(65))), Some(ChallengeError::Used));
        let second = challenges.issue(at(5)).unwrap();
        assert_eq!(error(challenges.take(second, at(66))), Some(ChallengeError::Expired));
        assert_ne!(first, second);
    }

    #[test]
    fn every_bit_of_it_counts_and_other_processes_do_not() {
        let challenges = Challenges::new().unwrap();
        let good = challenges.issue(at(0)).unwrap();
        for bit in 0..256 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(error(challenges.take(bad, at(1))), Some(ChallengeError::Unknown), "bit {bit}");
        }
        let restarted = Challenges::new().unwrap();
        assert_eq!(error(restarted.take(good, at(1))), Some(ChallengeError::Unknown));
        assert!(challenges.take(good, at(1)).is_ok());
    }

    #[test]
    fn a_used_challenge_stays_used_until_it_has_expired() {
        let challenges = Challenges::new().unwrap();
        let early = challenges.issue(at(0)).unwrap();
        let late = challenges.issue(at(59)).unwrap();
        challenges.take(late, at(59)).unwrap();
        challenges.take(early, at(60)).unwrap();
        for seconds in 60..=119 {
            assert_eq!(error(challenges.take(late, at(seconds))), Some(ChallengeError::Used));
        }
        assert_eq!(error(challenges.take(late, at(120))), Some(ChallengeError::Expired));
    }

    #[test]
    fn memory_is_bounded_and_a_full_memory_refuses() {
        let challenges = Challenges::with_capacity(4).unwrap();
        for _ in 0..10_000 {
            challenges.issue(at(0)).unwrap();
        }
        assert!(challenges.used.lock().unwrap().all.is_empty());
        for _ in 0..4 {
            challenges.take(challenges.issue(at(0)).unwrap(), at(0)).unwrap();
        }
        let fifth = challenges.issue(at(0)).unwrap();
        assert_eq!(error(challenges.take(fifth, at(0))), Some(ChallengeError::Busy));
        let later = challenges.issue(at(100)).unwrap();
        assert!(challenges.take(later, at(100)).is_ok());
        assert_eq!(challenges.used.lock().unwrap().by_end.len(), 1);
    }
}
