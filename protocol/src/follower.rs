//! The follower's accept rule: below the watermark drop, at it take, above it refuse and refill.
//!
//! ```
//! use shoal_protocol::{Accept, Follower, Seq};
//!
//! let seq = |number| Seq::new(number).expect("not 0");
//! let mut follower = Follower::new(Seq::FIRST);
//! assert_eq!(follower.accept(seq(1)), Accept::Take);
//! assert_eq!(follower.accept(seq(1)), Accept::Drop);
//! assert_eq!(follower.accept(seq(3)), Accept::Gap { wanted: seq(2) });
//! assert_eq!(follower.watermark(), seq(2));
//! ```

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
        self.accept_run(seq, seq.next())
    }

    /// Judges what stands for all records from `from` up to, not including, `to`. Where it has the
    /// first of them it takes the rest.
    pub fn accept_run(&mut self, from: Seq, to: Seq) -> Accept {
        if to <= self.watermark {
            Accept::Drop
        } else if from <= self.watermark {
            self.watermark = to;
            Accept::Take
        } else {
            Accept::Gap { wanted: self.watermark }
        }
    }

    /// Goes forward to `watermark`; never back.
    pub fn skip_to(&mut self, watermark: Seq) {
        self.watermark = self.watermark.max(watermark);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    #[test]
    fn a_watermark_never_goes_back() {
        let mut follower = Follower::new(seq(5));
        follower.skip_to(seq(3));
        assert_eq!(follower.watermark(), seq(5));
        follower.skip_to(seq(8));
        assert_eq!(follower.watermark(), seq(8));
    }

    #[test]
    fn caught_up_means_that_the_watermark_is_the_tail() {
        assert!(Follower::new(Seq::FIRST).caught_up(Seq::FIRST), "of an empty group");
        assert!(!Follower::new(seq(4)).caught_up(seq(5)));
        assert!(Follower::new(seq(5)).caught_up(seq(5)));
    }

    #[test]
    fn a_run_is_taken_from_the_watermark_on_and_never_above_it() {
        let mut follower = Follower::new(seq(5));
        assert_eq!(follower.accept_run(seq(6), seq(9)), Accept::Gap { wanted: seq(5) });
        assert_eq!(follower.accept_run(seq(5), seq(7)), Accept::Take);
        assert_eq!(follower.accept_run(seq(4), seq(9)), Accept::Take);
        assert_eq!(follower.accept_run(seq(3), seq(9)), Accept::Drop);
        assert_eq!(follower.watermark(), seq(9));
    }

    proptest! {
        /// Whatever is lost, doubled and reordered on the way: what a follower takes is the
        /// sequence from its watermark on, without a hole or a double.
        #[test]
        fn what_is_taken_has_no_hole_and_no_double(
            from in 1..20_u64,
            arrivals in prop::collection::vec(1..40_u64, 0..200),
        ) {
            let mut follower = Follower::new(seq(from));
            let mut taken = Vec::new();
            for number in arrivals {
                let before = follower.watermark();
                match follower.accept(seq(number)) {
                    Accept::Take => taken.push(number),
                    Accept::Drop => prop_assert!(number < before.get()),
                    Accept::Gap { wanted } => {
                        prop_assert_eq!(wanted, before);
                        prop_assert!(number > before.get());
                    }
                }
                prop_assert!(follower.watermark() >= before);
            }
            let expected: Vec<_> = (from..follower.watermark().get()).collect();
            prop_assert_eq!(taken, expected);
        }

        /// A follower that refills from its watermark at each gap ends with everything, whatever
        /// the stream left out.
        #[test]
        fn a_refill_from_the_watermark_closes_every_gap(
            tail in 1..60_u64,
            lost in prop::collection::btree_set(1..60_u64, 0..60),
        ) {
            let mut follower = Follower::new(Seq::FIRST);
            let mut taken = Vec::new();
            for number in (1..tail).filter(|number| !lost.contains(number)) {
                if let Accept::Gap { wanted } = follower.accept(seq(number)) {
                    for refill in wanted.get()..=number {
                        prop_assert_eq!(follower.accept(seq(refill)), Accept::Take);
                        taken.push(refill);
                    }
                } else {
                    taken.push(number);
                }
            }
            prop_assert_eq!(taken, (1..follower.watermark().get()).collect::<Vec<_>>());
        }
    }
}
