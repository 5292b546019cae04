//! A publish lane: users' messages on their way to an owner or a home, and the receipts on their way
//! back.
//!
//! The other end answers every message, in any order, and never waits for one group: a full one
//! is answered `Busy`.

use std::collections::BTreeMap;

use quinn::{Connection, SendStream};
use shoal_protocol::{
    Code, DeviceId, GroupId, Incarnation, Refusal, SenderId, Seq, UserId, frame::FRAME_BYTES_MAX, wire,
};
use tokio::{
    sync::mpsc::{self, OwnedPermit, error::TrySendError},
    time::Instant,
};
use wire::{peer_receipt::Answer, receipt::Outcome};

use super::{
    framed::{Frames, LinkError},
    outbox::Outbox,
};
use crate::group::{Groups, Opinion, Passage, Publish, ReceiptTo, Stage, ToLane};

/// Messages on one lane whose receipts have not come.
const UNANSWERED_MAX: usize = 4096;

/// Messages that wait for a lane to take them.
const WAITING_MAX: usize = 1024;

/// Receipts in one write.
const RECEIPTS_MAX: usize = 256;

/// The following node's end: where messages are put.
#[derive(Debug, Clone)]
pub(super) struct Lane(mpsc::Sender<Passage>);

/// The task's end of a [`Lane`].
pub(super) struct Sending {
    passages: mpsc::Receiver<Passage>,
    unanswered: BTreeMap<u64, Passage>,
    last_id: u64,
}

impl Lane {
    pub(super) fn new() -> (Self, Sending) {
        let (sender, passages) = mpsc::channel(WAITING_MAX);
        (Self(sender), Sending { passages, unanswered: BTreeMap::new(), last_id: 0 })
    }

    /// Puts a message on its way; where too many are, it is answered `Busy`.
    pub(super) fn publish(&self, passage: Passage) {
        match self.0.try_send(passage) {
            Ok(()) => {}
            Err(TrySendError::Full(passage)) => {
                let why = "too many messages are on their way to the node that looks after this";
                passage.publish.refuse(Refusal::new(Code::Busy, why));
            }
            Err(TrySendError::Closed(passage)) => passage.go_astray(),
        }
    }
}

