//! The tail window: the latest records of a group, in memory, bounded.
//!
//! ```text
//!  store only │        window         │
//!  ───────────┼───┬───┬───┬───┬───┬───┤ · tail
//!             │   │   │   │   │   │   │
//!           start                      first unwritten
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

    /// Puts the record at the tail, which moves past it; `bytes` is what it weighs.
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
        if watermark > self.tail {
            return Read::Ahead { tail: self.tail };
        }
        if watermark == self.tail {
            return Read::CaughtUp;
        }
        if watermark < self.start {
            return Read::Behind { start: self.start };
        }
        let mut bytes = 0;
        let records = self
            .records
            .range(self.index(watermark)..)
            .take_while(|(_, weight)| {
                let fits = bytes == 0 || bytes + weight <= bytes_max;
                bytes += weight;
                fits
            })
            .map(|(record, _)| record.clone())
            .collect();
        Read::Records(records)
    }

    /// The record at `seq`, if the window holds it.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&R> {
        if seq < self.start || seq >= self.tail {
            return None;
        }
        self.records.get(self.index(seq)).map(|(record, _)| record)
    }

    /// Replaces the record at `seq`, where the window holds it: its payload was recalled.
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

    /// Lets go of all records: they are in the store.
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
