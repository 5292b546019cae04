//! Databases, stores, and a load that knows what must be there in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shoal_node::{
    config::{StoreConfig, StoreLimits},
    store::{
        Append, AppendError, Changes, Create, Epoch, GroupRow, PostgresError, PostgresStore, ReadLimit, Store,
    },
};
use shoal_protocol::{GroupId, Seq};
use tokio_postgres::{Client, NoTls};

/// A connection for the test itself.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A new database on a server.
pub(crate) async fn database_on(server: &str) -> String {
    let name = format!("test_{:016x}", rand::random::<u64>());
    client(server).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let (address, _) = server.rsplit_once('/').unwrap();
    format!("{address}/{name}")
}

/// A new database on the test run's server.
pub(crate) async fn database() -> String {
    database_on(&shoal_engines::shared_postgres()).await
}

pub(crate) fn config<'u>(urls: impl IntoIterator<Item = &'u str>) -> StoreConfig {
    let postgres = urls.into_iter().map(Into::into).collect();
    StoreConfig { postgres, ..StoreConfig::default() }
}

/// Short enough for tests in which a server is away.
pub(crate) fn limits() -> StoreLimits {
    StoreLimits { connect_ms: 1_500, statement_ms: 3_000, ..StoreLimits::default() }
}

pub(crate) async fn open(urls: &[&str]) -> Result<Arc<dyn Store>, PostgresError> {
    let store = PostgresStore::open(&config(urls.iter().copied()), &limits()).await?;
    Ok(Arc::new(store))
}

pub(crate) fn group(number: u64) -> GroupId {
    GroupId::named(&format!("group {number}"))
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

pub(crate) fn records(texts: impl IntoIterator<Item = String>) -> Changes {
    Changes { records: texts.into_iter().map(Bytes::from).collect(), ..Changes::default() }
}

pub(crate) async fn activate(store: &Arc<dyn Store>, group: GroupId) -> GroupRow {
    let create = Create { incarnation: 1, created_ms: 1 };
    store.activate(group, Some(create)).await.unwrap().unwrap()
}

pub(crate) async fn append(
    store: &Arc<dyn Store>,
    group: GroupId,
    epoch: Epoch,
    expected_tail: Seq,
    changes: Changes,
) -> Result<(), AppendError> {
    store.append(Append { group, epoch, expected_tail, changes }).await
}

/// Every record of a group.
pub(crate) async fn read_all(store: &Arc<dyn Store>, group: GroupId) -> Vec<Bytes> {
    let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
    store.read(group, Seq::FIRST, limit).await.unwrap()
}

/// Waits for something that comes by itself.
pub(crate) async fn eventually<T>(mut what: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = what().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come in 20 seconds");
}

/// Homes of a few groups that append for as long as they are told to, and do after an error what a
/// home does: activate again, and look.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    pub(crate) acknowledged: Arc<AtomicU64>,
    pub(crate) failed: Arc<AtomicU64>,
    homes: Vec<tokio::task::JoinHandle<(GroupId, Vec<Bytes>)>>,
}

impl Load {
    pub(crate) fn start(store: &Arc<dyn Store>, groups: u64) -> Self {
        let (stopping, acknowledged, failed) = (Arc::default(), Arc::default(), Arc::default());
        let home = |number| {
            let home = Home {
                store: Arc::clone(store),
                group: group(number),
                stopping: Arc::clone(&stopping),
                acknowledged: Arc::clone(&acknowledged),
                failed: Arc::clone(&failed),
                written: Vec::new(),
            };
            tokio::spawn(home.run())
        };
        let homes = (0..groups).map(home).collect();
        Self { stopping, acknowledged, failed, homes }
    }

    /// Waits until so many more appends have been acknowledged.
    pub(crate) async fn acknowledges(&self, more: u64) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        eventually(async || (self.acknowledged.load(Ordering::Relaxed) >= from + more).then_some(())).await;
    }

    /// Stops, and holds what the store has against what was acknowledged.
    pub(crate) async fn check(self, store: &Arc<dyn Store>) {
        self.stopping.store(true, Ordering::Relaxed);
        for home in self.homes {
            let (group, written) = home.await.unwrap();
            assert_eq!(read_all(store, group).await, written, "group {group}");
            assert_eq!(
                store.group(group).await.unwrap().unwrap().tail,
                Seq::FIRST.advance(written.len() as u64)
            );
        }
    }
}

struct Home {
    store: Arc<dyn Store>,
    group: GroupId,
    stopping: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    /// What must be there, in its order.
    written: Vec<Bytes>,
}

impl Home {
    async fn run(mut self) -> (GroupId, Vec<Bytes>) {
        let mut unknown = Vec::new();
        while !self.stopping.load(Ordering::Relaxed) || !unknown.is_empty() {
            let Some(epoch) = self.activate(&mut unknown).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            unknown = self.append_until_it_fails(epoch).await;
        }
        (self.group, self.written)
    }

    /// Finds out what became of an append of unknown outcome: all of it is there, or nothing.
    async fn activate(&mut self, unknown: &mut Vec<Bytes>) -> Option<Epoch> {
        let create = Create { incarnation: 1, created_ms: 1 };
        let row = self.store.activate(self.group, Some(create)).await.ok()??;
        let count = self.written.len() as u64;
        let tail = Seq::FIRST.advance(count);
        if row.tail == tail.advance(unknown.len() as u64) {
            self.written.append(unknown);
        } else {
            assert_eq!(row.tail, tail, "an acknowledged record is gone, or half an append is there");
            unknown.clear();
        }
        Some(row.epoch)
    }

    /// The records of an append that failed in a way that leaves it open whether it was written.
    async fn append_until_it_fails(&mut self, epoch: Epoch) -> Vec<Bytes> {
        while !self.stopping.load(Ordering::Relaxed) {
            let count = self.written.len() as u64;
            let texts: Vec<Bytes> =
                (count..count + 1 + count % 3).map(|at| format!("{} {at}", self.group).into()).collect();
            let changes = Changes { records: texts.clone(), ..Changes::default() };
            match append(&self.store, self.group, epoch, Seq::FIRST.advance(count), changes).await {
                Ok(()) => {
                    self.written.extend(texts);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    return if matches!(error, AppendError::OutcomeUnknown(_)) { texts } else { Vec::new() };
                }
            }
        }
        Vec::new()
    }
}
