//! Where a receipt goes: answering never waits, for its place was reserved before.

use shoal_protocol::{Code, GroupId, Incarnation, Refusal, Seq, wire};
use tokio::sync::mpsc::OwnedPermit;
use wire::{peer_receipt::Answer, receipt::Outcome};

use super::Publish;

/// The way back to whoever sent a message.
#[derive(Debug)]
pub enum ReceiptTo {
    /// A session's publish stream.
    Session(OwnedPermit<wire::Receipt>),
    /// Another node's lane.
    Lane(ToLane),
    /// The lane of the owner that judged it on another node, and that may be asked to do so again.
    Owner(ToLane),
}

/// A message's place on another node's lane. Dropped without an answer, as by a group's task that
/// panicked, it answers `Busy`: the lane would wait for ever, and the sender sends again.
#[derive(Debug)]
pub struct ToLane {
    id: u64,
    group: GroupId,
    incarnation: Incarnation,
    number: u64,
    /// None once it has been answered.
    to: Option<OwnedPermit<(u64, Answer)>>,
}

impl ReceiptTo {
    /// Sends the receipt.
    pub fn send(self, receipt: wire::Receipt) {
        match self {
            Self::Session(to) => drop(to.send(receipt)),
            Self::Lane(lane) | Self::Owner(lane) => lane.send(Answer::Receipt(receipt)),
        }
    }

    /// Answers with a refusal that uses up no number.
    pub fn refuse(self, group: GroupId, incarnation: Incarnation, number: u64, why: Refusal) {
        self.send(refused(group, incarnation, number, why));
    }
}

impl ToLane {
    /// The place of the message that the lane calls `id`, among the lane's receipts.
    #[must_use]
    pub fn new(
        id: u64,
        group: GroupId,
        incarnation: Incarnation,
        number: u64,
        to: OwnedPermit<(u64, Answer)>,
    ) -> Self {
        Self { id, group, incarnation, number, to: Some(to) }
    }

    /// The owner is to judge again, once it has folded every record below `at`.
    pub(super) fn judge_again(self, at: Seq) {
        self.send(Answer::Again(at.get()));
    }

    fn send(mut self, answer: Answer) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(to) = self.to.take() {
            drop(to.send((self.id, answer)));
        }
    }
}

impl Drop for ToLane {
    fn drop(&mut self) {
        if self.to.is_none() {
            return;
        }
        let why = Refusal::new(Code::Busy, "the group's task ended before it had an answer");
        self.answer(Answer::Receipt(refused(self.group, self.incarnation, self.number, why)));
    }
}

fn refused(group: GroupId, incarnation: Incarnation, number: u64, why: Refusal) -> wire::Receipt {
    let refused = wire::Refused { why: Some(why.into()), consumed: false, succeeded_by: 0 };
    let outcome = Some(Outcome::Refused(refused));
    wire::Receipt { group: group.to_wire(), incarnation: incarnation.0, number, outcome }
}

impl Publish {
    /// Answers with a refusal that uses up no number.
    pub fn refuse(self, why: Refusal) {
        self.receipt.refuse(self.group, self.sender.incarnation, self.number, why);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn place(id: u64) -> (ToLane, mpsc::Receiver<(u64, Answer)>) {
        let (answers, receipts) = mpsc::channel(4);
        let permit = answers.try_reserve_owned().unwrap();
        (ToLane::new(id, GroupId::named("a"), Incarnation(3), 5, permit), receipts)
    }

    #[test]
    fn a_message_that_was_lost_on_its_way_is_answered_busy_on_its_lane() {
        let (place, mut receipts) = place(7);
        let lost = std::thread::spawn(move || {
            let _place = ReceiptTo::Owner(place);
            panic!("on purpose");
        });
        assert!(lost.join().is_err());
        let (id, Answer::Receipt(receipt)) = receipts.try_recv().unwrap() else { panic!("a receipt") };
        assert_eq!((id, receipt.incarnation, receipt.number), (7, 3, 5));
        let Some(Outcome::Refused(refused)) = receipt.outcome else { panic!("a refusal") };
        assert_eq!((Code::from_wire(refused.why.unwrap().code), refused.consumed), (Code::Busy, false));
    }

    #[test]
    fn one_that_was_answered_is_answered_once() {
        let (place, mut receipts) = place(7);
        place.judge_again(Seq::FIRST);
        assert_eq!(receipts.try_recv().unwrap(), (7, Answer::Again(1)));
        assert!(receipts.try_recv().is_err());
    }
}
