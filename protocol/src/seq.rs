//! Places in a group's sequence.
//!
//! ```text
//!   1   2   3   4   5   6   7
//! ┌───┬───┬───┬───┬───┬───┐
//! │ r │ r │ r │ r │ r │ r │ ·      tail = 7: the first Seq not yet written
//! └───┴───┴───┴───┴───┴───┘
//!           ▲                      watermark = 4: the next Seq a follower wants
//! ```
//!
//! A watermark and a tail are both a [`Seq`]: the next one, never the last one. Whoever has
//! everything has `watermark == tail`. [`Seq::next`] is the only increment.
//!
//! ```
//! use shoal_protocol::Seq;
//!
//! let watermark = Seq::new(4).expect("not 0");
//! let tail = Seq::new(7).expect("not 0");
//! assert_eq!(tail.since(watermark), 3);
//! assert_eq!(watermark.next().next().next(), tail);
//! ```

use std::fmt;

/// A record's place in its group: 1, 2, 3, … without a hole; the same for every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The first place, and so the tail of an empty group.
    pub const FIRST: Self = Self(1);

    /// The last place there is: 2^63 - 1, which databases' signed integers hold too. At a billion
    /// records a second a group reaches it in 292 years.
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// From a number of the wire; none for 0 and above [`Self::MAX`], which are no places. So
    /// nothing that a peer sends makes [`Self::next`] overflow.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (1..=Self::MAX.0).contains(&number).then_some(Self(number))
    }

    /// The number, from 1 on.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The place after this one.
    ///
    /// # Panics
    /// Far above [`Self::MAX`], after 2^64 - 1 records.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a sequence does not reach 2^64 records"))
    }

    /// The place `count` records further on, saturating.
    #[must_use]
    pub fn advance(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many records there are from `from` up to, not including, this one; 0 if none.
    #[must_use]
    pub fn since(self, from: Self) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wire_has_numbers_that_are_no_places() {
        assert_eq!(Seq::new(0), None);
        assert_eq!(Seq::new(1), Some(Seq::FIRST));
        assert_eq!(Seq::new(u64::MAX >> 1), Some(Seq::MAX));
        assert_eq!(Seq::new(1 << 63), None);
        assert_eq!(Seq::new(u64::MAX), None);
    }

    #[test]
    fn the_tail_after_the_last_place_can_still_be_told() {
        assert_eq!(Seq::MAX.next().since(Seq::MAX), 1);
    }

    proptest! {
        #[test]
        fn since_undoes_advance(from in 1..1_u64 << 62, count in 0..1_u64 << 62) {
            let from = Seq::new(from).unwrap();
            prop_assert_eq!(from.advance(count).since(from), count);
            prop_assert_eq!(from.since(from.advance(count)), 0);
        }

        #[test]
        fn next_is_the_smallest_place_above(number in 1..1_u64 << 62) {
            let seq = Seq::new(number).unwrap();
            prop_assert!(seq < seq.next());
            prop_assert_eq!(seq.next().since(seq), 1);
        }
    }
}
