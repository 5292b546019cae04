//! The end of a handshake. What a client says before (in early data) may be a replay; who is there at its end is
//! the client.

use quinn::ZeroRttAccepted;

/// See the module.
pub(super) struct Handshake {
    ends: ZeroRttAccepted,
    has_ended: bool,
}

impl Handshake {
    pub(super) fn new(ends: ZeroRttAccepted) -> Self {
        Self { ends, has_ended: false }
    }

    /// Waits for its end, or that of the connection; may be asked again and again. Cancellation safe.
    pub(super) async fn ended(&mut self) {
        if !self.has_ended {
            (&mut self.ends).await;
            self.has_ended = true;
        }
    }
}
