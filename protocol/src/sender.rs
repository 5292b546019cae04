//! A sender's numbers: 1, 2, 3, … for each group, with the outcomes of a window of them.
//!
//! The next number is appended; one that was had gets its recorded outcome; one too high is told
//! what is expected, and the client goes back. So retries are harmless, order holds over any
//! failure, and no index of message ids grows for ever.
//!
//! ```
//! use shoal_protocol::{Outcome, SenderNumbers, Seq, Verdict};
//!
//! let mut numbers = SenderNumbers::new();
//! assert_eq!(numbers.judge(2), Verdict::TooHigh { expected: 1 });
//! assert_eq!(numbers.judge(1), Verdict::Next);
//! let outcome = Outcome::Committed { seq: Seq::FIRST };
//! numbers.record(1, outcome);
//! assert_eq!(numbers.judge(1), Verdict::Had(outcome), "a retry is harmless");
//! assert_eq!(numbers.judge(2), Verdict::Next);
//! ```

use std::collections::VecDeque;

use crate::{Code, Seq};

/// How many outcomes a home keeps for each sender, and so the most publishes a client may have
/// unanswered in one group: with more, a retry could ask for an outcome that is gone.
pub const PUBLISH_WINDOW: usize = 128;

/// What became of a number, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable at this place.
    Committed {
        /// The record's place.
        seq: Seq,
    },
    /// Refused for good; the number is used up.
    Refused(Code),
}

/// What a home says to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Next,
    /// It was had, and this became of it.
    Had(Outcome),
    /// One before it is missing.
    TooHigh {
        /// The number the home waits for.
        expected: u64,
    },
    /// It was had so long ago that its outcome is gone; or it is 0, which is no number.
    Forgotten,
}

/// One sender's numbers in one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderNumbers {
    last: u64,
    /// The outcomes of the numbers up to `last`, the latest at the back.
    outcomes: VecDeque<Outcome>,
}

impl SenderNumbers {
    /// A sender that has sent nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As it was kept: the last number, and the outcomes of a window that ends with it. Outcomes
    /// beyond the window, or beyond the numbers there have been, are left out.
    #[must_use]
    pub fn restore(last: u64, outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut outcomes: VecDeque<_> = outcomes.into_iter().collect();
        let kept = usize::try_from(last).unwrap_or(usize::MAX).min(PUBLISH_WINDOW);
        outcomes.drain(..outcomes.len().saturating_sub(kept));
        Self { last, outcomes }
    }

