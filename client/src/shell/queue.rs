//! The core's outbox, and who waits for receipts and for room.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use shoal_protocol::{GroupId, Incarnation, Seq, wire};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::lock;
use crate::{
    PublishError,
    core::{
        lane::{Failed, Settled, Ticket},
        outbox::{BadReceipt, Outbox},
    },
    saved::Queued,
};

/// What a message weighs in the queue besides its payload.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// What a receipt says, or why there will be none.
pub(crate) type Outcome = Result<Seq, PublishError>;

/// The messages of a client on their way.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// For the session's publisher: there may be something to send.
    pub(crate) wake: Notify,
    /// For the session: an incarnation may be wanted.
    pub(crate) incarnation: Notify,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    messages_per_group: usize,
}

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    waiting: BTreeMap<Ticket, Waiting>,
    rooms: BTreeMap<GroupId, Arc<Semaphore>>,
    closed: bool,
}

/// Who waits for a receipt, and the room that the message takes until then.
#[derive(Debug)]
struct Waiting {
    receipt: oneshot::Sender<Outcome>,
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Queue {
    pub(crate) fn new(messages_per_group: usize, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            inner: Mutex::new(Inner {
                outbox: Outbox::new(),
                waiting: BTreeMap::new(),
                rooms: BTreeMap::new(),
                closed: false,
            }),
            wake: Notify::new(),
            incarnation: Notify::new(),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            messages_per_group: messages_per_group.min(Semaphore::MAX_PERMITS),
        }
    }

    /// Puts back the messages of an earlier run; their receipts.
    pub(crate) fn restore(&self, queued: Vec<Queued>) -> Vec<oneshot::Receiver<Outcome>> {
        let mut inner = lock(&self.inner);
        let restore = |queued: Queued| {
            let ticket = inner.outbox.restore(queued.group, queued.message, queued.place);
            let (sender, receipt) = oneshot::channel();
            inner.waiting.insert(ticket, Waiting { receipt: sender, _room: None });
            receipt
        };
        queued.into_iter().map(restore).collect()
    }

    /// Waits for room and queues a message; its receipt.
    ///
    /// Cancel safe: a message is queued whole or not at all. Room is given in the order in which
    /// it was asked for.
    pub(crate) async fn push(
        &self,
        group: GroupId,
        message: wire::Message,
    ) -> Result<oneshot::Receiver<Outcome>, PublishError> {
        let messages = self.room(group)?.acquire_owned().await.map_err(|_| PublishError::Closed)?;
        let weight = (message.payload.len() + MESSAGE_OVERHEAD_BYTES).min(self.bytes_max);
        let weight = u32::try_from(weight).expect("the bound fits 32 bits");
        let bytes = self.bytes.clone().acquire_many_owned(weight).await.map_err(|_| PublishError::Closed)?;
        let (sender, receipt) = oneshot::channel();
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(PublishError::Closed);
        }
        let ticket = inner.outbox.push(group, message);
        inner.waiting.insert(ticket, Waiting { receipt: sender, _room: Some((messages, bytes)) });
        let wants_incarnation = inner.outbox.wants_incarnation();
        drop(inner);
        self.wake.notify_one();
        if wants_incarnation {
            self.incarnation.notify_one();
        }
        Ok(receipt)
    }

    /// A session begins.
    pub(crate) fn welcomed(&self, incarnation: Incarnation, limits: &wire::Limits) {
        lock(&self.inner).outbox.welcomed(incarnation, limits);
        self.wake.notify_one();
    }

    /// A node issued an incarnation.
    pub(crate) fn issued(&self, incarnation: Incarnation) {
        lock(&self.inner).outbox.issue(incarnation);
        self.wake.notify_one();
    }

    pub(crate) fn wants_incarnation(&self) -> bool {
        lock(&self.inner).outbox.wants_incarnation()
    }

    /// Calls `put` with publishes for the wire as long as it takes more.
    pub(crate) fn send(&self, now: Duration, mut put: impl FnMut(wire::Publish) -> bool) {
        let mut inner = lock(&self.inner);
        let mut settled = Vec::new();
        while let Some(publish) = inner.outbox.send(now, &mut settled) {
            if !put(publish) {
                break;
            }
        }
        let wants_incarnation = inner.outbox.wants_incarnation();
        self.tell(inner, settled);
        if wants_incarnation {
            self.incarnation.notify_one();
        }
    }

    /// When something that is held back may go.
    pub(crate) fn next_at(&self, now: Duration) -> Option<Duration> {
        lock(&self.inner).outbox.next_at(now)
    }

    /// Since when the oldest publish has been without an answer.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        lock(&self.inner).outbox.unanswered_since()
    }

    /// Takes a receipt; how many messages it acknowledged.
    pub(crate) fn receipt(
        &self,
        receipt: wire::Receipt,
        now: Duration,
        chance: f64,
    ) -> Result<u64, BadReceipt> {
        let mut inner = lock(&self.inner);
        let mut settled = Vec::new();
        inner.outbox.receipt(receipt, now, chance, &mut settled)?;
        let wants_incarnation = inner.outbox.wants_incarnation();
        let acknowledged = settled.iter().filter(|settled| settled.outcome.is_ok()).count() as u64;
        self.tell(inner, settled);
        self.wake.notify_one();
        if wants_incarnation {
            self.incarnation.notify_one();
        }
        Ok(acknowledged)
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&self) {
        lock(&self.inner).outbox.disconnected();
    }

    /// What has no receipt, for saving.
    pub(crate) fn queued(&self) -> Vec<Queued> {
        let inner = lock(&self.inner);
        let queued = inner.outbox.queued();
        queued.map(|(group, place, message)| Queued { group, place, message: message.clone() }).collect()
    }

    /// The client is closed: whoever waits is told. What is queued can still be saved.
    pub(crate) fn shut(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        self.bytes.close();
        inner.rooms.values().for_each(|room| room.close());
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        for waiting in waiting.into_values() {
            let _ = waiting.receipt.send(Err(PublishError::Closed));
        }
    }

    /// Tells those who wait, without the lock.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>, settled: Vec<Settled>) {
        let mut told = Vec::with_capacity(settled.len());
        for Settled { ticket, outcome } in settled {
            told.extend(inner.waiting.remove(&ticket).map(|waiting| (waiting, outcome)));
        }
        drop(inner);
        for (waiting, outcome) in told {
            // Nobody may wait any more: the receipt was for the queue alone then.
            let _ = waiting.receipt.send(outcome.map_err(PublishError::from));
        }
    }

    fn room(&self, group: GroupId) -> Result<Arc<Semaphore>, PublishError> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(PublishError::Closed);
        }
        let room =
            inner.rooms.entry(group).or_insert_with(|| Arc::new(Semaphore::new(self.messages_per_group)));
        Ok(room.clone())
    }
}

impl From<Failed> for PublishError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(why) => Self::Refused(why),
            Failed::Unknown(why) => Self::Unknown(why),
        }
    }
}
