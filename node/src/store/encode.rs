//! An append as the engine's keys and values, made by whoever appends, so that the one thread that
//! commits has only to check and to write.

use bytes::{Bytes, BytesMut};
use fjall::Slice;
use shoal_protocol::{GroupId, Seq, Slot, wire};

use super::{
    Append, Changes, Epoch, GroupState, MemberRow,
    codec::{self, Key, RECORD_KEY_BYTES, SEAL_BYTES, Table},
};

/// A key with its sealed value. The keys of an append share one allocation, its values another.
pub(super) type Pair = (Slice, Slice);
/// A row to put, sealed, or to delete.
pub(super) type Row = (Key, Option<Vec<u8>>);

/// An append, encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) group: GroupId,
    pub(super) epoch: Epoch,
    pub(super) expected_tail: Seq,
    pub(super) tail_after: Seq,
    pub(super) records: Vec<Pair>,
    /// Rows under record keys are redactions.
    pub(super) redactions: Vec<Row>,
    pub(super) rows: Vec<Row>,
    pub(super) state: Option<GroupState>,
    pub(super) bytes: usize,
}

pub(super) fn encode(append: Append) -> Encoded {
    let tail_after = append.tail_after();
    let Append { group, epoch, expected_tail, mut changes } = append;
    let (own, redactions): (Vec<_>, _) =
        std::mem::take(&mut changes.redactions).into_iter().partition(|(seq, _)| *seq >= expected_tail);
    for (seq, record) in own {
        let at = usize::try_from(seq.since(expected_tail))
            .expect("an append has fewer records than a usize counts");
        changes.records[at] = record;
    }
    let records = encode_records(group, expected_tail, &changes.records);
    let redactions: Vec<_> = redactions
        .into_iter()
        .map(|(seq, record)| put(codec::records_key(group).seq(seq), record.to_vec()))
        .collect();
    let state = changes.state.take();
    let rows = encode_rows(group, changes);
    let bytes = records.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        + rows.iter().chain(&redactions).map(row_bytes).sum::<usize>();
    Encoded { group, epoch, expected_tail, tail_after, records, redactions, rows, state, bytes }
}

/// A row to put.
pub(super) fn put(key: Key, value: Vec<u8>) -> Row {
    let sealed = codec::sealed(key.as_ref(), value);
    (key, Some(sealed))
}

pub(super) fn put_message(key: Key, message: &impl prost::Message) -> Row {
    put(key, message.encode_to_vec())
}

pub(super) fn row_bytes((key, value): &Row) -> usize {
    key.as_ref().len() + value.as_ref().map_or(0, Vec::len)
}

/// The keys lie apart from the values: the engine compares many to find a place for one, and more of
/// them fit into the processor's caches.
fn encode_records(group: GroupId, first: Seq, records: &[Bytes]) -> Vec<Pair> {
    let value_bytes = records.iter().map(|record| record.len() + SEAL_BYTES).sum();
    let mut keys = BytesMut::with_capacity(records.len() * RECORD_KEY_BYTES);
    let mut values = BytesMut::with_capacity(value_bytes);
    let mut key: [u8; RECORD_KEY_BYTES] = [0; RECORD_KEY_BYTES];
    key[0] = Table::Records as u8;
    key[1..17].copy_from_slice(group.as_bytes());
    let mut seq = first;
    for record in records {
        key[17..].copy_from_slice(&seq.get().to_be_bytes());
        keys.extend_from_slice(&key);
        values.extend_from_slice(record);
        values.extend_from_slice(&codec::seal(&key, record));
        seq = seq.next();
    }
    let (mut keys, mut values) = (keys.freeze(), values.freeze());
    let pair = |record: &Bytes| {
        (keys.split_to(RECORD_KEY_BYTES).into(), values.split_to(record.len() + SEAL_BYTES).into())
    };
    records.iter().map(pair).collect()
}

fn encode_rows(group: GroupId, changes: Changes) -> Vec<Row> {
    let mut rows = Vec::new();
    let senders = changes.senders.iter();
    rows.extend(
        senders.map(|(sender, numbers)| put(codec::sender_key(group, sender), codec::encode_sender(numbers))),
    );
    rows.extend(changes.senders_expired.iter().map(|sender| (codec::sender_key(group, sender), None)));
    rows.extend(
        changes.edits.iter().map(|(record, edit)| put(codec::edit_key(group, *record, *edit), Vec::new())),
    );
    changes.members.iter().for_each(|row| encode_member(group, row, &mut rows));
    if let Some(due) = changes.notices_due {
        let key = Key::table(Table::NoticesDue).group(group);
        rows.push(if due { put(key, Vec::new()) } else { (key, None) });
    }
    rows
}

fn encode_member(group: GroupId, row: &MemberRow, rows: &mut Vec<Row>) {
    let of_group = codec::member_key(group, Slot::of(&row.user), &row.user);
    let of_user = codec::group_of_user_key(&row.user, group);
    rows.push(if row.is_kept() { put(of_group, codec::encode_member(row)) } else { (of_group, None) });
    rows.push(if row.role == wire::Role::None { (of_user, None) } else { put(of_user, Vec::new()) });
}
