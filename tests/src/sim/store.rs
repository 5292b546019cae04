//! A node's store that on demand breaks a promise, so that the judge can be judged.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_node::store::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, ReadLimit, Setting, Store,
    StoreError,
};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};

use super::{ledger::Ledger, mutation::Mutation};

/// A node's store that may lie.
#[derive(Clone)]
pub struct LyingStore {
    inner: Arc<dyn Store>,
    ledger: Ledger,
    mutation: Option<Mutation>,
}

impl LyingStore {
    /// Asks a store, and lies about what it says where that is the mutation.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, ledger: Ledger, mutation: Option<Mutation>) -> Self {
        Self { inner, ledger, mutation }
    }

    fn lies(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// As a store without a fence would: whoever has been replaced writes too.
    async fn append_unfenced(&self, append: Append) -> Result<(), AppendError> {
        let claimed = append.epoch;
        let mut append = append;
        loop {
            match self.inner.append(append.clone()).await {
                Err(AppendError::Fenced { current }) => append.epoch = current,
                other => return other,
            }
            self.ledger.claim(append.group, append.expected_tail, claimed);
        }
    }
}

#[async_trait]
impl Store for LyingStore {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        let mut row = self.inner.activate(group, create).await?;
        if let Some(row) = row.as_mut().filter(|_| self.lies(Mutation::SendersForgotten)) {
            row.state.senders_watermark = row.tail;
        }
        Ok(row)
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        if self.lies(Mutation::AcknowledgedEarly) && !append.changes.records.is_empty() {
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move { inner.append(append).await });
            return Ok(());
        }
        if self.lies(Mutation::FenceGone) {
            return self.append_unfenced(append).await;
        }
        match self.inner.append(append).await {
            Err(AppendError::OutcomeUnknown(_)) if self.lies(Mutation::UnknownTakenForDone) => Ok(()),
            Err(AppendError::Fenced { .. } | AppendError::TailMoved { .. })
                if self.lies(Mutation::ReplacedGoesOn) =>
            {
                Ok(())
            }
            other => other,
        }
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

    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError> {
        if self.lies(Mutation::SendersForgotten) {
            return Ok(vec![None; senders.len()]);
        }
        self.inner.senders(group, senders).await
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

impl fmt::Debug for LyingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LyingStore({:?})", self.mutation)
    }
}

/// Another place below, which changes as the cursor rises.
fn go_back(read: Seq) -> Seq {
    Seq::new(read.get() % 7 + 1).unwrap_or(Seq::FIRST)
}
