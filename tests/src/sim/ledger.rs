//! What became durable, in the order in which it did, whoever was told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shoal_node::store::{Epoch, MemoryDisk, MemoryWrite};
use shoal_protocol::{GroupId, Seq};

use super::{
    chronicle::{Chronicle, Event},
    mutation::Mutation,
};

/// Hears of each write from the disk, and tells the chronicle. Cheap to clone; all clones are the
/// same ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    chronicle: Chronicle,
    mutation: Option<Mutation>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The first Seq not written, of each group.
    tails: BTreeMap<GroupId, Seq>,
    /// The epoch that an append really stated, where the fence is broken.
    claims: BTreeMap<(GroupId, Seq), Epoch>,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(chronicle: Chronicle, mutation: Option<Mutation>) -> Self {
        Self { chronicle, mutation, inner: Arc::default() }
    }

    /// A disk whose writes are told to this ledger.
    #[must_use]
    pub fn disk(&self, seed: u64) -> MemoryDisk {
        let (disk, ledger) = (MemoryDisk::new(seed), self.clone());
        disk.observe(move |write| ledger.take(write));
        disk
    }

    /// The first Seq of a group that is not written.
    #[must_use]
    pub fn tail(&self, group: GroupId) -> Seq {
        self.lock().tails.get(&group).copied().unwrap_or(Seq::FIRST)
    }

    /// What is appended there will be by one who stated another epoch.
    pub fn claim(&self, group: GroupId, from: Seq, epoch: Epoch) {
        self.lock().claims.insert((group, from), epoch);
    }

    fn take(&self, write: MemoryWrite) {
        let event = match write {
            MemoryWrite::Activated { group, epoch, tail } => {
                self.lock().tails.insert(group, tail);
                let stands = self.mutation == Some(Mutation::EpochsStand);
                Event::Activated { group, epoch: if stands { 1 } else { epoch.0 }, tail }
            }
            MemoryWrite::Appended { group, epoch, from, count } => {
                let mut inner = self.lock();
                inner.tails.insert(group, from.advance(count));
                let epoch = inner.claims.remove(&(group, from)).unwrap_or(epoch);
                Event::Appended { group, epoch: epoch.0, from, count }
            }
        };
        self.chronicle.tell(event);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
