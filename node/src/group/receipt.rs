//! Where a receipt goes: answering never waits, for its place was reserved before.

use shoal_protocol::{GroupId, Incarnation, Refusal, wire};
use tokio::sync::mpsc::OwnedPermit;
use wire::receipt::Outcome;

use super::Publish;

/// The way back to whoever sent a message.
#[derive(Debug)]
pub enum ReceiptTo {
    /// A session's publish stream.
    Session(OwnedPermit<wire::Receipt>),
    /// Another node's lane, on which the message has this id.
    Lane {
        /// The lane's name for the message.
        id: u64,
        /// A place among the lane's receipts.
        to: OwnedPermit<(u64, wire::Receipt)>,
    },
}

impl ReceiptTo {
    /// Sends the receipt.
    pub fn send(self, receipt: wire::Receipt) {
        match self {
            Self::Session(to) => drop(to.send(receipt)),
            Self::Lane { id, to } => drop(to.send((id, receipt))),
        }
    }

    /// Answers with a refusal that uses up no number.
    pub fn refuse(self, group: GroupId, incarnation: Incarnation, number: u64, why: Refusal) {
        let refused = wire::Refused { why: Some(why.into()), consumed: false };
        let outcome = Some(Outcome::Refused(refused));
        self.send(wire::Receipt { group: group.to_wire(), incarnation: incarnation.0, number, outcome });
    }
}

impl Publish {
    /// Answers with a refusal that uses up no number.
    pub fn refuse(self, why: Refusal) {
        self.receipt.refuse(self.group, self.sender.incarnation, self.number, why);
    }
}
