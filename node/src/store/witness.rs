//! How far the store had got, kept outside the engine.
//!
//! An engine that opens a damaged log may take the damage for the log's end and come up without its
//! last commits, and without a word. So the number of each commit is written here, and synced,
//! before the commit is acknowledged; a store that opens below its witness has lost what it had
//! acknowledged. Two slots are written in turn: a torn write leaves the other one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// The slots stand in blocks of their own, written full at creation: to overwrite one needs no
/// change of the file's metadata, which makes the sync quick.
const BLOCK_BYTES: usize = 4096;
const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 28;
const MAGIC: &[u8; 8] = b"shoalwit";

/// The file, open for the next commit.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    store: u64,
}

/// What a witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Of which store.
    pub(super) store: u64,
    /// The last commit that may have been acknowledged.
    pub(super) commit: u64,
}

impl Witness {
    /// A new file, synced, in the place of any that is there; the caller syncs the folder.
    pub(super) fn create(path: &Path, testimony: Testimony) -> io::Result<Self> {
        let new = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        let mut blocks = vec![0; BLOCK_BYTES * 2];
        blocks[..SLOT_BYTES].copy_from_slice(&encode(testimony));
        blocks[BLOCK_BYTES..][..SLOT_BYTES].copy_from_slice(&encode(testimony));
        file.write_all_at(&blocks, 0)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(Self { file, store: testimony.store })
    }

    /// The file to go on with.
    pub(super) fn open(path: &Path, store: u64) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).open(path)?, store })
    }

    /// What the file says; none if neither slot is whole.
    pub(super) fn read(path: &Path) -> io::Result<Option<Testimony>> {
        let blocks = fs::read(path)?;
        let slots = (0..2).filter_map(|slot| decode(blocks.get(slot * BLOCK_BYTES..)?));
        Ok(slots.max_by_key(|testimony| testimony.commit))
    }

    /// Durable once it returns.
    pub(super) fn record(&mut self, commit: u64) -> io::Result<()> {
        let slot = encode(Testimony { store: self.store, commit });
        self.file.write_all_at(&slot, commit % SLOTS * BLOCK_BYTES as u64)?;
        self.file.sync_data()
    }
}

fn encode(testimony: Testimony) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&testimony.store.to_le_bytes());
    slot[16..24].copy_from_slice(&testimony.commit.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[..24]);
    slot[24..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(block: &[u8]) -> Option<Testimony> {
    let slot: &[u8; SLOT_BYTES] = block.first_chunk()?;
    let number = |at: usize| slot[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let testimony = Testimony { store: number(8)?, commit: number(16)? };
    (*slot == encode(testimony)).then_some(testimony)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness_at(commit: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let mut witness = Witness::create(&path, Testimony { store: 7, commit: 1 }).unwrap();
        (2..=commit).for_each(|commit| witness.record(commit).unwrap());
        (dir, path)
    }

    #[test]
    fn the_last_commit_is_remembered() {
        let (_dir, path) = witness_at(5);
        assert_eq!(Witness::read(&path).unwrap(), Some(Testimony { store: 7, commit: 5 }));
        Witness::open(&path, 7).unwrap().record(6).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Some(Testimony { store: 7, commit: 6 }));
    }

    #[test]
    fn a_slot_torn_anywhere_leaves_the_commit_before() {
        for kept in 0..SLOT_BYTES {
            let (_dir, path) = witness_at(5);
            let mut blocks = fs::read(&path).unwrap();
            let torn = encode(Testimony { store: 7, commit: 6 });
            blocks[..kept].copy_from_slice(&torn[..kept]);
            fs::write(&path, &blocks).unwrap();
            let commit = Witness::read(&path).unwrap().unwrap().commit;
            assert!(
                commit == 5 || commit == 6 && kept == SLOT_BYTES,
                "{kept} bytes of the new slot: {commit}"
            );
        }
    }

    #[test]
    fn no_flipped_bit_raises_it() {
        let (_dir, path) = witness_at(5);
        let blocks = fs::read(&path).unwrap();
        for bit in (0..SLOT_BYTES * 8).chain(BLOCK_BYTES * 8..(BLOCK_BYTES + SLOT_BYTES) * 8) {
            let mut flipped = blocks.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let commit = Witness::read(&path).unwrap().unwrap().commit;
            assert!(commit == 4 || commit == 5, "bit {bit}: {commit}");
        }
    }
}
