//! Frames on QUIC streams.

use prost::Message;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use shoal_protocol::{Code, FrameBuffer, FrameError, Refusal, frame};

use crate::Lost;

/// How much is read from a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Why a stream brought no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The connection is gone.
    Connection(ConnectionError),
    /// The stream was reset or stopped.
    Stream(Code),
    /// What came is no frame.
    Frame(FrameError),
}

impl StreamError {
    /// As a reason for the loss of the session.
    pub(crate) fn into_lost(self) -> Lost {
        match self {
            Self::Connection(error) => lost(&error),
            Self::Stream(code) => Lost::Broken(format!("a stream was closed: {code}")),
            Self::Frame(error) => Lost::Broken(error.to_string()),
        }
    }

    /// The code to close the connection with, where the peer broke the protocol.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Frame(error) => error.code(),
            Self::Connection(_) | Self::Stream(_) => Code::None,
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Connection(error),
            ReadError::Reset(code) => Self::Stream(code_of(code)),
            _ => Self::Stream(Code::Unknown),
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Connection(error),
            WriteError::Stopped(code) => Self::Stream(code_of(code)),
            _ => Self::Stream(Code::Unknown),
        }
    }
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// The protocol's code in a QUIC one.
pub(crate) fn code_of(code: VarInt) -> Code {
    u32::try_from(code.into_inner()).map_or(Code::Unknown, Code::from_wire)
}

/// What the node said when it closed the connection, if it was the node that did.
pub(crate) fn refusal_of(error: &ConnectionError) -> Option<Refusal> {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = code_of(close.error_code);
            Some(Refusal::new(code, String::from_utf8_lossy(&close.reason)))
        }
        _ => None,
    }
}

/// Why a session is gone, as the app may be told.
pub(crate) fn lost(error: &ConnectionError) -> Lost {
    match refusal_of(error) {
        Some(refusal) if refusal.code != Code::None => Lost::Refused(refusal),
        Some(_) => Lost::Network("the node closed the connection".to_owned()),
        None => Lost::Network(error.to_string()),
    }
}

/// The receiving half of a stream, by frame.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    frames: FrameBuffer,
}

impl FrameReader {
    /// Frames of up to `limit` bytes.
    pub(crate) fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, frames: FrameBuffer::new(limit) }
    }

    /// The next message; none at the end of the stream.
    ///
    /// Cancel safe: what has been read stays in the buffer.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, StreamError> {
        loop {
            if let Some(message) = self.frames.next_message()? {
                return Ok(Some(message));
            }
            if !self.fill().await? {
                self.frames.finish()?;
                return Ok(None);
            }
        }
    }

    /// What has been read and not been taken.
    pub(crate) fn frames(&mut self) -> &mut FrameBuffer {
        &mut self.frames
    }

    /// Reads a chunk; call it only when [`Self::frames`] has no more frames. Whether there was one.
    pub(crate) async fn fill(&mut self) -> Result<bool, StreamError> {
        match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await? {
            Some(chunk) => {
                self.frames.push(chunk.bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Wants no more of this stream.
    pub(crate) fn stop(&mut self, code: Code) {
        // A stream that has ended already needs no stopping.
        let _ = self.stream.stop(VarInt::from_u32(code as u32));
    }
}

/// Writes one message as one frame.
pub(crate) async fn write(stream: &mut SendStream, message: &impl Message) -> Result<(), StreamError> {
    Ok(stream.write_chunk(frame::encode(message)).await?)
}
