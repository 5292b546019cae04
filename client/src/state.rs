//! What the app may show of the connection.

use shoal_protocol::Refusal;
use tokio::time::Instant;

/// Where the client stands; see [`Client::state`](crate::Client::state).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Before the first session.
    Connecting,
    /// A session is live.
    Online {
        /// The node it is on, as it was named.
        node: String,
    },
    /// A session is live, but its node has not answered for longer than it should: weak reception, or none.
    /// What the app sends is on its way or queued.
    Degraded {
        /// The node it is on, as it was named.
        node: String,
        /// When that was noticed.
        since: Instant,
    },
    /// The session was lost; the client goes on trying. What the app sends is queued meanwhile.
    Reconnecting {
        /// When it was lost.
        since: Instant,
        /// Why, or why the last attempt failed.
        why: Lost,
        /// Attempts that failed since.
        attempt: u32,
    },
    /// It is over: nothing is tried any more.
    Closed {
        /// Why.
        why: Closed,
    },
}

impl State {
    /// Is a session live, as far as is known?
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. } | Self::Degraded { .. })
    }
}

/// Why there is no session at the moment. The client tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// No connection could be made, or it broke.
    #[error("{0}")]
    Network(String),
    /// The node stopped answering.
    #[error("the node does not answer")]
    Silent,
    /// The node refused, for now.
    #[error("{0}")]
    Refused(Refusal),
    /// The node said what makes no sense.
    #[error("the node broke the protocol: {0}")]
    Broken(String),
    /// The token source had none.
    #[error("{0}")]
    Token(crate::TokenError),
}

/// Why the client is closed. It stays closed; start another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The app closed it, or dropped all of its handles.
    #[error("closed by the app")]
    ByApp,
    /// The node refused for good: a token that does not verify or has expired for good, another
    /// device's token, a version that is not spoken, or this device's session was taken over by
    /// another client ([`SessionReplaced`](crate::Code::SessionReplaced)).
    #[error("{0}")]
    Refused(Refusal),
    /// What was saved belongs to another user than the token.
    #[error("what was saved belongs to {saved}, and the token to {token}")]
    OtherUser {
        /// Whose messages were saved.
        saved: String,
        /// Whom the token names.
        token: String,
    },
}

/// What the app is doing, as the platform tells it; see [`Client::set_activity`](crate::Client::set_activity).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activity {
    /// Somebody looks at it: heartbeats as often as the node asks for, every 5 s by default, so that a change
    /// of address or a node that is gone is found out soon.
    #[default]
    Foreground,
    /// It is to be reached, and nobody looks: a heartbeat every 25 s, the least that keeps a NAT's mapping.
    Background,
    /// It is about to stand still: no heartbeats, and no conclusion from silence. The node gives the session
    /// up after its idle timeout, and what comes meanwhile is delivered when the app is back.
    Suspended,
}
