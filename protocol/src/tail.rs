//! The tail window: the latest records of a group, in memory, bounded.
//!
//! ```text
//!  store only │        window         │
//!  ───────────┼───┬───┬───┬───┬───┬───┤ · tail
//!             │   │   │   │   │   │   │
//!           start                      first unwritten
//! ```
//!
//! It is generic over what it holds: records in one place, frames of them in another.
//!
//! ```
//! use shoal_protocol::{Read, Seq, TailWindow, WindowLimits};
//!
//! let mut window = TailWindow::new(Seq::FIRST, WindowLimits { records_max: 2, bytes_max: 1000 });
//! for record in ["one", "two", "three"] {
//!     window.push(record, record.len());
//! }
//! let two = Seq::FIRST.next();
//! assert_eq!(window.read(Seq::FIRST, 1000), Read::Behind { start: two });
//! assert_eq!(window.read(two, 1000), Read::Records(vec!["two", "three"]));
//! assert_eq!(window.read(window.tail(), 1000), Read::CaughtUp);
//! ```

use std::collections::VecDeque;

use crate::Seq;

/// How much a window holds before it lets go of its oldest records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// The most records.
    pub records_max: usize,
    /// The most bytes, as counted by whoever pushes. The latest record is held whatever its size.
    pub bytes_max: usize,
}

/// What a window has for a watermark.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<R> {
    /// These, in order, the first at the watermark. Never empty.
    Records(Vec<R>),
    /// Nothing: the watermark is the tail.
    CaughtUp,
    /// The watermark lies before the window: read the store, up to `start` at least.
    Behind {
        /// The first Seq in the window.
        start: Seq,
    },
    /// The watermark lies above the tail, which no follower's can: the sequence went back.
    Ahead {
        /// The window's tail.
        tail: Seq,
    },
}

/// Where a watermark lies, as far as a window is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the window.
    Held,
    /// At the tail.
    CaughtUp,
    /// Before the window.
    Behind,
    /// Above the tail.
    Ahead,
}

/// The latest records of a group, up to its tail.
#[derive(Debug)]
pub struct TailWindow<R> {
    start: Seq,
    tail: Seq,
    records: VecDeque<(R, usize)>,
    bytes: usize,
    limits: WindowLimits,
}

impl<R: Clone> TailWindow<R> {
    /// An empty window at `tail`.
    #[must_use]
    pub fn new(tail: Seq, limits: WindowLimits) -> Self {
        Self { start: tail, tail, records: VecDeque::new(), bytes: 0, limits }
    }

    /// The first Seq not yet written.
    #[must_use]
    pub fn tail(&self) -> Seq {
        self.tail
    }

    /// The first Seq held; the tail where nothing is.
    #[must_use]
    pub fn start(&self) -> Seq {
        self.start
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts the record at the tail, which moves past it; `bytes` is what it weighs. Records above
    /// a limit are let go, the oldest first.
    pub fn push(&mut self, record: R, bytes: usize) {
        self.records.push_back((record, bytes));
        self.bytes += bytes;
        self.tail = self.tail.next();
        while self.records.len() > 1 && self.is_over() {
            self.drop_oldest();
        }
    }

    /// Up to `bytes_max` of records from `watermark` on; one at least if there is one.
    #[must_use]
    pub fn read(&self, watermark: Seq, bytes_max: usize) -> Read<R> {
        match self.place(watermark) {
            Place::Held => Read::Records(self.up_to(watermark, bytes_max).cloned().collect()),
            Place::CaughtUp => Read::CaughtUp,
            Place::Behind => Read::Behind { start: self.start },
            Place::Ahead => Read::Ahead { tail: self.tail },
        }
    }

    /// Where `watermark` lies.
    #[must_use]
    pub fn place(&self, watermark: Seq) -> Place {
        if watermark > self.tail {
            Place::Ahead
        } else if watermark == self.tail {
            Place::CaughtUp
        } else if watermark < self.start {
            Place::Behind
        } else {
            Place::Held
        }
    }

    /// The held records from `watermark` on, up to `bytes_max`; one at least if there is one.
    pub fn up_to(&self, watermark: Seq, bytes_max: usize) -> impl Iterator<Item = &R> {
        let first = self.index(watermark.max(self.start)).min(self.records.len());
        let mut bytes = 0_usize;
        let fits = move |(at, (_, weight)): &(usize, &(R, usize))| {
            bytes = bytes.saturating_add(*weight);
            *at == 0 || bytes <= bytes_max
        };
        self.records.range(first..).enumerate().take_while(fits).map(|(_, (record, _))| record)
    }

    /// The record at `seq`, if the window holds it.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&R> {
        if seq < self.start || seq >= self.tail {
            return None;
        }
        self.records.get(self.index(seq)).map(|(record, _)| record)
    }

    /// Replaces the record at `seq`, where the window holds it: its payload was recalled. Lets go
    /// of none, so that `start` moves only with a push.
    pub fn replace(&mut self, seq: Seq, record: R, bytes: usize) {
        if seq < self.start || seq >= self.tail {
            return;
        }
        let index = self.index(seq);
        if let Some(entry) = self.records.get_mut(index) {
            self.bytes = self.bytes - entry.1 + bytes;
            *entry = (record, bytes);
        }
    }

    /// Lets go of the oldest records until no more than `bytes_max` are held; the latest record is
    /// held whatever its size.
    pub fn keep(&mut self, bytes_max: usize) {
        while self.records.len() > 1 && self.bytes > bytes_max {
            self.drop_oldest();
        }
    }

    /// Lets go of all records, and of the memory for them: they are in the store.
    pub fn clear(&mut self) {
        while !self.records.is_empty() {
            self.drop_oldest();
        }
        self.records.shrink_to_fit();
    }

    fn index(&self, seq: Seq) -> usize {
        // A window is far smaller than an address space.
        seq.since(self.start) as usize
    }

    fn is_over(&self) -> bool {
        self.records.len() > self.limits.records_max || self.bytes > self.limits.bytes_max
    }

    fn drop_oldest(&mut self) {
        if let Some((_, bytes)) = self.records.pop_front() {
            self.bytes -= bytes;
            self.start = self.start.next();
        }
    }
}

#[cfg(test)]
mod tests;
