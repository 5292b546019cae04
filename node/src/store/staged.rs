//! What the next commit will hold: changes that passed their checks, seen by those that come after
//! them in the same batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use fjall::{Database, Keyspace, Readable as _, Slice};
use quick_cache::unsync::Cache;
use shoal_protocol::{GroupId, Seq};

use super::{
    AppendError, Create, CursorRaise, Cursors, Epoch, GroupRow, GroupState, Setting, StoreError,
    codec::{self, Key, StoredGroup},
    encode::{self, Encoded, Pair, Row},
    engine,
    operations::Operations,
};

/// What an append is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    epoch: Epoch,
    tail: Seq,
    incarnation: u64,
}

/// A batch in the making.
pub(super) struct Staged {
    database: Database,
    keyspace: Keyspace,
    records: Vec<Pair>,
    /// The last word on each key.
    rows: BTreeMap<Key, Option<Vec<u8>>>,
    /// A record that this batch appends may be among `rows` too, redacted.
    redacts: bool,
    bytes: usize,
    /// Groups this batch changes, as it leaves them.
    heads: BTreeMap<GroupId, Head>,
    /// Groups as the last commit left them. One that is not here is read again.
    committed: Cache<GroupId, Head>,
}

impl Staged {
    pub(super) fn new(database: Database, keyspace: Keyspace, groups_max: usize) -> Self {
        Self {
            database,
            keyspace,
            records: Vec::new(),
            rows: BTreeMap::new(),
            redacts: false,
            bytes: 0,
            heads: BTreeMap::new(),
            committed: Cache::new(groups_max),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rows.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn append(&mut self, append: Encoded) -> Result<(), AppendError> {
        let head = self.head(append.group)?;
        let Some(head) = head.filter(|head| head.epoch == append.epoch) else {
            return Err(AppendError::Fenced { current: head.map_or(Epoch(0), |head| head.epoch) });
        };
        if head.tail != append.expected_tail {
            return Err(AppendError::TailMoved { tail: head.tail });
        }
        let head = Head { tail: append.tail_after, ..head };
        self.heads.insert(append.group, head);
        self.bytes += append.bytes;
        self.records.extend(append.records);
        self.redacts |= !append.redactions.is_empty();
        self.rows.extend(append.redactions);
        self.rows.extend(append.rows);
        if let Some(state) = append.state {
            self.put(group_row(append.group, head, &state));
        }
        Ok(())
    }

    pub(super) fn activate(
        &mut self,
        group: GroupId,
        create: Option<Create>,
    ) -> Result<Option<GroupRow>, StoreError> {
        let head = self.head(group)?;
        let (head, state) = match (head, create) {
            (Some(head), _) => (head, self.state(group)?),
            (None, Some(create)) => {
                let head = Head { epoch: Epoch(0), tail: Seq::FIRST, incarnation: create.incarnation };
                (head, GroupState::new(create.created_ms))
            }
            (None, None) => return Ok(None),
        };
        let head = Head { epoch: Epoch(head.epoch.0 + 1), ..head };
        self.heads.insert(group, head);
        self.put(group_row(group, head, &state));
        Ok(Some(GroupRow { epoch: head.epoch, tail: head.tail, incarnation: head.incarnation, state }))
    }

    pub(super) fn raise_cursors(&mut self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        for CursorRaise { user, group, cursors } in raises {
            let key = codec::cursors_key(&user, group);
            let value = self.value(&key)?;
            let current = value.map(|value| codec::decode_cursors(key.as_ref(), &value)).transpose()?;
            let current = current.unwrap_or_default();
            let raised: Cursors = current.raised(cursors);
            if raised != current {
                self.put(encode::put(key, codec::encode_cursors(raised)));
            }
        }
        Ok(())
    }

    pub(super) fn compare_and_swap(
        &mut self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        let key = codec::setting_key(key);
        let current =
            self.value(&key)?.map(|value| codec::decode_setting(key.as_ref(), &value)).transpose()?;
        if current.as_ref().map_or(0, |setting| setting.version) != expected {
            return Ok(Err(current));
        }
        let Some(value) = value else {
            if current.is_some() {
                self.put((key, None));
            }
            return Ok(Ok(0));
        };
        let version = expected + 1;
        self.put(encode::put(key, codec::encode_setting(&Setting { version, value })));
        Ok(Ok(version))
    }

    /// What is to be committed, with its number in it.
    pub(super) fn take(&mut self, number: u64) -> Operations {
        let commit = Key::table_free(codec::COMMIT_KEY);
        self.put(encode::put(commit, number.to_le_bytes().to_vec()));
        if self.redacts {
            let rows = &self.rows;
            self.records.retain(|(key, _)| !rows.contains_key(key.as_ref()));
        }
        (self.redacts, self.bytes) = (false, 0);
        let records = self.records.drain(..).map(|(key, value)| (key, Some(value)));
        let rows = std::mem::take(&mut self.rows).into_iter();
        let rows = rows.map(|(key, value)| (key.into_bytes().into(), value.map(Slice::from)));
        records.chain(rows).collect()
    }

    /// It is durable: what it left is what the next is checked against.
    pub(super) fn keep(&mut self) {
        for (group, head) in std::mem::take(&mut self.heads) {
            self.committed.insert(group, head);
        }
    }

    /// It will not be written.
    pub(super) fn forget(&mut self) {
        self.records.clear();
        self.rows.clear();
        self.heads.clear();
        (self.redacts, self.bytes) = (false, 0);
    }

    fn put(&mut self, row: Row) {
        self.bytes += encode::row_bytes(&row);
        self.rows.insert(row.0, row.1);
    }

    fn head(&mut self, group: GroupId) -> Result<Option<Head>, StoreError> {
        if let Some(head) = self.heads.get(&group).or_else(|| self.committed.get(&group)) {
            return Ok(Some(*head));
        }
        let row = engine::group_row(&self.database.snapshot(), &self.keyspace, group)?;
        let head = row.map(|row| Head { epoch: row.epoch, tail: row.tail, incarnation: row.incarnation });
        if let Some(head) = head {
            self.committed.insert(group, head);
        }
        Ok(head)
    }

    fn state(&self, group: GroupId) -> Result<GroupState, StoreError> {
        let key = codec::row_key(group);
        let value = self.value(&key)?.ok_or_else(|| codec::damaged(key.as_ref(), "it is gone"))?;
        let stored: StoredGroup = codec::decode(key.as_ref(), &value)?;
        stored.into_state().ok_or_else(|| codec::damaged(key.as_ref(), "it is incomplete"))
    }

    /// The value as this batch leaves it.
    fn value(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = match self.rows.get(key) {
            Some(None) => return Ok(None),
            Some(Some(sealed)) => sealed.clone(),
            None => match self.database.snapshot().get(&self.keyspace, key).map_err(engine::read_error)? {
                Some(sealed) => sealed.to_vec(),
                None => return Ok(None),
            },
        };
        codec::unseal(key.as_ref(), &sealed).map(|value| Some(value.to_vec()))
    }
}

fn group_row(group: GroupId, head: Head, state: &GroupState) -> Row {
    let stored = StoredGroup::new(head.epoch, head.incarnation, head.tail, state);
    encode::put_message(codec::row_key(group), &stored)
}
