//! Reads of the embedded engine, each from one snapshot.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
};

use bytes::{Bytes, BytesMut};
use fjall::{Keyspace, Readable, Snapshot, UserValue};
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId};

use super::{
    Cursors, GroupRow, MemberRow, ReadLimit, Setting, StoreError,
    codec::{self, Key, StoredGroup, Table},
};

/// The engine tells damage from a disk that does not answer.
pub(super) fn read_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            StoreError::Unavailable(error.to_string())
        }
        fjall::Error::Storage(fjall::LsmError::Io(error))
            if error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Unavailable(error.to_string())
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}

/// A key with its sealed value.
type Row = (Bytes, UserValue);

/// The store as it was at one moment.
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) keyspace: Keyspace,
}

/// The group's row, with the tail that its records give it.
pub(super) fn group_row(
    snapshot: &Snapshot,
    keyspace: &Keyspace,
    group: GroupId,
) -> Result<Option<GroupRow>, StoreError> {
    let key = codec::row_key(group);
    let Some(sealed) = snapshot.get(keyspace, &key).map_err(read_error)? else { return Ok(None) };
    let stored: StoredGroup = codec::decode(key.as_ref(), codec::unseal(key.as_ref(), &sealed)?)?;
    let last = snapshot.prefix(keyspace, codec::records_key(group)).next_back();
    let last = last.map(|record| record.key().map_err(read_error)).transpose()?;
    let tail = last.map_or(Ok(Seq::FIRST), |key| codec::seq_of_key(&key).map(Seq::next))?;
    if stored.tail_min().is_none_or(|least| tail < least) {
        return Err(codec::damaged(
            key.as_ref(),
            &format!("records that it counted are gone: the tail is {tail}"),
        ));
    }
    let (epoch, incarnation) = (stored.epoch(), stored.incarnation);
    let state = stored.into_state().ok_or_else(|| codec::damaged(key.as_ref(), "it is incomplete"))?;
    Ok(Some(GroupRow { epoch, tail, incarnation, state }))
}

impl View {
    pub(super) fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        group_row(&self.snapshot, &self.keyspace, group)
    }

    /// The records share one allocation, so that keeping one for long keeps a page, not a block
    /// of the engine's cache.
    pub(super) fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        let all = codec::records_key(group);
        let mut page = BytesMut::new();
        let mut ends = Vec::new();
        let mut beyond_first = 0_usize;
        let mut expected = from;
        for record in self.rows_from(&all, Bound::Included(codec::records_key(group).seq(from))) {
            let (key, sealed) = record?;
            if codec::seq_of_key(&key)? != expected {
                return Err(codec::damaged(&key, &format!("record {expected} before it is missing")));
            }
            let value = codec::unseal(&key, &sealed)?;
            beyond_first += if ends.is_empty() { 0 } else { value.len() };
            if beyond_first > limit.bytes_max {
                break;
            }
            page.extend_from_slice(value);
            ends.push(page.len());
            if ends.len() >= limit.records_max {
                break;
            }
            expected = expected.next();
        }
        let page = page.freeze();
        let begins = std::iter::once(0).chain(ends.iter().copied());
        Ok(begins.zip(&ends).map(|(begin, end)| page.slice(begin..*end)).collect())
    }

    pub(super) fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        let all = Key::table(Table::Edits).group(group).seq(record);
        self.rows(&all).map(|row| codec::seq_of_key(&checked(row?)?.0)).collect()
    }

    pub(super) fn sender(
        &self,
        group: GroupId,
        sender: &SenderId,
    ) -> Result<Option<SenderNumbers>, StoreError> {
        self.get(&codec::sender_key(group, sender), codec::decode_sender)
    }

    pub(super) fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        let all = Key::table(Table::Senders).group(group).user(user);
        self.rows(&all).map(|row| codec::sender_of_key(user, &checked(row?)?.0)).collect()
    }

    pub(super) fn member(&self, group: GroupId, user: &UserId) -> Result<Option<MemberRow>, StoreError> {
        self.get(&codec::member_key(group, Slot::of(user), user), codec::decode_member)
    }

    pub(super) fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<&(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        let all = Key::table(Table::Members).group(group);
        let first = Bound::Included(codec::members_key(group, slots.start));
        let start = match after.filter(|(slot, _)| slot.number() >= slots.start) {
            Some((slot, user)) => Bound::Excluded(codec::member_key(group, *slot, user)),
            None => first,
        };
        let is_wanted = |row: &Result<MemberRow, StoreError>| {
            row.as_ref().map_or(true, |row| Slot::of(&row.user).number() < slots.end)
        };
        let row = |row: Result<Row, StoreError>| {
            let (key, sealed) = row?;
            codec::decode_member(&key, codec::unseal(&key, &sealed)?)
        };
        self.rows_from(&all, start).take(limit).map(row).take_while(is_wanted).collect()
    }

    pub(super) fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        let all = Key::table(Table::GroupsOfUser).user(user);
        self.groups(&all, after, limit)
    }

    pub(super) fn notices_due(
        &self,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        self.groups(&Key::table(Table::NoticesDue), after, limit)
    }

    pub(super) fn cursors(&self, user: &UserId, group: GroupId) -> Result<Cursors, StoreError> {
        Ok(self.get(&codec::cursors_key(user, group), codec::decode_cursors)?.unwrap_or_default())
    }

    pub(super) fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        self.get(&codec::setting_key(key), codec::decode_setting)
    }

    pub(super) fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        let setting = |row: Result<Row, StoreError>| {
            let (key, sealed) = row?;
            let setting = codec::decode_setting(&key, codec::unseal(&key, &sealed)?)?;
            let name =
                String::from_utf8(key[1..].to_vec()).map_err(|_| codec::damaged(&key, "it is no text"))?;
            Ok((name, setting))
        };
        self.rows(&codec::setting_key(prefix)).map(setting).collect()
    }

    fn groups(&self, all: &Key, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        let start =
            after.map_or(Bound::Included(all.clone()), |after| Bound::Excluded(all.clone().group(after)));
        self.rows_from(all, start).take(limit).map(|row| codec::group_of_key(&checked(row?)?.0)).collect()
    }

    fn get<T>(
        &self,
        key: &Key,
        decode: impl Fn(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(sealed) = self.snapshot.get(&self.keyspace, key).map_err(read_error)? else {
            return Ok(None);
        };
        decode(key.as_ref(), codec::unseal(key.as_ref(), &sealed)?).map(Some)
    }

    fn rows(&self, all: &Key) -> impl Iterator<Item = Result<Row, StoreError>> {
        self.rows_from(all, Bound::Included(all.clone()))
    }

    /// The rows whose keys begin with `all`, from `start` on.
    fn rows_from(
        &self,
        all: &Key,
        start: Bound<Key>,
    ) -> impl Iterator<Item = Result<Row, StoreError>> + use<> {
        let range =
            self.snapshot.range::<Key, _>(&self.keyspace, (start, Bound::Excluded(all.clone().successor())));
        range.map(|row| row.into_inner().map(|(key, value)| (key.into(), value)).map_err(read_error))
    }
}

/// A row whose value says nothing but that it is there.
fn checked((key, sealed): Row) -> Result<Row, StoreError> {
    codec::unseal(&key, &sealed)?;
    Ok((key, sealed))
}
