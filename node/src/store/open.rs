//! Opening a folder: what is in it is held against its witness before anything is served.
//!
//! ```text
//! lock          held by the process that has the store open
//! witness       the number of the last acknowledged commit
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

use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable as _};

use super::{
    StoreError,
    codec::{self, FORMAT, Identity},
    manifest,
    witness::{Testimony, Witness},
};
use crate::config::StoreLimits;

pub(super) const KEYSPACE: &str = "store";
/// Creating a store is its first commit; nothing is acknowledged before the second.
pub(super) const CREATION: u64 = 1;
/// One flushes while the other compacts.
const WORKERS: usize = 2;

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
    #[error("{} was written in format {found}; this node reads format {FORMAT}", dir.display())]
    Format {
        /// The store's folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
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
    let testimony = folder.testimony(accepted)?;
    let nothing_acknowledged = testimony.is_none_or(|testimony| testimony.commit <= CREATION);
    if !folder.engine.exists() && (nothing_acknowledged || accepted) {
        folder.create(limits)?;
        return folder.open(limits, lock, Witness::read(&folder.witness).ok().flatten(), accepted);
    }
    // A witness is made before its store, so that one without is never one that was only begun.
    if testimony.is_none() && !accepted {
        return Err(folder.damage("the file witness, which says what was acknowledged, is missing"));
    }
    folder.check_parts()?;
    folder.settle_journals(testimony.map_or(u64::MAX, |testimony| testimony.commit), accepted)?;
    folder.open(limits, lock, testimony, accepted)
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

    /// What the witness says; none where there is no witness.
    fn testimony(&self, accepted: bool) -> Result<Option<Testimony>, OpenError> {
        match Witness::read(&self.witness) {
            Ok(Some(testimony)) => Ok(Some(testimony)),
            Ok(None) if accepted => Ok(None),
            Ok(None) => Err(self.damage("the file witness, which says what was acknowledged, is unreadable")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&self.witness)(error)),
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
        testimony: Option<Testimony>,
        accepted: bool,
    ) -> Result<Opened, OpenError> {
        let (database, keyspace) = self.open_engine(limits)?;
        let identity = self.meta(&database, &keyspace, codec::IDENTITY_KEY)?;
        let identity: Identity =
            codec::decode(codec::IDENTITY_KEY, &identity).map_err(|error| self.damage(error.to_string()))?;
        if identity.format != FORMAT {
            return Err(OpenError::Format { dir: self.dir.clone(), found: identity.format });
        }
        let commit = self.meta(&database, &keyspace, codec::COMMIT_KEY)?;
        let commit = commit
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| self.damage("the last commit has no number"))?;
        let loss = loss(testimony, Testimony { store: identity.id, commit });
        let mut witness = match loss {
            Some(what) if !accepted => return Err(self.damage(what)),
            Some(what) => self.accept(&what, Testimony { store: identity.id, commit })?,
            None => Witness::open(&self.witness, identity.id).map_err(self.failed(&self.witness))?,
        };
        witness.record(commit).map_err(self.failed(&self.witness))?;
        if accepted {
            fs::remove_file(&self.accept).map_err(self.failed(&self.accept))?;
        }
        self.sync_dir(&self.dir)?;
        Ok(Opened { database, keyspace, witness, commit, lock })
    }

    fn accept(&self, what: &str, testimony: Testimony) -> Result<Witness, OpenError> {
        tracing::error!(what, "a loss is accepted: the store goes on at commit {}", testimony.commit);
        Witness::create(&self.witness, testimony).map_err(self.failed(&self.witness))
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

/// What the witness knows of that the store does not hold.
fn loss(witness: Option<Testimony>, store: Testimony) -> Option<String> {
    match witness {
        None if store.commit <= CREATION => Some("it was never used".into()),
        None => {
            Some(format!("the file witness is missing, and the store holds commits up to {}", store.commit))
        }
        Some(witness) if witness.store != store.store => {
            Some(format!("the file witness is that of another store ({:016x})", witness.store))
        }
        Some(witness) if witness.commit > store.commit => Some(format!(
            "commits up to {} were acknowledged, and it ends at {}",
            witness.commit, store.commit
        )),
        Some(_) => None,
    }
}

pub(super) fn engine(path: &Path, limits: &StoreLimits) -> fjall::Result<Database> {
    Database::builder(path).cache_size(limits.cache_bytes).worker_threads(WORKERS).open()
}
