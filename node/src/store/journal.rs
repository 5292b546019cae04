//! Reads the engine's journals before the engine does, and changes nothing.
//!
//! The engine takes the first thing in a journal that it cannot read for the journal's end, cuts
//! the file there and comes up without what followed. Here the same bytes are read strictly: each
//! batch is whole, its place in the engine's order is above that of the one before, and its commit
//! number follows. So damage is told from a torn end, and reported while it can still be mended.
//!
//! The layout is that of version 3 of the engine's format: a batch is a start (1, items, place),
//! items (2, kind, compression, keyspace, lengths, key, value) and an end (3, XXH3 of the items,
//! `FJL` 3).

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

use super::codec;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: &[u8; 4] = b"FJL\x03";
const ITEM_HEADER_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;
/// More than the engine uses up between two batches; a bit flipped above makes a leap.
const PLACE_LEAP_MAX: u64 = 1 << 32;

/// What one journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last whole batch ends.
    pub(super) whole_bytes: u64,
    /// The first and the last commit in whole batches.
    pub(super) commits: Option<(u64, u64)>,
    /// Is there anything but zeros behind?
    pub(super) remainder: bool,
}

/// Reads a journal.
pub(super) fn scan(path: &Path) -> io::Result<Scan> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut reader =
        BatchReader { input: BufReader::with_capacity(1 << 20, file), left: bytes, value: Vec::new() };
    let mut scan = Scan { whole_bytes: 0, commits: None, remainder: false };
    let mut place = None;
    while let Some(batch) = reader.batch()? {
        let follows = place.is_none_or(|place| (place + 1..place + PLACE_LEAP_MAX).contains(&batch.place));
        let commits = match (scan.commits, batch.commit) {
            (Some((_, last)), Some(commit)) if commit != last + 1 => break,
            (commits, commit) => {
                commit.map(|commit| (commits.map_or(commit, |(first, _)| first), commit)).or(commits)
            }
        };
        if !follows {
            break;
        }
        place = Some(batch.place);
        scan = Scan { whole_bytes: bytes - reader.left, commits, remainder: false };
    }
    let mut file = reader.input.into_inner();
    file.seek(SeekFrom::Start(scan.whole_bytes))?;
    scan.remainder = has_data(BufReader::with_capacity(1 << 20, file))?;
    Ok(scan)
}

fn has_data(mut input: impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(false),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(true),
            _ => {}
        }
    }
}

struct Batch {
    place: u64,
    commit: Option<u64>,
}

struct BatchReader<R> {
    input: R,
    left: u64,
    value: Vec<u8>,
}

impl<R: Read> BatchReader<R> {
    /// The next whole batch; none where what comes is not one.
    fn batch(&mut self) -> io::Result<Option<Batch>> {
        let Some([START, start @ ..]) = self.take::<13>()? else { return Ok(None) };
        let [items @ .., p0, p1, p2, p3, p4, p5, p6, p7] = start;
        let mut batch = Batch { place: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]), commit: None };
        let mut hasher = Xxh3::new();
        for _ in 0..u32::from_le_bytes(items) {
            let Some(commit) = self.item(&mut hasher)? else { return Ok(None) };
            batch.commit = commit.or(batch.commit);
        }
        let Some([END, end @ ..]) = self.take::<13>()? else { return Ok(None) };
        let whole = end[..8] == hasher.digest().to_le_bytes() && end[8..] == *TRAILER;
        Ok(whole.then_some(batch))
    }

    /// The number, if the item is the commit's; none where there is no item.
    #[expect(clippy::option_option, reason = "an item without a commit number is an item")]
    fn item(&mut self, hasher: &mut Xxh3) -> io::Result<Option<Option<u64>>> {
        let Some([ITEM, header @ ..]) = self.take::<{ 1 + ITEM_HEADER_BYTES }>()? else { return Ok(None) };
        hasher.update(&[ITEM]);
        hasher.update(&header);
        let key_bytes = usize::from(u16::from_le_bytes([header[10], header[11]]));
        let value_bytes = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
        let Ok(value_bytes) = usize::try_from(value_bytes) else { return Ok(None) };
        if !self.fill(key_bytes + value_bytes)? {
            return Ok(None);
        }
        hasher.update(&self.value);
        let (key, value) = self.value.split_at(key_bytes);
        if key != codec::COMMIT_KEY {
            return Ok(Some(None));
        }
        let number =
            codec::unseal(key, value).ok().and_then(|value| value.try_into().ok()).map(u64::from_le_bytes);
        Ok(number.map(Some))
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        if self.left < N as u64 {
            return Ok(None);
        }
        self.input.read_exact(&mut bytes)?;
        self.left -= N as u64;
        Ok(Some(bytes))
    }

    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if self.left < bytes as u64 {
            return Ok(false);
        }
        self.value.resize(bytes, 0);
        self.input.read_exact(&mut self.value)?;
        self.left -= bytes as u64;
        Ok(true)
    }
}

