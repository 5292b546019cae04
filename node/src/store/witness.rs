//! How far the store had got, kept outside the engine.
//!
//! An engine that opens a damaged log may take the damage for the log's end and come up without its
//! last commits, and without a word. So the number of each commit is written here, and synced,
//! before the commit is acknowledged; a store that opens below its witness has lost what it had
//! acknowledged.
//!
//! A small commit stands here whole. Then witness and journal can be synced side by side: a commit
//! that only one of them has is either passed by or written again, whether it was acknowledged or
//! not, where a bare number without its commit could not be told from a loss.
//!
//! Two slots are written in turn, so that a torn write leaves the other one. Nothing that is needed
//! is ever overwritten: whoever writes a commit here has all that came before it in the journal.
//!
//! A slot is `witness`, its format (1 byte), the store's id (8), the commit's number (8), the bytes
//! of its operations (4; none: the number stands alone), XXH3 of all this and the operations (8),
//! the operations.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

use super::{operations::Operations, settle};

/// Full blocks, written at creation: to overwrite them needs no change of the file's metadata,
/// which makes the sync quick, and hardly slower for four than for one. One append by one sender
/// fits; what does not is a batch of many, whose next one is written meanwhile.
const SLOT_BYTES: usize = 16 << 10;
const SLOTS: usize = 2;
const MAGIC: &[u8; 7] = b"witness";
/// The format of the slots.
pub(super) const FORMAT: u8 = 1;
const FIELDS_BYTES: usize = MAGIC.len() + 1 + 8 + 8 + 4;
const HEADER_BYTES: usize = FIELDS_BYTES + 8;
/// What fits into a slot.
pub(super) const OPERATIONS_BYTES_MAX: usize = SLOT_BYTES - HEADER_BYTES;

/// The file, open for the next commit.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    store: u64,
    /// The last commit in it.
    commit: u64,
    /// The slot to write next: not the one that was written last.
    slot: usize,
}

/// What a witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Of which store.
    pub(super) store: u64,
    /// The last commit that may have been acknowledged.
    pub(super) commit: u64,
    /// What that commit does. Without it, the journal had the commit before the witness did.
    pub(super) operations: Option<Operations>,
}

/// Why a witness says nothing.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    /// It was written by another version.
    Format(u8),
    Damaged,
}

impl Testimony {
    /// The last commit that the engine must have without the witness's help.
    pub(super) fn journaled(&self) -> u64 {
        if self.operations.is_some() { self.commit.saturating_sub(1) } else { self.commit }
    }
}

impl Witness {
    /// A new file, synced, in the place of any that is there; the caller syncs the folder.
    pub(super) fn create(path: &Path, store: u64, commit: u64) -> io::Result<Self> {
        let new = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        let mut slots = vec![0; SLOT_BYTES * SLOTS];
        let encoded = encode(store, commit, &[]);
        slots.chunks_mut(SLOT_BYTES).for_each(|slot| slot[..encoded.len()].copy_from_slice(&encoded));
        file.write_all_at(&slots, 0)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(Self { file, store, commit, slot: 0 })
    }

    /// The file to go on with, and what the disk holds of it.
    pub(super) fn open(path: &Path) -> Result<(Self, Testimony), Unreadable> {
        settle::reread(path).map_err(Unreadable::Io)?;
        let (last, testimony) = read(&fs::read(path).map_err(Unreadable::Io)?)?;
        let file = OpenOptions::new().write(true).open(path).map_err(Unreadable::Io)?;
        let Testimony { store, commit, .. } = testimony;
        Ok((Self { file, store, commit, slot: other(last) }, testimony))
    }

    pub(super) fn has(&self, commit: u64) -> bool {
        commit <= self.commit
    }

    /// Durable once it returns. Without operations, the journal must have the commit already;
    /// with them, the one before.
    pub(super) fn record(&mut self, commit: u64, operations: &[u8]) -> io::Result<()> {
        let encoded = encode(self.store, commit, operations);
        self.file.write_all_at(&encoded, (self.slot * SLOT_BYTES) as u64)?;
        self.file.sync_data()?;
        (self.commit, self.slot) = (commit, other(self.slot));
        Ok(())
    }
}

/// The slot written last, of those that are whole, and what it says.
pub(super) fn read(file: &[u8]) -> Result<(usize, Testimony), Unreadable> {
    let slots = file.chunks(SLOT_BYTES).take(SLOTS);
    let whole = slots.clone().enumerate().filter_map(|(at, slot)| Some((at, decode(slot)?)));
    if let Some(last) = whole.max_by_key(|(_, testimony)| testimony.commit) {
        return Ok(last);
    }
    let unknown = slots.filter_map(format).find(|format| *format != FORMAT);
    Err(unknown.map_or(Unreadable::Damaged, Unreadable::Format))
}

fn other(slot: usize) -> usize {
    (slot + 1) % SLOTS
}

fn encode(store: u64, commit: u64, operations: &[u8]) -> Vec<u8> {
    let operations_bytes = u32::try_from(operations.len()).expect("it fits into a slot");
    let mut slot = Vec::with_capacity(HEADER_BYTES + operations.len());
    slot.extend_from_slice(MAGIC);
    slot.push(FORMAT);
    slot.extend_from_slice(&store.to_le_bytes());
    slot.extend_from_slice(&commit.to_le_bytes());
    slot.extend_from_slice(&operations_bytes.to_le_bytes());
    let checksum = checksum(&slot, operations);
    slot.extend_from_slice(&checksum);
    slot.extend_from_slice(operations);
    slot
}

