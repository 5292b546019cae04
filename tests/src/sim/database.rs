//! The database that the nodes of a cluster share: a host of its own, and each node's way to it.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use shoal_node::store::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, MemoryDisk, MemoryStore,
    MemoryTiming, ReadLimit, Setting, Store, StoreError,
};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};

use super::standstill::Standstill;

/// The database's name on the network. Nodes reach it by other means than datagrams.
pub const DATABASE: &str = "database";

/// Questions that wait for the database.
const QUESTIONS_MAX: usize = 1024;

/// How long a node waits for a database that it does not reach.
const AWAY: Duration = Duration::from_millis(400);

type Question = Box<dyn FnOnce(MemoryStore) -> BoxFuture<'static, ()> + Send>;

/// The host: what it was asked it carries out, whatever becomes of who asked.
pub struct Database {
    disk: MemoryDisk,
    timing: MemoryTiming,
    questions: Mutex<Option<mpsc::Sender<Question>>>,
}

impl Database {
    /// A database on a disk.
    #[must_use]
    pub fn new(disk: MemoryDisk, timing: MemoryTiming) -> Self {
        Self { disk, timing, questions: Mutex::default() }
    }

    /// Serves until the host goes down.
    ///
    /// # Errors
    /// None.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let (asking, mut questions) = mpsc::channel::<Question>(QUESTIONS_MAX);
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
        let store = MemoryStore::open(&self.disk, self.timing.clone());
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = answers.join_next() => {}
                Some(question) = questions.recv() => drop(answers.spawn(question(store.clone()))),
                else => return Ok(()),
            }
        }
    }

    fn questions(&self) -> Option<mpsc::Sender<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

/// A node's way to the database, and through it a [`Store`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Way {
    database: Arc<Database>,
    standstill: Standstill,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    /// The way of a node.
    #[must_use]
    pub fn new(database: Arc<Database>, standstill: Standstill) -> Self {
        Self { database, standstill, is_cut: Arc::default() }
    }

    /// Cuts it, or mends it: what is asked while it is cut is not carried out, what is answered is
    /// not heard.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(MemoryStore) -> BoxFuture<'static, T> + Send + 'static,
    ) -> Result<T, Away> {
        self.standstill.over().await;
        self.reach().await?;
        let (to, answer) = oneshot::channel();
        let asking = self.database.questions().ok_or(Away)?;
        let question: Question = Box::new(move |store| {
            let answering = question(store);
            // Who asked may be gone.
            async move { drop(to.send(answering.await)) }.boxed()
        });
        asking.send(question).await.map_err(|_| Away)?;
        let answer = answer.await.map_err(|_| Away);
        self.standstill.over().await;
        self.reach().await?;
        answer
    }

    async fn reach(&self) -> Result<(), Away> {
        if self.is_cut.load(Ordering::Relaxed) {
            sleep(AWAY).await;
            return Err(Away);
        }
        Ok(())
    }
}

/// No answer came: whether it was done is unknown.
#[derive(Debug)]
struct Away;

impl From<Away> for StoreError {
    fn from(_: Away) -> Self {
        Self::Unavailable("the database does not answer".into())
    }
}

impl From<Away> for AppendError {
    fn from(_: Away) -> Self {
        Self::OutcomeUnknown("the database does not answer".into())
    }
}

#[async_trait]
impl Store for Way {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        self.ask(move |store| async move { store.activate(group, create).await }.boxed()).await?
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.ask(move |store| async move { store.append(append).await }.boxed()).await?
    }

    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        self.ask(move |store| async move { store.group(group).await }.boxed()).await?
    }

    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        self.ask(move |store| async move { Store::read(&store, group, from, limit).await }.boxed()).await?
    }

    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        self.ask(move |store| async move { store.edits_of(group, record).await }.boxed()).await?
    }

    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError> {
        let senders = senders.to_vec();
        self.ask(move |store| async move { store.senders(group, &senders).await }.boxed()).await?
    }

    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        let user = user.clone();
        self.ask(move |store| async move { store.senders_of(group, &user).await }.boxed()).await?
    }

    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError> {
        let users = users.to_vec();
        self.ask(move |store| async move { store.members(group, &users).await }.boxed()).await?
    }

    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.ask(move |store| async move { store.members_page(group, slots, after, limit).await }.boxed())
            .await?
    }

    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        let user = user.clone();
        self.ask(move |store| async move { store.groups_of(&user, after, limit).await }.boxed()).await?
    }

    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError> {
        let (user, groups) = (user.clone(), groups.to_vec());
        self.ask(move |store| async move { store.cursors(&user, &groups).await }.boxed()).await?
    }

    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        self.ask(move |store| async move { store.raise_cursors(raises).await }.boxed()).await?
    }

    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        self.ask(move |store| async move { store.notices_due(after, limit).await }.boxed()).await?
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        let key = key.to_owned();
        self.ask(move |store| async move { store.setting(&key).await }.boxed()).await?
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        let key = key.to_owned();
        self.ask(move |store| async move { store.compare_and_swap(&key, expected, value).await }.boxed())
            .await?
    }

    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(move |store| async move { store.settings(&prefix).await }.boxed()).await?
    }

    /// A database that is away will be back.
    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
