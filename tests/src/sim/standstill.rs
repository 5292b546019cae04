//! A machine that stands still, as after SIGSTOP: nothing reaches it, and nothing comes from it. Or one that
//! has a hundredth of the time, and of that only now and then: what it has to do waits until then.
//!
//! turmoil cannot stop a host's tasks and timers, so what a node has to do with the world is stopped
//! instead: its sockets and its way to the database; and, where the machine stands still, its lease. What
//! came meanwhile is there when it goes on, and what it was about to write is written then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// Of so long a time
const ROUND: Duration = Duration::from_secs(1);

/// a machine that is slow has so much.
const TURN: Duration = Duration::from_millis(10);

/// Does a machine stand still? Cheap to clone; all clones are the same machine.
#[derive(Debug, Clone, Default)]
pub struct Standstill(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    holds: AtomicBool,
    is_slow: AtomicBool,
    /// It is slow, and it is not its turn.
    waits: AtomicBool,
    ended: Notify,
}

impl Standstill {
    /// It stops.
    pub fn begin(&self) {
        self.0.holds.store(true, Ordering::Relaxed);
    }

    /// It goes on.
    pub fn end(&self) {
        self.0.holds.store(false, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }

    /// It becomes a hundred times as slow, or is well again.
    pub fn slow(&self, is_slow: bool) {
        self.0.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// It is now so late.
    pub fn pass_to(&self, now: Duration) {
        let is_turn = now.as_nanos() % ROUND.as_nanos() < TURN.as_nanos();
        let waits = self.0.is_slow.load(Ordering::Relaxed) && !is_turn;
        if self.0.waits.swap(waits, Ordering::Relaxed) && !waits {
            self.0.ended.notify_waiters();
        }
    }

    /// Does it stand still?
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.holds.load(Ordering::Relaxed)
    }

    /// Has it no time now, for whatever reason?
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.holds() || self.0.waits.load(Ordering::Relaxed)
    }

    /// Waits until it goes on: not at all where it does. Cancellation safe.
    pub async fn over(&self) {
        loop {
            let ended = self.0.ended.notified();
            if !self.is_busy() {
                return;
            }
            ended.await;
        }
    }
}
