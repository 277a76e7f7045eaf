//! How fast an endpoint lets itself be asked. Slower at each "too many requests", faster again with every answer.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two requests after the first refusal.
const FIRST: Duration = Duration::from_millis(5);
/// Longest time between two requests.
const LONGEST: Duration = Duration::from_millis(500);
/// Below this, requests are not held back at all.
const NONE: Duration = Duration::from_millis(1);
/// So many answers halve the time between two.
const EASING: u32 = 64;

/// Shared by all who ask one endpoint.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Time that each request takes of the allowance; zero: no limit is known.
    interval: Duration,
    /// When the next request may go.
    next: Instant,
    /// When the endpoint last refused: what was sent before that adds nothing to it.
    slowed: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { interval: Duration::ZERO, next: now, slowed: now }))
    }

    /// Takes the next place in the queue for so many requests at once: when they may go.
    pub(super) fn turn(&self, now: Instant, requests: usize) -> Instant {
        self.with(|state| {
            let at = state.next.max(now);
            if !state.interval.is_zero() {
                state.next = at + state.interval * u32::try_from(requests).unwrap_or(u32::MAX);
            }
            at
        })
    }

    /// How long the endpoint wants to be left alone.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.with(|state| state.next.saturating_duration_since(now))
    }

    /// So many requests that were sent together at `sent` were too many; the endpoint may have said when to come back.
    pub(super) fn refused(&self, requests: usize, sent: Instant, now: Instant, after: Option<Duration>) {
        self.with(|state| {
            let slower = match requests {
                1 if sent >= state.slowed => (state.interval * 2).clamp(FIRST, LONGEST),
                // Whether it was the pace or the number of them, the next ones will tell.
                _ => state.interval.max(FIRST),
            };
            (state.interval, state.slowed) = (slower, now);
            state.next = state.next.max(now + after.unwrap_or(slower));
        });
    }

    /// So many requests were answered.
    pub(super) fn answered(&self, requests: usize) {
        self.with(|state| {
            let requests = u32::try_from(requests).unwrap_or(u32::MAX).min(EASING);
            let eased = state.interval * EASING / (EASING + requests);
            state.interval = if eased < NONE { Duration::ZERO } else { eased };
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Numbers only: nothing is left half done by a panic elsewhere.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_slow_it_down_and_answers_let_it_go_again() {
        let start = Instant::now();
        let pace = Pace::new(start);
        assert_eq!((pace.turn(start, 100), pace.turn(start, 100)), (start, start), "no limit is known");
        pace.refused(1, start, start + NONE, None);
        pace.refused(1, start, start + FIRST, Some(Duration::from_secs(2)));
        let at = pace.turn(start, 10);
        assert_eq!(at, start + FIRST + Duration::from_secs(2), "no sooner than it said");
        // The second one was sent before the first had been answered.
        assert_eq!(pace.turn(start, 1), at + FIRST * 10);
        let later = at + Duration::from_secs(10);
        pace.refused(100, later, later, None);
        assert_eq!(pace.rest(later), FIRST, "perhaps too many at once");
        pace.refused(1, later, later, None);
        assert_eq!(pace.rest(later), FIRST * 2);
        (0..200).for_each(|_| pace.answered(1));
        assert_eq!((pace.turn(later, 9), pace.turn(later, 9)), (later + FIRST * 2, later + FIRST * 2));
    }
}
