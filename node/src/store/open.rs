//! Opening a folder: what is in it is held against its witness before anything is served.
//!
//! ```text
//! lock          held by the process that has the store open
//! witness       the last commits, or their number at least
//! engine/       the embedded database
//! accept-loss   put there by an operator: go on with what there is
//! damaged/      what was cut off a journal, for whoever wants to look
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _};

use super::{
    StoreError,
    codec::{self, FORMAT, Identity},
    manifest,
    operations::Operations,
    standing::{Standing, standing},
    witness::{self, Testimony, Unreadable, Witness},
};
use crate::config::StoreLimits;

pub(super) const KEYSPACE: &str = "store";
/// Creating a store is its first commit; nothing is acknowledged before the second.
pub(super) const CREATION: u64 = 1;
/// One only flushes, so that no flush waits for a compaction. A compaction that it finds in the queue
/// it puts back, and would do so without rest while the one other worker is busy with the last: the
/// third takes it.
const WORKERS: usize = 3;

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
    /// What was acknowledged is not all there.
    #[error(
        "{} is damaged, and is not served: {what}. Bring back the whole folder from a backup; or, to go on \
         with what there is and lose the rest for good, put an empty file named {ACCEPT} into it and start again",
        dir.display()
    )]
    Damaged {
        /// The store's folder.
        dir: PathBuf,
        /// What is missing, or cannot be read.
        what: String,
    },
    /// The engine does not open it.
    #[error("the database in {} does not open: {what}", dir.display())]
    Engine {
        /// The engine's folder.
        dir: PathBuf,
        /// What it says.
        what: String,
    },
    /// Written by another version.
    #[error("{} was written in format {found}; this node reads format {known}", path.display())]
    Format {
        /// The store's folder, or the file in it.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The one that would be read.
        known: u32,
    },
}

/// The file with which an operator accepts a loss.
pub(super) const ACCEPT: &str = "accept-loss";

/// An open store, checked.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    pub(super) witness: Witness,
    pub(super) commit: u64,
    /// Released when it is dropped, after the database.
    pub(super) lock: File,
}

/// The folder's names.
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    pub(super) engine: PathBuf,
    pub(super) witness: PathBuf,
    pub(super) accept: PathBuf,
    pub(super) damaged: PathBuf,
}

pub(super) fn open(dir: &Path, limits: &StoreLimits) -> Result<Opened, OpenError> {
    let folder = Folder::new(dir);
    fs::create_dir_all(dir).map_err(folder.failed(dir))?;
    let lock = folder.lock()?;
    let accepted = folder.accept.exists();
    let witness = folder.witness(accepted)?;
    let nothing_acknowledged = witness.as_ref().is_none_or(|(_, testimony)| testimony.commit <= CREATION);
    if !folder.engine.exists() && (nothing_acknowledged || accepted) {
        folder.create(limits)?;
        return folder.open(limits, lock, folder.witness(false)?, None, accepted);
    }
    // A witness is made before its store, so that one without is never one that was only begun.
    if witness.is_none() && !accepted {
        return Err(folder.damage("the file witness, which says what was acknowledged, is missing"));
    }
    folder.check_parts()?;
    let needed = witness.as_ref().map_or(u64::MAX, |(_, testimony)| testimony.journaled());
    let journaled = folder.settle_journals(needed, accepted)?;
    folder.open(limits, lock, witness, journaled, accepted)
}

impl Folder {
    fn new(dir: &Path) -> Self {
        let [engine, witness, accept, damaged] =
            ["engine", "witness", ACCEPT, "damaged"].map(|name| dir.join(name));
        Self { dir: dir.to_owned(), engine, witness, accept, damaged }
    }

    pub(super) fn failed(&self, path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let path = path.to_owned();
        |error| OpenError::Io { path, error }
    }

    pub(super) fn damage(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { dir: self.dir.clone(), what: what.into() }
    }

    pub(super) fn engine_failed(&self, error: impl std::fmt::Display) -> OpenError {
        OpenError::Engine { dir: self.engine.clone(), what: error.to_string() }
    }

    fn lock(&self) -> Result<File, OpenError> {
        let path = self.dir.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(self.failed(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(self.dir.clone())),
            Err(TryLockError::Error(error)) => Err(self.failed(&path)(error)),
        }
    }

