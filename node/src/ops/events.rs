//! The events of this node: each is a line of its log, and kept for a while, so that whoever follows them
//! goes on at a watermark. Telling one never waits.

mod ring;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shoal_protocol::{GroupId, wire};
use tokio::sync::watch;

use self::ring::{Kept, Page, Ring};
use super::Event;
use crate::{
    clock::Clock,
    config::{ClusterLimits, Current},
};

/// The most events in one answer of a node.
const PAGE_EVENTS_MAX: usize = 1_000;

/// The latest events of a node.
pub(crate) struct Events {
    node: String,
    /// Of which of the node's lives: when it began, by its clock.
    life: u64,
    clock: Arc<dyn Clock>,
    limits: Current<ClusterLimits>,
    ring: Mutex<Ring>,
    tail: watch::Sender<u64>,
}

impl Events {
    /// None yet.
    pub(crate) fn new(node: String, clock: Arc<dyn Clock>, limits: Current<ClusterLimits>) -> Self {
        let ring = Ring::default();
        let tail = watch::Sender::new(ring.tail());
        Self { node, life: clock.now_ms(), clock, limits, ring: Mutex::new(ring), tail }
    }

    /// Logs it and keeps it.
    pub(crate) fn tell(&self, event: Event) {
        event.log();
        let (time_ms, most) = (self.clock.now_ms(), self.limits.load().events_max);
        let mut ring = self.ring();
        ring.push(time_ms, event, most);
        // Under the lock: the tail only rises.
        self.tail.send_replace(ring.tail());
    }

    /// What is told from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    /// What a follower asks for.
    pub(crate) fn page(&self, asked: &wire::GetNodeEvents) -> wire::NodeEvents {
        let limit = match usize::try_from(asked.limit).unwrap_or(usize::MAX) {
            0 => PAGE_EVENTS_MAX,
            limit => limit.min(PAGE_EVENTS_MAX),
        };
        let Page { events, missed, watermark } = match &asked.from {
            None => self.ring().latest(limit),
            Some(from) if from.life == self.life => self.ring().from(from.watermark, limit),
            // All of this life is new to whoever followed another.
            Some(_) => self.ring().from(0, limit),
        };
        let watermark = wire::EventWatermark { node: self.node.clone(), life: self.life, watermark };
        let events = events.into_iter().map(on_wire).collect();
        wire::NodeEvents { watermark: Some(watermark), events, missed, failure: None }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn on_wire(Kept { number, time_ms, event }: Kept) -> wire::Event {
    wire::Event {
        number,
        time_ms,
        kind: event.kind.name().into(),
        severity: event.kind.severity().into(),
        group: event.group.map(GroupId::to_wire).unwrap_or_default(),
        text: event.text,
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("tail", &*self.tail.borrow()).finish_non_exhaustive()
    }
}
