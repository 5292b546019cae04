//! A machine that stands still, as after SIGSTOP: nothing reaches it, and nothing comes from it.
//!
//! turmoil cannot stop a host's tasks and timers, so all that a node has to do with the world is
//! stopped instead: its sockets, its way to the database, and its lease. What came meanwhile is
//! there when it goes on, and what it was about to write is written then.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Does a machine stand still? Cheap to clone; all clones are the same machine.
#[derive(Debug, Clone, Default)]
pub struct Standstill(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    holds: AtomicBool,
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

    /// Does it stand still?
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.holds.load(Ordering::Relaxed)
    }

    /// Waits until it goes on: not at all where it does. Cancellation safe.
    pub async fn over(&self) {
        loop {
            let ended = self.0.ended.notified();
            if !self.holds() {
                return;
            }
            ended.await;
        }
    }
}
