//! Places, as ranges.

use std::{collections::BTreeMap, ops::Range};

/// Places, as half-open ranges that neither touch nor overlap.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds these places.
    pub(super) fn insert(&mut self, Range { mut start, mut end }: Range<u64>) {
        while let Some((from, until)) = self.last_up_to(end).filter(|(_, until)| *until >= start) {
            if from <= start && end <= until {
                return;
            }
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(until));
        }
        self.0.insert(start, end);
    }

    /// Is the place in one of them?
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.last_up_to(seq).is_some_and(|(_, until)| seq < until)
    }

    /// Lets go of the ranges that lie below.
    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.0.first_key_value().is_some_and(|(_, until)| *until <= seq) {
            self.0.pop_first();
        }
    }

    fn last_up_to(&self, seq: u64) -> Option<(u64, u64)> {
        self.0.range(..=seq).next_back().map(|(from, until)| (*from, *until))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_lies_below_is_forgotten_range_by_range() {
        let mut ranges = Ranges::default();
        ranges.insert(1..4);
        ranges.insert(6..8);
        ranges.forget_below(7);
        assert_eq!([3, 6, 7, 8].map(|seq| ranges.contains(seq)), [false, true, true, false]);
    }

    proptest! {
        #[test]
        fn ranges_hold_the_places_that_were_put_in(
            inserts in prop::collection::vec((0..60_u64, 1..20_u64), 0..20),
        ) {
            let (mut ranges, mut places) = (Ranges::default(), BTreeSet::new());
            for (from, length) in inserts {
                ranges.insert(from..from + length);
                places.extend(from..from + length);
            }
            for seq in 0..90 {
                prop_assert_eq!(ranges.contains(seq), places.contains(&seq), "{}", seq);
            }
            let all: Vec<_> = ranges.0.into_iter().collect();
            prop_assert!(all.is_sorted_by(|(_, until), (from, _)| until < from), "{:?}", all);
        }
    }
}
