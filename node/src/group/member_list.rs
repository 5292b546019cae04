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
    loading: Option<Loading>,
    follower: Follower,
    members: HashMap<UserId, Member>,
}

/// Slots whose rows are on their way: a snapshot, page by page, and what is to be folded on it.
#[derive(Debug, Clone)]
struct Loading {
    slots: Slots,
    members: HashMap<UserId, Member>,
    folded: Vec<(Seq, wire::MemberChange)>,
}

impl Loading {
    fn concerns(&self, change: &wire::MemberChange) -> bool {
        UserId::new(&change.user).is_ok_and(|user| self.slots.contains(Slot::of(&user)))
    }
}

impl MemberList {
    /// No slots, before the record at `watermark`.
    #[must_use]
    pub(crate) fn new(watermark: Seq) -> Self {
        let follower = Follower::new(watermark);
        Self { slots: Slots::default(), loading: None, follower, members: HashMap::new() }
    }

    /// Lets go of all slots but these; true where of those that were being loaded some are not among them,
    /// and so none is loaded any more.
    pub(crate) fn keep(&mut self, slots: &Slots) -> bool {
        self.slots = self.slots.within(slots);
        self.members.retain(|user, _| self.slots.contains(Slot::of(user)));
        self.loading.take_if(|loading| !loading.slots.without(slots).is_empty()).is_some()
    }

    /// The rows of these slots are about to come, from a table that reflects at least everything below the
    /// watermark: [`Self::load`] them, and [`Self::end_loading`].
    pub(crate) fn begin_loading(&mut self, slots: Slots) {
        self.loading = Some(Loading { slots, members: HashMap::new(), folded: Vec::new() });
    }

    /// Takes rows of the table. A row may be newer than the watermark: folding the records that
    /// made it so changes nothing.
    pub(crate) fn load(&mut self, rows: impl IntoIterator<Item = MemberRow>) {
        let Some(loading) = &mut self.loading else { return };
        for row in rows {
            if row.role != Role::None && loading.slots.contains(Slot::of(&row.user)) {
                let MemberRow { user, role, muted_until_ms, joined, changed, .. } = row;
                loading.members.insert(user, Member { role, muted_until_ms, joined, changed });
            }
        }
    }

    /// All rows have come: the slots are taken over. What was folded meanwhile is folded on the rows, which
    /// may be from before.
    pub(crate) fn end_loading(&mut self) {
        if let Some(Loading { slots, members, folded }) = self.loading.take() {
            self.slots = self.slots.with(&slots);
            self.members.extend(members);
            folded.iter().for_each(|(seq, change)| self.apply(*seq, change));
        }
    }

    /// They do not come.
    pub(crate) fn abort_loading(&mut self) {
        self.loading = None;
    }

    /// Everybody in the list.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.members.keys()
    }

    /// The slots whose members it has.
    #[must_use]
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
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
                if let Some(loading) = self.loading.as_mut().filter(|loading| loading.concerns(change)) {
                    loading.folded.push((seq, change.clone()));
                }
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
        take_over(&mut list, slots, []);
        list
    }

    fn take_over(list: &mut MemberList, slots: Slots, rows: impl IntoIterator<Item = MemberRow>) {
        list.begin_loading(slots);
        list.load(rows);
        list.end_loading();
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
        /// The table may be read while it changes, page by page, and folding goes on meanwhile: rows are as new
        /// as the watermark or newer, and may be older than what is folded once they come.
        #[test]
        fn a_snapshot_and_a_fold_make_the_same_list_as_the_whole_sequence(
            records in changes(), began in 0_usize..40, reads in [0_usize..40, 0..40], came in [0_usize..40, 0..40],
        ) {
            let began = began.min(records.len());
            let whole_list = |watermark| list(Slots::that(|_| true), watermark);
            let mut whole = whole_list(Seq::FIRST);
            fold(&mut whole, &records);
            let mut list = MemberList::new(Seq::FIRST.advance(began as u64));
            list.begin_loading(Slots::that(|_| true));
            let mut done = began;
            let pages = [(0_u8..2, reads[0], came[0]), (2..4, reads[1], came[1])];
            for (users, read, come) in pages {
                let read = read.clamp(began, records.len());
                let mut table = whole_list(Seq::FIRST);
                fold(&mut table, &records[..read]);
                let come = come.clamp(done, records.len());
                fold(&mut list, &records[..come]);
                done = come;
                let of_page = |row: &MemberRow| users.clone().any(|user| row.user.as_str() == format!("u{user}"));
                list.load(rows(&table).into_iter().filter(of_page));
            }
            list.end_loading();
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
        take_over(&mut part, Slots::that(|slot| slot.number() >= 8192), table);
        assert_eq!(part.members, whole.members);
        part.begin_loading(Slots::default());
        assert!(!part.keep(&Slots::that(|slot| slot.number() < 8192)));
        assert_eq!(part.members, before);
    }
}
