//! Who is a member from when to when, and what each of them had.

use std::ops::Range;

use super::{
    cursor::{Cursor, Step},
    watermarks::Watermarks,
};

/// The members of a group, past and present and about to be, by number.
#[derive(Debug, Default)]
pub(super) struct Members {
    cursors: Vec<Option<Cursor>>,
    /// The lowest place that each lacks.
    lacking: Watermarks,
    /// The tail when those who are joining asked for it.
    joining: Watermarks,
}

impl Members {
    /// So many ask to join: what comes from `tail` on may be theirs.
    pub(super) fn joining(&mut self, tail: u64, count: u32) {
        self.joining.add(tail, count);
    }

    /// One who asked at this tail got the answer.
    pub(super) fn answered(&mut self, asked: u64) {
        self.joining.remove(asked);
    }

    /// A member from the record at `first` on.
    pub(super) fn joined(&mut self, member: u32, first: u64) {
        let at = member as usize;
        self.cursors.resize_with(self.cursors.len().max(at + 1), || None);
        self.cursors[at] = Some(Cursor::new(first));
        self.lacking.add(first, 1);
    }

    /// A member left with the record at `end`, if anybody can say; how many it had got that come after.
    pub(super) fn left(&mut self, member: u32, end: Option<u64>) -> u64 {
        self.with(member, |cursor| cursor.end_at(end)).unwrap_or(0)
    }

    /// A member got the records at these places.
    pub(super) fn step(&mut self, member: u32, places: Range<u64>) -> Step {
        self.with(member, |cursor| cursor.step(places)).unwrap_or(Step::Astray)
    }

    /// The lowest place that a member does not have, nor anything above it.
    pub(super) fn next(&self, member: u32) -> Option<u64> {
        Some(self.cursors.get(member as usize)?.as_ref()?.next())
    }

    /// How many of them the record at `seq` is for.
    pub(super) fn owning(&self, seq: u64) -> u64 {
        self.all().filter(|(_, cursor)| cursor.owns(seq)).count() as u64
    }

    /// How many of these lack it.
    pub(super) fn lacking_at(&self, seq: u64) -> u64 {
        self.all().filter(|(_, cursor)| cursor.lacks_at(seq)).count() as u64
    }

    /// How many records all of them together lack below `tail`.
    pub(super) fn lacking_below(&self, tail: u64) -> u64 {
        self.lacking.below(tail)
    }

    /// The lowest place that a member lacks.
    pub(super) fn furthest_behind(&self) -> Option<u64> {
        self.lacking.lowest()
    }

    /// The lowest place that somebody lacks, or that may turn out to be of somebody who joins.
    pub(super) fn needed(&self) -> Option<u64> {
        [self.lacking.lowest(), self.joining.lowest()].into_iter().flatten().min()
    }

    /// Who passed over how many places.
    pub(super) fn holes(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.all().map(|(member, cursor)| (member, cursor.holes())).filter(|(_, holes)| *holes > 0)
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Cursor)> {
        self.cursors.iter().enumerate().filter_map(|(member, cursor)| Some((member, cursor.as_ref()?)))
    }

    /// Changes a cursor, and with it what is lacking; none where nobody has joined under that number.
    fn with<T>(&mut self, member: u32, change: impl FnOnce(&mut Cursor) -> T) -> Option<T> {
        let cursor = self.cursors.get_mut(member as usize)?.as_mut()?;
        let before = cursor.lacks();
        let result = change(cursor);
        let after = cursor.lacks();
        if before != after {
            before.into_iter().for_each(|seq| self.lacking.remove(seq));
            after.into_iter().for_each(|seq| self.lacking.add(seq, 1));
        }
        Some(result)
    }
}
