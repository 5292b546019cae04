//! Where a receipt goes: answering never waits, for its place was reserved before.

use shoal_protocol::{GroupId, Incarnation, Refusal, Seq, wire};
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

/// A message's place on another node's lane.
#[derive(Debug)]
pub struct ToLane {
    /// The lane's name for the message.
    pub id: u64,
    /// A place among the lane's receipts.
    pub to: OwnedPermit<(u64, Answer)>,
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
        let refused = wire::Refused { why: Some(why.into()), consumed: false, succeeded_by: 0 };
        let outcome = Some(Outcome::Refused(refused));
        self.send(wire::Receipt { group: group.to_wire(), incarnation: incarnation.0, number, outcome });
    }
}

impl ToLane {
    /// The owner is to judge again, once it has folded every record below `at`.
    pub(super) fn judge_again(self, at: Seq) {
        self.send(Answer::Again(at.get()));
    }

    fn send(self, answer: Answer) {
        drop(self.to.send((self.id, answer)));
    }
}

impl Publish {
    /// Answers with a refusal that uses up no number.
    pub fn refuse(self, why: Refusal) {
        self.receipt.refuse(self.group, self.sender.incarnation, self.number, why);
    }
}
