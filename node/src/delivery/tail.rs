//! One tail for each group on a node, shared by every session here that follows it.
//!
//! A silent record rings nodes, but no session: these come to it with the next record that is not,
//! or when they are rung for what waits, which is before it could leave the window.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use shoal_protocol::{GroupId, Place, RecordFrame, Seq, TailWindow, UserId, WindowLimits};

use super::{
    budget::WindowBudget,
    runs::{Held, Reader, Runs, side_by_side},
    signal::Signal,
};

/// What a tail has for an attached cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailTurn {
    /// Records, up to `next`.
    Records {
        /// The watermark after them.
        next: Seq,
        /// Read again after them. If not, the signal will ring for what comes.
        more: bool,
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

/// 24 bytes, for there are as many as sessions times groups.
#[derive(Debug)]
struct Attached {
    signal: Arc<Signal>,
    /// The user's membership ended here: nothing from this Seq on reaches them.
    until: Option<NonZeroU64>,
    cursor: u32,
    /// It has rung and the session has not read since.
    rung: AtomicBool,
}

impl Attached {
    fn until(&self) -> Option<Seq> {
        self.until.and_then(|until| Seq::new(until.get()))
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.signal.ring(self.cursor);
        }
    }
}

#[derive(Debug)]
struct State {
    window: TailWindow<Held>,
    /// What sessions have not been rung for.
    unrung: Unrung,
    attached: Vec<Option<Attached>>,
    free: Vec<u32>,
    /// Those of the attached that are other nodes'.
    nodes: Vec<u32>,
}

/// Silent records for which no session was rung.
#[derive(Debug, Clone, Copy, Default)]
struct Unrung {
    records: usize,
    bytes: usize,
}

/// The latest records of one group on this node, and who is to be told of the next.
///
/// Sessions read side by side; only what changes the window or the list of the attached is alone.
#[derive(Debug)]
pub struct Tail {
    group: GroupId,
    /// What may wait for a ring: half of what the window holds.
    unrung_max: WindowLimits,
    redactions: AtomicU64,
    budget: Arc<WindowBudget>,
    state: RwLock<State>,
}

impl Tail {
    /// A tail at which nothing has come yet, whose window counts against `budget`.
    #[must_use]
    pub fn new(group: GroupId, tail: Seq, limits: WindowLimits, budget: Arc<WindowBudget>) -> Self {
        let unrung_max =
            WindowLimits { records_max: limits.records_max / 2, bytes_max: limits.bytes_max / 2 };
        let state = RwLock::new(State {
            window: TailWindow::new(tail, limits),
            unrung: Unrung::default(),
            attached: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
        });
        Self { group, unrung_max, redactions: AtomicU64::new(0), budget, state }
    }

    /// Which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The first Seq not yet here.
    #[must_use]
    pub fn tail(&self) -> Seq {
        self.read_state().window.tail()
    }

    /// How many cursors are attached.
    #[must_use]
    pub fn attached(&self) -> usize {
        let state = self.read_state();
        state.attached.len() - state.free.len()
    }

