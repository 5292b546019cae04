//! The one thread that writes: it gathers what waits, over all groups, checks each against its
//! group's epoch and tail, writes one batch and syncs it once. What comes meanwhile is the next
//! batch. A small one is synced in the witness, whole, and in the journal later
//! ([`super::journal_sync`]); a big one is synced in the journal, and [`super::acknowledger`] tells
//! the witness its number while the next one is written.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode};
use shoal_protocol::GroupId;
use tokio::sync::{mpsc, oneshot};

use super::{
    AppendError, Create, CursorRaise, GroupRow, Setting, StoreError, acknowledger::Acknowledger,
    encode::Encoded, journal_sync, journal_sync::JournalSync, operations::Operations, staged::Staged,
    witness::OPERATIONS_BYTES_MAX,
};
use crate::ops::Metrics;

/// Bytes in a batch before it is written, whatever waits: one sync should not wait for long.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Why the store writes no more, once it does not.
pub(super) type Stopped = Arc<OnceLock<StoreError>>;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write that waits for its batch.
#[derive(Debug)]
pub(super) enum Request {
    Append { append: Box<Encoded>, answer: oneshot::Sender<Result<(), AppendError>> },
    Activate { group: GroupId, create: Option<Create>, answer: Answer<Option<GroupRow>> },
    RaiseCursors { raises: Vec<CursorRaise>, answer: Answer<()> },
    Swap { key: String, expected: u64, value: Option<Bytes>, answer: Answer<Result<u64, Option<Setting>>> },
}

/// An answer that waits for the batch's sync, and for the witness.
#[derive(Debug)]
pub(super) enum Reply {
    Append(oneshot::Sender<Result<(), AppendError>>, Result<(), AppendError>),
    Activate(Answer<Option<GroupRow>>, Result<Option<GroupRow>, StoreError>),
    RaiseCursors(Answer<()>, Result<(), StoreError>),
    Swap(Answer<Result<u64, Option<Setting>>>, Result<Result<u64, Option<Setting>>, StoreError>),
}

/// Everything the thread owns.
pub(super) struct Committer {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    /// The last commit's number, for whoever wants to know; written here alone.
    pub(super) commits: Arc<AtomicU64>,
    pub(super) staged: Staged,
    pub(super) acknowledger: Acknowledger,
    pub(super) journal_sync: JournalSync,
    pub(super) stopped: Stopped,
    pub(super) metrics: Arc<Metrics>,
}

/// Where a batch is durable.
enum Durable {
    /// In the journal, and the witness has yet to be told that it has got as far as this commit.
    Journaled(u64),
    /// In the witness, which holds it whole; the journal's sync follows.
    Witnessed,
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    error: StoreError,
    /// Is it certain that nothing of it was written?
    unwritten: bool,
}

impl Committer {
    /// Runs until every handle is gone and everything that waited has been answered.
    pub(super) fn run(mut self) {
        let _stops_on_panic = StopsOnPanic(Arc::clone(&self.stopped));
        while let Some(request) = self.requests.blocking_recv() {
            let replies = self.gather(request);
            let began = Instant::now();
            let outcome = self.commit();
            self.metrics.commit_seconds.observe(began.elapsed());
            self.metrics.commit_writes.observe_size(replies.len() as u64);
            match outcome {
                Ok(Durable::Witnessed) => replies.into_iter().for_each(|reply| reply.send(Ok(()))),
                Ok(Durable::Journaled(number)) => {
                    let is_busy = !self.requests.is_empty();
                    self.acknowledger.acknowledge(number, replies, is_busy);
                }
                Err(failure) => replies.into_iter().for_each(|reply| reply.send(Err(&failure))),
            }
        }
    }

