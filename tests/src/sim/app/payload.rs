//! What apps write: a message's number, and filling that makes some messages span datagrams.

use bytes::{BufMut, Bytes, BytesMut};

use crate::sim::chronicle::MessageId;

const MAGIC: &[u8; 4] = b"sim!";

/// The least bytes of a payload.
const BYTES_MIN: usize = MAGIC.len() + 8;

/// A message's payload of about so many bytes.
pub(super) fn write(message: MessageId, bytes: usize) -> Bytes {
    let mut payload = BytesMut::with_capacity(bytes.max(BYTES_MIN));
    payload.put_slice(MAGIC);
    payload.put_u64(message.0);
    while payload.len() < bytes {
        payload.put_u8((message.0 as usize + payload.len()) as u8);
    }
    payload.freeze()
}

/// The number in it.
pub(super) fn read(payload: &[u8]) -> Option<MessageId> {
    let (number, filling) = payload.strip_prefix(MAGIC)?.split_first_chunk()?;
    let message = MessageId(u64::from_be_bytes(*number));
    let is_whole = filling.iter().zip(BYTES_MIN..).all(|(byte, at)| *byte == (message.0 as usize + at) as u8);
    is_whole.then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_altered_filling_is_not() {
        for bytes in [0, 12, 13, 3000] {
            let mut payload = write(MessageId(77), bytes).to_vec();
            assert_eq!(read(&payload), Some(MessageId(77)));
            if let Some(last) = payload.get_mut(12..).and_then(<[u8]>::last_mut) {
                *last ^= 1;
                assert_eq!(read(&payload), None);
            }
        }
    }
}
