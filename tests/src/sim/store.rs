//! The node's store, seen from outside: it tells the chronicle what became durable, and on demand
//! it breaks a promise, so that the judge can be judged.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_node::store::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, MemoryStore, ReadLimit, Setting,
    Store, StoreError,
};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};

use super::{
    chronicle::{Chronicle, Event},
    mutation::Mutation,
};

/// The first Seq not written, of each group, as far as the store has said so. Outlives the node.
#[derive(Debug, Clone, Default)]
pub struct Tails(Arc<Mutex<BTreeMap<GroupId, Seq>>>);

impl Tails {
    /// What is known of a group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Seq {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&group).copied().unwrap_or(Seq::FIRST)
    }

    fn raise(&self, group: GroupId, to: Seq) {
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = tails.entry(group).or_insert(Seq::FIRST);
        *tail = to.max(*tail);
    }
}

/// A [`MemoryStore`] that is watched, and may lie.
#[derive(Debug, Clone)]
pub struct WatchedStore {
    inner: MemoryStore,
    chronicle: Chronicle,
    tails: Tails,
    mutation: Option<Mutation>,
}

impl WatchedStore {
    /// Watches a store.
    #[must_use]
    pub fn new(inner: MemoryStore, chronicle: Chronicle, tails: Tails, mutation: Option<Mutation>) -> Self {
        Self { inner, chronicle, tails, mutation }
    }

    fn lies(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn appended(&self, group: GroupId, epoch: u64, from: Seq, count: u64) {
        self.tails.raise(group, from.advance(count));
        self.chronicle.tell(Event::Appended { group, epoch, from, count });
    }
}

#[async_trait]
impl Store for WatchedStore {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        let mut row = self.inner.activate(group, create).await?;
        if let Some(row) = &mut row {
            self.tails.raise(group, row.tail);
            let epoch = if self.lies(Mutation::EpochsStand) { 1 } else { row.epoch.0 };
            self.chronicle.tell(Event::Activated { group, epoch, tail: row.tail });
            if self.lies(Mutation::SendersForgotten) {
                row.state.senders_watermark = row.tail;
            }
        }
        Ok(row)
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        let (group, epoch, from) = (append.group, append.epoch.0, append.expected_tail);
        let count = append.changes.records.len() as u64;
        if self.lies(Mutation::AcknowledgedEarly) && count > 0 {
            let inner = self.inner.clone();
            tokio::spawn(async move { inner.append(append).await });
            self.appended(group, epoch, from, count);
            return Ok(());
        }
        match self.inner.append(append).await {
            Err(AppendError::OutcomeUnknown(_)) if self.lies(Mutation::UnknownTakenForDone) => {}
            other => other?,
        }
        self.appended(group, epoch, from, count);
        Ok(())
    }

    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        self.inner.group(group).await
    }

    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        self.inner.read(group, from, limit).await
    }

    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        self.inner.edits_of(group, record).await
    }

    async fn sender(&self, group: GroupId, sender: &SenderId) -> Result<Option<SenderNumbers>, StoreError> {
        if self.lies(Mutation::SendersForgotten) {
            return Ok(None);
        }
        self.inner.sender(group, sender).await
    }

    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        self.inner.senders_of(group, user).await
    }

    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError> {
        self.inner.members(group, users).await
    }

    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.inner.members_page(group, slots, after, limit).await
    }

    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        self.inner.groups_of(user, after, limit).await
    }

    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError> {
        let mut cursors = self.inner.cursors(user, groups).await?;
        if self.lies(Mutation::CursorsGoBack) {
            cursors.iter_mut().for_each(|cursors| cursors.read = cursors.read.map(go_back));
        }
        Ok(cursors)
    }

    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        self.inner.raise_cursors(raises).await
    }

    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        self.inner.notices_due(after, limit).await
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        self.inner.setting(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        self.inner.compare_and_swap(key, expected, value).await
    }

    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        self.inner.settings(prefix).await
    }

    fn health(&self) -> Result<(), StoreError> {
        self.inner.health()
    }
}

/// Another place below, which changes as the cursor rises.
fn go_back(read: Seq) -> Seq {
    Seq::new(read.get() % 7 + 1).unwrap_or(Seq::FIRST)
}
