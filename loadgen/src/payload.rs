//! What a message carries, so that its receiver can be checked: who sent it, which of theirs it
//! is, when it was meant to be sent, and a checksum over all of it.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// The least bytes a payload has.
pub const PAYLOAD_BYTES_MIN: usize = HEADER_BYTES + CHECKSUM_BYTES;

const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8;
const CHECKSUM_BYTES: usize = 8;

/// One message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// The run, so that nothing left over from another is taken for this one's.
    pub run: u64,
    /// The group's number in the run.
    pub group: u32,
    /// The sender's number in the group.
    pub sender: u32,
    /// The sender's messages are numbered 1, 2, 3, …
    pub number: u64,
    /// When it was meant to be sent, nanoseconds since the run began.
    pub intended_ns: u64,
}

/// A payload that arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub payload: Payload,
    /// Stands for all its bytes.
    pub checksum: u64,
}

/// A payload that is not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Shorter than any payload of a run.
    #[error("{0} bytes are too short for a payload")]
    Short(usize),
    /// The checksum does not fit the bytes.
    #[error("the checksum does not fit")]
    Checksum,
    /// It is whole, but of another run or group.
    #[error("a message of another run or group")]
    Stray,
}

impl Payload {
    /// Encodes it in `length` bytes, or in [`PAYLOAD_BYTES_MIN`] where `length` is below that.
    #[must_use]
    pub fn encode(&self, length: usize) -> Bytes {
        let length = length.max(PAYLOAD_BYTES_MIN);
        let mut out = BytesMut::with_capacity(length);
        out.put_u64(self.run);
        out.put_u32(self.group);
        out.put_u32(self.sender);
        out.put_u64(self.number);
        out.put_u64(self.intended_ns);
        // Filling that differs from message to message, so that bytes of two cannot be swapped.
        let mut state = self.run ^ self.number.rotate_left(32) ^ u64::from(self.sender);
        while out.len() < length - CHECKSUM_BYTES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.put_u8((state >> 56) as u8);
        }
        out.put_u64(xxh3_64(&out));
        out.freeze()
    }

    /// Decodes and checks what a receiver of `run` and `group` got.
    ///
    /// # Errors
    /// [`PayloadError`] where it is not what anybody sent there.
    pub fn decode(bytes: &[u8], run: u64, group: u32) -> Result<Received, PayloadError> {
        let short = PayloadError::Short(bytes.len());
        if bytes.len() < PAYLOAD_BYTES_MIN {
            return Err(short);
        }
        let (body, tail) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
        let checksum = u64::from_be_bytes(*tail);
        if xxh3_64(body) != checksum {
            return Err(PayloadError::Checksum);
        }
        let payload = Self::read(body).ok_or(short)?;
        if payload.run != run || payload.group != group {
            return Err(PayloadError::Stray);
        }
        Ok(Received { payload, checksum })
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (run, rest) = body.split_first_chunk()?;
        let (group, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (intended_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_be_bytes(*run),
            group: u32::from_be_bytes(*group),
            sender: u32::from_be_bytes(*sender),
            number: u64::from_be_bytes(*number),
            intended_ns: u64::from_be_bytes(*intended_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Payload = Payload { run: 7, group: 3, sender: 299, number: 12, intended_ns: 5_000_000_001 };

    #[test]
    fn what_was_sent_is_what_is_read() {
        for length in [0, PAYLOAD_BYTES_MIN, 128, 4096] {
            let bytes = SENT.encode(length);
            assert_eq!(bytes.len(), length.max(PAYLOAD_BYTES_MIN));
            assert_eq!(Payload::decode(&bytes, 7, 3).unwrap().payload, SENT);
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = SENT.encode(128);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Payload::decode(&damaged, 7, 3), Err(PayloadError::Checksum), "bit {bit}");
        }
    }

    #[test]
    fn a_message_cut_short_or_of_another_run_is_refused() {
        let bytes = SENT.encode(128);
        assert_eq!(Payload::decode(&bytes[..10], 7, 3), Err(PayloadError::Short(10)));
        assert_eq!(Payload::decode(&bytes[..100], 7, 3), Err(PayloadError::Checksum));
        assert_eq!(Payload::decode(&bytes, 8, 3), Err(PayloadError::Stray));
        assert_eq!(Payload::decode(&bytes, 7, 2), Err(PayloadError::Stray));
    }
}
