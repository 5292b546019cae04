//! The one thread that writes: it gathers what waits, over all groups, checks each against its
//! group's epoch and tail, writes one batch, syncs it once, tells the witness, and acknowledges.
//! What comes meanwhile is the next batch.

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
    AppendError, Create, CursorRaise, GroupRow, Setting, StoreError, encode::Encoded, staged::Staged,
    witness::Witness,
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

/// An answer that waits for the batch's sync.
#[derive(Debug)]
enum Reply {
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
    pub(super) witness: Witness,
    /// The last commit's number, for whoever wants to know; written here alone.
    pub(super) commits: Arc<AtomicU64>,
    pub(super) staged: Staged,
    pub(super) stopped: Stopped,
    pub(super) sync: Option<PersistMode>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a batch was not acknowledged.
struct Failure {
    error: StoreError,
    /// Is it certain that nothing of it was written?
    unwritten: bool,
}

impl Committer {
    /// Runs until every handle is gone and everything that waited has been answered.
    pub(super) fn run(mut self) {
        let _stops_on_panic = StopsOnPanic(Arc::clone(&self.stopped));
        let mut replies = Vec::new();
        while let Some(request) = self.requests.blocking_recv() {
            self.gather(request, &mut replies);
            let started = Instant::now();
            let outcome = self.commit();
            self.metrics.commit_seconds.observe(started.elapsed());
            self.metrics.commit_writes.observe_size(replies.len() as u64);
            for reply in replies.drain(..) {
                reply.send(&outcome);
            }
        }
    }

    fn gather(&mut self, first: Request, replies: &mut Vec<Reply>) {
        replies.push(self.stage(first));
        while self.staged.bytes() < BATCH_BYTES_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            replies.push(self.stage(request));
        }
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

    fn commit(&mut self) -> Result<(), Failure> {
        if let Some(error) = self.stopped.get() {
            self.staged.forget();
            return Err(Failure { error: error.clone(), unwritten: true });
        }
        if self.staged.is_empty() {
            return Ok(());
        }
        let number = self.commits.load(Ordering::Relaxed) + 1;
        let batch = self.staged.write(&self.database, &self.keyspace, number).durability(self.sync);
        batch.commit().map_err(|error| self.stop("a commit failed", &error, is_unwritten(&error)))?;
        self.witness
            .record(number)
            .map_err(|error| self.stop("the witness was not written", &error, false))?;
        self.commits.store(number, Ordering::Relaxed);
        self.staged.keep();
        Ok(())
    }

    fn stop(&self, what: &str, error: &dyn std::fmt::Display, unwritten: bool) -> Failure {
        let error = StoreError::Stopped(format!(
            "{what} after commit {}: {error}",
            self.commits.load(Ordering::Relaxed)
        ));
        tracing::error!(%error, "the store stops writing; reads go on");
        // Whoever came first said why.
        let error = self.stopped.get_or_init(|| error).clone();
        Failure { error, unwritten }
    }
}

/// The engine refuses before it writes where an earlier write of its own has failed.
fn is_unwritten(error: &fjall::Error) -> bool {
    matches!(error, fjall::Error::Poisoned)
}

impl Reply {
    /// Whoever no longer waits has left it open what became of it.
    fn send(self, outcome: &Result<(), Failure>) {
        match self {
            Self::Append(answer, said) => {
                let refused = |failure: &Failure| match said {
                    Ok(()) if !failure.unwritten => AppendError::OutcomeUnknown(failure.error.to_string()),
                    _ => failure.error.clone().into(),
                };
                drop(
                    answer.send(
                        outcome.as_ref().map_or_else(|failure| Err(refused(failure)), |()| said.clone()),
                    ),
                );
            }
            Self::Activate(answer, said) => settle(answer, said, outcome),
            Self::RaiseCursors(answer, said) => settle(answer, said, outcome),
            Self::Swap(answer, said) => settle(answer, said, outcome),
        }
    }
}

fn settle<T>(answer: Answer<T>, said: Result<T, StoreError>, outcome: &Result<(), Failure>) {
    drop(answer.send(match outcome {
        Ok(()) => said,
        Err(failure) => Err(failure.error.clone()),
    }));
}

/// A panic in the engine must not look like a store that is slow.
struct StopsOnPanic(Stopped);

impl Drop for StopsOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = StoreError::Stopped("the thread that commits has panicked".into());
            tracing::error!(%error, "the store stops writing; reads go on");
            self.0.get_or_init(|| error);
        }
    }
}
