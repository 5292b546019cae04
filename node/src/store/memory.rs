//! A store in memory for tests and the simulation, which keeps what a disk would keep.
//!
//! A [`MemoryDisk`] outlives the node: give it to a new [`MemoryStore`] after a restart. What was
//! acknowledged is there; of what was not, a seeded choice keeps a prefix, as a log would. Nothing
//! here needs a task: whoever waits for a commit carries out all that have come due.

mod disk;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, ReadLimit, Setting, Store,
    StoreError,
    model::Model,
    write::{Write, Written},
};
pub use disk::{MemoryDisk, MemoryFault, MemoryWrite};
use disk::{Pending, dead};

/// How long things take, in tokio's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTiming {
    /// From gathering a batch to its acknowledgement, drawn for each batch. Zero: at once.
    pub commit: RangeInclusive<Duration>,
    /// A read, drawn for each.
    pub read: RangeInclusive<Duration>,
}

impl Default for MemoryTiming {
    fn default() -> Self {
        Self { commit: Duration::ZERO..=Duration::ZERO, read: Duration::ZERO..=Duration::ZERO }
    }
}

/// [`Store`] on a [`MemoryDisk`]. Cheap to clone; all clones are the same opening.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    disk: MemoryDisk,
    opening: u64,
    timing: MemoryTiming,
}

impl MemoryStore {
    /// Opens the disk. A store that has it open is shut out, as by a crash.
    #[must_use]
    pub fn open(disk: &MemoryDisk, timing: MemoryTiming) -> Self {
        let opening = {
            let mut disk = disk.lock();
            disk.crash();
            disk.stopped = None;
            disk.opening
        };
        Self { disk: disk.clone(), opening, timing }
    }

    /// A store on a disk of its own that commits at once.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::open(&MemoryDisk::new(seed), MemoryTiming::default())
    }

    /// The disk, to crash it, to make something go wrong, and to open it again.
    #[must_use]
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    async fn write(&self, write: Write) -> Result<Written, AppendError> {
        let (due, mut outcome) = self.submit(write)?;
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        self.disk.lock().settle(self.opening);
        outcome.try_recv().unwrap_or_else(|_| Err(dead().into()))
    }

    #[expect(clippy::type_complexity, reason = "when it is due, and where the outcome will be")]
    fn submit(
        &self,
        write: Write,
    ) -> Result<(Option<Instant>, oneshot::Receiver<Result<Written, AppendError>>), StoreError> {
        let mut disk = self.disk.lock();
        disk.check_writes(self.opening)?;
        let due = disk.due(&self.timing.commit);
        let (outcome, receiver) = oneshot::channel();
        disk.pending.push_back(Pending { write, due, outcome });
        Ok((due, receiver))
    }

    async fn read<T>(&self, read: impl FnOnce(&Model) -> T + Send) -> Result<T, StoreError> {
        let latency = self.disk.lock().draw(&self.timing.read);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut disk = self.disk.lock();
        if disk.opening != self.opening {
            return Err(StoreError::Unavailable("the machine is down".into()));
        }
        if disk.take_fault(|fault| *fault == MemoryFault::Read).is_some() {
            return Err(StoreError::Unavailable("injected".into()));
        }
        Ok(read(&disk.durable))
    }
}

/// Only an append can be told that its outcome is unknown.
fn store_error(error: AppendError) -> StoreError {
    match error {
        AppendError::Store(error) => error,
        other => StoreError::Stopped(other.to_string()),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        match self.write(Write::Activate { group, create }).await.map_err(store_error)? {
            Written::Activated(row) => Ok(row),
            other => unreachable!("an activation is answered as one, not with {other:?}"),
        }
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        append.assert_refers_below_tail();
        match self.write(Write::Append(Box::new(append))).await? {
            Written::Appended(outcome) => outcome,
            other => unreachable!("an append is answered as one, not with {other:?}"),
        }
    }

    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        self.read(|model| model.group(group)).await
    }

    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        self.read(|model| model.read(group, from, limit)).await
    }

    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        self.read(|model| model.edits_of(group, record)).await
    }

    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError> {
        self.read(|model| senders.iter().map(|sender| model.sender(group, sender)).collect()).await
    }

    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        self.read(|model| model.senders_of(group, user)).await
    }

    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError> {
        self.read(|model| model.members(group, users)).await
    }

    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.read(|model| model.members_page(group, slots, after, limit)).await
    }

    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        self.read(|model| model.groups_of(user, after, limit)).await
    }

    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError> {
        self.read(|model| model.cursors(user, groups)).await
    }

    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        self.write(Write::RaiseCursors(raises)).await.map(drop).map_err(store_error)
    }

    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        self.read(|model| model.notices_due(after, limit)).await
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        self.read(|model| model.setting(key)).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        match self.write(Write::Swap { key: key.into(), expected, value }).await.map_err(store_error)? {
            Written::Swapped(outcome) => Ok(outcome),
            other => unreachable!("a swap is answered as one, not with {other:?}"),
        }
    }

    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        self.read(|model| model.settings(prefix)).await
    }

    fn health(&self) -> Result<(), StoreError> {
        self.disk.lock().check_writes(self.opening)
    }
}
