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

use std::fmt;

/// A record's place in its group: 1, 2, 3, … without a hole; the same for every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The first place, and so the tail of an empty group.
    pub const FIRST: Self = Self(1);

    /// From a number of the wire; none for 0, which is no place.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The number, from 1 on.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The place after this one.
    ///
    /// # Panics
    /// After 2^64 - 1 records: at a billion a second, in 584 years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a sequence does not reach 2^64 records"))
    }

    /// The place `count` further on, saturating.
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
