//! Everything one session is to be delivered: its cursors, its streams, and the loop that brings
//! them together.
//!
//! ```text
//!   tail rings ─► ready ─► turn: read the tail, write ─► caught up: wait for the ring
//!                   ▲                │
//!                   │                ├─► behind the window: wait for a page, write it ─┐
//!                   │                ├─► no stream: wait for one to be opened ─────────┤
//!                   │                └─► stream blocked: wait for room ────────────────┤
//!                   └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A cursor that waits holds up no other; nothing is kept for it but its place (and, on a blocked
//! stream, the one piece that was begun).

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{Connection, ConnectionError, OpenUni, WriteError};
use shoal_protocol::{Code, GroupId, Seq, frame, wire};
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};

use super::{
    cursors::{Cursor, Cursors, Waits},
    pages::{Page, Pages},
    rest::rest,
    runs::Runs,
    signal::Signal,
    streams::Streams,
    tail::{Attachment, Tail, TailTurn},
};
use crate::{
    config::{AccessLimits, Current},
    ops::Metrics,
    store::StoreError,
};

/// Turns in one go, before other tasks of the node have theirs.
const TURNS_MAX: usize = 32;

thread_local! {
    /// Records on their way from a tail to a stream: a list for each thread, not for each session.
    static RUNS: RefCell<Runs> = const { RefCell::new(Runs::new()) };
}

/// One session's deliveries, shared by the task that writes them and the one that is told by the
/// client what to follow.
pub struct Deliveries {
    connection: Connection,
    signal: Arc<Signal>,
    pages: Arc<Pages>,
    limits: Current<AccessLimits>,
    /// Streams at once, whatever the limits say.
    streams_max: Option<usize>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something is in [`State::ended`].
    ended: Notify,
}

#[derive(Default)]
struct State {
    cursors: Cursors,
    streams: Streams,
    /// Whose turn it is, in order.
    ready: VecDeque<u32>,
    /// Who waits for a stream.
    starved: VecDeque<u32>,
    /// Streams finished for those, whose room the client has not given yet.
    leaving: usize,
    /// Who waits for a page; one is fetched at a time.
    behind: VecDeque<u32>,
    fetch: Option<Fetch>,
    ended: Vec<Ended>,
}

/// A follow that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Of which group.
    pub group: GroupId,
    /// All before this place was sent.
    pub next: Seq,
    /// Why.
    pub why: Code,
}

type Fetched = Result<Arc<Page>, StoreError>;

struct Fetch {
    cursor: u32,
    tail: Arc<Tail>,
    page: Pin<Box<dyn Future<Output = Fetched> + Send>>,
}

/// What a poll needs from outside: the task, and the stream that is being opened.
struct Io<'io, 'task, 'connection> {
    cx: &'io mut Context<'task>,
    opening: Pin<&'io mut Option<OpenUni<'connection>>>,
    connection: &'connection Connection,
    has_written: bool,
}

