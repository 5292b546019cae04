//! The embedded store: [`Store`] on the log-structured engine fjall. README.md beside this file
//! says why that one, and what was measured.
//!
//! A record is one key, (group, Seq), and publishing writes nothing else: a group's tail is behind
//! its last key, found once when the group wakes and kept in memory from then on. All writes go
//! through one thread (`committer`); reads are of snapshots, and never wait for it.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, ReadLimit, Setting, Store,
    StoreError,
    acknowledger::Acknowledger,
    committer::{Committer, Request, Stopped},
    encode,
    engine::View,
    journal_sync::JournalSync,
    open::{self, OpenError, Opened},
    staged::Staged,
};
use crate::{config::StoreLimits, ops::Metrics};

/// Reads at once; more wait. Each has a thread, whose stack and heap stay long after it: without a
/// bound, a thousand sessions that come together leave hundreds of megabytes behind.
const READS_MAX: usize = 8;

/// The embedded store. Dropping it writes what was accepted and waits for the thread that does.
pub struct FjallStore {
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<JoinHandle<()>>,
    commits: Arc<AtomicU64>,
    stopped: Stopped,
    keyspace: Keyspace,
    database: Database,
    metrics: Arc<Metrics>,
    /// Room for reads.
    reads: Arc<Semaphore>,
    /// After the database: the folder is free once everything is closed.
    _lock: File,
}

impl FjallStore {
    /// Opens a folder, or makes a store in it.
    ///
    /// # Errors
    /// Where the folder is in use, or where not everything is there that was ever acknowledged.
    pub fn open(dir: &Path, limits: &StoreLimits) -> Result<Self, OpenError> {
        Self::open_counted(dir, limits, Arc::default())
    }

    /// As [`Self::open`], with counters that somebody looks at.
    ///
    /// # Errors
    /// The same.
    pub fn open_counted(dir: &Path, limits: &StoreLimits, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let Opened { database, keyspace, witness, commit, lock } = open::open(dir, limits)?;
        let failed = |error| OpenError::Io { path: dir.to_owned(), error };
        let (requests, receiver) = mpsc::channel(limits.appends_max.max(1));
        let stopped: Stopped = Arc::new(OnceLock::new());
        let commits = Arc::new(AtomicU64::new(commit));
        let (behind, why) = (Arc::clone(&commits), Arc::clone(&stopped));
        let journal_sync = JournalSync::start(database.clone(), behind, why).map_err(failed)?;
        let committer = Committer {
            requests: receiver,
            staged: Staged::new(database.clone(), keyspace.clone(), limits.active_groups_max),
            database: database.clone(),
            keyspace: keyspace.clone(),
            acknowledger: Acknowledger::start(witness, Arc::clone(&stopped)).map_err(failed)?,
            journal_sync,
            commits: Arc::clone(&commits),
            stopped: Arc::clone(&stopped),
            metrics: Arc::clone(&metrics),
        };
        let committer = std::thread::Builder::new().name("shoal-store".into()).spawn(|| committer.run());
        let committer = committer.map_err(failed)?;
        let (requests, committer) = (Some(requests), Some(committer));
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Ok(Self { requests, committer, commits, stopped, keyspace, database, metrics, reads, _lock: lock })
    }

