//! The tails of this node, one for each group that somebody here holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use shoal_protocol::GroupId;

use crate::delivery::Tail;

/// The tails that somebody holds.
#[derive(Debug, Default)]
pub(super) struct Tails {
    held: BTreeMap<GroupId, Weak<Tail>>,
    /// How many there may be before those that nobody holds are looked for.
    sweep_at: usize,
}

impl Tails {
    const SWEEP_LEAST: usize = 1024;

    pub(super) fn get(&self, group: GroupId) -> Option<Arc<Tail>> {
        self.held.get(&group).and_then(Weak::upgrade)
    }

    /// The groups that somebody follows here.
    pub(super) fn followed(&self) -> Vec<GroupId> {
        let is_followed = |tail: &Weak<Tail>| tail.upgrade().is_some_and(|tail| tail.attached() > 0);
        self.held.iter().filter(|(_, tail)| is_followed(tail)).map(|(group, _)| *group).collect()
    }

    pub(super) fn open(&mut self, group: GroupId, new: impl FnOnce() -> Tail) -> Arc<Tail> {
        if let Some(tail) = self.get(group) {
            return tail;
        }
        if self.held.len() >= self.sweep_at {
            self.held.retain(|_, tail| tail.strong_count() > 0);
            self.sweep_at = (self.held.len() * 2).max(Self::SWEEP_LEAST);
        }
        let tail = Arc::new(new());
        self.held.insert(group, Arc::downgrade(&tail));
        tail
    }
}
