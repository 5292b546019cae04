//! Messages on their way to a group.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use shoal_protocol::{Refusal, Seq, wire};
use tokio::sync::oneshot;

use crate::shell::queue::Outcome;

/// The largest payload that is ever sent; nodes have a bound of their own, 64 KiB by default.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What to send to a group. Payloads convert to a new message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub(crate) wire: wire::Message,
}

impl Message {
    /// A new message. Shoal does not look into payloads: encrypt them end to end if you like.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self::about(wire::message::Kind::New, 0, payload.into())
    }

    /// Replaces the payload of one's own earlier message at `seq`, from this place on.
    #[must_use]
    pub fn edit(seq: Seq, payload: impl Into<Bytes>) -> Self {
        Self::about(wire::message::Kind::Edit, seq.get(), payload.into())
    }

    /// Takes back one's own message at `seq` (an admin may take back anybody's). Its payload is
    /// removed from the store too.
    #[must_use]
    pub fn recall(seq: Seq) -> Self {
        Self::about(wire::message::Kind::Recall, seq.get(), Bytes::new())
    }

    /// A reaction to the message at `seq`.
    #[must_use]
    pub fn reaction(seq: Seq, payload: impl Into<Bytes>) -> Self {
        Self::about(wire::message::Kind::Reaction, seq.get(), payload.into())
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.wire.payload
    }

    fn about(kind: wire::message::Kind, refers_to: u64, payload: Bytes) -> Self {
        Self { wire: wire::Message { kind: kind.into(), payload, refers_to, recalled_by: 0 } }
    }
}

impl From<wire::Message> for Message {
    fn from(wire: wire::Message) -> Self {
        Self { wire }
    }
}

impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Self {
        Self::new(payload)
    }
}

impl From<Vec<u8>> for Message {
    fn from(payload: Vec<u8>) -> Self {
        Self::new(payload)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}

/// A message that is queued: a future of its receipt. From [`Client::send`](crate::Client::send).
///
/// The message goes its way whether this is awaited, dropped or forgotten.
#[derive(Debug)]
#[must_use = "a message may be refused; drop it explicitly if that does not matter"]
pub struct Sending {
    pub(crate) receipt: oneshot::Receiver<Outcome>,
}

impl Future for Sending {
    type Output = Result<Seq, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = Pin::new(&mut self.receipt).poll(context);
        receipt.map(|receipt| receipt.unwrap_or(Err(PublishError::Closed)))
    }
}

/// Why a message was not sent, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It was refused for good and is not in the group. The code says why:
    ///
    /// - [`Muted`](crate::Code::Muted), [`NotAllowed`](crate::Code::NotAllowed),
    ///   [`GroupClosed`](crate::Code::GroupClosed), [`UnknownRecord`](crate::Code::UnknownRecord),
    ///   [`PayloadTooLarge`](crate::Code::PayloadTooLarge): this message alone;
    /// - [`NotMember`](crate::Code::NotMember), [`Banned`](crate::Code::Banned),
    ///   [`UnknownGroup`](crate::Code::UnknownGroup): all that were queued for the group with it.
    ///
    /// What may pass (too fast, busy, a node that goes) is never told here: the client waits and
    /// tries again, in order.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It may be in the group or not: it had been sent and had no receipt when this device was away
    /// for so long that the node forgot its numbers, or when its user was no member any more (a copy
    /// still on its way would count if the user becomes one again). Look at the history before sending
    /// it again.
    #[error("outcome unknown: {0}")]
    Unknown(Refusal),
    /// The payload is above the node's limit; it was not queued.
    #[error("a payload of {bytes} bytes; the most is {bytes_max}")]
    TooLarge {
        /// Of this payload.
        bytes: usize,
        /// Allowed.
        bytes_max: usize,
    },
    /// The client was closed before there was a receipt. [`Client::save`](crate::Client::save)
    /// still has the message, if it was queued, and [`Client::state`](crate::Client::state) says why.
    #[error("the client is closed (its state says why)")]
    Closed,
}
