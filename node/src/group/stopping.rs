//! The end of the group layer: groups take nothing more, and come to rest.

use std::sync::atomic::{AtomicBool, Ordering};

use shoal_protocol::{Code, Refusal};
use tokio::sync::Notify;

/// What whoever asks for something is told from then on.
pub(super) fn going() -> Refusal {
    Refusal::new(Code::Draining, "the node is going")
}

/// Is the node going? A `watch` would wake its waiters in an order of its own drawing, and a seed
/// would not replay.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    has_begun: AtomicBool,
    begun: Notify,
}

impl Stopping {
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
        self.begun.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    /// Completes once, when it begins; at once where it has.
    pub(super) async fn wait(&self) {
        let begun = self.begun.notified();
        if !self.has_begun() {
            begun.await;
        }
    }
}
