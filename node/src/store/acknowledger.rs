//! Tells the witness of a commit and then acknowledges it, while the next commit is under way.
//!
//! With nothing else waiting, the thread that committed does it itself, which saves a lone append
//! the way through another thread.

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

/// A durable batch whose acknowledgements are due.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) number: u64,
    pub(super) replies: Vec<Reply>,
}

/// The committer's end of it.
pub(super) struct Acknowledger {
    witnessing: Arc<Witnessing>,
    commits: Option<SyncSender<Committed>>,
    thread: Option<JoinHandle<()>>,
}

struct Witnessing {
    witness: Mutex<Witnessed>,
    stopped: Stopped,
}

struct Witnessed {
    witness: Witness,
    commit: u64,
}

impl Acknowledger {
    /// Begins after `commit`, which the witness has.
    pub(super) fn start(witness: Witness, commit: u64, stopped: Stopped) -> std::io::Result<Self> {
        let witness = Mutex::new(Witnessed { witness, commit });
        let witnessing = Arc::new(Witnessing { witness, stopped });
        let (commits, receiver) = sync_channel(COMMITS_MAX);
        let thread = std::thread::Builder::new().name("shoal-store-ack".into()).spawn({
            let witnessing = Arc::clone(&witnessing);
            move || witnessing.run(&receiver)
        })?;
        Ok(Self { witnessing, commits: Some(commits), thread: Some(thread) })
    }

    /// Busy: the next commit should not wait for this one's witness.
    pub(super) fn acknowledge(&self, committed: Committed, is_busy: bool) {
        let commits = self.commits.as_ref().expect("the channel is closed by drop alone");
        let unsent =
            if is_busy { commits.send(committed).map_err(|unsent| unsent.0).err() } else { Some(committed) };
        if let Some(committed) = unsent {
            self.witnessing.acknowledge(vec![committed]);
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

impl Witnessing {
    fn run(&self, commits: &Receiver<Committed>) {
        let _stops_on_panic = StopsOnPanic(Arc::clone(&self.stopped));
        while let Ok(first) = commits.recv() {
            self.acknowledge([first].into_iter().chain(commits.try_iter()).collect());
        }
    }

    fn acknowledge(&self, commits: Vec<Committed>) {
        let last = commits.iter().map(|committed| committed.number).max().unwrap_or(0);
        let witnessed = self.witness(last);
        for reply in commits.into_iter().flat_map(|committed| committed.replies) {
            reply.send(witnessed.as_ref().copied());
        }
    }

    fn witness(&self, number: u64) -> Result<(), Failure> {
        let mut witnessed = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= witnessed.commit {
            return Ok(());
        }
        if let Some(error) = self.stopped.get() {
            return Err(Failure::unwitnessed(error.clone()));
        }
        witnessed.witness.record(number).map_err(|error| {
            Failure::unwitnessed(stop(
                &self.stopped,
                &format!("the witness did not take commit {number}: {error}"),
            ))
        })?;
        witnessed.commit = number;
        Ok(())
    }
}
