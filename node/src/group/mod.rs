//! The business layer: homes, which number a group's records, and sub-groups, which know its
//! members. Everything outside reaches them through [`Groups`].

use std::sync::Arc;

use shoal_protocol::{GroupId, Refusal, SenderId, Seq, UserId, wire};
use tokio::sync::mpsc;

use crate::delivery::{Attachment, Signal, Tail};

/// Who asks: a user, and whether their token makes them an administrator of the service.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// May administer every group.
    pub admin: bool,
}

/// A message on its way to the home. The receipt comes through the permit, which the session
/// reserved before, so that answering never waits.
#[derive(Debug)]
pub struct Publish {
    /// Which group.
    pub group: GroupId,
    /// Who sends.
    pub sender: SenderId,
    /// The sender's number in this group.
    pub number: u64,
    /// What.
    pub message: wire::Message,
    /// Where the receipt goes.
    pub receipt: mpsc::OwnedPermit<wire::Receipt>,
}

/// Where a session wants to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The next Seq wanted.
    Watermark(Seq),
    /// The record of the member's own join.
    Join,
    /// Only what comes.
    Tail,
}

/// A session's cursor on its way to a tail.
#[derive(Debug)]
pub struct Follow {
    /// Which group.
    pub group: GroupId,
    /// The session.
    pub signal: Arc<Signal>,
    /// The session's number for this cursor.
    pub cursor: u32,
    /// Where to start.
    pub from: From,
}

/// A cursor that has been attached: its membership was checked, and what ends it will be told.
#[derive(Debug)]
pub struct Followed {
    /// The group's tail on this node.
    pub tail: Arc<Tail>,
    /// Its place there.
    pub attachment: Attachment,
    /// The first Seq that will come.
    pub from: Seq,
    /// The tail when it was attached.
    pub at: Seq,
}

/// The group layer of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups {}

impl Groups {
    /// Sends a message on its way. Never waits: a full queue is answered `Busy` through the permit.
    pub fn publish(&self, _publish: Publish) {
        unimplemented!()
    }

    /// Attaches a session's cursor to the group's tail, if the user is a member (or it is their
    /// own sequence). Cancellation: a cursor attached for nobody is taken off again.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotMember`, `Banned`, `WatermarkAhead`, `Busy`, `StoreUnavailable`.
    pub async fn follow(&self, _follow: Follow) -> Result<Followed, Refusal> {
        unimplemented!()
    }

    /// Carries out a change of membership, roles or settings, or creates a group.
    ///
    /// # Errors
    /// With the code that says what is not allowed.
    pub async fn change(&self, _actor: Actor, _change: wire::Change) -> Result<wire::Changed, Refusal> {
        unimplemented!()
    }

    /// The user's member row as the sub-group's owner knows it: for requests that members may make.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotMember`; an admin who is no member gets a row with `Role::None`.
    pub async fn authorize(&self, _actor: &Actor, _group: GroupId) -> Result<wire::Member, Refusal> {
        unimplemented!()
    }

    /// Puts a notice into a user's own sequence.
    ///
    /// # Errors
    /// `Busy`, `StoreUnavailable`.
    pub async fn notify(&self, _user: &UserId, _notice: wire::Notice) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Writes back what sleeping groups keep in memory and stops their tasks.
    pub async fn shut_down(&self) {
        unimplemented!()
    }
}
