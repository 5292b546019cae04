//! What has become durable: the owner folds it, the tail moves, members are told.

use std::{collections::BTreeMap, time::Duration};

use shoal_protocol::{Seq, wire};
use tokio::time::Instant;
use wire::member_change::Kind;

use super::{Done, Worker};
use crate::group::{
    home::{Entry, Fold},
    notices,
};

/// How long silent records wait before sessions are rung for them: as long as clients wait from one
/// heartbeat to the next.
const SILENT_WAIT: Duration = Duration::from_secs(5);

impl Worker {
    /// Durable and acknowledged: the tail moves, the owner folds.
    pub(super) fn commit(&mut self, entries: Vec<Entry>) {
        self.groups.metrics().committed.add(entries.len() as u64);
        self.note_plans(&entries);
        let concerns_members = entries.iter().any(|entry| entry.fold.members().is_some());
        self.advance(entries);
        if concerns_members {
            self.tell_members();
        }
    }

    /// Records in order, from the tail here on: they are folded, and the tail moves.
    pub(super) fn advance(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            if let Some(owner) = &mut self.owner {
                owner.fold(entry.seq, entry.fold.members());
            }
            match &entry.fold {
                Fold::Layout(layout) => self.take_layout(layout),
                Fold::Feature(feature) => self.take_feature(entry.seq, feature),
                Fold::Members(_) | Fold::Nothing => {}
            }
        }
        let Some(tail) = &self.tail else { return };
        tail.append(entries.iter().map(|entry| entry.frame.clone()), &gone(&entries));
        match tail.has_unrung() {
            true => drop(self.ring_at.get_or_insert_with(|| Instant::now() + SILENT_WAIT)),
            false => self.ring_at = None,
        }
    }

    /// What is silent has waited for company for long enough.
    pub(super) fn ring_for_silent(&mut self) {
        self.ring_at = None;
        if let Some(tail) = &self.tail {
            tail.ring_for_silent();
        }
    }

    /// Tells members what concerns them, if something that is durable is untold.
    pub(super) fn tell_members(&mut self) {
        let Some(home) = self.home.as_ref().filter(|_| !self.is_telling) else { return };
        let (to, title) = (home.durable(), home.state().settings.title.clone());
        let Some(from) = home.state().notices_watermark.filter(|from| *from < to) else { return };
        self.is_telling = true;
        let (groups, store, group) = (self.groups.clone(), self.store.clone(), self.group);
        self.begin(async move {
            Done::Notices(notices::send(groups, store, group, title, from, to).await.map(|()| to))
        });
    }
}

/// Who is no member any more after these records, and the Seq after the one that says so first.
fn gone(entries: &[Entry]) -> BTreeMap<&str, Seq> {
    let is_gone =
        |change: &&wire::MemberChange| matches!(change.kind(), Kind::Left | Kind::Removed | Kind::Banned);
    let mut gone = BTreeMap::new();
    for entry in entries {
        let changes = entry.fold.members().into_iter().flat_map(|changes| &changes.changes);
        for change in changes.filter(is_gone) {
            gone.entry(change.user.as_str()).or_insert(entry.seq.next());
        }
    }
    gone
}
