//! How fast a session may do something, on tokio's clock, which a simulation moves.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
struct TokioClock {
    origin: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.origin.elapsed().into()
    }
}

/// A rate with a burst.
#[derive(Debug)]
pub(super) struct Pace {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>,
}

impl Pace {
    /// So many a second, lasting, and so many at once. At least one of each.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        let clock = TokioClock { origin: Instant::now() };
        Self { limiter: RateLimiter::direct_with_clock(quota, clock) }
    }

    /// Now, or not before this moment.
    pub(super) fn check(&self) -> Result<(), Instant> {
        self.limiter.check().map_err(|not_until| {
            let now = self.limiter.clock().now();
            // Never no time at all: whoever waits would not yield.
            Instant::now() + not_until.wait_time_from(now).max(Duration::from_micros(1))
        })
    }

    /// Waits until it may.
    pub(super) async fn wait(&self) {
        while let Err(until) = self.check() {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_comes_the_rate() {
        let pace = Pace::new(10, 3);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(pace.check().is_ok());
        }
        assert!(pace.check().is_err());
        for _ in 0..10 {
            pace.wait().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1100), "{took:?}");
    }
}
