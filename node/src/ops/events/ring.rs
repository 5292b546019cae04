//! The latest events, in their order, numbered 1, 2, 3, … Pure: the time is an argument.
//!
//! The tail is the number of the next event; a watermark that of the next one a follower wants. What the ring
//! does not hold any more it counts, so that no follower takes a hole for nothing.

use std::collections::VecDeque;

use crate::ops::Event;

/// Numbered events, the oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    tail: u64,
    kept: VecDeque<Kept>,
}

/// An event, where it stands, and when it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) event: Event,
}

/// Events in a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) events: Vec<Kept>,
    /// So many before the first of them are wanted too, and kept no more.
    pub(super) missed: u64,
    /// Where to go on.
    pub(super) watermark: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { tail: 1, kept: VecDeque::new() }
    }
}

impl Ring {
    /// The number of the next event.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Takes an event, and forgets the oldest above so many.
    pub(super) fn push(&mut self, time_ms: u64, event: Event, most: usize) {
        self.kept.push_back(Kept { number: self.tail, time_ms, event });
        self.tail += 1;
        self.kept.drain(..self.kept.len().saturating_sub(most));
    }

    /// From this watermark on, at most so many. One that is above the tail is of no life of this node.
    pub(super) fn from(&self, watermark: u64, limit: usize) -> Page {
        let watermark = if watermark > self.tail { 1 } else { watermark.max(1) };
        let first = watermark.max(self.oldest());
        let skipped = usize::try_from(first - self.oldest()).unwrap_or(usize::MAX);
        let events: Vec<_> = self.kept.iter().skip(skipped).take(limit).cloned().collect();
        Page { missed: first - watermark, watermark: first + events.len() as u64, events }
    }

    /// The last so many. Nobody has missed any who never asked before.
    pub(super) fn latest(&self, limit: usize) -> Page {
        let skipped = self.kept.len().saturating_sub(limit);
        let events = self.kept.iter().skip(skipped).cloned().collect();
        Page { events, missed: 0, watermark: self.tail }
    }

    fn oldest(&self) -> u64 {
        self.tail - self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::Kind;

    fn push(ring: &mut Ring, most: usize) {
        let text = ring.tail().to_string();
        ring.push(ring.tail(), Event::new(Kind::Started, text), most);
    }

    fn ring(events: u64, most: usize) -> Ring {
        let mut ring = Ring::default();
        (0..events).for_each(|_| push(&mut ring, most));
        ring
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.events.iter().map(|kept| kept.number).collect()
    }

    #[test]
    fn the_oldest_are_forgotten_and_whoever_wants_them_is_told_how_many() {
        let ring = ring(10, 4);
        let page = ring.from(5, 100);
        assert_eq!((numbers(&page), page.missed, page.watermark), (vec![7, 8, 9, 10], 2, 11));
        let page = ring.from(7, 2);
        assert_eq!((numbers(&page), page.missed, page.watermark), (vec![7, 8], 0, 9));
        let page = ring.latest(2);
        assert_eq!((numbers(&page), page.missed, page.watermark), (vec![9, 10], 0, 11));
    }

    #[test]
    fn at_the_tail_there_is_nothing_and_above_it_all() {
        let (empty, ring) = (Ring::default(), ring(3, 4));
        assert_eq!(empty.from(1, 9), Page { events: Vec::new(), missed: 0, watermark: 1 });
        assert_eq!(ring.from(4, 9), Page { events: Vec::new(), missed: 0, watermark: 4 });
        assert_eq!(numbers(&ring.from(5, 9)), [1, 2, 3]);
        assert_eq!(numbers(&ring.from(0, 9)), [1, 2, 3]);
    }

    proptest! {
        /// However the ring moves on between two questions, and whatever it may keep.
        #[test]
        fn a_follower_sees_each_number_once_or_is_told_that_it_missed_it(
            turns in proptest::collection::vec((0_u64..20, 1_usize..10, 1_usize..10), 1..30),
        ) {
            let (mut ring, mut watermark, mut next) = (Ring::default(), 1, 1);
            for (told, most, limit) in turns {
                for _ in 0..told {
                    push(&mut ring, most);
                    prop_assert!(ring.kept.len() <= most);
                }
                let page = ring.from(watermark, limit);
                next += page.missed;
                for kept in &page.events {
                    prop_assert_eq!(kept.number, next);
                    prop_assert_eq!(&kept.event.text, &next.to_string());
                    next += 1;
                }
                prop_assert_eq!(page.watermark, next);
                prop_assert!(!page.events.is_empty() || page.watermark == ring.tail());
                watermark = page.watermark;
            }
        }
    }
}