impl Deliveries {
    /// Nothing is followed yet.
    #[must_use]
    pub fn new(
        connection: Connection,
        signal: Arc<Signal>,
        pages: Arc<Pages>,
        limits: Current<AccessLimits>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connection,
            signal,
            pages,
            limits,
            streams_max: None,
            metrics,
            state: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// With so many streams at once, whatever the limits say.
    #[must_use]
    pub fn with_streams(mut self, max: usize) -> Self {
        self.streams_max = Some(max);
        self
    }

    /// Writes what is due until the connection is gone. One task calls this.
    pub async fn run(&self) -> ConnectionError {
        let mut opening = pin!(None);
        let mut resting: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if let Some(rest) = &mut resting {
                ready!(rest.as_mut().poll(cx));
                resting = None;
            }
            let (opening, connection) = (opening.as_mut(), &self.connection);
            let mut io = Io { cx, opening, connection, has_written: false };
            let polled = self.poll(&mut io);
            if io.has_written && self.goes_to_client() {
                resting = rest(connection.rtt()).map(|rest| Box::pin(sleep(rest)));
            }
            if let Some(rest) = &mut resting {
                // It has just begun: this says who is to be woken.
                let _ = rest.as_mut().poll(cx);
            }
            polled
        })
        .await
    }

    /// The other end is a client, and no node.
    fn goes_to_client(&self) -> bool {
        self.signal.user().is_some()
    }

    /// A number for a cursor that is about to be attached.
    pub fn reserve(&self) -> u32 {
        self.lock().cursors.reserve()
    }

    /// Gives back a number whose cursor was not attached.
    pub fn release(&self, number: u32) {
        self.lock().cursors.release(number);
    }

    /// Takes a cursor that was attached under a reserved number. A cursor that the group had
    /// before is taken off.
    pub fn put(&self, number: u32, tail: Arc<Tail>, attachment: Attachment, watermark: Seq) {
        let mut state = self.lock();
        if let Some(before) = state.cursors.find(tail.group()) {
            state.remove(before, &self.metrics);
        }
        state.cursors.put(number, Cursor::new(tail, attachment, watermark));
        self.metrics.follows.inc();
        drop(state);
        self.signal.ring(number);
    }

    /// Follows a group no more; false where it was not followed.
    pub fn remove(&self, group: GroupId) -> bool {
        let mut state = self.lock();
        let Some(number) = state.cursors.find(group) else { return false };
        state.remove(number, &self.metrics);
        self.wake_starved(state);
        true
    }

    /// How many groups are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().cursors.len()
    }

    /// Is nothing followed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tail of a group that is followed.
    #[must_use]
    pub fn tail(&self, group: GroupId) -> Option<Arc<Tail>> {
        let state = self.lock();
        state.cursors.get(state.cursors.find(group)?).map(|cursor| Arc::clone(&cursor.tail))
    }

    /// The watermark up to which records of a group were written.
    #[must_use]
    pub fn watermark(&self, group: GroupId) -> Option<Seq> {
        let state = self.lock();
        state.cursors.get(state.cursors.find(group)?).map(|cursor| cursor.watermark)
    }

    /// The most records by which one of the cursors is behind its tail.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.lock().cursors.behind()
    }

    /// Waits until [`Self::take_ended`] has something. Cancellation safe.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// The groups that are followed no more though the client did not ask for it, and why.
    pub fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut self.lock().ended)
    }

    /// Finishes the streams that were not used since the last sweep.
    pub fn sweep(&self) {
        let mut state = self.lock();
        for (slot, cursor) in state.streams.sweep() {
            state.end_stream(slot, cursor, &self.metrics);
        }
        self.wake_starved(state);
        self.shrink();
    }

    /// Gives back the memory that a burst took.
    pub fn shrink(&self) {
        let mut state = self.lock();
        state.streams.shrink();
        state.cursors.shrink();
        state.ready.shrink_to_fit();
        state.starved.shrink_to_fit();
        state.behind.shrink_to_fit();
        drop(state);
        self.signal.shrink();
    }

    /// Follows nothing any more.
    pub fn close(&self) {
        let mut state = self.lock();
        for cursor in state.cursors.drain() {
            cursor.tail.detach(cursor.attachment);
            self.metrics.follows.dec();
        }
        for _ in 0..state.streams.len() {
            self.metrics.delivery_streams.dec();
        }
        *state = State::default();
    }

    /// A stream has ended outside [`Self::run`], which is woken if somebody waits for one.
    fn wake_starved(&self, state: MutexGuard<'_, State>) {
        let first = state.starved.front().copied();
        drop(state);
        if let Some(number) = first {
            self.signal.ring(number);
        }
    }

    fn poll(&self, io: &mut Io<'_, '_, '_>) -> Poll<ConnectionError> {
        let mut state = self.lock();
        let advanced = RUNS.with_borrow_mut(|runs| {
            // What a session whose connection was lost (or that panicked) has left is not this one's.
            runs.clear();
            self.advance(&mut state, runs, io)
        });
        match advanced {
            Ok(()) => Poll::Pending,
            Err(lost) => Poll::Ready(lost),
        }
    }

    fn advance(
        &self,
        state: &mut State,
        runs: &mut Runs,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<(), ConnectionError> {
        state.gather(&self.signal, io.cx);
        self.retry_blocked(state, io.cx)?;
        for _ in 0..TURNS_MAX {
            if let Some(number) = state.ready.pop_front() {
                self.turn(state, number, runs, io)?;
            } else if !self.feed_starved(state, io)? && !self.poll_fetch(state, runs, io)? {
                return Ok(());
            }
        }
        io.cx.waker().wake_by_ref();
        Ok(())
    }

    /// One cursor's turn: a piece of its tail.
    fn turn(
        &self,
        state: &mut State,
        number: u32,
        runs: &mut Runs,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<(), ConnectionError> {
        let Some(cursor) = state.cursors.get_mut(number).filter(|cursor| cursor.waits == Waits::Turn) else {
            return Ok(());
        };
        let bytes_max = self.limits.load().delivery_turn_bytes;
        match cursor.tail.read(cursor.attachment, cursor.watermark, bytes_max, runs) {
            TailTurn::Records { more, .. } => return self.write(state, number, runs, more, io),
            TailTurn::CaughtUp => cursor.waits = Waits::Ring,
            TailTurn::Behind { .. } => {
                cursor.waits = Waits::Page;
                state.behind.push_back(number);
            }
            TailTurn::Ended => self.end(state, number, Code::NotMember),
            TailTurn::Ahead => {
                let (group, watermark, tail) = (cursor.tail.group(), cursor.watermark, cursor.tail.tail());
                tracing::error!(%group, %watermark, %tail, "a watermark above the tail: the sequence went back");
                self.metrics.watermarks_ahead.inc();
                self.end(state, number, Code::WatermarkAhead);
            }
        }
        Ok(())
    }

    /// Writes what was read for a cursor. `more`: another read follows, else the tail rings.
    fn write(
        &self,
        state: &mut State,
        number: u32,
        runs: &mut Runs,
        more: bool,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<(), ConnectionError> {
        let Some(slot) = self.stream_of(state, number, io)? else {
            runs.clear();
            return Ok(());
        };
        let bytes = runs.bytes_from(0);
        let outcome = state.streams.write(slot, runs.slices_mut(), io.cx);
        let begun = outcome.as_ref().map_or(0, |wrote| wrote.slices);
        let (records, bytes) = (runs.records(begun) as u64, bytes - runs.bytes_from(begun));
        runs.clear();
        let wrote = match outcome {
            Ok(wrote) => wrote,
            Err(error) => return self.refused(state, number, error),
        };
        let cursor = state.cursors.get_mut(number).expect("a cursor that writes is there");
        cursor.watermark = cursor.watermark.advance(records);
        cursor.waits = match (wrote.is_blocked, more) {
            (true, _) => Waits::Room,
            (false, true) => Waits::Turn,
            (false, false) => Waits::Ring,
        };
        if cursor.waits == Waits::Turn {
            state.ready.push_back(number);
        }
        self.metrics.delivered.add(records);
        io.has_written |= records > 0;
        if !self.goes_to_client() {
            self.metrics.fed.add(records);
        }
        self.metrics.delivered_bytes.add(bytes as u64);
        Ok(())
    }

    /// The stream of a cursor, opened if it has none; none where it has to wait for one.
    fn stream_of(
        &self,
        state: &mut State,
        number: u32,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<Option<u16>, ConnectionError> {
        let cursor = state.cursors.get_mut(number).expect("a cursor that writes is there");
        if let Some(slot) = cursor.stream() {
            return Ok(Some(slot));
        }
        // Nobody overtakes those who wait.
        let is_first = state.starved.is_empty();
        let slot = if is_first { self.open_stream(state, number, io)? } else { None };
        if slot.is_none() {
            state.cursors.get_mut(number).expect("it was there").waits = Waits::Stream;
            state.starved.push_back(number);
        }
        Ok(slot)
    }

    fn open_stream(
        &self,
        state: &mut State,
        number: u32,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<Option<u16>, ConnectionError> {
        let streams_max = self.streams_max.unwrap_or_else(|| self.limits.load().delivery_streams_max);
        let is_full = state.streams.len() >= streams_max;
        if is_full && !state.make_room(&self.metrics) {
            return Ok(None);
        }
        let Poll::Ready(opened) = io.poll_open() else { return Ok(None) };
        let send = opened?;
        let State { cursors, streams, .. } = state;
        let cursor = cursors.get_mut(number).expect("a cursor that opens a stream is there");
        let open = wire::DeliveryOpen { group: cursor.tail.group().to_wire(), from: cursor.watermark.get() };
        let slot = streams.put(send, frame::encode(&open), number);
        cursor.set_stream(Some(slot));
        self.metrics.delivery_streams.inc();
        Ok(Some(slot))
    }

    /// Opens a stream for the first of those who wait for one; false where there is none for them.
    fn feed_starved(&self, state: &mut State, io: &mut Io<'_, '_, '_>) -> Result<bool, ConnectionError> {
        while let Some(number) = state.starved.front().copied() {
            let is_waiting = state.cursors.get(number).is_some_and(|cursor| cursor.waits == Waits::Stream);
            if is_waiting && self.open_stream(state, number, io)?.is_none() {
                // Where the client allows no more, one that is finished makes room in a while.
                if state.leaving < state.starved.len() && state.make_room(&self.metrics) {
                    state.leaving += 1;
                }
                return Ok(false);
            }
            state.starved.pop_front();
            if is_waiting {
                state.leaving = state.leaving.saturating_sub(1);
                state.make_ready(number);
                return Ok(true);
            }
        }
        state.leaving = 0;
        Ok(false)
    }

    fn retry_blocked(&self, state: &mut State, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        let mut refused = Vec::new();
        let State { cursors, streams, ready, .. } = state;
        streams.retry(cx, |number, outcome| match outcome {
            Ok(()) => {
                if let Some(cursor) = cursors.get_mut(number).filter(|cursor| cursor.waits == Waits::Room) {
                    cursor.waits = Waits::Turn;
                    ready.push_back(number);
                }
            }
            Err(error) => refused.push((number, error)),
        });
        refused.into_iter().try_for_each(|(number, error)| self.refused(state, number, error))
    }

    /// Fetches a page for the first of those behind; true where one came.
    fn poll_fetch(
        &self,
        state: &mut State,
        runs: &mut Runs,
        io: &mut Io<'_, '_, '_>,
    ) -> Result<bool, ConnectionError> {
        if state.fetch.is_none() {
            state.fetch = self.next_fetch(state);
        }
        let Some(fetch) = &mut state.fetch else { return Ok(false) };
        let Poll::Ready(fetched) = fetch.page.as_mut().poll(io.cx) else { return Ok(false) };
        let Some(Fetch { cursor: number, tail, .. }) = state.fetch.take() else { return Ok(false) };
        let is_same = |cursor: &&Cursor| cursor.waits == Waits::Page && Arc::ptr_eq(&cursor.tail, &tail);
        let Some(cursor) = state.cursors.get(number).filter(is_same) else { return Ok(true) };
        match fetched {
            Ok(page) => {
                let until = tail.until(cursor.attachment).unwrap_or(page.next());
                let records = page.records(cursor.watermark, until, self.limits.load().delivery_turn_bytes);
                runs.extend(cursor.watermark, records, self.signal.reader());
                if runs.is_empty() {
                    state.make_ready(number);
                } else {
                    self.write(state, number, runs, true, io)?;
                }
            }
            Err(error) => {
                tracing::error!(group = %tail.group(), %error, "a page could not be read");
                self.end(state, number, Code::StoreUnavailable);
            }
        }
        Ok(true)
    }

    fn next_fetch(&self, state: &mut State) -> Option<Fetch> {
        loop {
            let number = state.behind.pop_front()?;
            let Some(cursor) = state.cursors.get(number).filter(|cursor| cursor.waits == Waits::Page) else {
                continue;
            };
            let (pages, tail, watermark) =
                (Arc::clone(&self.pages), Arc::clone(&cursor.tail), cursor.watermark);
            let page = Box::pin(async move { pages.page(&tail, watermark).await });
            return Some(Fetch { cursor: number, tail: Arc::clone(&cursor.tail), page });
        }
    }

    /// The client did not want the stream: it follows no more. Or the connection is gone.
    fn refused(&self, state: &mut State, number: u32, error: WriteError) -> Result<(), ConnectionError> {
        if let WriteError::ConnectionLost(lost) = error {
            return Err(lost);
        }
        state.remove(number, &self.metrics);
        Ok(())
    }

    fn end(&self, state: &mut State, number: u32, why: Code) {
        let Some(cursor) = state.cursors.get(number) else { return };
        let ended = Ended { group: cursor.tail.group(), next: cursor.watermark, why };
        state.remove(number, &self.metrics);
        state.ended.push(ended);
        self.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes ready whose tails have rung; the next ring wakes the task.
    fn gather(&mut self, signal: &Signal, cx: &Context<'_>) {
        thread_local! {
            static DUE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
        }
        DUE.with_borrow_mut(|due| {
            signal.take_and_wait(due, cx);
            for number in due.drain(..) {
                // One that waits for something else reads its tail when that has come.
                if self.cursors.get(number).is_some_and(|cursor| cursor.waits == Waits::Ring) {
                    self.make_ready(number);
                }
            }
        });
    }

    fn make_ready(&mut self, number: u32) {
        if let Some(cursor) = self.cursors.get_mut(number) {
            cursor.waits = Waits::Turn;
            self.ready.push_back(number);
        }
    }

    /// Finishes the stream that was used least recently and has nothing to write.
    fn make_room(&mut self, metrics: &Metrics) -> bool {
        let cursors = &self.cursors;
        let may_go = |number| cursors.get(number).is_none_or(|cursor| cursor.waits == Waits::Ring);
        let Some(slot) = self.streams.oldest(may_go) else { return false };
        let cursor = self.streams.cursor(slot);
        self.end_stream(slot, cursor, metrics);
        true
    }

    fn end_stream(&mut self, slot: u16, cursor: u32, metrics: &Metrics) {
        self.streams.end(slot);
        metrics.delivery_streams.dec();
        if let Some(cursor) = self.cursors.get_mut(cursor) {
            cursor.set_stream(None);
        }
    }

    fn remove(&mut self, number: u32, metrics: &Metrics) {
        let Some(cursor) = self.cursors.remove(number) else { return };
        if let Some(slot) = cursor.stream() {
            self.streams.end(slot);
            metrics.delivery_streams.dec();
        }
        cursor.tail.detach(cursor.attachment);
        metrics.follows.dec();
    }
}

impl<'connection> Io<'_, '_, 'connection> {
    /// Polls for a new stream; a poll that waits goes on with the next call.
    fn poll_open(&mut self) -> Poll<Result<quinn::SendStream, ConnectionError>> {
        if self.opening.is_none() {
            self.opening.set(Some(self.connection.open_uni()));
        }
        let opening = self.opening.as_mut().as_pin_mut().expect("it was just set");
        let polled = opening.poll(self.cx);
        if polled.is_ready() {
            self.opening.set(None);
        }
        polled
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("user", &self.signal.user()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
