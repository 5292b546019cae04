//! Frames on the streams between nodes.

use std::time::Duration;

use prost::Message;
use quinn::{ConnectError, ConnectionError, ReadError, RecvStream, VarInt, WriteError};
use shoal_protocol::{Code, FrameBuffer, FrameError, Refusal};

/// How much is read from a stream at once.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Why a link, or a stream of it, is no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("it cannot be reached: {0}")]
    Connect(#[from] ConnectError),
    #[error("its address is unknown: {0}")]
    Address(String),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("a stream was ended from the other side")]
    Stream,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no sign of life for {0:?}")]
    Silent(Duration),
}

impl LinkError {
    /// What the other node is told.
    pub(super) fn wire_code(&self) -> VarInt {
        let code = match self {
            Self::Frame(error) => error.code(),
            Self::Refused(refusal) => refusal.code,
            Self::Silent(_) => Code::TimedOut,
            Self::Connect(_) | Self::Address(_) | Self::Connection(_) | Self::Stream => Code::None,
        };
        VarInt::from_u32(code.number())
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Stream,
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Stream,
        }
    }
}

/// The receiving half of a stream, by frame.
pub(super) struct Frames {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl Frames {
    /// Frames of up to `bytes_max`.
    pub(super) fn new(stream: RecvStream, bytes_max: usize) -> Self {
        Self { stream, buffer: FrameBuffer::new(bytes_max) }
    }

    /// The next message; none at the end of the stream. Cancellation safe.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, LinkError> {
        loop {
            if let Some(message) = self.buffer.next_message()? {
                return Ok(Some(message));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// What has been read and not been taken.
    pub(super) fn buffer(&mut self) -> &mut FrameBuffer {
        &mut self.buffer
    }

    /// Reads on, once [`Self::buffer`] has no more frames; false at the end. Cancellation safe.
    pub(super) async fn fill(&mut self) -> Result<bool, LinkError> {
        match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await? {
            Some(chunk) => {
                self.buffer.push(chunk.bytes);
                Ok(true)
            }
            None => {
                self.buffer.finish()?;
                Ok(false)
            }
        }
    }

    /// Wants no more of this stream.
    pub(super) fn stop(&mut self) {
        // One that has ended already needs no stopping.
        let _ = self.stream.stop(VarInt::from_u32(Code::None.number()));
    }
}
