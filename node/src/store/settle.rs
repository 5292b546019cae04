//! Journals before the engine opens them: cut where they are torn, kept as they are where they are
//! damaged.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    journal::{self, Scan, Verdict},
    open::{Folder, OpenError},
};

impl Folder {
    /// The last commit that the journals hold, if they hold any. `needed` is the last one that
    /// nothing but the engine holds.
    pub(super) fn settle_journals(&self, needed: u64, accepted: bool) -> Result<Option<u64>, OpenError> {
        let journals = self.journals()?;
        self.settle(&journals, needed, accepted)?;
        Ok(journals.iter().rev().find_map(|(_, scan)| scan.commits.map(|(_, last)| last)))
    }

    fn settle(&self, journals: &[(u64, Scan)], needed: u64, accepted: bool) -> Result<(), OpenError> {
        match journal::judge(journals, needed) {
            Verdict::Whole => Ok(()),
            Verdict::TornEnd { at } => {
                tracing::info!(
                    at,
                    "a torn commit is cut off the journal: never acknowledged, or in the witness"
                );
                self.cut_last(journals, at)
            }
            Verdict::UnknownEnd { at } => {
                let last = journals.last().map_or(0, |(journal, _)| *journal);
                self.keep_copy(last, at)?;
                self.cut_last(journals, at)
            }
            Verdict::Damaged { .. } if accepted => journals.iter().try_for_each(|(journal, scan)| {
                if !scan.remainder {
                    return Ok(());
                }
                self.keep_copy(*journal, scan.whole_bytes)?;
                self.cut(*journal, scan.whole_bytes)
            }),
            Verdict::Damaged { journal, at, readable } => {
                let readable = readable.map_or_else(String::new, |commit| format!(" after commit {commit}"));
                Err(self.damage(format!(
                    "engine/{journal}.jnl cannot be read from byte {at} on{readable}, and commits up to {needed} \
                     were acknowledged"
                )))
            }
        }
    }

    /// The journals by number, as the disk holds them and not as the last process left them in
    /// memory: after a sync that failed, the two may differ.
    fn journals(&self) -> Result<Vec<(u64, Scan)>, OpenError> {
        let mut journals = Vec::new();
        for entry in fs::read_dir(&self.engine).map_err(self.failed(&self.engine))? {
            let path = entry.map_err(self.failed(&self.engine))?.path();
            if path.extension().is_none_or(|extension| extension != "jnl") {
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let number: u64 =
                number.ok_or_else(|| self.damage(format!("{} is no journal", path.display())))?;
            reread(&path).map_err(self.failed(&path))?;
            journals.push((number, journal::scan(&path).map_err(self.failed(&path))?));
        }
        journals.sort_unstable_by_key(|(number, _)| *number);
        Ok(journals)
    }

    fn journal(&self, number: u64) -> PathBuf {
        self.engine.join(format!("{number}.jnl"))
    }

    fn cut_last(&self, journals: &[(u64, Scan)], at: u64) -> Result<(), OpenError> {
        journals.last().map_or(Ok(()), |(journal, _)| self.cut(*journal, at))
    }

    fn cut(&self, journal: u64, at: u64) -> Result<(), OpenError> {
        let path = self.journal(journal);
        let cut = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(at)?;
            file.sync_all()
        };
        cut().map_err(self.failed(&path))
    }

    fn keep_copy(&self, journal: u64, at: u64) -> Result<(), OpenError> {
        let copy = self.damaged.join(format!("{journal}.jnl.from.{at}"));
        let keep = || {
            fs::create_dir_all(&self.damaged)?;
            let mut from = File::open(self.journal(journal))?;
            from.seek(SeekFrom::Start(at))?;
            let mut to = File::create(&copy)?;
            copy_data(&mut from, &mut to)?;
            to.sync_all()
        };
        keep().map_err(self.failed(&copy))?;
        tracing::warn!(copy = %copy.display(), "what a journal ends with cannot be read, and is kept aside");
        Ok(())
    }
}

/// Lets go of what the machine remembers of a file, so that reading it reads the disk.
pub(super) fn reread(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(Into::into)
}

/// Up to the last byte that is not zero: a journal is followed by much nothing.
fn copy_data(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut zeros = 0_u64;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let Some(last) = buffer[..read].iter().rposition(|byte| *byte != 0) else {
            zeros += read as u64;
            continue;
        };
        io::copy(&mut io::repeat(0).take(zeros), to)?;
        to.write_all(&buffer[..=last])?;
        zeros = (read - last - 1) as u64;
    }
}
