//! Checks the engine's manifests before the engine reads them.
//!
//! A manifest (`v` and a number) lists the tables of a keyspace; `current` names the one that
//! counts and has its checksum, which the engine writes but does not compare. A flipped bit there
//! would put tables in another order, and an old value before a new one; or it would make tables
//! look like leftovers, which the engine removes.

use std::{fs, io, path::Path};

use xxhash_rust::xxh3::xxh3_128;

/// What `current` holds: a number, a checksum, and its kind, 0 for XXH3.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// What is wrong with the manifests of the keyspaces in this folder, if anything is.
pub(super) fn damage(keyspaces: &Path) -> io::Result<Option<String>> {
    for keyspace in fs::read_dir(keyspaces)? {
        let keyspace = keyspace?.path();
        if keyspace.is_dir()
            && let Some(what) = keyspace_damage(&keyspace)?
        {
            return Ok(Some(format!("{}: {what}", keyspace.display())));
        }
    }
    Ok(None)
}

fn keyspace_damage(keyspace: &Path) -> io::Result<Option<String>> {
    let current = match fs::read(keyspace.join("current")) {
        Ok(current) => current,
        // Not one that was ever finished; those that must be there are looked for elsewhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((number, checksum)) = decode(&current) else {
        return Ok(Some("the file current cannot be read".into()));
    };
    match fs::read(keyspace.join(format!("v{number}"))) {
        Ok(manifest) if xxh3_128(&manifest) == checksum => Ok(None),
        Ok(_) => Ok(Some(format!("the checksum of v{number} is wrong"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(format!("v{number} is missing"))),
        Err(error) => Err(error),
    }
}

fn decode(current: &[u8]) -> Option<(u64, u128)> {
    let current: &[u8; CURRENT_BYTES] = current.try_into().ok()?;
    let (number, rest) = current.split_first_chunk()?;
    let (checksum, kind) = rest.split_first_chunk()?;
    (kind == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}