/// What is to be done with the journals before the engine opens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are whole.
    Whole,
    /// The last one ends with a commit that was never acknowledged, or that the witness holds
    /// whole: cut it there.
    TornEnd {
        /// Where.
        at: u64,
    },
    /// The last one begins with something unreadable, and nothing says whether it was
    /// acknowledged: keep a copy, cut, and see what the tables hold.
    UnknownEnd {
        /// Where.
        at: u64,
    },
    /// Acknowledged commits cannot be read.
    Damaged {
        /// Which of the journals.
        journal: u64,
        /// At which byte.
        at: u64,
        /// The last commit before the damage, where one is known.
        readable: Option<u64>,
    },
}

/// Judges all journals, by ascending number, against the last commit that nothing else holds.
pub(super) fn judge(journals: &[(u64, Scan)], needed: u64) -> Verdict {
    let Some(((active, scan), sealed)) = journals.split_last() else { return Verdict::Whole };
    let mut last: Option<(u64, u64)> = None;
    for (journal, sealed) in sealed {
        let damaged = sealed.remainder || !continues(last, *journal, sealed);
        let commit = sealed.commits.map(|(_, last)| last);
        if damaged {
            let readable = commit.or(last.map(|(_, commit)| commit));
            return Verdict::Damaged { journal: *journal, at: sealed.whole_bytes, readable };
        }
        last = commit.map(|commit| (*journal, commit)).or(last);
    }
    let readable = scan.commits.map(|(_, last)| last).or(last.map(|(_, commit)| commit));
    let lost = readable.is_some_and(|readable| readable < needed);
    if lost || !continues(last, *active, scan) {
        return Verdict::Damaged { journal: *active, at: scan.whole_bytes, readable };
    }
    match (scan.remainder, readable) {
        (false, _) => Verdict::Whole,
        (true, Some(_)) => Verdict::TornEnd { at: scan.whole_bytes },
        (true, None) => Verdict::UnknownEnd { at: scan.whole_bytes },
    }
}

/// A journal between two others is removed only once the tables hold it, and so may be absent;
/// between neighbours no commit is.
fn continues(last: Option<(u64, u64)>, journal: u64, scan: &Scan) -> bool {
    match (last, scan.commits) {
        (Some((before, commit)), Some((first, _))) if before + 1 == journal => first == commit + 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(commits: Option<(u64, u64)>, remainder: bool) -> Scan {
        Scan { whole_bytes: 100, commits, remainder }
    }

    #[test]
    fn a_torn_end_is_cut_only_above_what_is_needed() {
        let torn = [(0, scanned(Some((1, 7)), true))];
        assert_eq!(judge(&torn, 7), Verdict::TornEnd { at: 100 });
        assert_eq!(judge(&torn, 6), Verdict::TornEnd { at: 100 });
        assert_eq!(judge(&torn, 8), Verdict::Damaged { journal: 0, at: 100, readable: Some(7) });
    }

    #[test]
    fn a_journal_that_lacks_needed_commits_is_damaged_even_if_it_ends_cleanly() {
        let short = [(0, scanned(Some((1, 7)), false))];
        assert_eq!(judge(&short, 7), Verdict::Whole);
        assert_eq!(judge(&short, 9), Verdict::Damaged { journal: 0, at: 100, readable: Some(7) });
    }

    #[test]
    fn a_sealed_journal_has_no_torn_end() {
        let journals = [(3, scanned(Some((1, 7)), true)), (4, scanned(Some((8, 9)), false))];
        assert_eq!(judge(&journals, 9), Verdict::Damaged { journal: 3, at: 100, readable: Some(7) });
    }

    #[test]
    fn commits_go_on_from_one_journal_to_the_next() {
        let gap = |next| [(3, scanned(Some((1, 7)), false)), (next, scanned(Some((9, 12)), false))];
        assert_eq!(judge(&gap(4), 12), Verdict::Damaged { journal: 4, at: 100, readable: Some(12) });
        assert_eq!(judge(&gap(5), 12), Verdict::Whole, "journal 4 was removed once its tables were written");
        let empty = [(3, scanned(Some((1, 7)), false)), (4, scanned(None, false))];
        assert_eq!(judge(&empty, 7), Verdict::Whole);
        assert_eq!(judge(&empty, 8), Verdict::Damaged { journal: 4, at: 100, readable: Some(7) });
    }

    #[test]
    fn an_end_of_which_nothing_is_known_is_kept_aside() {
        assert_eq!(judge(&[(9, scanned(None, true))], 7), Verdict::UnknownEnd { at: 100 });
        assert_eq!(judge(&[(9, scanned(None, false))], 7), Verdict::Whole);
        assert_eq!(judge(&[], 7), Verdict::Whole);
    }
}
