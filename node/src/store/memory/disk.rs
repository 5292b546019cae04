//! What is durable, what waits to be, and what goes wrong.

use std::{
    collections::VecDeque,
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_protocol::{GroupId, Seq};
use tokio::{sync::oneshot, time::Instant};

use crate::store::{
    AppendError, Epoch, GroupRow, StoreError,
    model::Model,
    write::{Write, Written},
};

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

/// What became durable of a group, whoever was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryWrite {
    /// A home was activated: its epoch, and the tail it read.
    Activated {
        /// Which group.
        group: GroupId,
        /// The epoch that holds from now on.
        epoch: Epoch,
        /// The tail in the row.
        tail: Seq,
    },
    /// Records were appended.
    Appended {
        /// Which group.
        group: GroupId,
        /// Under which epoch.
        epoch: Epoch,
        /// The first of them.
        from: Seq,
        /// How many.
        count: u64,
    },
}

/// Is told of each write as it becomes durable, in their order. The disk is locked meanwhile.
struct Observer(Box<dyn Fn(MemoryWrite) + Send>);

/// What survives a crash. Cheap to clone; all clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) durable: Model,
    pub(super) pending: VecDeque<Pending>,
    /// Of unknown outcome, and still on its way.
    late: Option<Write>,
    faults: Vec<MemoryFault>,
    pub(super) stopped: Option<StoreError>,
    /// Which opening of the disk may use it: a store of an earlier one is a process that is gone.
    pub(super) opening: u64,
    random: StdRng,
    observer: Option<Observer>,
    /// When the commit under way ends, and when the batch that is being gathered will.
    under_way_until: Option<Instant>,
    gathering_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) write: Write,
    pub(super) due: Option<Instant>,
    pub(super) outcome: oneshot::Sender<Result<Written, AppendError>>,
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
            observer: None,
            under_way_until: None,
            gathering_until: None,
        })))
    }

    /// The machine goes down: of what waits for its commit a seeded prefix is kept, and every
    /// open store is dead. The next `MemoryStore::open` finds what is left.
    pub fn crash(&self) {
        self.lock().crash();
    }

    /// A group's row, as it is durable.
    #[must_use]
    pub fn row(&self, group: GroupId) -> Option<GroupRow> {
        self.lock().durable.group(group)
    }

    /// A group whose home has something left to finish: notices, or a plan.
    #[must_use]
    pub fn unfinished(&self) -> Option<GroupId> {
        self.lock().durable.notices_due(None, 1).pop()
    }

    /// Is something written that is not durable yet? Whoever opens the disk now may find it, or not.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Makes something go wrong once.
    pub fn inject(&self, fault: MemoryFault) {
        self.lock().faults.push(fault);
    }

    /// From now on `observer` is told what becomes durable of groups, in that order. It must not
    /// use the disk.
    pub fn observe(&self, observer: impl Fn(MemoryWrite) + Send + 'static) {
        self.lock().observer = Some(Observer(Box::new(observer)));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    pub(super) fn crash(&mut self) {
        if self.random.random() {
            self.land_late();
        }
        self.late = None;
        let kept = self.random.random_range(0..=self.pending.len());
        for pending in std::mem::take(&mut self.pending).into_iter().take(kept) {
            self.apply(pending.write);
        }
        self.opening += 1;
        (self.under_way_until, self.gathering_until) = (None, None);
    }

    pub(super) fn check_writes(&self, opening: u64) -> Result<(), StoreError> {
        if self.opening != opening {
            return Err(dead());
        }
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// When a write that comes now is acknowledged. One commit is under way at a time, and what
    /// comes meanwhile shares the next one.
    pub(super) fn due(&mut self, commit: &RangeInclusive<Duration>) -> Option<Instant> {
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

    pub(super) fn draw(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        if range.start() >= range.end() { *range.start() } else { self.random.random_range(range.clone()) }
    }

    pub(super) fn take_fault(&mut self, wanted: impl Fn(&MemoryFault) -> bool) -> Option<MemoryFault> {
        let at = self.faults.iter().position(wanted)?;
        Some(self.faults.remove(at))
    }

    /// Carries out every write that has come due, in the order they came.
    pub(super) fn settle(&mut self, opening: u64) {
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
            Ok(self.apply(write))
        };
        // Whoever no longer waits has left it open whether it is written.
        drop(outcome.send(answer));
    }

    fn write_or_not(&mut self, write: Write) {
        match self.random.random_range(0..3) {
            0 => {}
            1 => drop(self.apply(write)),
            _ => {
                self.land_late();
                self.late = Some(write);
            }
        }
    }

    /// It states its epoch and tail, so landing late can do no harm to a home that activated again.
    fn land_late(&mut self) {
        if let Some(late) = self.late.take() {
            self.apply(late);
        }
    }

    fn apply(&mut self, write: Write) -> Written {
        let Some(Observer(tell)) = &self.observer else { return self.durable.apply(write) };
        match write {
            Write::Activate { group, .. } => {
                let written = self.durable.apply(write);
                if let Written::Activated(Some(GroupRow { epoch, tail, .. })) = &written {
                    tell(MemoryWrite::Activated { group, epoch: *epoch, tail: *tail });
                }
                written
            }
            Write::Append(append) => {
                let (group, epoch, from) = (append.group, append.epoch, append.expected_tail);
                let count = append.tail_after().since(from);
                let written = self.durable.apply(Write::Append(append));
                if written == Written::Appended(Ok(())) {
                    tell(MemoryWrite::Appended { group, epoch, from, count });
                }
                written
            }
            write => self.durable.apply(write),
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

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

pub(super) fn dead() -> StoreError {
    StoreError::Stopped("the machine is down".into())
}