    /// The witness and what it says; none where there is none.
    fn witness(&self, accepted: bool) -> Result<Option<(Witness, Testimony)>, OpenError> {
        match Witness::open(&self.witness) {
            Ok(witness) => Ok(Some(witness)),
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Unreadable::Io(error)) => Err(self.failed(&self.witness)(error)),
            Err(Unreadable::Format(found)) => {
                let (found, known) = (found.into(), witness::FORMAT.into());
                Err(OpenError::Format { path: self.witness.clone(), found, known })
            }
            Err(Unreadable::Damaged) if accepted => Ok(None),
            Err(Unreadable::Damaged) => {
                Err(self.damage("the file witness, which says what was acknowledged, is unreadable"))
            }
        }
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), OpenError> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(self.failed(dir))
    }

    /// The engine takes a missing part for one that was never made, and a damaged list of tables for
    /// a true one, and clears away what belonged to them: so it is not let near such a store.
    fn check_parts(&self) -> Result<(), OpenError> {
        let parts = ["version", "keyspaces/0/current", "keyspaces/1/current"];
        if let Some(part) = parts.iter().find(|part| !self.engine.join(part).is_file()) {
            return Err(self.damage(format!("engine/{part} is missing")));
        }
        let keyspaces = self.engine.join("keyspaces");
        let damage = manifest::damage(&keyspaces).map_err(self.failed(&keyspaces))?;
        damage.map_or(Ok(()), |what| Err(self.damage(what)))
    }

    fn open(
        &self,
        limits: &StoreLimits,
        lock: File,
        witness: Option<(Witness, Testimony)>,
        journaled: Option<u64>,
        accepted: bool,
    ) -> Result<Opened, OpenError> {
        let (database, keyspace) = self.open_engine(limits)?;
        let identity = self.meta(&database, &keyspace, codec::IDENTITY_KEY)?;
        let identity: Identity =
            codec::decode(codec::IDENTITY_KEY, &identity).map_err(|error| self.damage(error.to_string()))?;
        if identity.format != FORMAT {
            return Err(OpenError::Format { path: self.dir.clone(), found: identity.format, known: FORMAT });
        }
        let opened = self.last_commit(&database, &keyspace)?;
        // Tables may hold what a journal has lost since; but in a journal no number may be missing.
        let held = journaled.map_or(opened, |journaled| journaled.min(opened));
        if journaled.is_some_and(|journaled| opened < journaled) && !accepted {
            return Err(self.damage(format!("the engine has lost what follows commit {opened}")));
        }
        let (mut witness, commit) = match witness {
            Some((witness, testimony)) => match standing(testimony, identity.id, held) {
                Standing::Whole => (witness, held),
                Standing::Short(missing) => (witness, self.write_again(&database, &keyspace, missing)?),
                Standing::Lost(what) => (self.accept(accepted, &what, identity.id, held)?, held),
            },
            None => {
                let what = format!("the file witness is missing, and the store holds commits up to {held}");
                (self.accept(accepted, &what, identity.id, held)?, held)
            }
        };
        if !witness.has(commit) {
            witness.record(commit, &[]).map_err(self.failed(&self.witness))?;
        }
        if accepted {
            fs::remove_file(&self.accept).map_err(self.failed(&self.accept))?;
        }
        self.sync_dir(&self.dir)?;
        Ok(Opened { database, keyspace, witness, commit, lock })
    }

    /// The last commits, which the witness holds and the journal lacks.
    fn write_again(
        &self,
        database: &Database,
        keyspace: &Keyspace,
        missing: Vec<Operations>,
    ) -> Result<u64, OpenError> {
        let count = missing.len();
        for operations in missing {
            let batch = operations.into_batch(database, keyspace).durability(Some(PersistMode::SyncData));
            batch.commit().map_err(|error| self.engine_failed(error))?;
        }
        let commit = self.last_commit(database, keyspace)?;
        tracing::warn!(
            count,
            "commits up to {commit} were missing; the witness held them, and they are written again"
        );
        Ok(commit)
    }

    /// A loss, if the operator has accepted it.
    fn accept(&self, accepted: bool, what: &str, store: u64, commit: u64) -> Result<Witness, OpenError> {
        if !accepted {
            return Err(self.damage(what));
        }
        tracing::error!(what, "a loss is accepted: the store goes on at commit {commit}");
        Witness::create(&self.witness, store, commit).map_err(self.failed(&self.witness))
    }

    fn open_engine(&self, limits: &StoreLimits) -> Result<(Database, Keyspace), OpenError> {
        let open = || {
            let database = engine(&self.engine, limits)?;
            let is_there = database.keyspace_exists(KEYSPACE);
            let keyspace = is_there.then(|| database.keyspace(KEYSPACE, KeyspaceCreateOptions::default));
            Ok::<_, fjall::Error>((database, keyspace.transpose()?))
        };
        // Damaged bytes make the engine fail in either way.
        let opened = catch_unwind(AssertUnwindSafe(open)).map_err(|_| self.engine_failed("it panicked"))?;
        match opened.map_err(|error| self.engine_failed(error))? {
            (database, Some(keyspace)) => Ok((database, keyspace)),
            (_, None) => Err(self.damage("the database has lost its contents")),
        }
    }

    fn last_commit(&self, database: &Database, keyspace: &Keyspace) -> Result<u64, OpenError> {
        let commit = self.meta(database, keyspace, codec::COMMIT_KEY)?.try_into();
        commit.map(u64::from_le_bytes).map_err(|_| self.damage("the last commit has no number"))
    }

    fn meta(&self, database: &Database, keyspace: &Keyspace, key: &[u8]) -> Result<Vec<u8>, OpenError> {
        let read = || {
            let sealed = database.snapshot().get(keyspace, key).map_err(super::engine::read_error)?;
            let sealed =
                sealed.ok_or_else(|| StoreError::Corrupt("the store's own rows are missing".into()))?;
            codec::unseal(key, &sealed).map(<[u8]>::to_vec)
        };
        read().map_err(|error| self.damage(error.to_string()))
    }
}

pub(super) fn engine(path: &Path, limits: &StoreLimits) -> fjall::Result<Database> {
    Database::builder(path).cache_size(limits.cache_bytes).worker_threads(WORKERS).open()
}
