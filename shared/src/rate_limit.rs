//! How fast calls may follow each other: evenly spaced, slower where the other side is busy.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Gives each call its turn. Free unless told otherwise: then nobody waits.
///
/// Calls are spaced, not counted, so no second has more of them than any other. A throttled call
/// halves the rate, once for all that were made before; each call that is answered gives back a
/// part of it (additive increase, multiplicative decrease, as RFC 5681, section 3.1, has it).
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// The space that is asked for.
    space: Duration,
    /// The space as it is.
    slowed: Duration,
    next: Instant,
    /// Since when it has been as slow.
    since: Instant,
    until: Instant,
}

impl RateLimit {
    /// No second holds more calls than were asked for, even where they arrive less evenly than
    /// they left.
    const SHARE: f64 = 0.8;
    /// The most space between two calls.
    const SLOWEST: Duration = Duration::from_secs(5);
    /// For how long a call is made again in any case, after the last one that was answered.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How many answered calls take back one throttled one.
    const RECOVERY: f64 = 32.0;

    /// From now on, at most `per_second` calls a second; one that is throttled is made again until
    /// `until`, and for five seconds after the last one that was answered.
    pub fn limit(&self, per_second: f64, until: Instant) {
        let space = Duration::from_secs_f64(1.0 / (per_second.max(0.01) * Self::SHARE));
        self.with(|state| {
            // As slow as it was: whoever was busy may be so still.
            let slowed = state.limit.as_ref().map_or(space, |limit| limit.slowed.max(space));
            let now = Instant::now();
            // Nor before the turn that the next call would have had.
            let next = state.limit.as_ref().map_or(now, |limit| limit.next.max(now));
            let until = until.max(now + Self::PATIENCE);
            state.limit = Some(Limit { space, slowed, next, since: now, until });
        });
    }

    /// How many calls there are in so long, as things are; none if there is no limit.
    #[must_use]
    pub fn calls_within(&self, time: Duration) -> Option<u64> {
        let slowed = self.with(|state| state.limit.as_ref().map(|limit| limit.slowed));
        slowed.and_then(|slowed| {
            let calls = time.as_nanos().checked_div(slowed.as_nanos())?;
            Some(u64::try_from(calls).unwrap_or(u64::MAX))
        })
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.with(|state| state.limit.is_some())
    }

    /// Waits for the next turn, and answers when it was.
    pub async fn turn(&self) -> Instant {
        let turn = self.with(|state| {
            let limit = state.limit.as_mut()?;
            let turn = limit.next.max(Instant::now());
            limit.next = turn + limit.slowed;
            Some(turn)
        });
        if let Some(turn) = turn {
            tokio::time::sleep_until(turn).await;
        }
        turn.unwrap_or_else(Instant::now)
    }

    /// Notes that a call was answered.
    pub fn answered(&self) {
        self.with(|state| {
            if let Some(limit) = &mut state.limit {
                let rate = 1.0 / limit.slowed.as_secs_f64();
                let whole = 1.0 / limit.space.as_secs_f64();
                let rate = (rate + whole / Self::RECOVERY).min(whole);
                limit.slowed = Duration::from_secs_f64(1.0 / rate);
                limit.until = limit.until.max(Instant::now() + Self::PATIENCE);
            }
        });
    }

    /// Notes that the call of a turn was throttled. Whether there is time to make it again.
    #[must_use]
    pub fn throttled(&self, turn: Instant) -> bool {
        self.with(|state| {
            let Some(limit) = &mut state.limit else { return false };
            let now = Instant::now();
            if turn >= limit.since {
                limit.since = now;
                limit.slowed = (limit.slowed * 2).min(Self::SLOWEST.max(limit.space));
                limit.next = limit.next.max(now + limit.slowed);
            }
            limit.next < limit.until
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turns(pace: &RateLimit, count: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            pace.turn().await;
        }
        began.elapsed()
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let pace = RateLimit::default();
        assert_eq!(turns(&pace, 1000).await, Duration::ZERO);
        assert!(!pace.throttled(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_calls_than_the_limit() {
        for per_second in [1.0, 3.0, 10.0, 25.0, 400.0] {
            let pace = RateLimit::default();
            pace.limit(per_second, far());
            let mut times = Vec::new();
            for _ in 0..200 {
                pace.turn().await;
                times.push(Instant::now());
            }
            for (index, begin) in times.iter().enumerate() {
                let second = |time: &&Instant| **time < *begin + Duration::from_secs(1);
                let calls = times[index..].iter().take_while(second).count();
                let calls = f64::from(u32::try_from(calls).unwrap());
                assert!(calls <= per_second, "{calls} of {per_second}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_slows_when_throttled_and_comes_back() {
        let pace = RateLimit::default();
        pace.limit(100.0, far());
        let even = turns(&pace, 100).await;
        for _ in 0..4 {
            let turn = pace.turn().await;
            assert!(pace.throttled(turn));
            // Those that were made before are one with it.
            assert!(pace.throttled(turn - Duration::from_millis(1)));
        }
        turns(&pace, 1).await;
        assert!(turns(&pace, 100).await > even * 10);
        for _ in 0..1000 {
            pace.answered();
        }
        turns(&pace, 1).await;
        assert!(turns(&pace, 100).await < even * 11 / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_throttled_to_the_end_is_given_up() {
        let pace = RateLimit::default();
        pace.limit(100.0, Instant::now() + Duration::from_mins(1));
        while pace.throttled(pace.turn().await) {}
        assert!(Instant::now() < far());
    }

    #[tokio::test(start_paused = true)]
    async fn where_some_are_always_throttled_it_finds_a_rate() {
        let pace = RateLimit::default();
        pace.limit(100.0, far());
        let even = turns(&pace, 700).await;
        let began = Instant::now();
        for call in 0..700 {
            let turn = pace.turn().await;
            if call % 7 == 0 {
                assert!(pace.throttled(turn));
            } else {
                pace.answered();
            }
        }
        assert!(began.elapsed() < even * 8);
    }
}
