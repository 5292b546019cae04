//! One slot of the witness: a commit's number, and where it is small the commit itself, twice. The
//! copies lie in blocks of their own: what damages one leaves the other.
//!
//! A copy is `witness`, its format (1 byte), the store's id (8), the commit's number (8), the bytes
//! of its operations (4; none: the number stands alone), XXH3 of all this and the operations (8),
//! the operations.

use std::{fs::File, io, os::unix::fs::FileExt};

use xxhash_rust::xxh3::Xxh3;

use crate::store::operations::Operations;

/// What a file system writes at once: less would have to be read first.
const BLOCK_BYTES: usize = 4 << 10;
pub(super) const MAGIC: &[u8; 7] = b"witness";
/// The format of the slots.
pub(in crate::store) const FORMAT: u8 = 2;
pub(super) const FIELDS_BYTES: usize = MAGIC.len() + 1 + 8 + 8 + 4;
pub(super) const HEADER_BYTES: usize = FIELDS_BYTES + 8;
const COPIES: usize = 2;

/// How a file is cut into slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) slots: usize,
    pub(super) copy_bytes: usize,
}

/// What one slot says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) store: u64,
    pub(super) commit: u64,
    pub(super) operations: Option<Operations>,
}

impl Layout {
    pub(super) const fn slot_bytes(self) -> usize {
        self.copy_bytes * COPIES
    }

    pub(super) const fn bytes(self) -> usize {
        self.slot_bytes() * self.slots
    }

    /// Of what is written into one commit, so many bytes fit.
    pub(super) const fn operations_bytes_max(self) -> usize {
        self.copy_bytes - HEADER_BYTES
    }

    /// Writes both copies; the caller syncs.
    pub(super) fn write(self, file: &File, slot: usize, copy: &[u8]) -> io::Result<()> {
        let at = |number| (slot * self.slot_bytes() + number * self.copy_bytes) as u64;
        (0..COPIES).try_for_each(|number| file.write_all_at(copy, at(number)))
    }

    /// The later one of the copies that are whole, for each slot: of a torn write, one may be.
    pub(super) fn read(self, file: &[u8]) -> impl Iterator<Item = Option<Slot>> {
        let copies =
            move |slot: &[u8]| slot.chunks(self.copy_bytes).filter_map(decode).max_by_key(|slot| slot.commit);
        file.chunks(self.slot_bytes()).map(copies)
    }
}

/// One copy, in whole blocks.
pub(super) fn encode(store: u64, commit: u64, operations: &[u8]) -> Vec<u8> {
    let operations_bytes = u32::try_from(operations.len()).expect("it fits into a slot");
    let bytes = (HEADER_BYTES + operations.len()).next_multiple_of(BLOCK_BYTES);
    let mut copy = Vec::with_capacity(bytes);
    copy.extend_from_slice(MAGIC);
    copy.push(FORMAT);
    copy.extend_from_slice(&store.to_le_bytes());
    copy.extend_from_slice(&commit.to_le_bytes());
    copy.extend_from_slice(&operations_bytes.to_le_bytes());
    let checksum = checksum(&copy, operations);
    copy.extend_from_slice(&checksum);
    copy.extend_from_slice(operations);
    copy.resize(bytes, 0);
    copy
}

fn decode(copy: &[u8]) -> Option<Slot> {
    let (fields, rest) = copy.split_first_chunk::<FIELDS_BYTES>()?;
    let (found, rest) = rest.split_first_chunk::<8>()?;
    let (numbers, operations_bytes) = fields[MAGIC.len() + 1..].split_last_chunk::<4>()?;
    let (store, commit) = numbers.split_first_chunk::<8>()?;
    let operations = rest.get(..usize::try_from(u32::from_le_bytes(*operations_bytes)).ok()?)?;
    if format(copy) != Some(FORMAT) || *found != checksum(fields, operations) {
        return None;
    }
    Some(Slot {
        store: u64::from_le_bytes(*store),
        commit: u64::from_le_bytes(*commit.first_chunk()?),
        operations: if operations.is_empty() { None } else { Some(Operations::decode(operations)?) },
    })
}

/// Of what begins as a copy does.
pub(super) fn format(copy: &[u8]) -> Option<u8> {
    copy.strip_prefix(MAGIC)?.first().copied()
}

fn checksum(fields: &[u8], operations: &[u8]) -> [u8; 8] {
    let mut hasher = Xxh3::new();
    hasher.update(fields);
    hasher.update(operations);
    hasher.digest().to_le_bytes()
}
