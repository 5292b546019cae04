//! What a store holds, as ordered maps: the durable state of [`super::memory`], and what the
//! conformance suite holds other stores against. No IO, no clock, no randomness.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
};

use bytes::Bytes;
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId, wire};

use super::{
    Append, AppendError, Create, CursorRaise, Cursors, Epoch, GroupRow, GroupState, MemberRow, ReadLimit,
    Setting,
    write::{Write, Written},
};

/// Everything durable. Its verbs are those of [`super::Store`], at once and without failure.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    groups: BTreeMap<GroupId, Group>,
    groups_of: BTreeSet<(UserId, GroupId)>,
    cursors: BTreeMap<(UserId, GroupId), Cursors>,
    notices_due: BTreeSet<GroupId>,
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug, Clone)]
struct Group {
    epoch: Epoch,
    incarnation: u64,
    state: GroupState,
    records: Vec<Bytes>,
    senders: BTreeMap<SenderId, SenderNumbers>,
    members: BTreeMap<(Slot, UserId), MemberRow>,
    edits: BTreeSet<(Seq, Seq)>,
}

impl Model {
    pub(super) fn apply(&mut self, write: Write) -> Written {
        match write {
            Write::Activate { group, create } => Written::Activated(self.activate(group, create)),
            Write::Append(append) => Written::Appended(self.append(*append)),
            Write::RaiseCursors(raises) => {
                raises.into_iter().for_each(|raise| self.raise_cursor(raise));
                Written::CursorsRaised
            }
            Write::Swap { key, expected, value } => {
                Written::Swapped(self.compare_and_swap(key, expected, value))
            }
        }
    }

    pub(super) fn activate(&mut self, id: GroupId, create: Option<Create>) -> Option<GroupRow> {
        if let (None, Some(create)) = (self.groups.get(&id), create) {
            self.groups.insert(id, Group::new(create));
        }
        let group = self.groups.get_mut(&id)?;
        group.epoch = Epoch(group.epoch.0 + 1);
        Some(group.row())
    }

    pub(super) fn append(&mut self, append: Append) -> Result<(), AppendError> {
        let tail_after = append.tail_after();
        let current = self.groups.get(&append.group).map_or(Epoch(0), |group| group.epoch);
        let Some(group) = self.groups.get_mut(&append.group).filter(|_| current == append.epoch) else {
            return Err(AppendError::Fenced { current });
        };
        if group.tail() != append.expected_tail {
            return Err(AppendError::TailMoved { tail: group.tail() });
        }
        let changes = append.changes;
        group.records.extend(changes.records);
        debug_assert_eq!(group.tail(), tail_after);
        for (seq, record) in changes.redactions {
            group.records[index(seq)] = record;
        }
        group.edits.extend(changes.edits);
        group.senders.extend(changes.senders);
        changes.senders_expired.iter().for_each(|sender| drop(group.senders.remove(sender)));
        if let Some(state) = changes.state {
            group.state = state;
        }
        for row in changes.members {
            let of = (row.user.clone(), append.group);
            let is_member = row.role != wire::Role::None;
            let _ = if is_member { self.groups_of.insert(of) } else { self.groups_of.remove(&of) };
            group.put_member(row);
        }
        match changes.notices_due {
            Some(true) => drop(self.notices_due.insert(append.group)),
            Some(false) => drop(self.notices_due.remove(&append.group)),
            None => {}
        }
        Ok(())
    }

    pub(super) fn group(&self, id: GroupId) -> Option<GroupRow> {
        self.groups.get(&id).map(Group::row)
    }

    pub(super) fn read(&self, id: GroupId, from: Seq, limit: ReadLimit) -> Vec<Bytes> {
        let records =
            self.groups.get(&id).and_then(|group| group.records.get(index(from)..)).unwrap_or_default();
        let mut bytes = 0;
        let fits = |record: &&Bytes, first: bool| {
            bytes += if first { 0 } else { record.len() };
            bytes <= limit.bytes_max
        };
        let mut fits = fits;
        records
            .iter()
            .take(limit.records_max.max(1))
            .enumerate()
            .take_while(|(at, record)| fits(record, *at == 0))
            .map(|(_, record)| record.clone())
            .collect()
    }

