//! Frames that are due on a stream, so that whoever writes them can read meanwhile.

use bytes::{Buf, BytesMut};
use prost::Message;
use quinn::SendStream;
use shoal_protocol::frame;

use super::framed::LinkError;

/// A stream, and what it has not taken yet.
pub(super) struct Outbox {
    stream: SendStream,
    due: BytesMut,
}

impl Outbox {
    /// Above, nothing should be read that would add to it.
    const BYTES_MAX: usize = 256 << 10;

    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, due: BytesMut::new() }
    }

    pub(super) fn put(&mut self, message: &impl Message) {
        frame::encode_into(message, &mut self.due);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.due.len() < Self::BYTES_MAX
    }

    /// Writes some of what is due. Cancellation safe.
    pub(super) async fn write(&mut self) -> Result<(), LinkError> {
        let written = self.stream.write(&self.due).await?;
        self.due.advance(written);
        if self.due.is_empty() {
            self.due = BytesMut::new();
        }
        Ok(())
    }

    /// Writes all of it.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.is_empty() {
            self.write().await?;
        }
        Ok(())
    }
}
