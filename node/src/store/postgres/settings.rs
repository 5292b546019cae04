//! Settings, all in the first database: a version decides between nodes only where all of them look.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    PostgresStore,
    database::Database,
    rows::{self, to_column},
};
use crate::store::{Setting, StoreError};

impl PostgresStore {
    pub(super) fn settings_database(&self) -> &Database {
        &self.databases[0]
    }
}

pub(super) async fn get(database: &Database, key: &str) -> Result<Option<Setting>, StoreError> {
    let found = database.read(|to| &to.setting, &[&key.as_bytes()]).await?;
    found.first().map(|row| rows::setting(row, 0)).transpose()
}

pub(super) async fn list(database: &Database, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
    let found = database.read(|to| &to.settings, &[&prefix.as_bytes()]).await?;
    let setting = |row: &Row| {
        let key = String::from_utf8(rows::column(row, 0)?);
        let key = key.map_err(|_| StoreError::Corrupt("a setting's key is no text".into()))?;
        Ok((key, rows::setting(row, 1)?))
    };
    found.iter().map(setting).collect()
}

/// Where it is not swapped, what stands there is another look: it may have become what was expected
/// meanwhile, and then it is tried again.
pub(super) async fn compare_and_swap(
    database: &Database,
    key: &str,
    expected: u64,
    value: Option<Bytes>,
) -> Result<Result<u64, Option<Setting>>, StoreError> {
    loop {
        if swap(database, key, expected, value.as_ref()).await? {
            return Ok(Ok(if value.is_some() { expected + 1 } else { 0 }));
        }
        let found = get(database, key).await?;
        if found.as_ref().map_or(0, |setting| setting.version) != expected {
            return Ok(Err(found));
        }
        if value.is_none() && found.is_none() {
            return Ok(Ok(0));
        }
    }
}

async fn swap(
    database: &Database,
    key: &str,
    expected: u64,
    value: Option<&Bytes>,
) -> Result<bool, StoreError> {
    let (key, version) = (key.as_bytes(), to_column(expected));
    let value = value.map(Bytes::as_ref);
    let swapped = match (expected, &value) {
        (0, Some(value)) => database.read(|to| &to.setting_made, &[&key, value]).await?,
        (_, Some(value)) => database.read(|to| &to.setting_changed, &[&key, &version, value]).await?,
        (_, None) => database.read(|to| &to.setting_removed, &[&key, &version]).await?,
    };
    Ok(!swapped.is_empty())
}