    /// The number of the last commit: how often it has written and synced, over all openings.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    async fn request<T, E: From<StoreError>>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Request,
        unanswered: impl FnOnce(StoreError) -> E,
    ) -> Result<T, E> {
        self.health()?;
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().expect("the channel is closed by drop alone");
        if requests.send(request(answer)).await.is_err() {
            return Err(self.gone().into());
        }
        answered.await.unwrap_or_else(|_| Err(unanswered(self.gone())))
    }

    fn gone(&self) -> StoreError {
        self.stopped
            .get()
            .cloned()
            .unwrap_or_else(|| StoreError::Stopped("the thread that commits is gone".into()))
    }

    /// A read may wait for the disk, and so is done where that holds up nobody. A task of its own waits
    /// for room: whoever asked may be busy with something else when it is given, perhaps waiting for
    /// another read, and would keep it from all others.
    async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reads = Arc::clone(&self.reads);
        let (database, keyspace) = (self.database.clone(), self.keyspace.clone());
        let metrics = Arc::clone(&self.metrics);
        let read = tokio::spawn(async move {
            // Held by the read itself, which goes on where nobody waits for it any more.
            let room = reads.acquire_owned().await.expect("it is never closed");
            let view = View { snapshot: database.snapshot(), keyspace };
            metrics.store_reads.inc();
            let read = move || {
                let _room = room;
                read(&view)
            };
            tokio::task::spawn_blocking(read).await
        });
        let read = read.await.and_then(|read| read);
        let read = read.unwrap_or_else(|error| {
            Err(if error.is_panic() {
                StoreError::Corrupt("the engine panicked on what it read".into())
            } else {
                StoreError::Unavailable("the node is shutting down".into())
            })
        });
        if matches!(read, Err(StoreError::Corrupt(_))) {
            self.metrics.store_corrupt.inc();
        }
        read
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(committer) = self.committer.take() {
            // It has said why, if it panicked.
            drop(committer.join());
        }
    }
}

#[async_trait]
impl Store for FjallStore {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        self.request(|answer| Request::Activate { group, create, answer }, |gone| gone).await
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        append.assert_refers_below_tail();
        let append = Box::new(encode::encode(append));
        let unknown = |gone: StoreError| AppendError::OutcomeUnknown(gone.to_string());
        self.request(|answer| Request::Append { append, answer }, unknown).await
    }

    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        self.view(move |view| view.group(group)).await
    }

    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        self.view(move |view| view.read(group, from, limit)).await
    }

    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        self.view(move |view| view.edits_of(group, record)).await
    }

    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError> {
        let senders = senders.to_vec();
        self.view(move |view| senders.iter().map(|sender| view.sender(group, sender)).collect()).await
    }

    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        let user = user.clone();
        self.view(move |view| view.senders_of(group, &user)).await
    }

    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError> {
        let users = users.to_vec();
        self.view(move |view| users.iter().map(|user| view.member(group, user)).collect()).await
    }

    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.view(move |view| view.members_page(group, slots, after.as_ref(), limit)).await
    }

    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        let user = user.clone();
        self.view(move |view| view.groups_of(&user, after, limit)).await
    }

    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError> {
        let (user, groups) = (user.clone(), groups.to_vec());
        self.view(move |view| groups.iter().map(|group| view.cursors(&user, *group)).collect()).await
    }

    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        self.request(|answer| Request::RaiseCursors { raises, answer }, |gone| gone).await
    }

    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        self.view(move |view| view.notices_due(after, limit)).await
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        let key = key.to_owned();
        self.view(move |view| view.setting(&key)).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        let key = key.to_owned();
        self.request(|answer| Request::Swap { key, expected, value, answer }, |gone| gone).await
    }

    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        let prefix = prefix.to_owned();
        self.view(move |view| view.settings(&prefix)).await
    }

    fn health(&self) -> Result<(), StoreError> {
        self.stopped.get().cloned().map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallStore").field("stopped", &self.stopped.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;

    use super::*;

    /// A group's worker has reads under way that it does not look at while it waits for another.
    #[tokio::test(flavor = "multi_thread")]
    async fn reads_that_nobody_looks_at_hold_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallStore::open(dir.path(), &StoreLimits::default()).unwrap();
        let group = GroupId::named("reef");
        let mut begun: Vec<_> = (0..READS_MAX * 3).map(|_| store.group(group)).collect();
        for read in &mut begun {
            let _ = poll!(read);
        }
        let other = tokio::time::timeout(Duration::from_secs(20), store.group(group));
        assert!(other.await.expect("it has its turn").unwrap().is_none());
    }
}
