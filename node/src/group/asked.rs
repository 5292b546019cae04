//! What the group layer is asked for: a message to take, a cursor to attach.

use std::sync::Arc;

use shoal_protocol::{GroupId, SenderId, Seq, UserId, wire};
use tokio::time::Instant;

use super::ReceiptTo;
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
    pub receipt: ReceiptTo,
    /// When it came to this node.
    pub arrived: Instant,
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