    pub(super) fn edits_of(&self, id: GroupId, record: Seq) -> Vec<Seq> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        group.edits.range((record, Seq::FIRST)..(record.next(), Seq::FIRST)).map(|(_, edit)| *edit).collect()
    }

    pub(super) fn sender(&self, id: GroupId, sender: &SenderId) -> Option<SenderNumbers> {
        self.groups.get(&id)?.senders.get(sender).cloned()
    }

    pub(super) fn senders_of(&self, id: GroupId, user: &UserId) -> Vec<SenderId> {
        let senders = self.groups.get(&id).into_iter().flat_map(|group| group.senders.keys());
        senders.filter(|sender| sender.user == *user).cloned().collect()
    }

    pub(super) fn members(&self, id: GroupId, users: &[UserId]) -> Vec<Option<MemberRow>> {
        let group = self.groups.get(&id);
        users.iter().map(|user| group?.members.get(&(Slot::of(user), user.clone())).cloned()).collect()
    }

    pub(super) fn members_page(
        &self,
        id: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Vec<MemberRow> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        group
            .members
            .range((beyond(after), Bound::Unbounded))
            .filter(|((slot, _), _)| slots.contains(&slot.number()))
            .take(limit)
            .map(|(_, row)| row.clone())
            .collect()
    }

    pub(super) fn groups_of(&self, user: &UserId, after: Option<GroupId>, limit: usize) -> Vec<GroupId> {
        let lowest = GroupId::from_wire(&[0; 16]).expect("sixteen bytes are a group id");
        let start = match after {
            Some(after) => Bound::Excluded((user.clone(), after)),
            None => Bound::Included((user.clone(), lowest)),
        };
        let theirs = self.groups_of.range((start, Bound::Unbounded)).take_while(|(of, _)| of == user);
        theirs.take(limit).map(|(_, group)| *group).collect()
    }

    pub(super) fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Vec<Cursors> {
        let of = |group: &GroupId| self.cursors.get(&(user.clone(), *group)).copied().unwrap_or_default();
        groups.iter().map(of).collect()
    }

    fn raise_cursor(&mut self, raise: CursorRaise) {
        let cursors = self.cursors.entry((raise.user, raise.group)).or_default();
        *cursors = cursors.raised(raise.cursors);
    }

    pub(super) fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Vec<GroupId> {
        self.notices_due.range((beyond(after), Bound::Unbounded)).take(limit).copied().collect()
    }

    pub(super) fn setting(&self, key: &str) -> Option<Setting> {
        self.settings.get(key).cloned()
    }

    pub(super) fn settings(&self, prefix: &str) -> BTreeMap<String, Setting> {
        let from = self.settings.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        from.map(|(key, setting)| (key.clone(), setting.clone())).collect()
    }

    fn compare_and_swap(
        &mut self,
        key: String,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<u64, Option<Setting>> {
        let current = self.settings.get(&key);
        if current.map_or(0, |setting| setting.version) != expected {
            return Err(current.cloned());
        }
        let Some(value) = value else {
            self.settings.remove(&key);
            return Ok(0);
        };
        let version = expected + 1;
        self.settings.insert(key, Setting { version, value });
        Ok(version)
    }
}

impl Group {
    fn new(create: Create) -> Self {
        Self {
            epoch: Epoch(0),
            incarnation: create.incarnation,
            state: GroupState::new(create.created_ms),
            records: Vec::new(),
            senders: BTreeMap::new(),
            members: BTreeMap::new(),
            edits: BTreeSet::new(),
        }
    }

    fn tail(&self) -> Seq {
        Seq::FIRST.advance(u64::try_from(self.records.len()).expect("a usize fits in 64 bits"))
    }

    fn row(&self) -> GroupRow {
        GroupRow {
            epoch: self.epoch,
            tail: self.tail(),
            incarnation: self.incarnation,
            state: self.state.clone(),
        }
    }

    fn put_member(&mut self, row: MemberRow) {
        let key = (Slot::of(&row.user), row.user.clone());
        if row.is_kept() {
            self.members.insert(key, row);
        } else {
            self.members.remove(&key);
        }
    }
}

fn index(seq: Seq) -> usize {
    usize::try_from(seq.since(Seq::FIRST)).expect("what is held in memory is counted by a usize")
}

fn beyond<T>(after: Option<T>) -> Bound<T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}