fn decode(slot: &[u8]) -> Option<Testimony> {
    let (fields, rest) = slot.split_first_chunk::<FIELDS_BYTES>()?;
    let (found, rest) = rest.split_first_chunk::<8>()?;
    let (numbers, operations_bytes) = fields[MAGIC.len() + 1..].split_last_chunk::<4>()?;
    let (store, commit) = numbers.split_first_chunk::<8>()?;
    let operations = rest.get(..usize::try_from(u32::from_le_bytes(*operations_bytes)).ok()?)?;
    if format(slot) != Some(FORMAT) || *found != checksum(fields, operations) {
        return None;
    }
    Some(Testimony {
        store: u64::from_le_bytes(*store),
        commit: u64::from_le_bytes(*commit.first_chunk()?),
        operations: if operations.is_empty() { None } else { Some(Operations::decode(operations)?) },
    })
}

fn format(slot: &[u8]) -> Option<u8> {
    slot.strip_prefix(MAGIC)?.first().copied()
}

fn checksum(fields: &[u8], operations: &[u8]) -> [u8; 8] {
    let mut hasher = Xxh3::new();
    hasher.update(fields);
    hasher.update(operations);
    hasher.digest().to_le_bytes()
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests {
    use fjall::Slice;

    use super::*;

    fn operations(commit: u64) -> Operations {
        let key = |text: &str| Slice::from(text.as_bytes());
        let value = Slice::from(commit.to_le_bytes().as_slice());
        [(key("a key"), Some(value)), (key("another"), None)].into_iter().collect()
    }

    fn encoded(commit: u64) -> Vec<u8> {
        operations(commit).encode(OPERATIONS_BYTES_MAX).unwrap()
    }

    fn testimony(commit: u64) -> Testimony {
        Testimony { store: 7, commit, operations: Some(operations(commit)) }
    }

    /// Commits up to this one, each told whole.
    fn witness_at(commit: u64) -> (tempfile::TempDir, std::path::PathBuf, Witness) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let mut witness = Witness::create(&path, 7, 1).unwrap();
        (2..=commit).for_each(|commit| witness.record(commit, &encoded(commit)).unwrap());
        (dir, path, witness)
    }

    fn said(file: &[u8]) -> Testimony {
        read(file).unwrap().1
    }

    #[test]
    fn the_last_commit_is_remembered() {
        let (_dir, path, _) = witness_at(5);
        let (mut witness, found) = Witness::open(&path).unwrap();
        assert_eq!(found, testimony(5));
        assert_eq!(found.journaled(), 4);
        assert!(witness.has(5) && !witness.has(6));
        witness.record(6, &[]).unwrap();
        let (_, found) = Witness::open(&path).unwrap();
        assert_eq!(found, Testimony { store: 7, commit: 6, operations: None });
        assert_eq!(found.journaled(), 6);
    }

    #[test]
    fn a_slot_torn_anywhere_leaves_the_commit_before() {
        let (_dir, path, mut witness) = witness_at(5);
        let before = fs::read(&path).unwrap();
        witness.record(6, &encoded(6)).unwrap();
        let after = fs::read(&path).unwrap();
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        for torn in 0..changed.len() {
            let mut file = before.clone();
            changed[..torn].iter().for_each(|at| file[*at] = after[*at]);
            assert_eq!(said(&file), testimony(5), "{torn} bytes of {}", changed.len());
        }
        assert_eq!(said(&after), testimony(6));
    }

    #[test]
    fn the_first_write_after_opening_spares_what_was_said_last() {
        for commit in [4, 5] {
            let (_dir, path, _) = witness_at(commit);
            Witness::open(&path).unwrap().0.record(commit + 1, &[]).unwrap();
            let mut file = fs::read(&path).unwrap();
            let (slot, _) = read(&file).unwrap();
            file[slot * SLOT_BYTES..][..SLOT_BYTES].fill(0);
            assert_eq!(said(&file), testimony(commit));
        }
    }

    #[test]
    fn no_flipped_bit_changes_what_it_says() {
        let (_dir, path, _) = witness_at(5);
        let file = fs::read(&path).unwrap();
        let slot_bytes = HEADER_BYTES + encoded(5).len();
        for bit in (0..SLOTS).flat_map(|slot| slot * SLOT_BYTES * 8..(slot * SLOT_BYTES + slot_bytes) * 8) {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let said = said(&flipped);
            assert!(said == testimony(4) || said == testimony(5), "bit {bit}: {said:?}");
        }
    }

    #[test]
    fn a_format_of_another_version_is_told_from_damage() {
        let (_dir, path, _) = witness_at(5);
        let mut file = fs::read(&path).unwrap();
        file[MAGIC.len()] = 9;
        assert!(read(&file).is_ok(), "one slot is left");
        file[SLOT_BYTES + MAGIC.len()] = 9;
        assert!(matches!(read(&file), Err(Unreadable::Format(9))));
        for damaged in [&[][..], &[0; SLOT_BYTES * SLOTS], &file[..MAGIC.len()]] {
            assert!(matches!(read(damaged), Err(Unreadable::Damaged)));
        }
    }
}