    fn gather(&mut self, first: Request) -> Vec<Reply> {
        let mut replies = vec![self.stage(first)];
        while self.staged.bytes() < BATCH_BYTES_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            replies.push(self.stage(request));
        }
        replies
    }

    fn stage(&mut self, request: Request) -> Reply {
        let staged = &mut self.staged;
        match request {
            Request::Append { append, answer } => Reply::Append(answer, staged.append(*append)),
            Request::Activate { group, create, answer } => {
                Reply::Activate(answer, staged.activate(group, create))
            }
            Request::RaiseCursors { raises, answer } => {
                Reply::RaiseCursors(answer, staged.raise_cursors(raises))
            }
            Request::Swap { key, expected, value, answer } => {
                Reply::Swap(answer, staged.compare_and_swap(&key, expected, value))
            }
        }
    }

    fn commit(&mut self) -> Result<Durable, Failure> {
        let last = self.commits.load(Ordering::Relaxed);
        if let Some(error) = self.stopped.get() {
            self.staged.forget();
            return Err(Failure { error: error.clone(), unwritten: true });
        }
        if self.staged.is_empty() {
            return Ok(Durable::Journaled(last));
        }
        let number = last + 1;
        let operations = self.staged.take(number);
        let durable = if self.witness(number, &operations)? {
            self.write(number, operations, PersistMode::Buffer)?;
            self.journal_sync.follow();
            Durable::Witnessed
        } else {
            self.write(number, operations, PersistMode::SyncData)?;
            self.journal_sync.synced(number);
            Durable::Journaled(number)
        };
        self.staged.keep();
        Ok(durable)
    }

    /// Durable in the witness, if it is small and there is room for it.
    fn witness(&self, number: u64, operations: &Operations) -> Result<bool, Failure> {
        let Some(encoded) = operations.encode(OPERATIONS_BYTES_MAX) else { return Ok(false) };
        self.acknowledger.witness(number, &encoded, self.journal_sync.journaled())
    }

    /// Into the journal, and to be seen by whoever reads: so it is durable before, or by that.
    fn write(&self, number: u64, operations: Operations, mode: PersistMode) -> Result<(), Failure> {
        let batch = operations.into_batch(&self.database, &self.keyspace).durability(Some(mode));
        let written = batch.commit().and_then(|()| match mode {
            PersistMode::Buffer => Ok(()),
            _ => journal_sync::is_sound(&self.database),
        });
        written.map_err(|error| {
            // The engine refuses before it writes where an earlier write of its own has failed; but
            // what the witness holds is written when the store is opened again.
            let unwritten = mode == PersistMode::SyncData && matches!(error, fjall::Error::Poisoned);
            let error = stop(&self.stopped, &format!("commit {number} failed: {error}"));
            Failure { error, unwritten }
        })?;
        self.commits.store(number, Ordering::Release);
        Ok(())
    }
}

/// Whoever comes first says why.
pub(super) fn stop(stopped: &Stopped, why: &str) -> StoreError {
    let error = StoreError::Stopped(why.into());
    tracing::error!(%error, "the store stops writing; reads go on");
    stopped.get_or_init(|| error).clone()
}

impl Failure {
    /// It is written, as far as anybody can tell, but not witnessed.
    pub(super) fn unwitnessed(error: StoreError) -> Self {
        Self { error, unwritten: false }
    }
}

impl Reply {
    /// Whoever no longer waits has left it open what became of it.
    pub(super) fn send(self, outcome: Result<(), &Failure>) {
        match self {
            Self::Append(answer, said) => drop(answer.send(match outcome {
                Ok(()) => said,
                Err(failure) if said.is_ok() && !failure.unwritten => {
                    Err(AppendError::OutcomeUnknown(failure.error.to_string()))
                }
                Err(failure) => Err(failure.error.clone().into()),
            })),
            Self::Activate(answer, said) => settle(answer, said, outcome),
            Self::RaiseCursors(answer, said) => settle(answer, said, outcome),
            Self::Swap(answer, said) => settle(answer, said, outcome),
        }
    }
}

fn settle<T>(answer: Answer<T>, said: Result<T, StoreError>, outcome: Result<(), &Failure>) {
    drop(answer.send(outcome.map_err(|failure| failure.error.clone()).and(said)));
}

/// A panic in the engine must not look like a store that is slow.
pub(super) struct StopsOnPanic(pub(super) Stopped);

impl Drop for StopsOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            stop(&self.0, "a thread of the store has panicked");
        }
    }
}
