//! Frames: a varint length, then a protobuf body.
//!
//! ```
//! use shoal_protocol::{FrameBuffer, frame, wire};
//!
//! let frame = frame::encode(&wire::HeartbeatAck { token: 7, time_ms: 1_790_000_000_000 });
//! let (first, rest) = frame.split_at(3);
//!
//! let mut stream = FrameBuffer::new(frame::FRAME_BYTES_MAX);
//! stream.push(frame.slice_ref(first));
//! assert_eq!(stream.next_message::<wire::HeartbeatAck>()?, None, "its end has not come");
//! stream.push(frame.slice_ref(rest));
//! assert_eq!(stream.next_message::<wire::HeartbeatAck>()?.map(|ack| ack.token), Some(7));
//! stream.finish()?;
//! # Ok::<(), shoal_protocol::FrameError>(())
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{Message, encoding};

use crate::{Code, wire};

/// The most bytes in the body of any frame. A request to add 10,000 members, with ids of the
/// greatest length, takes two thirds of it.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// The most bytes in the body of a hello, which a node reads from whoever connects, before it knows
/// who it is: a token, and some 1,800 follows. Decoded, it can take thirty times as much memory.
pub const HELLO_BYTES_MAX: usize = 64 << 10;

/// The longest length prefix that is read: 4 bytes say up to 256 MiB.
const PREFIX_BYTES_MAX: usize = 4;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is above the limit, or its varint does not end.
    #[error("a frame of more than {limit} bytes")]
    TooLarge {
        /// The most bytes allowed here.
        limit: usize,
    },
    /// The body is not the message that belongs here.
    #[error("a frame that does not decode: {0}")]
    Body(String),
    /// The stream ended inside a frame.
    #[error("a frame cut off")]
    CutOff,
}

impl FrameError {
    /// The code to close the stream or connection with.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::FrameTooLarge,
            Self::Body(_) | Self::CutOff => Code::BadFrame,
        }
    }
}

/// Encodes one message as one frame. The other side's limit is not looked at.
#[must_use]
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(encoding::encoded_len_varint(length as u64) + length);
    encode_into(message, &mut bytes);
    bytes.freeze()
}

/// Appends one message as one frame.
pub fn encode_into(message: &impl Message, out: &mut BytesMut) {
    encoding::encode_varint(message.encoded_len() as u64, out);
    message.encode(out).expect("a BytesMut grows as needed");
}

/// A record as a [`wire::Delivery`] frame, encoded once for the store, the feeds and all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFrame {
    frame: Bytes,
    record_at: usize,
}

impl RecordFrame {
    /// Encodes a record.
    #[must_use]
    pub fn encode(record: &wire::Record) -> Self {
        let mut out = Self::prefix(record.encoded_len());
        let record_at = out.len();
        record.encode(&mut out).expect("a BytesMut grows as needed");
        Self { frame: out.freeze(), record_at }
    }

    /// Frames a record that is encoded already, as the store keeps it.
    #[must_use]
    pub fn from_encoded(record: &[u8]) -> Self {
        let mut out = Self::prefix(record.len());
        let record_at = out.len();
        out.put_slice(record);
        Self { frame: out.freeze(), record_at }
    }

    /// Frames a record again that came as the body of a [`wire::Delivery`] frame, byte for byte:
    /// what a later version has put into it stays.
    ///
    /// # Errors
    /// [`FrameError::Body`] where it holds no record.
    pub fn from_delivery(body: Bytes) -> Result<Self, FrameError> {
        #[derive(prost::Message)]
        struct Encoded {
            #[prost(bytes = "bytes", optional, tag = "1")]
            record: Option<Bytes>,
        }
        let record = decode::<Encoded>(body)?.record;
        let record = record.ok_or_else(|| FrameError::Body("a delivery without a record".into()))?;
        Ok(Self::from_encoded(&record))
    }

    /// The whole frame, as a delivery stream carries it.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The encoded [`wire::Record`] in it, sharing its memory.
    #[must_use]
    pub fn record(&self) -> Bytes {
        self.frame.slice(self.record_at..)
    }

