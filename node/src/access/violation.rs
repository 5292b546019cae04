//! What a client did that ends a stream or its connection.

use quinn::{ReadError, RecvStream, SendStream, VarInt};
use shoal_protocol::{Code, FrameError, Refusal};

/// Why a stream of a client's is read no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// It broke the protocol.
    #[error(transparent)]
    Broken(#[from] Refusal),
    /// It took the stream back, or is gone.
    #[error("the stream is gone")]
    Gone,
}

impl Violation {
    pub(super) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self::Broken(Refusal::new(code, reason))
    }

    /// For a stream whose loss is the connection's.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Broken(refusal) => refusal,
            Self::Gone => Refusal::new(Code::None, "the client is gone"),
        }
    }

    /// Ends the stream, both ways, with the code.
    pub(super) fn end(&self, send: &mut SendStream, recv: &mut RecvStream) {
        let code = match self {
            Self::Broken(refusal) => refusal.code,
            Self::Gone => Code::None,
        };
        // Both fail only where the stream has ended already.
        let _ = send.reset(wire_code(code));
        let _ = recv.stop(wire_code(code));
    }
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<ReadError> for Violation {
    fn from(_: ReadError) -> Self {
        Self::Gone
    }
}

impl From<quinn::WriteError> for Violation {
    fn from(_: quinn::WriteError) -> Self {
        Self::Gone
    }
}

/// A code as QUIC carries it.
pub(super) fn wire_code(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}
