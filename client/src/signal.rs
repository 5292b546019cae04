//! What may be lost: who is typing, who is there.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use prost::Message as _;
use shoal_protocol::{GroupId, UserId, wire};
use tokio::sync::mpsc;

/// How many signals wait for an app that does not read; further ones are dropped.
pub(crate) const SIGNALS_MAX: usize = 64;

/// Something about a member of a group that may be lost, and is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Where.
    pub group: GroupId,
    /// Who, as the node knows them.
    pub user: UserId,
    /// What.
    pub what: SignalKind,
}

/// What a [`Signal`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalKind {
    /// They are writing a message, or stopped.
    Typing(bool),
    /// They came, or went.
    Online(bool),
}

/// Signals from others; see [`Client::signals`](crate::Client::signals). Ends when the client is
/// closed.
#[derive(Debug)]
pub struct Signals {
    pub(crate) receiver: mpsc::Receiver<Signal>,
}

impl Signals {
    /// The next signal; none when the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Signal> {
        self.receiver.recv().await
    }
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Signal>> {
        self.receiver.poll_recv(context)
    }
}

impl Signal {
    /// From a datagram; none where it is of a later version or makes no sense.
    pub(crate) fn decode(datagram: Bytes) -> Option<Self> {
        let signal = wire::Signal::decode(datagram).ok()?;
        let what = match signal.what? {
            wire::signal::What::Typing(typing) => SignalKind::Typing(typing.active),
            wire::signal::What::Online(online) => SignalKind::Online(online.online),
        };
        Some(Self {
            group: GroupId::from_wire(&signal.group).ok()?,
            user: UserId::new(&signal.user).ok()?,
            what,
        })
    }
}

impl SignalKind {
    /// As a datagram; the node fills in who.
    pub(crate) fn encode(self, group: GroupId) -> Bytes {
        let what = match self {
            Self::Typing(active) => wire::signal::What::Typing(wire::Typing { active }),
            Self::Online(online) => wire::signal::What::Online(wire::Online { online }),
        };
        let signal = wire::Signal { group: group.to_wire(), user: String::new(), what: Some(what) };
        signal.encode_to_vec().into()
    }
}
