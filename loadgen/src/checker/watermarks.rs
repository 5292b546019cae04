//! Many positions, of which the lowest counts.

use std::collections::BTreeMap;

/// Positions of many, each with how many are there.
#[derive(Debug, Default)]
pub(super) struct Watermarks(BTreeMap<u64, u32>);

impl Watermarks {
    /// So many more are at `seq`.
    pub(super) fn add(&mut self, seq: u64, count: u32) {
        *self.0.entry(seq).or_default() += count;
    }

    /// One of those at `seq` is there no more.
    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(there) = self.0.get_mut(&seq) {
            *there = there.saturating_sub(1);
            if *there == 0 {
                self.0.remove(&seq);
            }
        }
    }

    /// The lowest, if there are any.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(seq, _)| *seq)
    }

    /// How far all of them together are below `tail`.
    pub(super) fn below(&self, tail: u64) -> u64 {
        self.0.iter().map(|(seq, count)| tail.saturating_sub(*seq) * u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_whoever_is_furthest_behind() {
        let mut watermarks = Watermarks::default();
        watermarks.add(7, 1);
        watermarks.add(3, 2);
        assert_eq!((watermarks.lowest(), watermarks.below(8)), (Some(3), 11));
        watermarks.remove(3);
        assert_eq!(watermarks.lowest(), Some(3));
        watermarks.remove(3);
        assert_eq!((watermarks.lowest(), watermarks.below(5)), (Some(7), 0));
        watermarks.remove(7);
        assert_eq!(watermarks.lowest(), None);
    }
}
