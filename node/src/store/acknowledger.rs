//! Answers a big commit once the witness knows its number, in a thread of its own while the next
//! commit is written; and keeps the witness, in which the committer writes the small ones itself.
//!
//! A commit is written only when all before it are durable, in the journal or whole in the witness.
//! So whoever tells the witness of one speaks for those before.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    committer::{Failure, Reply, Stopped, StopsOnPanic, stop},
    witness::Witness,
};

/// Commits that wait for the witness. It is quicker than they are: one waits, if any.
const COMMITS_MAX: usize = 2;

/// The committer's end of it.
pub(super) struct Acknowledger {
    teller: Arc<Teller>,
    commits: Option<SyncSender<Commit>>,
    thread: Option<JoinHandle<()>>,
}

/// A commit in the journal, that the witness is to be told of.
struct Commit {
    number: u64,
    replies: Vec<Reply>,
}

struct Teller {
    witness: Mutex<Witness>,
    stopped: Stopped,
}

impl Acknowledger {
    pub(super) fn start(witness: Witness, stopped: Stopped) -> std::io::Result<Self> {
        let teller = Arc::new(Teller { witness: Mutex::new(witness), stopped });
        let (commits, receiver) = sync_channel(COMMITS_MAX);
        let thread = std::thread::Builder::new().name("shoal-store-ack".into()).spawn({
            let teller = Arc::clone(&teller);
            move || teller.run(&receiver)
        })?;
        Ok(Self { teller, commits: Some(commits), thread: Some(thread) })
    }

    /// Writes a whole commit to the witness, durable once this returns; false where there is no room
    /// until the journal, which has been synced up to `journaled`, is synced again.
    pub(super) fn witness(&self, number: u64, operations: &[u8], journaled: u64) -> Result<bool, Failure> {
        self.teller.record(number, |witness| {
            let has_room = witness.has_room(journaled);
            if has_room {
                witness.record(number, operations)?;
            }
            Ok(has_room)
        })
    }

    /// Answers once the witness knows of a commit that the journal has. Busy: the next one should
    /// not wait for this one's witness; otherwise the way through another thread is saved.
    pub(super) fn acknowledge(&self, number: u64, replies: Vec<Reply>, is_busy: bool) {
        let commit = Commit { number, replies };
        let commits = self.commits.as_ref().expect("the channel is closed by drop alone");
        let unsent =
            if is_busy { commits.send(commit).map_err(|unsent| unsent.0).err() } else { Some(commit) };
        if let Some(commit) = unsent {
            self.teller.tell(vec![commit]);
        }
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        drop(self.commits.take());
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            drop(thread.join());
        }
    }
}

impl Teller {
    fn run(&self, commits: &Receiver<Commit>) {
        let _stops_on_panic = StopsOnPanic(Arc::clone(&self.stopped));
        while let Ok(first) = commits.recv() {
            self.tell([first].into_iter().chain(commits.try_iter()).collect());
        }
    }

    /// The last one speaks for those before it.
    fn tell(&self, commits: Vec<Commit>) {
        let told = commits.last().map_or(Ok(()), |last| {
            self.record(last.number, |witness| {
                if witness.has(last.number) { Ok(()) } else { witness.record(last.number, &[]) }
            })
        });
        for reply in commits.into_iter().flat_map(|commit| commit.replies) {
            reply.send(told.as_ref().copied());
        }
    }

    fn record<T>(
        &self,
        number: u64,
        record: impl FnOnce(&mut Witness) -> std::io::Result<T>,
    ) -> Result<T, Failure> {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = self.stopped.get() {
            return Err(Failure::unwitnessed(error.clone()));
        }
        record(&mut witness).map_err(|error| {
            let why = format!("the witness did not take commit {number}: {error}");
            Failure::unwitnessed(stop(&self.stopped, &why))
        })
    }
}
