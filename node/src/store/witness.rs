//! How far the store had got, kept outside the engine, and its last small commits, whole.
//!
//! An engine that opens a damaged log may take the damage for the log's end and come up without its
//! last commits, and without a word. So the number of each commit is written here, and synced,
//! before the commit is acknowledged; a store that opens below its witness has lost what it had
//! acknowledged.
//!
//! A small commit stands here whole, and is acknowledged once it does: to overwrite blocks that are
//! there takes the disk less than to append, and the journal's sync can follow behind. What the
//! journal then lacks is written again when the store is opened.
//!
//! The slots are written in turn, so that a torn write leaves those before. One whose commit the
//! journal may lack is not written again until the journal has been synced.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{operations::Operations, settle};

mod slot;

pub(super) use slot::FORMAT;
use slot::{Layout, Slot};

/// As many slots as there are commits between two syncs of the journal, and more. A copy has room for
/// more than [`OPERATIONS_BYTES_MAX`]: the layout is part of the format, and files with commits as
/// large are still read.
const LAYOUT: Layout = Layout { slots: 32, copy_bytes: 128 << 10 };
/// What is written whole: some two hundred messages. Of more, two copies take the disk longer than
/// the journal's sync does, and the witness is told the number while the next batch is written.
pub(super) const OPERATIONS_BYTES_MAX: usize = 32 << 10;
const _: () = assert!(OPERATIONS_BYTES_MAX <= LAYOUT.operations_bytes_max());

/// The file, open for the next commit.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    layout: Layout,
    store: u64,
    /// The last commit in it.
    commit: u64,
    /// The commits that the slots have held whole since it was opened.
    whole: Vec<Option<u64>>,
    /// The slot to write next: the one that was written longest ago.
    next: usize,
}

/// What a witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Of which store.
    pub(super) store: u64,
    /// The last commit that may have been acknowledged.
    pub(super) commit: u64,
    /// What the last commits do, without a gap up to that one. The journal had those before them
    /// when they were written.
    pub(super) whole: Vec<Operations>,
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
        self.commit.saturating_sub(self.whole.len() as u64)
    }
}

impl Witness {
    /// A new file, synced, in the place of any that is there; the caller syncs the folder.
    pub(super) fn create(path: &Path, store: u64, commit: u64) -> io::Result<Self> {
        Self::create_with(path, store, commit, LAYOUT)
    }

    /// Every block is written, so that to overwrite it changes nothing of the file but its data.
    fn create_with(path: &Path, store: u64, commit: u64, layout: Layout) -> io::Result<Self> {
        let new = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all_at(&vec![0; layout.bytes()], 0)?;
        layout.write(&file, 0, &slot::encode(store, commit, &[]))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(Self { file, layout, store, commit, whole: vec![None; layout.slots], next: 1 % layout.slots })
    }

    /// The file to go on with, and what the disk holds of it. The caller sees to it that the engine
    /// has everything, durable, before the next commit.
    pub(super) fn open(path: &Path) -> Result<(Self, Testimony), Unreadable> {
        Self::open_with(path, LAYOUT)
    }

    fn open_with(path: &Path, layout: Layout) -> Result<(Self, Testimony), Unreadable> {
        settle::reread(path).map_err(Unreadable::Io)?;
        let (last, testimony) = read(&fs::read(path).map_err(Unreadable::Io)?, layout)?;
        let file = OpenOptions::new().write(true).open(path).map_err(Unreadable::Io)?;
        let Testimony { store, commit, .. } = testimony;
        let (whole, next) = (vec![None; layout.slots], (last + 1) % layout.slots);
        Ok((Self { file, layout, store, commit, whole, next }, testimony))
    }

    pub(super) fn has(&self, commit: u64) -> bool {
        commit <= self.commit
    }

    /// May the next slot be written, where the journal has been synced up to this commit?
    pub(super) fn has_room(&self, journaled: u64) -> bool {
        self.whole[self.next].is_none_or(|commit| commit <= journaled)
    }

    /// Durable once it returns. Without operations, the journal must have the commit already; with
    /// them, the one before must be there or here.
    pub(super) fn record(&mut self, commit: u64, operations: &[u8]) -> io::Result<()> {
        self.layout.write(&self.file, self.next, &slot::encode(self.store, commit, operations))?;
        self.file.sync_data()?;
        self.whole[self.next] = (!operations.is_empty()).then_some(commit);
        (self.commit, self.next) = (commit, (self.next + 1) % self.whole.len());
        Ok(())
    }
}

/// The slot of the last commit, of those that are whole in either copy, and what they say together.
fn read(file: &[u8], layout: Layout) -> Result<(usize, Testimony), Unreadable> {
    let slots = layout.read(file).take(layout.slots).enumerate();
    let mut commits: BTreeMap<_, _> =
        slots.filter_map(|(at, slot)| slot.map(|slot| (slot.commit, (at, slot)))).collect();
    let Some((commit, (last, Slot { store, operations, .. }))) = commits.pop_last() else {
        let unknown =
            file.chunks(layout.copy_bytes).filter_map(slot::format).find(|format| *format != FORMAT);
        return Err(unknown.map_or(Unreadable::Damaged, Unreadable::Format));
    };
    let mut whole = Vec::new();
    let mut next = operations;
    while let Some(operations) = next {
        whole.push(operations);
        let before = commits.remove(&(commit - whole.len() as u64));
        next = before.and_then(|(_, slot)| slot.operations);
    }
    whole.reverse();
    Ok((last, Testimony { store, commit, whole }))
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests;
