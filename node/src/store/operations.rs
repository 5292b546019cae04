//! What one commit does to the engine: the engine takes it as a batch, and the witness keeps it,
//! where it is small, as bytes of which the same batch can be made again.
//!
//! An operation's bytes are the key's length (2), the value's (4; all ones: the key is removed),
//! little-endian, the key and the value.

use fjall::{Database, Keyspace, OwnedWriteBatch, Slice};

const HEADER_BYTES: usize = 2 + 4;
const REMOVED: u32 = u32::MAX;

/// Keys with the values they get, or none where they are removed. Each key stands there once, so
/// that to do it all again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operations(Vec<(Slice, Option<Slice>)>);

impl Operations {
    pub(super) fn into_batch(self, database: &Database, keyspace: &Keyspace) -> OwnedWriteBatch {
        let mut batch = OwnedWriteBatch::with_capacity(database.clone(), self.0.len());
        for (key, value) in self.0 {
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch
    }

    /// None where they are more than so many bytes.
    pub(super) fn encode(&self, bytes_max: usize) -> Option<Vec<u8>> {
        let value_bytes = |value: &Option<Slice>| value.as_ref().map_or(0, |value| value.len());
        let bytes = self.0.iter().map(|(key, value)| HEADER_BYTES + key.len() + value_bytes(value)).sum();
        if bytes > bytes_max {
            return None;
        }
        let mut encoded = Vec::with_capacity(bytes);
        for (key, value) in &self.0 {
            let value_bytes = value.as_ref().map_or(Ok(REMOVED), |value| u32::try_from(value.len()));
            encoded.extend_from_slice(&u16::try_from(key.len()).ok()?.to_le_bytes());
            encoded.extend_from_slice(&value_bytes.ok()?.to_le_bytes());
            encoded.extend_from_slice(key);
            encoded.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        Some(encoded)
    }

    /// None where the bytes are not what [`Self::encode`] makes.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut operations = Vec::new();
        while !bytes.is_empty() {
            let key_bytes = u16::from_le_bytes(*bytes.split_off(..2)?.first_chunk()?);
            let value_bytes = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
            let key = bytes.split_off(..usize::from(key_bytes))?;
            let value = match value_bytes {
                REMOVED => None,
                value_bytes => Some(bytes.split_off(..usize::try_from(value_bytes).ok()?)?.into()),
            };
            operations.push((key.into(), value));
        }
        Some(Self(operations))
    }
}

impl FromIterator<(Slice, Option<Slice>)> for Operations {
    fn from_iter<T: IntoIterator<Item = (Slice, Option<Slice>)>>(operations: T) -> Self {
        Self(operations.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Slice> {
        vec(any::<u8>(), length).prop_map(Slice::from)
    }

    fn operations() -> impl Strategy<Value = Operations> {
        vec((bytes(1..40), option::of(bytes(0..300))), 0..20).prop_map(Operations)
    }

    proptest! {
        #[test]
        fn bytes_are_the_operations_again(operations in operations()) {
            let encoded = operations.encode(usize::MAX).unwrap();
            prop_assert_eq!(Operations::decode(&encoded), Some(operations));
        }

        #[test]
        fn no_more_bytes_are_made_than_there_is_room_for(operations in operations()) {
            let bytes = operations.encode(usize::MAX).unwrap().len();
            prop_assert!(operations.encode(bytes).is_some());
            prop_assert!(bytes == 0 || operations.encode(bytes - 1).is_none());
        }

        #[test]
        fn no_bytes_are_read_beyond_the_end(bytes in vec(any::<u8>(), 0..200)) {
            if let Some(operations) = Operations::decode(&bytes) {
                prop_assert_eq!(operations.encode(usize::MAX), Some(bytes));
            }
        }
    }
}