    /// The last number that has an outcome; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The outcomes of the window, oldest first, the last of them that of [`Self::last`].
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> + '_ {
        self.outcomes.iter().copied()
    }

    /// Judges a number.
    #[must_use]
    pub fn judge(&self, number: u64) -> Verdict {
        let expected = self.last.saturating_add(1);
        if number == expected {
            return Verdict::Next;
        }
        if number > expected {
            return Verdict::TooHigh { expected };
        }
        let age = usize::try_from(self.last - number).unwrap_or(usize::MAX);
        match self.outcomes.len().checked_sub(age.saturating_add(1)).and_then(|at| self.outcomes.get(at)) {
            Some(outcome) => Verdict::Had(*outcome),
            None => Verdict::Forgotten,
        }
    }

    /// Records what became of `number`. A number that was had before changes nothing, so that a
    /// fold over the sequence may start anywhere.
    ///
    /// # Panics
    /// Where `number` leaves out one: the home appends in order.
    pub fn record(&mut self, number: u64, outcome: Outcome) {
        if number <= self.last {
            return;
        }
        assert_eq!(number, self.last + 1, "a sender's numbers have no hole");
        self.last = number;
        self.outcomes.push_back(outcome);
        if self.outcomes.len() > PUBLISH_WINDOW {
            self.outcomes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn committed(place: usize) -> Outcome {
        Outcome::Committed { seq: Seq::FIRST.advance(place as u64) }
    }

    /// `refused`: the number is used up by a refusal.
    fn outcome(number: u64, refused: bool) -> Outcome {
        if refused {
            Outcome::Refused(Code::Muted)
        } else {
            Outcome::Committed { seq: Seq::FIRST.advance(number) }
        }
    }

    #[test]
    fn zero_is_no_number() {
        let mut numbers = SenderNumbers::new();
        assert_eq!(numbers.judge(0), Verdict::Forgotten);
        for number in 1..=300 {
            numbers.record(number, outcome(number, false));
            assert_eq!(numbers.judge(0), Verdict::Forgotten);
        }
    }

    #[test]
    fn the_window_is_as_long_as_a_client_may_have_unanswered() {
        let mut numbers = SenderNumbers::new();
        for number in 1..=1000 {
            numbers.record(number, outcome(number, false));
        }
        let oldest = 1001 - PUBLISH_WINDOW as u64;
        assert_eq!(numbers.judge(oldest), Verdict::Had(outcome(oldest, false)));
        assert_eq!(numbers.judge(oldest - 1), Verdict::Forgotten);
    }

    #[test]
    #[should_panic(expected = "no hole")]
    fn a_hole_is_a_broken_invariant() {
        SenderNumbers::new().record(2, outcome(2, false));
    }

    proptest! {
        /// Numbers come in any order, again and again: each gets one outcome, in order, and who
        /// asks inside the window hears that one.
        #[test]
        fn every_number_gets_one_outcome_and_is_told_it(
            arrivals in prop::collection::vec((0..400_u64, any::<bool>()), 0..800),
        ) {
            let mut numbers = SenderNumbers::new();
            let mut had: Vec<Outcome> = Vec::new();
            for (arrival, refused) in arrivals {
                // Around the expected one, so that it is hit often.
                let number = (had.len() as u64 + 20).saturating_sub(arrival % (2 * PUBLISH_WINDOW as u64));
                let had_it = usize::try_from(number).unwrap().checked_sub(1).and_then(|at| had.get(at));
                match numbers.judge(number) {
                    Verdict::Next => {
                        prop_assert_eq!(number, had.len() as u64 + 1);
                        let outcome = outcome(number, refused);
                        numbers.record(number, outcome);
                        had.push(outcome);
                    }
                    Verdict::Had(outcome) => prop_assert_eq!(Some(&outcome), had_it),
                    Verdict::TooHigh { expected } => {
                        prop_assert_eq!(expected, had.len() as u64 + 1);
                        prop_assert!(number > expected);
                    }
                    Verdict::Forgotten => {
                        prop_assert!(number == 0 || number + PUBLISH_WINDOW as u64 <= had.len() as u64);
                    }
                }
                prop_assert_eq!(numbers.last(), had.len() as u64);
                prop_assert!(numbers.outcomes().count() <= PUBLISH_WINDOW);
            }
        }

        /// A client that pipelines, loses receipts and connections, retries and goes back: each of
        /// its messages is committed once, in order, and each receipt says where.
        #[test]
        fn a_pipelining_client_gets_every_message_in_once_and_in_order(
            window in 1..=PUBLISH_WINDOW,
            messages in 1..300_usize,
            fates in prop::collection::vec(0..10_u8, 1..100),
        ) {
            let mut numbers = SenderNumbers::new();
            let mut log: Vec<u64> = Vec::new();
            let mut receipts = vec![None; messages];
            let mut fates = fates.into_iter().cycle();
            // After enough losses the network is kind, so that the run ends.
            let mut patience = 20 * messages;
            let (mut next, mut answered) = (1_usize, 0_usize);
            while answered < messages {
                patience = patience.saturating_sub(1);
                let fate = if patience == 0 { 9 } else { fates.next().unwrap() };
                if next > messages || next > answered + window || fate == 0 {
                    // A reconnection: everything unanswered again.
                    next = answered + 1;
                }
                let number = next as u64;
                next += 1;
                if fate == 1 {
                    continue;
                }
                let receipt = match numbers.judge(number) {
                    Verdict::Next => {
                        let outcome = committed(log.len());
                        log.push(number);
                        numbers.record(number, outcome);
                        outcome
                    }
                    Verdict::Had(outcome) => outcome,
                    Verdict::TooHigh { expected } => {
                        next = usize::try_from(expected).unwrap().max(answered + 1);
                        continue;
                    }
                    Verdict::Forgotten => panic!("{number} was unanswered, and its outcome is gone"),
                };
                let lost = matches!(fate, 2 | 3);
                if !lost {
                    let at = usize::try_from(number).unwrap() - 1;
                    prop_assert!(receipts[at].is_none_or(|before| before == receipt));
                    receipts[at] = Some(receipt);
                    answered = receipts.iter().take_while(|receipt| receipt.is_some()).count();
                }
            }
            prop_assert_eq!(log, (1..=messages as u64).collect::<Vec<_>>());
            for (at, receipt) in receipts.into_iter().enumerate() {
                prop_assert_eq!(receipt, Some(committed(at)));
            }
        }

        /// What is kept at a checkpoint, and a fold over the sequence from anywhere before it, are
        /// the state as it was.
        #[test]
        fn a_checkpoint_and_a_fold_give_the_state_back(
            refused in prop::collection::vec(any::<bool>(), 0..400),
            checkpoint in 0..400_usize,
            fold_from in 0..400_usize,
        ) {
            let outcomes: Vec<_> = (1..).zip(&refused).map(|(number, refused)| outcome(number, *refused)).collect();
            let fold = |mut numbers: SenderNumbers, from: usize, to: usize| {
                for (number, outcome) in (1..).zip(&outcomes).take(to).skip(from) {
                    numbers.record(number, *outcome);
                }
                numbers
            };
            let whole = fold(SenderNumbers::new(), 0, outcomes.len());
            let checkpoint = checkpoint.min(outcomes.len());
            let kept = fold(SenderNumbers::new(), 0, checkpoint);
            let restored = SenderNumbers::restore(kept.last(), kept.outcomes());
            prop_assert_eq!(&restored, &kept);
            prop_assert_eq!(fold(restored, fold_from.min(checkpoint), outcomes.len()), whole);
        }

        /// Rows that hold more than they should are cut, never believed.
        #[test]
        fn too_many_outcomes_are_cut_to_the_window(last in 0..300_u64, given in 0..300_usize) {
            let outcomes = (0..given).map(committed);
            let numbers = SenderNumbers::restore(last, outcomes);
            let kept: Vec<_> = numbers.outcomes().collect();
            let expected = given.min(PUBLISH_WINDOW).min(usize::try_from(last).unwrap());
            prop_assert_eq!(kept, (given - expected..given).map(committed).collect::<Vec<_>>());
        }
    }
}
