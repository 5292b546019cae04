//! A publish lane: users' messages on their way to a home, and the receipts on their way back.
//!
//! The home's end answers every message, in any order, and never waits for one group: a full one
//! is answered `Busy`.

use std::collections::BTreeMap;

use quinn::{Connection, SendStream};
use shoal_protocol::{
    Code, DeviceId, GroupId, Incarnation, Refusal, SenderId, UserId, frame::FRAME_BYTES_MAX, wire,
};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    framed::{Frames, LinkError},
    outbox::Outbox,
};
use crate::group::{Groups, Publish, ReceiptTo};

/// Messages on one lane whose receipts have not come.
const UNANSWERED_MAX: usize = 4096;

/// Messages that wait for a lane to take them.
const WAITING_MAX: usize = 1024;

/// Receipts in one write.
const RECEIPTS_MAX: usize = 256;

/// The following node's end: where messages are put.
#[derive(Debug, Clone)]
pub(super) struct Lane(mpsc::Sender<Publish>);

/// The task's end of a [`Lane`].
pub(super) struct Sending {
    publishes: mpsc::Receiver<Publish>,
    unanswered: BTreeMap<u64, Unanswered>,
    last_id: u64,
}

/// A message that is on its way.
struct Unanswered {
    group: GroupId,
    incarnation: Incarnation,
    number: u64,
    receipt: ReceiptTo,
}

impl Lane {
    pub(super) fn new() -> (Self, Sending) {
        let (sender, publishes) = mpsc::channel(WAITING_MAX);
        (Self(sender), Sending { publishes, unanswered: BTreeMap::new(), last_id: 0 })
    }

    /// Puts a message on its way; where too many are, it is answered `Busy`.
    pub(super) fn publish(&self, publish: Publish) {
        if let Err(TrySendError::Full(publish) | TrySendError::Closed(publish)) = self.0.try_send(publish) {
            publish.refuse(busy());
        }
    }
}

impl Sending {
    /// Carries messages until the link is gone; then all that were not answered are, with `Busy`.
    pub(super) async fn run(mut self, connection: Connection) -> Result<(), LinkError> {
        let (send, recv) = connection.open_bi().await?;
        let (mut out, mut receipts) = (Outbox::new(send), Frames::new(recv, FRAME_BYTES_MAX));
        let body = Some(wire::peer_stream_open::Body::Publish(wire::PublishOpen {}));
        out.put(&wire::PeerStreamOpen { body });
        loop {
            let may_take = out.has_room() && self.unanswered.len() < UNANSWERED_MAX;
            tokio::select! {
                biased;
                receipt = receipts.next::<wire::PeerReceipt>() => {
                    self.answer(receipt?.ok_or(LinkError::Stream)?);
                }
                publish = self.publishes.recv(), if may_take => match publish {
                    Some(publish) => self.take(publish, &mut out),
                    None => return Ok(()),
                },
                wrote = out.write(), if !out.is_empty() => wrote?,
            }
        }
    }

    fn take(&mut self, publish: Publish, out: &mut Outbox) {
        self.last_id += 1;
        let Publish { group, sender, number, message, receipt } = publish;
        let publish = wire::Publish {
            group: group.to_wire(),
            incarnation: sender.incarnation.0,
            number,
            message: Some(message),
        };
        out.put(&wire::PeerPublish {
            id: self.last_id,
            user: sender.user.to_string(),
            device: sender.device.0,
            publish: Some(publish),
        });
        let unanswered = Unanswered { group, incarnation: sender.incarnation, number, receipt };
        self.unanswered.insert(self.last_id, unanswered);
    }

    /// One that is not known was answered already.
    fn answer(&mut self, answer: wire::PeerReceipt) {
        if let (Some(unanswered), Some(receipt)) = (self.unanswered.remove(&answer.id), answer.receipt) {
            unanswered.receipt.send(receipt);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        for Unanswered { group, incarnation, number, receipt } in
            std::mem::take(&mut self.unanswered).into_values()
        {
            receipt.refuse(group, incarnation, number, busy());
        }
        self.publishes.close();
        while let Ok(publish) = self.publishes.try_recv() {
            publish.refuse(busy());
        }
    }
}

fn busy() -> Refusal {
    Refusal::new(Code::Busy, "the group's home is not reached at the moment")
}

/// A group's home is somewhere else by now.
pub(super) fn not_home() -> Refusal {
    Refusal::new(Code::NotHome, "the group's home is not here any more")
}

/// The home's end: serves a lane until the other node has gone.
pub(super) async fn serve(groups: &Groups, send: SendStream, mut publishes: Frames) -> Result<(), LinkError> {
    let (answers, mut receipts) = mpsc::channel(UNANSWERED_MAX);
    let mut out = Outbox::new(send);
    loop {
        tokio::select! {
            biased;
            Some((id, receipt)) = receipts.recv(), if out.has_room() => {
                out.put(&wire::PeerReceipt { id, receipt: Some(receipt) });
                for _ in 1..RECEIPTS_MAX {
                    let Ok((id, receipt)) = receipts.try_recv() else { break };
                    out.put(&wire::PeerReceipt { id, receipt: Some(receipt) });
                }
            }
            wrote = out.write(), if !out.is_empty() => wrote?,
            publish = publishes.next::<wire::PeerPublish>() => {
                let Some(publish) = publish? else { return Ok(()) };
                let to = answers.clone().try_reserve_owned().map_err(|_| {
                    Refusal::new(Code::TooMany, "more unanswered messages than a lane may have")
                })?;
                let publish = decode(publish, |id| ReceiptTo::Lane { id, to })?;
                // Sent on from here it might go round for ever.
                match groups.is_home(publish.group) {
                    true => groups.publish(publish),
                    false => publish.refuse(not_home()),
                }
            }
        }
    }
}

fn decode(publish: wire::PeerPublish, to: impl FnOnce(u64) -> ReceiptTo) -> Result<Publish, Refusal> {
    let bad = |reason: String| Refusal::new(Code::BadRequest, reason);
    let wire::PeerPublish { id, user, device, publish } = publish;
    let publish = publish.ok_or_else(|| bad("a lane's frame without a message".into()))?;
    let message = publish.message.ok_or_else(|| bad("a publish without a message".into()))?;
    let sender = SenderId {
        user: UserId::new(user).map_err(|error| bad(error.to_string()))?,
        device: DeviceId(device),
        incarnation: Incarnation(publish.incarnation),
    };
    let group = GroupId::from_wire(&publish.group).map_err(|error| bad(error.to_string()))?;
    Ok(Publish { group, sender, number: publish.number, message, receipt: to(id) })
}
