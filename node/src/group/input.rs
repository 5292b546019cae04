//! What a group's worker is asked, and where its answers go.

use shoal_protocol::{Code, GroupId, Incarnation, Outcome, Refusal, Seq, UserId, wire};
use tokio::{sync::oneshot, time::Instant};
use wire::receipt;

use super::{
    Actor, Follow, Followed, Publish, ReceiptTo,
    home::Answer,
    judgement::{Numbered, Opinion},
};
use crate::ops::Metrics;

/// What an owner is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedOwner {
    /// By this version of the layout, or a later one.
    pub(super) layout: u64,
    /// Its members are to be counted.
    pub(super) count: bool,
}

/// What a worker is asked.
#[derive(Debug)]
pub(super) enum Input {
    /// From a session here.
    Publish(Publish),
    /// From a node that takes this one for the owner, by this version of the layout.
    Owned(Publish, u64),
    /// From the owner, on another node.
    Judged(Publish, Opinion),
    /// The home wants another opinion, once every record below is folded.
    Again(Publish, Seq),
    /// It went to a node that is not reached, or that does not look after it.
    Astray(Publish),
    Follow(Follow, oneshot::Sender<Result<Followed, Refusal>>),
    Change(Actor, wire::change::Body, oneshot::Sender<Result<wire::Changed, Refusal>>),
    Notice(UserId, wire::Notice, oneshot::Sender<Result<(), Refusal>>),
    /// How does this node do as an owner, by this version of the layout?
    Owner(AskedOwner, oneshot::Sender<Result<wire::Owner, Refusal>>),
    /// Finish what a crash interrupted.
    Wake,
    /// Placement has changed, or the store has gone on without this node: see what is so.
    Look,
}

impl Input {
    /// Answers with a refusal.
    pub(super) fn refuse(self, refusal: Refusal, metrics: &Metrics) {
        match self {
            Self::Publish(publish)
            | Self::Owned(publish, _)
            | Self::Judged(publish, _)
            | Self::Again(publish, _)
            | Self::Astray(publish) => {
                let group = publish.group;
                let (_, reply) = split(publish);
                reply.refuse(group, refusal, metrics);
            }
            // Whoever does not wait for the answer any more does not need it.
            Self::Follow(_, to) => drop(to.send(Err(refusal))),
            Self::Change(_, _, to) => drop(to.send(Err(refusal))),
            Self::Notice(_, _, to) => drop(to.send(Err(refusal))),
            Self::Owner(_, to) => drop(to.send(Err(refusal))),
            Self::Wake | Self::Look => {}
        }
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Reply {
    Receipt { to: ReceiptTo, incarnation: Incarnation, number: u64, arrived: Instant },
    Changed(oneshot::Sender<Result<wire::Changed, Refusal>>),
    Noticed(oneshot::Sender<Result<(), Refusal>>),
}

impl Reply {
    /// Answers with a refusal that uses up no number.
    pub(super) fn refuse(self, group: GroupId, why: Refusal, metrics: &Metrics) {
        match self {
            receipt @ Self::Receipt { .. } => receipt.answer(group, Answer::Refused(why), metrics),
            // Whoever does not wait for the answer any more does not need it.
            Self::Changed(to) => drop(to.send(Err(why))),
            Self::Noticed(to) => drop(to.send(Err(why))),
        }
    }

    pub(super) fn answer(self, group: GroupId, answer: Answer, metrics: &Metrics) {
        let Self::Receipt { to, incarnation, number, arrived } = self else {
            unreachable!("only a message is answered with a receipt");
        };
        count(&answer, arrived, metrics);
        let refused = |refusal: Refusal, consumed| {
            receipt::Outcome::Refused(wire::Refused { why: Some(refusal.into()), consumed, succeeded_by: 0 })
        };
        let outcome = match answer {
            Answer::Outcome(Outcome::Committed { seq }) => {
                receipt::Outcome::Committed(wire::Committed { seq: seq.get() })
            }
            Answer::Outcome(Outcome::Refused(code)) => refused(Refusal::new(code, "refused"), true),
            Answer::OutOfOrder { expected } => receipt::Outcome::OutOfOrder(wire::OutOfOrder { expected }),
            Answer::Refused(refusal) => refused(refusal, false),
            Answer::Succeeded { by } => {
                let why = Refusal::new(Code::IncarnationExpired, "the device has begun anew since");
                let succeeded_by = by.0;
                receipt::Outcome::Refused(wire::Refused {
                    why: Some(why.into()),
                    consumed: false,
                    succeeded_by,
                })
            }
        };
        let group = group.to_wire();
        to.send(wire::Receipt { group, incarnation: incarnation.0, number, outcome: Some(outcome) });
    }
}

fn count(answer: &Answer, arrived: Instant, metrics: &Metrics) {
    match answer {
        Answer::Outcome(Outcome::Committed { .. }) => metrics.publish_seconds.observe(arrived.elapsed()),
        Answer::Outcome(Outcome::Refused(code)) => metrics.publishes_refused.inc(*code),
        Answer::Refused(refusal) => metrics.publishes_refused.inc(refusal.code),
        Answer::Succeeded { .. } => metrics.publishes_refused.inc(Code::IncarnationExpired),
        Answer::OutOfOrder { .. } => metrics.publishes_out_of_order.inc(),
    }
}

/// A message, and where its receipt goes.
pub(super) fn split(publish: Publish) -> (Numbered, Reply) {
    let Publish { sender, number, message, receipt, arrived, .. } = publish;
    let incarnation = sender.incarnation;
    let reply = Reply::Receipt { to: receipt, incarnation, number, arrived };
    (Numbered { sender, number, message }, reply)
}

/// The message again, with where its receipt goes.
///
/// # Panics
/// Where what waits is not a message.
pub(super) fn rejoin(group: GroupId, numbered: Numbered, reply: Reply) -> Publish {
    let Reply::Receipt { to: receipt, arrived, .. } = reply else {
        unreachable!("only a message is answered with a receipt");
    };
    let Numbered { sender, number, message } = numbered;
    Publish { group, sender, number, message, receipt, arrived }
}
