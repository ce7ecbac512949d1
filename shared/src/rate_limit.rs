//! A rate limit: calls are evenly spaced, and slower while the service is busy.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Gives each call its turn. Without a limit, no call waits.
///
/// Calls are spaced, not counted, so no second has more of them than any other. A throttled call
/// halves the rate, once for all calls before it. Each successful call restores a part of the rate
/// (additive increase, multiplicative decrease, as in RFC 5681, section 3.1).
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// The configured space between two calls.
    space: Duration,
    /// The current space.
    slowed: Duration,
    next: Instant,
    /// Since when the current space applies.
    since: Instant,
    /// Until when throttled calls are made again.
    until: Instant,
}

impl RateLimit {
    /// The share of the limit that is used, so that no second has more calls than the limit even if
    /// they arrive less evenly than they were sent.
    const SHARE: f64 = 0.8;
    /// The most space between two calls.
    const SLOWEST: Duration = Duration::from_secs(5);
    /// How long a call is made again in any case, after the last successful one.
    const MIN_TIME: Duration = Duration::from_secs(5);
    /// How many successful calls restore the rate.
    const RECOVERY: f64 = 32.0;

    /// Sets the limit to `per_second` calls a second. A throttled call is made again until `until`, and
    /// for five seconds after the last successful one.
    pub fn set(&self, per_second: f64, until: Instant) {
        let space = Duration::from_secs_f64(1.0 / (per_second.max(0.01) * Self::SHARE));
        self.with(|state| {
            // No faster than before: the service may still be busy.
            let slowed = state.limit.as_ref().map_or(space, |limit| limit.slowed.max(space));
            let now = Instant::now();
            // Not before the turn that the next call would have had.
            let next = state.limit.as_ref().map_or(now, |limit| limit.next.max(now));
            let until = until.max(now + Self::MIN_TIME);
            state.limit = Some(Limit { space, slowed, next, since: now, until });
        });
    }

    /// Returns how many calls fit in this time at the current rate; `None` without a limit.
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

    /// Waits for the next turn, and returns its time.
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

    /// Records a successful call.
    pub fn succeeded(&self) {
        self.with(|state| {
            if let Some(limit) = &mut state.limit {
                let rate = 1.0 / limit.slowed.as_secs_f64();
                let whole = 1.0 / limit.space.as_secs_f64();
                let rate = (rate + whole / Self::RECOVERY).min(whole);
                limit.slowed = Duration::from_secs_f64(1.0 / rate);
                limit.until = limit.until.max(Instant::now() + Self::MIN_TIME);
            }
        });
    }

    /// Records that the call of a turn was throttled. Returns whether there is time to make it again.
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

    async fn turns(limit: &RateLimit, count: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            limit.turn().await;
        }
        began.elapsed()
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_no_call_waits() {
        let limit = RateLimit::default();
        assert_eq!(turns(&limit, 1000).await, Duration::ZERO);
        assert!(!limit.throttled(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_calls_than_the_limit() {
        for per_second in [1.0, 3.0, 10.0, 25.0, 400.0] {
            let limit = RateLimit::default();
            limit.set(per_second, far());
            let mut times = Vec::new();
            for _ in 0..200 {
                limit.turn().await;
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
    async fn the_rate_drops_when_throttled_and_recovers() {
        let limit = RateLimit::default();
        limit.set(100.0, far());
        let even = turns(&limit, 100).await;
        for _ in 0..4 {
            let turn = limit.turn().await;
            assert!(limit.throttled(turn));
            // Earlier calls count as the same throttling.
            assert!(limit.throttled(turn - Duration::from_millis(1)));
        }
        turns(&limit, 1).await;
        assert!(turns(&limit, 100).await > even * 10);
        for _ in 0..1000 {
            limit.succeeded();
        }
        turns(&limit, 1).await;
        assert!(turns(&limit, 100).await < even * 11 / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_stays_throttled_is_given_up() {
        let limit = RateLimit::default();
        limit.set(100.0, Instant::now() + Duration::from_mins(1));
        while limit.throttled(limit.turn().await) {}
        assert!(Instant::now() < far());
    }

    #[tokio::test(start_paused = true)]
    async fn with_constant_throttling_the_rate_settles() {
        let limit = RateLimit::default();
        limit.set(100.0, far());
        let even = turns(&limit, 700).await;
        let began = Instant::now();
        for call in 0..700 {
            let turn = limit.turn().await;
            if call % 7 == 0 {
                assert!(limit.throttled(turn));
            } else {
                limit.succeeded();
            }
        }
        assert!(began.elapsed() < even * 8);
    }
}
