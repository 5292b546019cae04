//! The follower's accept rule: below the watermark drop, at it take, above it refuse and refill.

use crate::Seq;

/// What to do with a record that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It is the one that was wanted; the watermark has moved past it.
    Take,
    /// It was had before.
    Drop,
    /// Something is missing: ask for everything from `wanted`, and do not take this one.
    Gap {
        /// The watermark, unmoved.
        wanted: Seq,
    },
}

/// Whoever reads a group in order: a node, a member list, a session, a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    watermark: Seq,
}

impl Follower {
    /// A follower that has everything below `watermark`.
    #[must_use]
    pub fn new(watermark: Seq) -> Self {
        Self { watermark }
    }

    /// The next Seq it wants; all below it, it has.
    #[must_use]
    pub fn watermark(&self) -> Seq {
        self.watermark
    }

    /// Has it everything below `tail`?
    #[must_use]
    pub fn caught_up(&self, tail: Seq) -> bool {
        self.watermark >= tail
    }

    /// Judges the record at `seq` and moves on if it is taken.
    pub fn accept(&mut self, seq: Seq) -> Accept {
        match seq.cmp(&self.watermark) {
            std::cmp::Ordering::Less => Accept::Drop,
            std::cmp::Ordering::Equal => {
                self.watermark = seq.next();
                Accept::Take
            }
            std::cmp::Ordering::Greater => Accept::Gap { wanted: self.watermark },
        }
    }

    /// Goes forward to `watermark`; never back.
    pub fn skip_to(&mut self, watermark: Seq) {
        self.watermark = self.watermark.max(watermark);
    }
}
