//! How long to wait before the next attempt: doubling, with jitter, up to a ceiling.

use std::time::Duration;

/// Waits that double with each failure.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is up to `first`, none is longer than `ceiling`.
    pub(crate) fn new(first: Duration, ceiling: Duration) -> Self {
        Self { first, ceiling, failures: 0 }
    }

    /// Notes a failure; how long to wait, for a `chance` in `0.0..1.0`: between half of the
    /// doubled wait and all of it, so that clients that lost the same node come back spread out.
    pub(crate) fn failed(&mut self, chance: f64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let whole = self.first.saturating_mul(1 << doublings).min(self.ceiling);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Notes that it works again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.failed(1.0).as_millis(), 100);
    }

    #[test]
    fn chance_spreads_a_wait_over_its_upper_half() {
        let wait = |chance| Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).failed(chance);
        assert_eq!((wait(0.0).as_millis(), wait(0.5).as_millis()), (50, 75));
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        assert!((0..1000).all(|_| backoff.failed(0.9) <= Duration::from_secs(15)));
    }
}
