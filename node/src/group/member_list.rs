//! A sub-group's members: a snapshot of the table, and then a fold over the sequence.

use std::collections::HashMap;

use shoal_protocol::{Accept, Follower, Seq, Slot, UserId, wire};
use wire::{Role, member_change::Kind};

use super::layout::Slots;
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

/// The members in some slots, as of a watermark.
#[derive(Debug, Clone)]
pub(crate) struct MemberList {
    slots: Slots,
    follower: Follower,
    members: HashMap<UserId, Member>,
}

impl MemberList {
    /// No slots, before the record at `watermark`.
    #[must_use]
    pub(crate) fn new(watermark: Seq) -> Self {
        Self { slots: Slots::default(), follower: Follower::new(watermark), members: HashMap::new() }
    }

    /// Takes care of these slots from now on, and of no others. Fill the new ones with [`Self::load`],
    /// from a table that reflects at least everything below the watermark, before more is folded.
    pub(crate) fn own(&mut self, slots: Slots) {
        self.members.retain(|user, _| slots.contains(Slot::of(user)));
        self.slots = slots;
    }

    /// The slots whose members it has.
    #[must_use]
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
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

    /// The member, if the user is one and their slot is one of these.
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
        self.slots.contains(Slot::of(user))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(user: u8, kind: Kind) -> wire::MemberChange {
        let role = if matches!(kind, Kind::Joined | Kind::Added) { Role::Member } else { Role::Admin };
        wire::MemberChange { user: format!("u{user}"), kind: kind.into(), role: role.into(), until_ms: 9 }
    }

    fn changes() -> impl Strategy<Value = Vec<Option<wire::MemberChanges>>> {
        let kinds = [Kind::Joined, Kind::Left, Kind::RoleChanged, Kind::Muted, Kind::Unmuted, Kind::Banned];
        let change =
            (0_u8..4, prop::sample::select(kinds.to_vec())).prop_map(|(user, kind)| change(user, kind));
        let record = prop::collection::vec(change, 0..3).prop_map(|changes| wire::MemberChanges { changes });
        prop::collection::vec(prop::option::of(record), 1..40)
    }

    fn list(slots: Slots, watermark: Seq) -> MemberList {
        let mut list = MemberList::new(watermark);
        list.own(slots);
        list
    }

    fn fold(list: &mut MemberList, records: &[Option<wire::MemberChanges>]) {
        for (at, record) in records.iter().enumerate() {
            list.fold(Seq::FIRST.advance(at as u64), record.as_ref());
        }
    }

    fn rows(list: &MemberList) -> Vec<MemberRow> {
        let row = |(user, member): (&UserId, &Member)| MemberRow {
            user: user.clone(),
            role: member.role,
            muted_until_ms: member.muted_until_ms,
            banned: false,
            joined: member.joined,
            changed: member.changed,
        };
        list.members.iter().map(row).collect()
    }

    proptest! {
        /// The table may be read while it changes: its rows are as new as the watermark or newer.
        #[test]
        fn a_snapshot_and_a_fold_make_the_same_list_as_the_whole_sequence(
            records in changes(), watermark in 0_usize..40, snapshot in 0_usize..40,
        ) {
            let watermark = watermark.min(records.len());
            let snapshot = snapshot.clamp(watermark, records.len());
            let mut whole = list(Slots::that(|_| true), Seq::FIRST);
            fold(&mut whole, &records);
            let mut table = list(Slots::that(|_| true), Seq::FIRST);
            fold(&mut table, &records[..snapshot]);
            let mut list = list(Slots::that(|_| true), Seq::FIRST.advance(watermark as u64));
            list.load(rows(&table));
            fold(&mut list, &records);
            prop_assert_eq!(list.members, whole.members);
            prop_assert_eq!(list.follower, whole.follower);
        }
    }

    #[test]
    fn a_list_holds_the_members_of_its_slots_alone() {
        let all: Vec<_> = (0..40).map(|user| change(user, Kind::Joined)).collect();
        let joined = wire::MemberChanges { changes: all };
        let (low, high) =
            (Slots::that(|slot| slot.number() < 8192), Slots::that(|slot| slot.number() >= 8192));
        let lists = [low, high].map(|slots| {
            let mut list = list(slots, Seq::FIRST);
            assert_eq!(list.fold(Seq::FIRST, Some(&joined)), Accept::Take);
            list
        });
        assert_eq!(lists.iter().map(|list| list.members.len()).sum::<usize>(), 40);
    }

    /// The rows of slots that come later are loaded into a list that has folded what made them.
    #[test]
    fn a_list_takes_over_slots_and_lets_go_of_others() {
        let joined =
            wire::MemberChanges { changes: (0..40).map(|user| change(user, Kind::Joined)).collect() };
        let mut whole = list(Slots::that(|_| true), Seq::FIRST);
        let mut part = list(Slots::that(|slot| slot.number() < 8192), Seq::FIRST);
        for list in [&mut whole, &mut part] {
            list.fold(Seq::FIRST, Some(&joined));
        }
        let (before, table) = (part.members.clone(), rows(&whole));
        part.own(Slots::that(|_| true));
        part.load(table);
        assert_eq!(part.members, whole.members);
        part.own(Slots::that(|slot| slot.number() < 8192));
        assert_eq!(part.members, before);
    }
}
