//! One follow: its inbox, the app that waits for it, and the streams that fill it.

use std::{
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use shoal_protocol::{Accept, FrameBuffer, FrameError, GroupId, Refusal, Seq, frame, wire};
use tokio::sync::Notify;

use super::lock;
use crate::core::inbox::{Inbox, Item, Phase, Start};

/// One follow, shared by the app's handle and the streams that fill it.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) group: GroupId,
    /// Tells it from an earlier follow of the same group.
    serial: u64,
    inner: Mutex<Inner>,
    /// For streams that wait: there is room again, or the node said from where records come.
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    inbox: Inbox,
    app: Option<Waker>,
    /// The client is closed, or the app let go of it.
    closed: bool,
}

/// Where a delivery stream finds a follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The node has not said from where records come.
    Asked,
    /// Records are taken from `wanted` on.
    Live {
        wanted: Seq,
        /// The app has made room for more.
        has_room: bool,
    },
    /// Nothing is wanted any more: it has ended, or the app does not read.
    Over,
}

/// What became of a chunk of a delivery stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// All of it is in the inbox.
    Drained,
    /// The inbox is full, with frames left over.
    Full,
    /// Nobody wants more.
    Over,
    /// Something is missing before the next record.
    Gap,
    /// The node sends no more here: go on at another.
    Handoff(wire::Handoff),
}

/// What a chunk brought.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) duplicates: u64,
}

impl Following {
    pub(crate) fn new(group: GroupId, serial: u64, start: Start, bytes_max: usize) -> Self {
        let inbox = Inbox::new(start, bytes_max);
        let inner = Inner { inbox, app: None, closed: false };
        Self { group, serial, inner: Mutex::new(inner), changed: Notify::new() }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The next item for the app, or how it ended. `unparked` is called where the node has to be
    /// told that the app reads again.
    pub(crate) fn poll_take(
        &self,
        context: &Context<'_>,
        unparked: impl FnOnce(),
    ) -> Poll<Result<Item, Ending>> {
        let mut inner = lock(&self.inner);
        let was_full = !inner.inbox.has_room();
        if let Some(item) = inner.inbox.take() {
            let room = was_full && inner.inbox.has_room();
            let resume = inner.inbox.unpark();
            drop(inner);
            if room {
                self.changed.notify_waiters();
            }
            if resume {
                unparked();
            }
            return Poll::Ready(Ok(item));
        }
        match inner.ending() {
            Some(ending) => Poll::Ready(Err(ending)),
            None => {
                inner.wait(context);
                Poll::Pending
            }
        }
    }

    /// Waits until the node said from where records come.
    pub(crate) fn poll_live(&self, context: &Context<'_>) -> Poll<Result<Seq, Ending>> {
        let mut inner = lock(&self.inner);
        if let (Phase::Live, Some(watermark)) = (inner.inbox.phase(), inner.inbox.watermark()) {
            return Poll::Ready(Ok(watermark));
        }
        match inner.ending() {
            Some(ending) => Poll::Ready(Err(ending)),
            None => {
                inner.wait(context);
                Poll::Pending
            }
        }
    }

    pub(crate) fn watermark(&self) -> Option<Seq> {
        lock(&self.inner).inbox.watermark()
    }

    /// Where a stream finds it.
    pub(crate) fn position(&self) -> Position {
        let inner = lock(&self.inner);
        match (inner.inbox.phase(), inner.inbox.received()) {
            _ if inner.closed => Position::Over,
            (Phase::Asked, _) => Position::Asked,
            (Phase::Live, Some(wanted)) => Position::Live { wanted, has_room: inner.inbox.has_room() },
            _ => Position::Over,
        }
    }

    /// Completes when something may have changed since the future was made.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Waits until all before this place has come, or nothing more will. Cancellation safe.
    pub(crate) async fn received(&self, next: Seq) {
        loop {
            let changed = self.changed();
            match self.position() {
                Position::Live { wanted, .. } if wanted < next => changed.await,
                _ => return,
            }
        }
    }

    /// Puts the frames that have been read into the inbox.
    pub(crate) fn fill(&self, frames: &mut FrameBuffer, tally: &mut Tally) -> Result<Filled, FrameError> {
        let mut inner = lock(&self.inner);
        let before = inner.inbox.received();
        let filled = inner.fill(frames, tally);
        let app = if inner.inbox.received() > before { inner.app.take() } else { None };
        drop(inner);
        if let Some(app) = app {
            app.wake();
        }
        self.changed.notify_waiters();
        filled
    }

    /// What to ask a node for.
    pub(crate) fn request(&self) -> Option<wire::Follow> {
        let from = match lock(&self.inner).inbox.request()? {
            Start::Watermark(seq) => wire::follow::From::Watermark(seq.get()),
            Start::Join => wire::follow::From::Join(true),
            Start::Tail => wire::follow::From::Tail(true),
        };
        Some(wire::Follow { group: self.group.to_wire(), from: Some(from) })
    }

    /// A node is asked (again): what it says next counts.
    pub(crate) fn asked(&self) {
        lock(&self.inner).inbox.asked();
    }

    /// The app does not read.
    pub(crate) fn park(&self) {
        lock(&self.inner).inbox.park();
    }

    /// Where the app is, if that has moved since it was last told.
    pub(crate) fn tell(&self) -> Option<Seq> {
        lock(&self.inner).inbox.tell()
    }

    /// Does it wait for the node to say from where records come?
    pub(crate) fn is_asked(&self) -> bool {
        *lock(&self.inner).inbox.phase() == Phase::Asked
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(lock(&self.inner).inbox.phase(), Phase::Ended(_))
    }

    /// The node said from where records come.
    pub(crate) fn followed(&self, from: Seq) {
        self.update(|inner| inner.inbox.followed(from));
    }

    /// The node ended it.
    pub(crate) fn end(&self, why: Refusal) {
        self.update(|inner| inner.inbox.end(why));
    }

    /// Which question to a node is the latest.
    pub(crate) fn turn(&self) -> u32 {
        lock(&self.inner).inbox.turn()
    }

    /// The node ended it, unless it was asked again since this question.
    pub(crate) fn end_of(&self, turn: u32, why: Refusal) {
        self.update(|inner| inner.inbox.end_of(turn, why));
    }

    /// The client is closed, or the app let go of it.
    pub(crate) fn close(&self) {
        self.update(|inner| inner.closed = true);
    }

    fn update(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = lock(&self.inner);
        change(&mut inner);
        let app = inner.app.take();
        drop(inner);
        if let Some(app) = app {
            app.wake();
        }
        self.changed.notify_waiters();
    }
}

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Refused(Refusal),
    Closed,
}

