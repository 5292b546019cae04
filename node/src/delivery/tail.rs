//! One tail for each group on a node, shared by every session here that follows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shoal_protocol::{GroupId, Read, RecordFrame, Seq, TailWindow, UserId, WindowLimits};

use super::signal::Signal;

/// What a tail has for an attached cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum TailRead {
    /// Frames for a delivery stream, in order; afterwards the cursor stands at `next`.
    Frames {
        /// Encoded once, shared by all.
        frames: Vec<Bytes>,
        /// The watermark after them.
        next: Seq,
    },
    /// Nothing now; the signal will ring.
    CaughtUp,
    /// The cursor is behind the window: read pages from the store, below `until`.
    Behind {
        /// The first Seq that need not come from the store.
        until: Seq,
    },
    /// The cursor has reached the end of the user's membership.
    Ended,
    /// The cursor is above the tail: the sequence went back. An alarm.
    Ahead,
}

/// A cursor attached to a tail. Detach it with [`Tail::detach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u32);

#[derive(Debug)]
struct Attached {
    signal: Arc<Signal>,
    cursor: u32,
    /// It has rung and the session has not read since.
    rung: bool,
    /// The user's membership ended here: nothing from this Seq on reaches them.
    until: Option<Seq>,
}

#[derive(Debug)]
struct State {
    window: TailWindow<RecordFrame>,
    attached: Vec<Option<Attached>>,
    free: Vec<u32>,
}

/// The latest records of one group on this node, and who is to be told of the next.
#[derive(Debug)]
pub struct Tail {
    group: GroupId,
    state: Mutex<State>,
}

impl Tail {
    /// A tail at which nothing has come yet.
    #[must_use]
    pub fn new(group: GroupId, tail: Seq, limits: WindowLimits) -> Self {
        let window = TailWindow::new(tail, limits);
        Self { group, state: Mutex::new(State { window, attached: Vec::new(), free: Vec::new() }) }
    }

    /// Which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The first Seq not yet here.
    #[must_use]
    pub fn tail(&self) -> Seq {
        self.lock().window.tail()
    }

    /// How many cursors are attached.
    #[must_use]
    pub fn attached(&self) -> usize {
        let state = self.lock();
        state.attached.len() - state.free.len()
    }

    /// Attaches a session's cursor number `cursor`, which stands at `watermark`; rings at once if
    /// there is something for it.
    pub fn attach(&self, signal: Arc<Signal>, cursor: u32, watermark: Seq) -> Attachment {
        let mut state = self.lock();
        let rung = watermark != state.window.tail();
        if rung {
            signal.ring(cursor);
        }
        let attached = Some(Attached { signal, cursor, rung, until: None });
        match state.free.pop() {
            Some(index) => {
                state.attached[index as usize] = attached;
                Attachment(index)
            }
            None => {
                state.attached.push(attached);
                Attachment(u32::try_from(state.attached.len() - 1).expect("fewer cursors than 2^32"))
            }
        }
    }

    /// Takes a cursor off.
    pub fn detach(&self, attachment: Attachment) {
        let mut state = self.lock();
        if state.attached[attachment.0 as usize].take().is_some() {
            state.free.push(attachment.0);
        }
    }

    /// Reads up to `bytes_max` for a cursor that stands at `watermark`. What comes after is rung.
    pub fn read(&self, attachment: Attachment, watermark: Seq, bytes_max: usize) -> TailRead {
        let mut state = self.lock();
        let State { window, attached, .. } = &mut *state;
        let attached = attached[attachment.0 as usize].as_mut().expect("a cursor reads while it is attached");
        let end = attached.until.map_or(window.tail(), |until| until.min(window.tail()));
        if attached.until.is_some_and(|until| watermark >= until) {
            return TailRead::Ended;
        }
        match window.read(watermark, bytes_max) {
            Read::Records(mut records) => {
                let wanted = usize::try_from(end.since(watermark)).unwrap_or(usize::MAX);
                records.truncate(wanted);
                let next = watermark.advance(records.len() as u64);
                let frames = records.iter().map(|record| record.frame().clone()).collect();
                TailRead::Frames { frames, next }
            }
            Read::CaughtUp => {
                attached.rung = false;
                TailRead::CaughtUp
            }
            Read::Behind { start } => TailRead::Behind { until: start.min(end) },
            Read::Ahead { .. } => TailRead::Ahead,
        }
    }

    /// The end of the cursor's membership, if it has come.
    #[must_use]
    pub fn until(&self, attachment: Attachment) -> Option<Seq> {
        self.lock().attached[attachment.0 as usize].as_ref().and_then(|attached| attached.until)
    }

    /// Puts durable records at the tail and rings for everybody who had read all before.
    pub fn append(&self, records: impl IntoIterator<Item = RecordFrame>) {
        let mut state = self.lock();
        for record in records {
            let bytes = record.frame().len();
            state.window.push(record, bytes);
        }
        for attached in state.attached.iter_mut().flatten().filter(|attached| !attached.rung) {
            attached.rung = true;
            attached.signal.ring(attached.cursor);
        }
    }

    /// Replaces a record whose payload was recalled.
    pub fn redact(&self, seq: Seq, record: RecordFrame) {
        let bytes = record.frame().len();
        self.lock().window.replace(seq, record, bytes);
    }

    /// The users' membership ended with the record before `until`: nothing from there on reaches
    /// their sessions.
    pub fn end_membership(&self, is_gone: impl Fn(&UserId) -> bool, until: Seq) {
        let mut state = self.lock();
        for attached in state.attached.iter_mut().flatten() {
            if attached.until.is_none() && is_gone(attached.signal.user()) {
                attached.until = Some(until);
                if !attached.rung {
                    attached.rung = true;
                    attached.signal.ring(attached.cursor);
                }
            }
        }
    }

    /// Calls `visit` with the signal of everyone attached, for datagrams.
    pub fn for_each_attached(&self, mut visit: impl FnMut(&Arc<Signal>)) {
        for attached in self.lock().attached.iter().flatten() {
            visit(&attached.signal);
        }
    }

    /// Lets go of the window: the records are in the store.
    pub fn sleep(&self) {
        self.lock().window.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
