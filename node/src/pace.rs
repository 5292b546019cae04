//! How fast something may be done, on tokio's clock, which a simulation moves.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use governor::{
    RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::config::{AccessLimits, Current, Rate};

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

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

/// A rate with a burst: the one that holds when it is asked.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: Current<AccessLimits>,
    of: fn(&AccessLimits) -> Rate,
    limiter: ArcSwap<(Rate, Limiter)>,
}

impl Pace {
    /// At the rate that `of` finds in the limits.
    pub(crate) fn new(limits: &Current<AccessLimits>, of: fn(&AccessLimits) -> Rate) -> Self {
        let limiter = ArcSwap::from_pointee(limiter(of(&limits.load())));
        Self { limits: limits.clone(), of, limiter }
    }

    /// Now, or not before this moment.
    pub(crate) fn check(&self) -> Result<(), Instant> {
        let rate = (self.of)(&self.limits.load());
        if self.limiter.load().0 != rate {
            self.limiter.store(Arc::new(limiter(rate)));
        }
        let limiter = self.limiter.load();
        let (_, limiter) = &**limiter;
        limiter.check().map_err(|not_until| {
            let now = limiter.clock().now();
            // Never no time at all: whoever waits would not yield.
            Instant::now() + not_until.wait_time_from(now).max(Duration::from_micros(1))
        })
    }

    /// Waits until it may.
    pub(crate) async fn wait(&self) {
        while let Err(until) = self.check() {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn limiter(rate: Rate) -> (Rate, Limiter) {
    let clock = TokioClock { origin: Instant::now() };
    (rate, RateLimiter::direct_with_clock(rate.quota(), clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(publish_rate_per_second: u32, publish_burst: u32) -> AccessLimits {
        AccessLimits { publish_rate_per_second, publish_burst, ..AccessLimits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_comes_the_rate() {
        let pace = Pace::new(&limits(10, 3).into(), AccessLimits::publish_rate);
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

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_from_the_next_check() {
        let current = Current::from(limits(10, 1));
        let pace = Pace::new(&current, AccessLimits::publish_rate);
        assert!(pace.check().is_ok() && pace.check().is_err());
        current.set(limits(1, 2));
        assert!(pace.check().is_ok() && pace.check().is_ok());
        let wait = pace.check().unwrap_err() - Instant::now();
        assert!(wait > Duration::from_millis(900), "{wait:?}");
    }
}