impl Inner {
    fn wait(&mut self, context: &Context<'_>) {
        match &mut self.app {
            Some(app) => app.clone_from(context.waker()),
            None => self.app = Some(context.waker().clone()),
        }
    }

    fn ending(&self) -> Option<Ending> {
        match self.inbox.phase() {
            Phase::Ended(why) => Some(Ending::Refused(why.clone())),
            _ if self.closed => Some(Ending::Closed),
            _ => None,
        }
    }

    fn fill(&mut self, frames: &mut FrameBuffer, tally: &mut Tally) -> Result<Filled, FrameError> {
        loop {
            if self.closed {
                return Ok(Filled::Over);
            }
            if !self.inbox.has_room() {
                return Ok(Filled::Full);
            }
            let Some(body) = frames.next_frame()? else {
                return Ok(Filled::Drained);
            };
            let bytes = body.len();
            let accept = match frame::decode::<wire::Delivery>(body)?.body {
                Some(wire::delivery::Body::Record(record)) => {
                    let accept = self.inbox.offer(place(record.seq)?, record, bytes);
                    tally.records += u64::from(accept == Accept::Take);
                    accept
                }
                Some(wire::delivery::Body::Silent(silent)) => {
                    self.inbox.pass_over(place(silent.from)?, place(silent.to)?)
                }
                Some(wire::delivery::Body::Handoff(handoff)) => return Ok(Filled::Handoff(handoff)),
                // A kind of frame of a later version.
                None => continue,
            };
            match accept {
                Accept::Take => {}
                Accept::Drop => tally.duplicates += 1,
                Accept::Gap { .. } => return Ok(Filled::Gap),
            }
        }
    }
}

fn place(seq: u64) -> Result<Seq, FrameError> {
    Seq::new(seq).ok_or_else(|| FrameError::Body("a record at 0".to_owned()))
}
