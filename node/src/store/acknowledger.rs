//! Tells the witness of each commit, in a thread of its own: of a small one while the committer
//! writes it to the journal; of a big one when it is there, and while the next one is written. Such
//! a one is then acknowledged here.
//!
//! Commits come in the order of their numbers, and one begins only when the journal has the one
//! before. So whatever the witness holds, the journal has all but the last of it.

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

/// The witness is being told of a whole commit.
pub(super) struct Witnessing {
    told: Receiver<Result<(), Failure>>,
    stopped: Stopped,
}

/// A commit that the witness is to be told of.
struct Commit {
    number: u64,
    /// Encoded; none where the journal has it already.
    operations: Vec<u8>,
    waiting: Waiting,
}

enum Waiting {
    Replies(Vec<Reply>),
    Committer(SyncSender<Result<(), Failure>>),
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

    /// Begins to tell the witness of a commit that is about to be written to the journal.
    pub(super) fn witness(&self, number: u64, operations: Vec<u8>) -> Witnessing {
        let (teller, told) = sync_channel(1);
        // Where its thread is gone, so is the sender, and waiting ends at once.
        drop(self.commits().send(Commit { number, operations, waiting: Waiting::Committer(teller) }));
        Witnessing { told, stopped: Arc::clone(&self.teller.stopped) }
    }

    /// Answers once the witness knows of a commit that the journal has. Busy: the next one should
    /// not wait for this one's witness; otherwise the way through another thread is saved.
    pub(super) fn acknowledge(&self, number: u64, replies: Vec<Reply>, is_busy: bool) {
        let commit = Commit { number, operations: Vec::new(), waiting: Waiting::Replies(replies) };
        let unsent =
            if is_busy { self.commits().send(commit).map_err(|unsent| unsent.0).err() } else { Some(commit) };
        if let Some(commit) = unsent {
            self.teller.tell(vec![commit]);
        }
    }

    fn commits(&self) -> &SyncSender<Commit> {
        self.commits.as_ref().expect("the channel is closed by drop alone")
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

impl Witnessing {
    pub(super) fn wait(self) -> Result<(), Failure> {
        let gone = |_| Failure::unwitnessed(stop(&self.stopped, "the thread that witnesses is gone"));
        self.told.recv().map_err(gone)?
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
        let told = commits.last().map_or(Ok(()), |last| self.witness(last));
        for commit in commits {
            match commit.waiting {
                Waiting::Replies(replies) => {
                    replies.into_iter().for_each(|reply| reply.send(told.as_ref().copied()));
                }
                // It waits for as long as its thread lives.
                Waiting::Committer(committer) => drop(committer.send(told.clone())),
            }
        }
    }

    fn witness(&self, Commit { number, operations, .. }: &Commit) -> Result<(), Failure> {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        if witness.has(*number) {
            return Ok(());
        }
        if let Some(error) = self.stopped.get() {
            return Err(Failure::unwitnessed(error.clone()));
        }
        witness.record(*number, operations).map_err(|error| {
            Failure::unwitnessed(stop(
                &self.stopped,
                &format!("the witness did not take commit {number}: {error}"),
            ))
        })
    }
}
