//! How fast members are fetched for the sub-groups that a node is to own, so that moving them leaves the
//! store to those who send.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// A rate that everybody on the node shares. What has been taken is paid for before more is.
#[derive(Debug, Default)]
pub(super) struct Meter {
    free_at: Mutex<Option<Instant>>,
}

impl Meter {
    /// So many were taken, of so many a second: waits until what was taken before is paid for.
    /// Cancellation: they count all the same.
    pub(super) async fn take(&self, count: usize, per_second: u32) {
        let cost = Duration::from_secs(1) * u32::try_from(count).unwrap_or(u32::MAX) / per_second.max(1);
        let from = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let from = free_at.map_or_else(Instant::now, |at| at.max(Instant::now()));
            *free_at = Some(from + cost);
            from
        };
        sleep_until(from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_is_paid_for_before_more_is() {
        let (meter, began) = (Meter::default(), Instant::now());
        for _ in 0..5 {
            meter.take(100, 1_000).await;
        }
        assert_eq!(began.elapsed(), Duration::from_millis(400), "the first came for nothing");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        meter.take(100, 1_000).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "and what was not used is not saved up");
    }
}
