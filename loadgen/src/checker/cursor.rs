//! One receiver's place in the shared order.

/// Ranges of places passed over that are remembered, oldest forgotten first. What came before a
/// member joined is one; only a receiver that is served badly has more.
const SKIPPED_RANGES_MAX: usize = 4096;

/// What a delivery is to the receiver that got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Above everything it had.
    Forward,
    /// It had been passed over, and comes late.
    Late,
    /// It was had before.
    Again,
}

/// What a receiver had: everything from its first on and below `next`, but for what it passed over.
#[derive(Debug)]
pub(super) struct Cursor {
    first: u64,
    next: u64,
    /// Half-open, ascending.
    skipped: Vec<(u64, u64)>,
}

impl Cursor {
    pub(super) fn new() -> Self {
        Self { first: 0, next: 1, skipped: Vec::new() }
    }

    /// The lowest place above everything it had.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Places passed over that never came, from the first that did on.
    pub(super) fn holes(&self) -> u64 {
        self.skipped.iter().map(|&(from, until)| until.saturating_sub(from.max(self.first))).sum()
    }

    /// Takes in the delivery of the record at `seq`.
    pub(super) fn step(&mut self, seq: u64) -> Step {
        if self.first == 0 {
            self.first = seq;
        }
        if seq < self.next {
            return if self.take_skipped(seq) { Step::Late } else { Step::Again };
        }
        if seq > self.next {
            if self.skipped.len() == SKIPPED_RANGES_MAX {
                self.skipped.remove(0);
            }
            self.skipped.push((self.next, seq));
        }
        self.next = seq.saturating_add(1);
        Step::Forward
    }

    fn take_skipped(&mut self, seq: u64) -> bool {
        let Some(at) = self.skipped.iter().position(|&(from, until)| (from..until).contains(&seq)) else {
            return false;
        };
        let (from, until) = self.skipped.remove(at);
        if seq + 1 < until {
            self.skipped.insert(at, (seq + 1, until));
        }
        if from < seq {
            self.skipped.insert(at, (from, seq));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_first_is_no_hole_and_what_is_left_out_after_it_is() {
        let mut cursor = Cursor::new();
        assert_eq!([5, 6, 9].map(|seq| cursor.step(seq)), [Step::Forward; 3]);
        assert_eq!((cursor.next(), cursor.holes()), (10, 2));
        assert_eq!((cursor.step(8), cursor.holes()), (Step::Late, 1));
        assert_eq!((cursor.step(3), cursor.holes()), (Step::Late, 1));
    }

    #[test]
    fn what_was_passed_over_comes_late_once_and_then_again() {
        let mut cursor = Cursor::new();
        cursor.step(1);
        cursor.step(6);
        assert_eq!(cursor.step(4), Step::Late);
        assert_eq!(cursor.step(4), Step::Again);
        assert_eq!([2, 3, 5].map(|seq| cursor.step(seq)), [Step::Late; 3]);
        assert_eq!([1, 2, 3, 5, 6].map(|seq| cursor.step(seq)), [Step::Again; 5]);
    }
}
