//! One receiver's place in the shared order.

use std::ops::Range;

/// Ranges of places passed over that are remembered, oldest forgotten first; only a receiver that is
/// served badly has any.
const SKIPPED_RANGES_MAX: usize = 4096;

/// What a delivery is to the receiver that got it, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Above everything it had.
    Forward,
    /// It had been passed over, and comes late.
    Late,
    /// It was had before.
    Again,
    /// It is from before the receiver joined, or from after it left.
    Astray,
}

/// Where a receiver's own records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is a member.
    None,
    /// With the record of its leave.
    At(u64),
    /// It left, and nobody can say with which record.
    Somewhere,
}

/// What a receiver had: everything from its join on and below `next`, but for what it passed over.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The record of its join.
    first: u64,
    next: u64,
    end: End,
    /// Half-open, ascending.
    skipped: Vec<(u64, u64)>,
}

impl Cursor {
    /// Of a receiver that joined with the record at `first`.
    pub(super) fn new(first: u64) -> Self {
        Self { first, next: first, end: End::None, skipped: Vec::new() }
    }

    /// It left with the record at `end`; none where nobody can say, and what it lacks then it is never
    /// owed. How many it had got that come after.
    pub(super) fn end_at(&mut self, end: Option<u64>) -> u64 {
        if self.end != End::Somewhere {
            self.end = end.map_or(End::Somewhere, End::At);
        }
        end.map_or(0, |end| self.next.saturating_sub(end.saturating_add(1)))
    }

    /// The lowest place above everything it had.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The lowest place that it lacks, written or not; none once it left and had all that was its own.
    pub(super) fn lacks(&self) -> Option<u64> {
        let next = (self.end != End::Somewhere).then_some(self.next);
        let lowest = self.skipped.first().map(|&(from, _)| from).or(next)?;
        (!matches!(self.end, End::At(end) if end <= lowest)).then_some(lowest)
    }

    /// Is the place its own, and not had?
    pub(super) fn lacks_at(&self, seq: u64) -> bool {
        let is_skipped = || self.skipped.iter().any(|&(from, until)| (from..until).contains(&seq));
        match self.end {
            End::At(end) if end <= seq => false,
            End::Somewhere => is_skipped(),
            End::None | End::At(_) => self.next <= seq || is_skipped(),
        }
    }

    /// Was it a member when this was said?
    pub(super) fn owns(&self, seq: u64) -> bool {
        self.first <= seq && !matches!(self.end, End::At(end) if end < seq)
    }

    /// Places of its own that it passed over, and that never came.
    pub(super) fn holes(&self) -> u64 {
        let end = if let End::At(end) = self.end { end } else { u64::MAX };
        self.skipped.iter().map(|&(from, until)| until.min(end).saturating_sub(from)).sum()
    }

    /// Takes in the delivery of the records at these places, or of what stands for all of them: the worst
    /// that it is for one.
    pub(super) fn step(&mut self, places: Range<u64>) -> Step {
        let Range { start, end } = places;
        if !self.owns(start) || !self.owns(end.saturating_sub(1)) {
            return Step::Astray;
        }
        let mut worst = Step::Forward;
        for seq in start..end.min(self.next) {
            worst = worst.max(if self.take_skipped(seq) { Step::Late } else { Step::Again });
        }
        if start > self.next {
            if self.skipped.len() == SKIPPED_RANGES_MAX {
                self.skipped.remove(0);
            }
            self.skipped.push((self.next, start));
        }
        self.next = self.next.max(end);
        worst
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

    impl Cursor {
        fn step_at(&mut self, seq: u64) -> Step {
            self.step(seq..seq + 1)
        }
    }

    #[test]
    fn what_is_left_out_is_a_hole_from_the_join_on() {
        let mut cursor = Cursor::new(4);
        assert_eq!([5, 6, 9].map(|seq| cursor.step_at(seq)), [Step::Forward; 3]);
        assert_eq!((cursor.next(), cursor.lacks(), cursor.holes()), (10, Some(4), 3));
        assert_eq!((cursor.step_at(8), cursor.holes()), (Step::Late, 2));
        assert_eq!((cursor.step_at(4), cursor.lacks(), cursor.holes()), (Step::Late, Some(7), 1));
        assert_eq!([3, 4, 7, 10].map(|seq| cursor.lacks_at(seq)), [false, false, true, true]);
    }

    #[test]
    fn what_was_passed_over_comes_late_once_and_then_again() {
        let mut cursor = Cursor::new(1);
        cursor.step_at(1);
        cursor.step_at(6);
        assert_eq!(cursor.step_at(4), Step::Late);
        assert_eq!(cursor.step_at(4), Step::Again);
        assert_eq!([2, 3, 5].map(|seq| cursor.step_at(seq)), [Step::Late; 3]);
        assert_eq!([1, 2, 3, 5, 6].map(|seq| cursor.step_at(seq)), [Step::Again; 5]);
    }

    #[test]
    fn what_stands_for_many_is_all_of_them() {
        let mut cursor = Cursor::new(4);
        assert_eq!((cursor.step(4..9), cursor.next()), (Step::Forward, 9));
        assert_eq!((cursor.step(12..20), cursor.next(), cursor.holes()), (Step::Forward, 20, 3));
        assert_eq!((cursor.step(9..11), cursor.holes()), (Step::Late, 1));
        assert_eq!((cursor.step(11..25), cursor.next(), cursor.holes()), (Step::Again, 25, 0));
        assert_eq!(cursor.step(3..5), Step::Astray);
        cursor.end_at(Some(30));
        assert_eq!((cursor.step(25..32), cursor.step(26..31)), (Step::Astray, Step::Forward));
    }

    #[test]
    fn what_is_said_before_the_join_and_after_the_leave_is_not_for_this_one() {
        let mut cursor = Cursor::new(4);
        assert_eq!(cursor.step_at(3), Step::Astray);
        cursor.step_at(4);
        assert_eq!(cursor.end_at(Some(7)), 0);
        assert_eq!((cursor.step_at(8), cursor.lacks()), (Step::Astray, Some(5)));
        assert_eq!([5, 6].map(|seq| cursor.step_at(seq)), [Step::Forward; 2]);
        assert_eq!(cursor.lacks(), None, "the record of the leave may come, and need not");
        assert_eq!(cursor.step_at(7), Step::Forward);
        assert_eq!(cursor.end_at(Some(5)), 2, "6 and 7 came before it was known that it had left at 5");
    }

    #[test]
    fn who_left_at_a_record_that_nobody_knows_is_owed_what_it_passed_over_and_no_more() {
        let mut cursor = Cursor::new(4);
        cursor.step_at(4);
        cursor.step_at(6);
        assert_eq!((cursor.end_at(None), cursor.lacks()), (0, Some(5)));
        assert_eq!([4, 5, 6, 7].map(|seq| cursor.lacks_at(seq)), [false, true, false, false]);
        assert_eq!((cursor.step_at(7), cursor.step_at(5)), (Step::Forward, Step::Late));
        assert_eq!(cursor.lacks(), None);
        assert_eq!((cursor.end_at(Some(6)), cursor.lacks()), (1, None), "7 came after it had left");
    }
}
