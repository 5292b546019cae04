//! Messages of this node's sessions that did not come to who looks after them: that one has moved, is
//! not reached, or has not heard of it yet. They go again as soon as the placement names another, and
//! every while, so that a group changes hands within the time of a message and its senders need not ask
//! again. Those of other nodes' sessions wait there.

use std::time::Duration;

use shoal_protocol::{Code, Refusal};
use tokio::time::{Instant, sleep_until};

use super::Worker;
use crate::group::{Publish, ReceiptTo};

/// How long a message is sent again before its sender is asked whether it is still wanted: one who has
/// gone, and begun anew elsewhere, would find it behind what they have said since.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts: short at first, since most often one node has only heard of a new placement
/// before another, and twice as long each time up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);

/// Messages that are to go again, in their order. Whoever sent them waits for the receipts, which are
/// bounded; and so are these.
#[derive(Debug)]
pub(super) struct Astray {
    messages: Vec<Publish>,
    /// When they go again.
    due: Instant,
    pause: Duration,
}

impl Astray {
    pub(super) fn new(now: Instant) -> Self {
        Self { messages: Vec::new(), due: now, pause: PAUSE_FIRST }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn push(&mut self, publish: Publish, now: Instant) {
        if self.messages.is_empty() {
            let has_settled = now > self.due + 2 * PAUSE_MAX;
            self.pause = if has_settled { PAUSE_FIRST } else { (2 * self.pause).min(PAUSE_MAX) };
            self.due = now + self.pause;
        }
        self.messages.push(publish);
    }

    /// The placement has changed: they go at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        (self.due, self.pause) = (now, PAUSE_FIRST);
    }

    fn take(&mut self) -> Vec<Publish> {
        std::mem::take(&mut self.messages)
    }

    /// These come before all others, and go as soon as there is room.
    fn put_back(&mut self, messages: impl Iterator<Item = Publish>) {
        self.messages.splice(..0, messages);
    }

    /// Waits until they go again. Cancellation safe.
    pub(super) async fn due(&self) {
        sleep_until(self.due).await;
    }
}

impl Worker {
    /// A message that is not answered yet: it goes again, or whoever sent it hears why not.
    pub(super) fn turn_away(&mut self, publish: Publish, why: Refusal) {
        let is_astray = why.code == Code::NotHome && matches!(publish.receipt, ReceiptTo::Session(_));
        if !is_astray {
            self.refuse(publish, why);
        } else if publish.arrived.elapsed() < PATIENCE && !self.is_stopping {
            self.astray.push(publish, Instant::now());
        } else {
            self.refuse(publish, Refusal { code: Code::Busy, ..why });
        }
    }

    pub(super) async fn send_again(&mut self) {
        self.used = Instant::now();
        let home = self.take_place();
        let mut messages = self.astray.take().into_iter();
        while self.has_room() {
            let Some(publish) = messages.next() else { return };
            self.route(&home, publish, None).await;
        }
        self.astray.put_back(messages);
    }

    pub(super) fn refuse_astray(&mut self, why: &Refusal) {
        for publish in self.astray.take() {
            self.refuse(publish, why.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_protocol::{DeviceId, GroupId, Incarnation, SenderId, UserId, wire};
    use tokio::sync::mpsc;

    use super::*;

    fn message(receipts: &mpsc::Sender<wire::Receipt>, now: Instant) -> Publish {
        let user = UserId::new("ann").unwrap();
        Publish {
            group: GroupId::named("a"),
            sender: SenderId { user, device: DeviceId(1), incarnation: Incarnation(1) },
            number: 1,
            message: wire::Message::default(),
            receipt: ReceiptTo::Session(receipts.clone().try_reserve_owned().unwrap()),
            arrived: now,
        }
    }

    #[test]
    fn they_go_again_soon_and_less_often_until_the_placement_changes() {
        let (receipts, _read) = mpsc::channel(4);
        let mut now = Instant::now();
        let mut astray = Astray::new(now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            astray.push(message(&receipts, now), now);
            astray.push(message(&receipts, now), now + PAUSE_FIRST);
            pauses.push((astray.due - now).as_millis());
            now = astray.due;
            assert_eq!(astray.take().len(), 2);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 80, 80, 80]);
        astray.push(message(&receipts, now), now);
        astray.hurry(now);
        assert_eq!(astray.due, now);
        astray.take();
        now += Duration::from_secs(1);
        astray.push(message(&receipts, now), now);
        assert_eq!(astray.due - now, PAUSE_FIRST, "what was long ago does not count");
    }
}
