//! A store in memory for tests and the simulation, which keeps what a disk would keep.
//!
//! A [`MemoryDisk`] outlives the node: give it to a new [`MemoryStore`] after a restart. What was
//! acknowledged is there; of what was not, a seeded choice keeps a prefix, as a log would. Nothing
//! here needs a task: whoever waits for a commit carries out all that have come due.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, ReadLimit, Setting, Store,
    StoreError,
    model::Model,
    write::{Write, Written},
};

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

/// What goes wrong, once, with the next operation it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// The next commit fails and the store stops writing. Reads go on.
    Stop,
    /// The next append is answered [`AppendError::OutcomeUnknown`]; a seeded choice never writes
    /// it, or writes it now, or lets it land later, as a message still on its way would.
    OutcomeUnknown,
    /// The next commit takes this much longer.
    Slow(Duration),
    /// The next read fails with [`StoreError::Unavailable`].
    Read,
}

/// What survives a crash. Cheap to clone; all clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    durable: Model,
    pending: VecDeque<Pending>,
    /// Of unknown outcome, and still on its way.
    late: Option<Write>,
    faults: Vec<MemoryFault>,
    stopped: Option<StoreError>,
    /// Which opening of the disk may use it: a store of an earlier one is a process that is gone.
    opening: u64,
    random: StdRng,
    /// When the commit under way ends, and when the batch that is being gathered will.
    under_way_until: Option<Instant>,
    gathering_until: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    write: Write,
    due: Option<Instant>,
    outcome: oneshot::Sender<Result<Written, AppendError>>,
}

impl MemoryDisk {
    /// An empty disk; every choice is drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            durable: Model::default(),
            pending: VecDeque::new(),
            late: None,
            faults: Vec::new(),
            stopped: None,
            opening: 0,
            random: StdRng::seed_from_u64(seed),
            under_way_until: None,
            gathering_until: None,
        })))
    }

    /// The machine goes down: of what waits for its commit a seeded prefix is kept, and every
    /// open store is dead. The next [`MemoryStore::open`] finds what is left.
    pub fn crash(&self) {
        self.lock().crash();
    }

    /// Makes something go wrong once.
    pub fn inject(&self, fault: MemoryFault) {
        self.lock().faults.push(fault);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Disk {
    fn crash(&mut self) {
        if self.random.random() {
            self.land_late();
        }
        self.late = None;
        let kept = self.random.random_range(0..=self.pending.len());
        for pending in std::mem::take(&mut self.pending).into_iter().take(kept) {
            self.durable.apply(pending.write);
        }
        self.opening += 1;
        (self.under_way_until, self.gathering_until) = (None, None);
    }

    fn check_writes(&self, opening: u64) -> Result<(), StoreError> {
        if self.opening != opening {
            return Err(dead());
        }
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// When a write that comes now is acknowledged. One commit is under way at a time, and what
    /// comes meanwhile shares the next one.
    fn due(&mut self, commit: &RangeInclusive<Duration>) -> Option<Instant> {
        if commit.end().is_zero() && self.faults.is_empty() && self.pending.is_empty() {
            return None;
        }
        let now = Instant::now();
        if self.gathering_until.is_none_or(|until| until <= now) {
            let until = now + self.commit_time(commit);
            (self.under_way_until, self.gathering_until) = (Some(until), Some(until));
        } else if self.under_way_until == self.gathering_until
            || self.under_way_until.is_none_or(|at| at <= now)
        {
            self.under_way_until = self.gathering_until;
            let begin = self.gathering_until.unwrap_or(now);
            self.gathering_until = Some(begin + self.commit_time(commit));
        }
        self.gathering_until
    }

    fn commit_time(&mut self, commit: &RangeInclusive<Duration>) -> Duration {
        let longer = self.take_fault(|fault| matches!(fault, MemoryFault::Slow(_)));
        let longer = if let Some(MemoryFault::Slow(longer)) = longer { longer } else { Duration::ZERO };
        self.draw(commit) + longer
    }

    fn draw(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        if range.start() >= range.end() { *range.start() } else { self.random.random_range(range.clone()) }
    }

    fn take_fault(&mut self, wanted: impl Fn(&MemoryFault) -> bool) -> Option<MemoryFault> {
        let at = self.faults.iter().position(wanted)?;
        Some(self.faults.remove(at))
    }

    /// Carries out every write that has come due, in the order they came.
    fn settle(&mut self, opening: u64) {
        if self.check_writes(opening).is_err() {
            return;
        }
        while self.pending.front().is_some_and(|first| first.due.is_none_or(|due| due <= Instant::now())) {
            if self.take_fault(|fault| *fault == MemoryFault::Stop).is_some() {
                return self.stop();
            }
            if let Some(pending) = self.pending.pop_front() {
                self.commit(pending);
            }
        }
    }

    fn commit(&mut self, Pending { write, outcome, .. }: Pending) {
        if matches!(write, Write::Activate { .. }) || self.random.random() {
            self.land_late();
        }
        let unknown = matches!(write, Write::Append(_))
            && self.take_fault(|fault| *fault == MemoryFault::OutcomeUnknown).is_some();
        let answer = if unknown {
            self.write_or_not(write);
            Err(AppendError::OutcomeUnknown("injected".into()))
        } else {
            Ok(self.durable.apply(write))
        };
        // Whoever no longer waits has left it open whether it is written.
        drop(outcome.send(answer));
    }

    fn write_or_not(&mut self, write: Write) {
        match self.random.random_range(0..3) {
            0 => {}
            1 => drop(self.durable.apply(write)),
            _ => {
                self.land_late();
                self.late = Some(write);
            }
        }
    }

    /// It states its epoch and tail, so landing late can do no harm to a home that activated again.
    fn land_late(&mut self) {
        if let Some(late) = self.late.take() {
            self.durable.apply(late);
        }
    }

    /// A commit failed. What waited is answered, and the next opening shows what of it is there.
    fn stop(&mut self) {
        let stopped = StoreError::Stopped("injected".into());
        self.stopped = Some(stopped.clone());
        for pending in &mut self.pending {
            let (closed, _) = oneshot::channel();
            let outcome = std::mem::replace(&mut pending.outcome, closed);
            let answer = match pending.write {
                Write::Append(_) => AppendError::OutcomeUnknown("injected".into()),
                _ => stopped.clone().into(),
            };
            drop(outcome.send(Err(answer)));
        }
    }
}

fn dead() -> StoreError {
    StoreError::Stopped("the machine is down".into())
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
        match self.write(Write::Append(append)).await? {
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

    async fn sender(&self, group: GroupId, sender: &SenderId) -> Result<Option<SenderNumbers>, StoreError> {
        self.read(|model| model.sender(group, sender)).await
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
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.read(|model| model.members_page(group, after, limit)).await
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
