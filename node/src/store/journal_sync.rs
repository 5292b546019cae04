//! Syncs the journal behind the commits that the witness holds whole, in a thread of its own: they
//! are durable already, and one sync serves as many as have come meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use fjall::{Database, Error, PersistMode};

use super::committer::{Stopped, StopsOnPanic, stop};

/// How long commits gather: while it syncs, the next one is held up.
const GATHERING: Duration = Duration::from_millis(3);

/// The committer's end of it.
pub(super) struct JournalSync {
    bell: Option<SyncSender<()>>,
    journaled: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

struct Syncer {
    database: Database,
    /// The last commit that has been written to the journal, synced or not.
    commits: Arc<AtomicU64>,
    journaled: Arc<AtomicU64>,
    stopped: Stopped,
}

impl JournalSync {
    pub(super) fn start(
        database: Database,
        commits: Arc<AtomicU64>,
        stopped: Stopped,
    ) -> std::io::Result<Self> {
        let journaled = Arc::new(AtomicU64::new(commits.load(Ordering::Acquire)));
        let syncer = Syncer { database, commits, journaled: Arc::clone(&journaled), stopped };
        let (bell, rung) = sync_channel(1);
        let thread = std::thread::Builder::new().name("shoal-store-sync".into());
        let thread = thread.spawn(move || syncer.run(&rung))?;
        Ok(Self { bell: Some(bell), journaled, thread: Some(thread) })
    }

    /// The last commit that is certain to be in the journal.
    pub(super) fn journaled(&self) -> u64 {
        self.journaled.load(Ordering::Acquire)
    }

    /// A commit was synced by who wrote it, and all before it.
    pub(super) fn synced(&self, number: u64) {
        self.journaled.fetch_max(number, Ordering::Release);
    }

    /// There is something to sync. A bell that rings already is enough.
    pub(super) fn follow(&self) {
        if let Some(bell) = &self.bell {
            let _ = bell.try_send(());
        }
    }
}

impl Drop for JournalSync {
    fn drop(&mut self) {
        drop(self.bell.take());
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            drop(thread.join());
        }
    }
}

/// Syncs the journal. The engine's own threads sync it too, and the system tells of a failed write
/// once: where they have heard of it, this sync succeeds, and the engine refuses what comes next.
fn sync(database: &Database) -> Result<(), Error> {
    database.persist(PersistMode::SyncData)?;
    is_sound(database)
}

/// An error where the engine has met a failed write or sync, whoever asked for it.
pub(super) fn is_sound(database: &Database) -> Result<(), Error> {
    database.persist(PersistMode::Buffer)
}

impl Syncer {
    fn run(&self, rung: &Receiver<()>) {
        let _stops_on_panic = StopsOnPanic(Arc::clone(&self.stopped));
        while rung.recv().is_ok() {
            std::thread::sleep(GATHERING);
            // What rang meanwhile is in the journal by now.
            let _ = rung.try_recv();
            self.sync();
        }
    }

    /// Once it has failed nobody can tell what the journal holds, and no slot of the witness is
    /// written again: there stands what was acknowledged.
    fn sync(&self) {
        let number = self.commits.load(Ordering::Acquire);
        if number <= self.journaled.load(Ordering::Acquire) || self.stopped.get().is_some() {
            return;
        }
        match sync(&self.database) {
            Ok(()) => drop(self.journaled.fetch_max(number, Ordering::Release)),
            Err(error) => {
                drop(stop(
                    &self.stopped,
                    &format!("the journal's sync behind commit {number} failed: {error}"),
                ));
            }
        }
    }
}
