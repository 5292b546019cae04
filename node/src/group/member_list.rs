//! A sub-group's members: a snapshot of the table, and then a fold over the sequence.

use std::{collections::HashMap, ops::Range};

use shoal_protocol::{Accept, Follower, Seq, Slot, UserId, wire};
use wire::{Role, member_change::Kind};

use crate::store::MemberRow;

/// What an owner knows of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Never `Role::None`.
    pub(crate) role: Role,
    /// Milliseconds since 1970; 0 if not muted.
    pub(crate) muted_until_ms: u64,
    /// The record of the join that holds.
    pub(crate) joined: Seq,
    /// The record that changed this member last.
    changed: Seq,
}

/// The members whose slots are in a range, as of a watermark.
#[derive(Debug, Clone)]
pub(crate) struct MemberList {
    slots: Range<u16>,
    follower: Follower,
    members: HashMap<UserId, Member>,
}

impl MemberList {
    /// No members of these slots, before the record at `watermark`. Fill it with [`Self::load`]
    /// from a table that reflects at least everything below `watermark`, then fold.
    #[must_use]
    pub(crate) fn new(slots: Range<u16>, watermark: Seq) -> Self {
        Self { slots, follower: Follower::new(watermark), members: HashMap::new() }
    }

    /// Takes rows of the table. A row may be newer than the watermark: folding the records that
    /// made it so changes nothing.
    pub(crate) fn load(&mut self, rows: impl IntoIterator<Item = MemberRow>) {
        for row in rows {
            if row.role != Role::None && self.owns(&row.user) {
                let MemberRow { user, role, muted_until_ms, joined, changed, .. } = row;
                self.members.insert(user, Member { role, muted_until_ms, joined, changed });
            }
        }
    }

    /// Everything below is folded.
    #[must_use]
    pub(crate) fn watermark(&self) -> Seq {
        self.follower.watermark()
    }

    /// The member, if the user is one and their slot is in the range.
    #[must_use]
    pub(crate) fn get(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user)
    }

    /// Folds one record; `changes` where it changes members.
    pub(crate) fn fold(&mut self, seq: Seq, changes: Option<&wire::MemberChanges>) -> Accept {
        let accept = self.follower.accept(seq);
        if accept == Accept::Take {
            for change in changes.into_iter().flat_map(|changes| &changes.changes) {
                self.apply(seq, change);
            }
        }
        accept
    }

    fn apply(&mut self, seq: Seq, change: &wire::MemberChange) {
        // The home checked the name before it wrote the record.
        let Ok(user) = UserId::new(&change.user) else { return };
        if !self.owns(&user) {
            return;
        }
        match change.kind() {
            Kind::Joined | Kind::Added => {
                let fresh = Member { role: change.role(), muted_until_ms: 0, joined: seq, changed: seq };
                let member = self.members.entry(user).or_insert(fresh);
                if member.changed < seq {
                    *member = fresh;
                }
            }
            Kind::Left | Kind::Removed | Kind::Banned => {
                if self.members.get(&user).is_some_and(|member| member.changed < seq) {
                    self.members.remove(&user);
                }
            }
            kind => {
                if let Some(member) = self.members.get_mut(&user).filter(|member| member.changed < seq) {
                    member.changed = seq;
                    match kind {
                        Kind::RoleChanged => member.role = change.role(),
                        Kind::Muted => member.muted_until_ms = change.until_ms,
                        Kind::Unmuted => member.muted_until_ms = 0,
                        _ => {}
                    }
                }
            }
        }
    }

    fn owns(&self, user: &UserId) -> bool {
        self.slots.contains(&Slot::of(user).number())
    }
}
