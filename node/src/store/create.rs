//! Making a store in an empty folder.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{
    codec::{self, FORMAT, Identity, Key},
    encode,
    open::{CREATION, Folder, KEYSPACE, OpenError, engine},
    witness::Witness,
};
use crate::config::StoreLimits;

impl Folder {
    /// Made under another name, so that a half-made one is never taken for a store.
    pub(super) fn create(&self, limits: &StoreLimits) -> Result<(), OpenError> {
        let new = self.dir.join("engine.new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(self.failed(&new))?;
        }
        let store = rand::random();
        let database = engine(&new, limits).map_err(|error| self.engine_failed(error))?;
        write_creation(&database, store, limits).map_err(|error| self.engine_failed(error))?;
        drop(database);
        sync_tree(&new).map_err(self.failed(&new))?;
        Witness::create(&self.witness, store, CREATION).map_err(self.failed(&self.witness))?;
        self.sync_dir(&self.dir)?;
        fs::rename(&new, &self.engine).map_err(self.failed(&self.engine))?;
        self.sync_dir(&self.dir)?;
        // The folder's own name must last, too. Those above may not be ours to open.
        self.dir.ancestors().skip(1).for_each(|parent| drop(self.sync_dir(parent)));
        Ok(())
    }
}

fn write_creation(database: &Database, store: u64, limits: &StoreLimits) -> fjall::Result<()> {
    let options = || KeyspaceCreateOptions::default().max_memtable_size(limits.memtable_bytes);
    let keyspace = database.keyspace(KEYSPACE, options)?;
    let identity = Identity { id: store, format: FORMAT };
    let rows = [
        encode::put_message(Key::table_free(codec::IDENTITY_KEY), &identity),
        encode::put(Key::table_free(codec::COMMIT_KEY), CREATION.to_le_bytes().to_vec()),
    ];
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    for (key, value) in rows {
        batch.insert(&keyspace, key.into_bytes(), value.unwrap_or_default());
    }
    batch.commit()
}

/// The engine syncs its files, but not the names of all the folders that it makes.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    File::open(dir)?.sync_all()
}