    /// Is it one that members need not see? Nothing else of it is decoded.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        #[derive(prost::Message)]
        struct Mark {
            #[prost(bool, tag = "10")]
            silent: bool,
        }
        // What does not decode is for its reader to find.
        Mark::decode(self.record()).is_ok_and(|mark| mark.silent)
    }

    /// `Delivery { record }` around `record_len` bytes, up to where these begin.
    fn prefix(record_len: usize) -> BytesMut {
        const RECORD_FIELD: u32 = 1;
        let inner =
            encoding::key_len(RECORD_FIELD) + encoding::encoded_len_varint(record_len as u64) + record_len;
        let mut out = BytesMut::with_capacity(encoding::encoded_len_varint(inner as u64) + inner);
        encoding::encode_varint(inner as u64, &mut out);
        encoding::encode_key(RECORD_FIELD, encoding::WireType::LengthDelimited, &mut out);
        encoding::encode_varint(record_len as u64, &mut out);
        out
    }
}

/// Finds frames in the chunks of a stream.
///
/// A frame that lies within one chunk is a slice of it; only one that is spread over chunks is
/// put together. Memory is bounded by the frame limit and the chunk that was pushed last.
#[derive(Debug)]
pub struct FrameBuffer {
    limit: usize,
    chunk: Bytes,
    /// The beginning of a frame whose end has not come.
    partial: BytesMut,
}

impl FrameBuffer {
    /// A buffer for frames of up to `limit` bytes of body.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// Allows up to `limit` bytes of body in the frames from here on: more, once it is known who
    /// sends them.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds what the stream brought. Call [`Self::next_frame`] until it has no more before the
    /// next push; what is left over otherwise is copied, and counts towards no limit.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = chunk;
        }
    }

    /// The body of the next whole frame. It shares the memory of the chunk it came in, which lives
    /// as long: copy what is kept for long.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], now and for ever after: the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if !self.partial.is_empty() {
            return self.complete_partial();
        }
        match parse_prefix(&self.chunk, self.limit)? {
            Some((prefix, body)) if self.chunk.len() >= prefix + body => {
                self.chunk.advance(prefix);
                Ok(Some(self.chunk.split_to(body)))
            }
            _ => {
                self.partial.extend_from_slice(&self.chunk);
                self.chunk = Bytes::new();
                Ok(None)
            }
        }
    }

    /// The next frame, decoded.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] or [`FrameError::Body`]; close the stream with its code.
    pub fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        self.next_frame()?.map(decode).transpose()
    }

    /// The stream has ended: was it at the end of a frame?
    ///
    /// # Errors
    /// [`FrameError::CutOff`] where it was not.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() && self.chunk.is_empty() { Ok(()) } else { Err(FrameError::CutOff) }
    }

    /// Moves bytes from the chunk until the partial frame is whole.
    fn complete_partial(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let wanted = match parse_prefix(&self.partial, self.limit)? {
                Some((prefix, body)) if self.partial.len() >= prefix + body => {
                    self.partial.advance(prefix);
                    let frame = self.partial.split_to(body).freeze();
                    if self.partial.is_empty() {
                        // What is left of it would keep the frame's memory, however long nothing comes.
                        self.partial = BytesMut::new();
                    }
                    return Ok(Some(frame));
                }
                Some((prefix, body)) => prefix + body - self.partial.len(),
                None => 1,
            };
            if self.chunk.is_empty() {
                return Ok(None);
            }
            let taken = self.chunk.split_to(wanted.min(self.chunk.len()));
            self.partial.extend_from_slice(&taken);
        }
    }
}

/// Decodes a frame's body; `bytes` fields share its memory.
///
/// # Errors
/// [`FrameError::Body`] where it is not such a message.
pub fn decode<M: Message + Default>(body: Bytes) -> Result<M, FrameError> {
    M::decode(body).map_err(|error| FrameError::Body(error.to_string()))
}

/// The lengths of prefix and body, once the prefix is there.
fn parse_prefix(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().take(PREFIX_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return if length <= limit {
                Ok(Some((at + 1, length)))
            } else {
                Err(FrameError::TooLarge { limit })
            };
        }
    }
    if bytes.len() >= PREFIX_BYTES_MAX { Err(FrameError::TooLarge { limit }) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
