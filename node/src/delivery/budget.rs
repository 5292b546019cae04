//! The memory that the windows of all tails on a node share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes of records the tails hold together, and how many they may.
#[derive(Debug)]
pub struct WindowBudget {
    used: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl WindowBudget {
    /// What a window may hold while the budget is spent: enough for sessions that keep up.
    pub(super) const SHARE_BYTES: usize = 16 << 10;

    /// A budget of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { used: AtomicUsize::new(0), bytes_max: AtomicUsize::new(bytes_max) }
    }

    /// From now on the budget is this; each window finds it at its next record.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes of records held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.used() > self.bytes_max.load(Ordering::Relaxed)
    }

    /// A window that held `before` holds `after`.
    pub(super) fn settle(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use shoal_protocol::{GroupId, RecordFrame, Seq, WindowLimits, wire};

    use super::*;
    use crate::delivery::Tail;

    #[test]
    fn windows_stay_within_what_they_may_hold_together_and_give_it_back() {
        let budget = Arc::new(WindowBudget::new(256 << 10));
        let limits = WindowLimits { records_max: 1024, bytes_max: 128 << 10 };
        let tails: Vec<_> = (0..8)
            .map(|at| Tail::new(GroupId::from_random(at), Seq::FIRST, limits, Arc::clone(&budget)))
            .collect();
        let message = wire::Message { payload: vec![7; 1000].into(), ..wire::Message::default() };
        for seq in 1..=200 {
            for tail in &tails {
                let body = Some(wire::record::Body::Message(message.clone()));
                let record = wire::Record { seq, body, ..wire::Record::default() };
                tail.append([RecordFrame::encode(&record)], &BTreeMap::new());
            }
            let least = tails.len() * WindowBudget::SHARE_BYTES;
            assert!(budget.used() <= (256 << 10) + least, "{} bytes at {seq}", budget.used());
        }
        assert!(tails.iter().all(|tail| tail.tail() == Seq::FIRST.advance(200)));
        tails[0].sleep();
        drop(tails);
        assert_eq!(budget.used(), 0);
    }
}
