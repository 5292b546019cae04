//! Error codes, and whether to retry.
//!
//! A code's number never changes its meaning; a number that a version does not know is read as
//! [`Code::Unknown`], which may be retried later.
//!
//! ```
//! use shoal_protocol::{Code, Refusal, Retry, wire};
//!
//! let failure = wire::Failure { code: 64, reason: "200 messages a second at most".into(), retry_after_ms: 40 };
//! let refusal = Refusal::from(failure);
//! assert_eq!(refusal.code, Code::TooFast);
//! assert_eq!(refusal.code.retry(), Retry::Later);
//! ```

use crate::wire;

/// Writes the enum and the list of all its codes from one source.
macro_rules! codes {
    ($(#[$about:meta])* pub enum Code { $($(#[$doc:meta])* $name:ident = $number:literal,)* }) => {
        $(#[$about])*
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// What went wrong, as it travels: in a [`wire::Failure`], and as the QUIC application error
    /// code of a connection or stream that is closed for it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[repr(u32)]
    pub enum Code {
        /// Nothing did: the peer is done.
        None = 0,

        // The peer broke the protocol.
        /// A frame that does not decode, or that has no place here.
        BadFrame = 1,
        /// A frame above the size limit.
        FrameTooLarge = 2,
        /// No version in common.
        VersionUnsupported = 3,
        /// A field that breaks its rules.
        BadRequest = 4,
        /// A hello that did not come in time, or heartbeats that stopped.
        TimedOut = 5,
        /// More streams, follows or requests than the limits allow.
        TooMany = 6,

        // Who are you?
        /// No token.
        TokenMissing = 16,
        /// A token that does not verify.
        TokenInvalid = 17,
        /// A token past its expiry.
        TokenExpired = 18,
        /// A token of another device.
        DeviceMismatch = 19,
        /// The same device has opened a session elsewhere.
        SessionReplaced = 20,

        // May you?
        /// No such group.
        UnknownGroup = 32,
        /// Not a member of the group.
        NotMember = 33,
        /// Muted in the group.
        Muted = 34,
        /// Banned from the group.
        Banned = 35,
        /// The member's role does not allow it.
        NotAllowed = 36,
        /// The group is closed for good.
        GroupClosed = 37,
        /// The group has as many members as its owner lets in.
        GroupFull = 38,
        /// A group with this id exists already.
        GroupExists = 39,
        /// The record referred to does not exist, or is no message.
        UnknownRecord = 40,
        /// The payload is above the limit.
        PayloadTooLarge = 41,

        // Numbers and positions.
        /// The device's incarnation has expired or was never issued: ask for a new one.
        IncarnationExpired = 48,
        /// The number's outcome is no longer kept.
        NumberForgotten = 49,
        /// A watermark above the tail: the sequence is not the one the client knew. An alarm.
        WatermarkAhead = 50,

        // Not now.
        /// Faster than the rate limit.
        TooFast = 64,
        /// A queue is full.
        Busy = 65,
        /// The node is going; others are named.
        Draining = 66,
        /// The store does not write; an operator must look.
        StoreUnavailable = 67,
        /// The node failed; its log says how.
        Internal = 68,
        /// Between nodes: the group's home is not here. Look up where it is now.
        NotHome = 69,
        /// A request in early data (0-RTT), which may be a replay: ask again once the handshake is done.
        TooEarly = 70,

        /// A code of a later version.
        Unknown = 255,
    }
}

/// What the one who is told may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same again will fail again.
    Never,
    /// The same again, after a while.
    Later,
    /// The same again, at another node at once.
    Elsewhere,
    /// Again with a new token, incarnation or session.
    Renewed,
}

impl Code {
    /// A number of the wire. One that this version does not know is [`Code::Unknown`].
    #[must_use]
    pub fn from_wire(number: u32) -> Self {
        Self::ALL.iter().copied().find(|code| code.number() == number).unwrap_or(Self::Unknown)
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// What the one who is told may do.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::TimedOut
            | Self::TooMany
            | Self::TooFast
            | Self::Busy
            | Self::StoreUnavailable
            | Self::Internal
            | Self::NotHome
            | Self::TooEarly
            | Self::Unknown => Retry::Later,
            Self::Draining => Retry::Elsewhere,
            Self::TokenMissing | Self::TokenInvalid | Self::TokenExpired | Self::IncarnationExpired => {
                Retry::Renewed
            }
            Self::None
            | Self::BadFrame
            | Self::FrameTooLarge
            | Self::VersionUnsupported
            | Self::BadRequest
            | Self::DeviceMismatch
            | Self::SessionReplaced
            | Self::UnknownGroup
            | Self::NotMember
            | Self::Muted
            | Self::Banned
            | Self::NotAllowed
            | Self::GroupClosed
            | Self::GroupFull
            | Self::GroupExists
            | Self::UnknownRecord
            | Self::PayloadTooLarge
            | Self::NumberForgotten
            | Self::WatermarkAhead => Retry::Never,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// A code with a sentence for whoever reads the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    /// What went wrong.
    pub code: Code,
    /// A sentence.
    pub reason: String,
    /// Wait at least this many milliseconds before a retry; 0 where there is nothing to say.
    pub retry_after_ms: u32,
}

impl Refusal {
    /// A code and its sentence.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry_after_ms: 0 }
    }
}

impl From<Refusal> for wire::Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.number(), reason: refusal.reason, retry_after_ms: refusal.retry_after_ms }
    }
}

impl From<wire::Failure> for Refusal {
    fn from(failure: wire::Failure) -> Self {
        Self {
            code: Code::from_wire(failure.code),
            reason: failure.reason,
            retry_after_ms: failure.retry_after_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_itself_again_after_the_wire() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code.number()), *code);
        }
    }

    #[test]
    fn no_number_is_used_twice() {
        assert!(Code::ALL.is_sorted_by(|one, next| one.number() < next.number()), "{:?}", Code::ALL);
    }

    #[test]
    fn every_other_number_is_unknown() {
        let known = |number| Code::ALL.iter().any(|code| code.number() == number);
        for number in (0..1000).chain([u32::MAX]).filter(|number| !known(*number)) {
            assert_eq!(Code::from_wire(number), Code::Unknown);
        }
    }

    #[test]
    fn a_refusal_is_itself_again_after_the_wire() {
        let refusal = Refusal { code: Code::Busy, reason: "a queue is full".into(), retry_after_ms: 7 };
        assert_eq!(Refusal::from(wire::Failure::from(refusal.clone())), refusal);
    }
}
