//! What is wrong with a node so that somebody has to look at once: told when it is seen first.

use crate::{
    ops::{Event, Events, Kind, Metrics},
    store::Store,
};

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Health {
    has_stopped: bool,
    watermarks_ahead: u64,
    corrupt: u64,
}

impl Health {
    /// Looks, and tells what is new.
    pub(super) fn look(&mut self, store: &dyn Store, metrics: &Metrics, events: &Events) {
        let health = store.health();
        metrics.store_writable.set(health.is_ok().into());
        if let (false, Err(error)) = (self.has_stopped, &health) {
            events.tell(Event::new(Kind::StoreStopped, format!("this node accepts no messages: {error}")));
        }
        self.has_stopped = health.is_err();
        if rises(&mut self.watermarks_ahead, metrics.watermarks_ahead.get()) {
            let text = "a watermark was above its group's tail: the sequence went back; the log says which";
            events.tell(Event::new(Kind::SequenceWentBack, text));
        }
        if rises(&mut self.corrupt, metrics.store_corrupt.get()) {
            let text = "the store read what is not what was written, and does not serve it";
            events.tell(Event::new(Kind::StoreCorrupt, text));
        }
    }
}

fn rises(seen: &mut u64, now: u64) -> bool {
    std::mem::replace(seen, now) < now
}
