//! The wall clock, as an argument: whoever assembles the node gives it one.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::ops;

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// How long this process has kept processors busy, all of them added up; none where nobody counts.
    fn processor_time(&self) -> Option<Duration> {
        None
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        milliseconds(since)
    }

    fn processor_time(&self) -> Option<Duration> {
        ops::processor_time()
    }
}

/// Whole milliseconds, as records, frames and gauges state them.
#[must_use]
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