impl Sending {
    /// Carries messages until the link is gone; then all that were not answered are to go again: whether
    /// they arrived their numbers say.
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
                    self.answer(receipt?.ok_or(LinkError::Stream)?)?;
                }
                passage = self.passages.recv(), if may_take => match passage {
                    Some(passage) => self.take(passage, &mut out),
                    None => return Ok(()),
                },
                wrote = out.write(), if !out.is_empty() => wrote?,
            }
        }
    }

    fn take(&mut self, passage: Passage, out: &mut Outbox) {
        self.last_id += 1;
        let Publish { group, sender, number, message, .. } = &passage.publish;
        let publish = wire::Publish {
            group: group.to_wire(),
            incarnation: sender.incarnation.0,
            number: *number,
            // Its payload is shared.
            message: Some(message.clone()),
        };
        let (layout, opinion) = match &passage.stage {
            Stage::Owner { layout } => (*layout, None),
            Stage::Home(Opinion { objection, as_of }) => {
                let objection = objection.clone().map(Into::into);
                (0, Some(wire::Opinion { as_of: as_of.get(), objection }))
            }
        };
        out.put(&wire::PeerPublish {
            id: self.last_id,
            user: sender.user.to_string(),
            device: sender.device.0,
            publish: Some(publish),
            layout,
            opinion,
        });
        self.unanswered.insert(self.last_id, passage);
    }

    /// One that is not known was answered already.
    fn answer(&mut self, receipt: wire::PeerReceipt) -> Result<(), Refusal> {
        let nothing = || Refusal::new(Code::BadFrame, "an answer that says nothing");
        let (id, answer) = (receipt.id, receipt.answer.ok_or_else(nothing)?);
        // What makes no sense is answered with all the others, when the lane ends.
        match answer {
            Answer::Receipt(receipt) => {
                let Some(passage) = self.unanswered.remove(&id) else { return Ok(()) };
                if is_astray(&receipt) {
                    passage.go_astray();
                } else {
                    passage.publish.receipt.send(receipt);
                }
            }
            Answer::Again(at) => {
                let at = place(at)?;
                if let Some(passage) = self.unanswered.remove(&id) {
                    passage.come_back(at);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        std::mem::take(&mut self.unanswered).into_values().for_each(Passage::go_astray);
        self.passages.close();
        while let Ok(passage) = self.passages.try_recv() {
            passage.go_astray();
        }
    }
}

/// The other node does not look after it, or not any more, or is going.
fn is_astray(receipt: &wire::Receipt) -> bool {
    let Some(Outcome::Refused(refused)) = &receipt.outcome else { return false };
    let goes_again = |code| [Code::NotHome, Code::Draining].iter().any(|again| again.number() == code);
    refused.why.as_ref().is_some_and(|why| goes_again(why.code))
}

/// Another time may do.
pub(super) fn busy() -> Refusal {
    Refusal::new(Code::Busy, "the node that looks after this is not reached at the moment")
}

/// A group's home is somewhere else by now.
pub(super) fn not_home() -> Refusal {
    Refusal::new(Code::NotHome, "the group's home is not here any more")
}

/// The other end: serves a lane until the other node has gone.
pub(super) async fn serve(groups: &Groups, send: SendStream, mut publishes: Frames) -> Result<(), LinkError> {
    let (answers, mut receipts) = mpsc::channel(UNANSWERED_MAX);
    let mut out = Outbox::new(send);
    loop {
        tokio::select! {
            biased;
            Some((id, answer)) = receipts.recv(), if out.has_room() => {
                out.put(&wire::PeerReceipt { id, answer: Some(answer) });
                for _ in 1..RECEIPTS_MAX {
                    let Ok((id, answer)) = receipts.try_recv() else { break };
                    out.put(&wire::PeerReceipt { id, answer: Some(answer) });
                }
            }
            wrote = out.write(), if !out.is_empty() => wrote?,
            publish = publishes.next::<wire::PeerPublish>() => {
                let Some(publish) = publish? else { return Ok(()) };
                let to = answers.clone().try_reserve_owned().map_err(|_| {
                    Refusal::new(Code::TooMany, "more unanswered messages than a lane may have")
                })?;
                take(groups, publish, to)?;
            }
        }
    }
}

/// A message from another node: to be judged, or to be numbered.
fn take(groups: &Groups, publish: wire::PeerPublish, to: OwnedPermit<(u64, Answer)>) -> Result<(), Refusal> {
    let bad = |reason: String| Refusal::new(Code::BadRequest, reason);
    let wire::PeerPublish { id, user, device, publish, layout, opinion } = publish;
    let publish = publish.ok_or_else(|| bad("a lane's frame without a message".into()))?;
    let message = publish.message.ok_or_else(|| bad("a publish without a message".into()))?;
    let sender = SenderId {
        user: UserId::new(user).map_err(|error| bad(error.to_string()))?,
        device: DeviceId(device),
        incarnation: Incarnation(publish.incarnation),
    };
    let group = GroupId::from_wire(&publish.group).map_err(|error| bad(error.to_string()))?;
    let number = publish.number;
    let to = ToLane::new(id, group, sender.incarnation, number, to);
    let arrived = Instant::now();
    let with = |receipt| Publish { group, sender, number, message, receipt, arrived };
    match opinion {
        None => groups.judge(with(ReceiptTo::Lane(to)), layout),
        Some(opinion) => {
            let objection = opinion.objection.map(Refusal::from);
            let opinion = Opinion { objection, as_of: place(opinion.as_of)? };
            groups.number(with(ReceiptTo::Owner(to)), opinion);
        }
    }
    Ok(())
}

fn place(seq: u64) -> Result<Seq, Refusal> {
    Seq::new(seq).ok_or_else(|| Refusal::new(Code::BadFrame, "no Seq is 0"))
}
