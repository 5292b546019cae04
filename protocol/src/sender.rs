//! A sender's numbers: 1, 2, 3, … for each group, with the outcomes of a window of them.
//!
//! The next number is appended; one that was had gets its recorded outcome; one too high is told
//! what is expected, and the client goes back. So retries are harmless, order holds over any
//! failure, and no index of message ids grows for ever.

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
    /// It was had so long ago that its outcome is gone.
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