    /// How many of them are sessions', and not other nodes'.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let state = self.read_state();
        state.attached.len() - state.free.len() - state.nodes.len()
    }

    /// Attaches a session's cursor number `cursor`, which stands at `watermark`; rings at once if
    /// there is something for it.
    pub fn attach(&self, signal: Arc<Signal>, cursor: u32, watermark: Seq) -> Attachment {
        let mut state = self.write_state();
        let reader = signal.reader();
        let attached = Attached { signal, cursor, rung: AtomicBool::new(false), until: None };
        if watermark != state.window.tail() {
            attached.ring();
        }
        let index = state.put(attached);
        if reader == Reader::Node {
            state.nodes.push(index);
        }
        Attachment(index)
    }

    /// Takes a cursor off.
    pub fn detach(&self, attachment: Attachment) {
        let mut state = self.write_state();
        if state.attached[attachment.0 as usize].take().is_some() {
            state.nodes.retain(|index| *index != attachment.0);
            state.free.push(attachment.0);
        }
        if state.free.len() == state.attached.len() {
            state.attached = Vec::new();
            state.free = Vec::new();
        }
    }

    /// Adds up to `bytes_max` to `runs`, for a cursor that stands at `watermark`; what follows the
    /// last record is rung.
    pub fn read(
        &self,
        attachment: Attachment,
        watermark: Seq,
        bytes_max: usize,
        runs: &mut Runs,
    ) -> TailTurn {
        let state = self.read_state();
        let attached = state.attached(attachment);
        let until = attached.until();
        if until.is_some_and(|until| watermark >= until) {
            return TailTurn::Ended;
        }
        let tail = state.window.tail();
        let end = until.map_or(tail, |until| until.min(tail));
        match state.window.place(watermark) {
            Place::Held => {
                let wanted = usize::try_from(end.since(watermark)).unwrap_or(usize::MAX);
                let held = state.window.up_to(watermark, bytes_max).take(wanted);
                let records = runs.extend(watermark, held, attached.signal.reader());
                let next = watermark.advance(records as u64);
                let more = next != tail || until.is_some();
                if !more {
                    attached.rung.store(false, Ordering::Relaxed);
                }
                TailTurn::Records { next, more }
            }
            Place::CaughtUp => {
                attached.rung.store(false, Ordering::Relaxed);
                TailTurn::CaughtUp
            }
            Place::Behind => TailTurn::Behind { until: state.window.start().min(end) },
            Place::Ahead => TailTurn::Ahead,
        }
    }

    /// The end of the cursor's membership, if it has come.
    #[must_use]
    pub fn until(&self, attachment: Attachment) -> Option<Seq> {
        self.read_state().attached(attachment).until()
    }

    /// Puts durable records at the tail and rings for everybody who had read all before, unless all of
    /// them are silent. The membership of those who are `gone` ended with the record before the Seq
    /// beside them: nothing from there on reaches their sessions, who are rung.
    pub fn append(&self, records: impl IntoIterator<Item = RecordFrame>, gone: &BTreeMap<&str, Seq>) {
        let records = side_by_side(records);
        let is_silent = records.iter().all(Held::is_silent);
        let mut state = self.write_state();
        for record in &records {
            state.unrung.records += 1;
            state.unrung.bytes += record.len();
        }
        self.change_window(&mut state, |window| {
            for record in records {
                let bytes = record.len();
                window.push(record, bytes);
            }
        });
        state.end_memberships(gone);
        if is_silent && !state.unrung.is_over(self.unrung_max) {
            return state.ring_nodes();
        }
        Self::ring_all(state);
    }

    /// Rings sessions for the silent records that they were not rung for.
    pub fn ring_for_silent(&self) {
        let state = self.write_state();
        if state.unrung.records > 0 {
            Self::ring_all(state);
        }
    }

    /// Are there records that sessions were not rung for?
    #[must_use]
    pub fn has_unrung(&self) -> bool {
        let state = self.read_state();
        state.unrung.records > 0 && state.attached.len() - state.free.len() > state.nodes.len()
    }

    /// Replaces a record whose payload was recalled. Call it for every recall, wherever the record
    /// lies, once the store holds the replacement: pages that were read before are read again.
    pub fn redact(&self, seq: Seq, record: RecordFrame) {
        let (record, bytes) = (Held::from(&record), record.frame().len());
        self.change_window(&mut self.write_state(), |window| window.replace(seq, record, bytes));
        self.redactions.fetch_add(1, Ordering::AcqRel);
    }

    /// How often something was recalled: a page read under another number is out of date.
    #[must_use]
    pub fn redactions(&self) -> u64 {
        self.redactions.load(Ordering::Acquire)
    }

    /// The home is not on this node any more: the nodes that follow it here are to look for it.
    pub fn end_feeds(&self) {
        let mut state = self.write_state();
        let State { attached, nodes, .. } = &mut *state;
        for index in nodes {
            let attached = attached[*index as usize].as_mut().expect("a node that is listed is attached");
            attached.until = NonZeroU64::new(Seq::FIRST.get());
            attached.ring();
        }
    }

    /// Calls `visit` with the signal of everyone attached whose membership has not ended, for datagrams.
    pub fn for_each_attached(&self, mut visit: impl FnMut(&Arc<Signal>)) {
        let state = self.read_state();
        for attached in state.attached.iter().flatten().filter(|attached| attached.until.is_none()) {
            visit(&attached.signal);
        }
    }

    /// Lets go of the window: the records are in the store.
    pub fn sleep(&self) {
        self.change_window(&mut self.write_state(), TailWindow::clear);
    }

    /// Changes the window and keeps it within what all windows may hold.
    fn change_window(&self, state: &mut State, change: impl FnOnce(&mut TailWindow<Held>)) {
        let before = state.window.bytes();
        change(&mut state.window);
        if self.budget.is_spent() {
            state.window.keep(WindowBudget::SHARE_BYTES);
        }
        self.budget.settle(before, state.window.bytes());
    }

    fn ring_all(mut state: RwLockWriteGuard<'_, State>) {
        state.unrung = Unrung::default();
        // Whom it rings first may read while it rings the rest.
        let state = RwLockWriteGuard::downgrade(state);
        for attached in state.attached.iter().flatten() {
            attached.ring();
        }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.settle(self.read_state().window.bytes(), 0);
    }
}

impl State {
    fn attached(&self, attachment: Attachment) -> &Attached {
        self.attached[attachment.0 as usize].as_ref().expect("a cursor reads while it is attached")
    }

    fn put(&mut self, attached: Attached) -> u32 {
        if let Some(index) = self.free.pop() {
            self.attached[index as usize] = Some(attached);
            return index;
        }
        if self.attached.len() == self.attached.capacity() {
            // Doubling would leave up to half of it empty, in each of many thousand tails.
            self.attached.reserve_exact(self.attached.len() / 4 + 4);
        }
        self.attached.push(Some(attached));
        u32::try_from(self.attached.len() - 1).expect("fewer cursors than 2^32")
    }

    fn end_memberships(&mut self, gone: &BTreeMap<&str, Seq>) {
        if gone.is_empty() {
            return;
        }
        for attached in self.attached.iter_mut().flatten().filter(|attached| attached.until.is_none()) {
            let user = attached.signal.user().map(UserId::as_str);
            if let Some(until) = user.and_then(|user| gone.get(user)) {
                attached.until = NonZeroU64::new(until.get());
                attached.ring();
            }
        }
    }

    fn ring_nodes(&self) {
        for index in &self.nodes {
            self.attached(Attachment(*index)).ring();
        }
    }
}

impl Unrung {
    fn is_over(self, max: WindowLimits) -> bool {
        self.records >= max.records_max || self.bytes >= max.bytes_max
    }
}
