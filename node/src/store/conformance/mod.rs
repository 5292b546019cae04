//! What every store owes: one suite, run against each of them.

mod groups;
mod property;
mod tables;

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use shoal_protocol::{GroupId, Seq, UserId, wire};

use super::{
    Append, AppendError, Changes, Create, Epoch, FjallStore, GroupRow, MemberRow, MemoryDisk, MemoryStore,
    MemoryTiming, PostgresStore, ReadLimit, Store,
};
use crate::config::{StoreConfig, StoreLimits};

/// Somewhere a store can be opened again and again.
pub(super) trait Place {
    fn open(&self) -> impl Future<Output = Arc<dyn Store>>;
}

struct Memory(MemoryDisk);

impl Place for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::open(&self.0, MemoryTiming::default()))
    }
}

struct Fjall(tempfile::TempDir);

impl Place for Fjall {
    async fn open(&self) -> Arc<dyn Store> {
        // Few groups in memory, so that many are read again.
        let limits = StoreLimits { active_groups_max: 2, memtable_bytes: 1 << 20, ..StoreLimits::default() };
        Arc::new(FjallStore::open(self.0.path(), &limits).unwrap())
    }
}

/// One database, or several that share the groups.
struct Postgres(StoreConfig);

impl Place for Postgres {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(&self.0, &StoreLimits::default()).await.unwrap())
    }
}

fn memory() -> Memory {
    Memory(MemoryDisk::new(1))
}

/// In memory where the machine has a folder there: these tests are not about syncs.
fn fjall() -> Fjall {
    let folder = tempfile::Builder::new().prefix("shoal-store").tempdir_in("/dev/shm");
    Fjall(folder.or_else(|_| tempfile::tempdir()).unwrap())
}

/// New databases on the test run's server.
async fn postgres(count: usize) -> Postgres {
    let server = shoal_engines::shared_postgres();
    let (client, connection) = tokio_postgres::connect(&server, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut urls = Vec::new();
    for _ in 0..count {
        let name = format!("conformance_{:016x}", rand::random::<u64>());
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (address, _) = server.rsplit_once('/').unwrap();
        urls.push(format!("{address}/{name}"));
    }
    driver.abort();
    Postgres(StoreConfig { postgres: urls, ..StoreConfig::default() })
}

/// Runs the named functions of a module against every store.
macro_rules! conformance {
    ($($name:ident)+) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::conformance::memory()).await;
            })+
        }

        mod fjall {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::conformance::fjall()).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::conformance::postgres(1).await).await;
            })+
        }

        mod three_postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::store::conformance::postgres(3).await).await;
            })+
        }
    };
}
use conformance;

fn group(number: u128) -> GroupId {
    GroupId::from_random(number)
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn record(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn records(from: u64, to: u64) -> Vec<Bytes> {
    (from..to).map(|number| record(format!("record {number}"))).collect()
}

fn all() -> ReadLimit {
    ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX }
}

fn member(name: &str, role: wire::Role) -> MemberRow {
    let (joined, changed) = (seq(1), seq(2));
    MemberRow { user: user(name), role, muted_until_ms: 5, banned: false, joined, changed }
}

async fn create(store: &Arc<dyn Store>, group: GroupId) -> GroupRow {
    let create = Create { incarnation: 77, created_ms: 1_000 };
    store.activate(group, Some(create)).await.unwrap().unwrap()
}

/// Appends at the tail the group has, under the epoch it has.
async fn append(store: &Arc<dyn Store>, group: GroupId, changes: Changes) {
    let row = store.group(group).await.unwrap().unwrap();
    append_at(store, group, row.epoch, row.tail, changes).await.unwrap();
}

async fn append_at(
    store: &Arc<dyn Store>,
    group: GroupId,
    epoch: Epoch,
    expected_tail: Seq,
    changes: Changes,
) -> Result<(), AppendError> {
    store.append(Append { group, epoch, expected_tail, changes }).await
}

fn only_records(records: Vec<Bytes>) -> Changes {
    Changes { records, ..Changes::default() }
}

fn assert_is<T: Debug + PartialEq>(found: T, expected: T) {
    assert_eq!(found, expected);
}
