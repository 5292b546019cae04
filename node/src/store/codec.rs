//! Keys and values as the embedded engine keeps them.
//!
//! Every key begins with a letter for its table, then the group (or the user and a zero byte),
//! then big-endian numbers, so that the order of bytes is the order of the rows. Every value ends
//! with a CRC32C over key and value: a value that has changed, or stands under another key, is found.

use std::borrow::Borrow;

use bytes::Bytes;
use prost::Message as _;
use shoal_protocol::{
    Code, DeviceId, GroupId, Incarnation, Outcome, SenderId, SenderNumbers, Seq, Slot, UserId, wire,
};

use super::{Cursors, Epoch, GroupState, MemberRow, Setting, StoreError};

/// A value's checksum, behind it.
pub(super) const SEAL_BYTES: usize = 4;
/// A record's key: table, group, Seq.
pub(super) const RECORD_KEY_BYTES: usize = 1 + 16 + 8;
/// The number of the last commit.
pub(super) const COMMIT_KEY: &[u8] = b"zcommit";
/// Which store this is, and its format.
pub(super) const IDENTITY_KEY: &[u8] = b"zidentity";
/// What [`IDENTITY_KEY`] says of the format of these keys and values.
pub(super) const FORMAT: u32 = 1;

/// The tables, by the first byte of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    Cursors = b'c',
    Edits = b'e',
    Groups = b'g',
    Members = b'm',
    NoticesDue = b'n',
    Records = b'r',
    Senders = b's',
    GroupsOfUser = b'u',
    Settings = b'k',
}

/// A key, or the beginning that a range of keys shares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn table(table: Table) -> Self {
        let mut key = Vec::with_capacity(48);
        key.push(table as u8);
        Self(key)
    }

    pub(super) fn group(self, group: GroupId) -> Self {
        self.bytes(group.as_bytes())
    }

    /// A user id has no zero byte, so no user's rows stand among another's.
    pub(super) fn user(self, user: &UserId) -> Self {
        self.bytes(user.as_str().as_bytes()).bytes(&[0])
    }

    pub(super) fn seq(self, seq: Seq) -> Self {
        self.number(seq.get())
    }

    pub(super) fn slot(self, slot: Slot) -> Self {
        self.bytes(&slot.number().to_be_bytes())
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// One of the few keys outside the tables.
    pub(super) fn table_free(key: &[u8]) -> Self {
        Self(key.to_vec())
    }

    /// The first key above all that begin with this one.
    ///
    /// # Panics
    /// Where it is all ones: no table's letter is.
    pub(super) fn successor(mut self) -> Self {
        while self.0.last() == Some(&u8::MAX) {
            self.0.pop();
        }
        *self.0.last_mut().expect("a table's letter is below 255") += 1;
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn row_key(group: GroupId) -> Key {
    Key::table(Table::Groups).group(group)
}

pub(super) fn records_key(group: GroupId) -> Key {
    Key::table(Table::Records).group(group)
}

pub(super) fn sender_key(group: GroupId, sender: &SenderId) -> Key {
    let of_user = Key::table(Table::Senders).group(group).user(&sender.user);
    of_user.number(sender.device.0).number(sender.incarnation.0)
}

pub(super) fn member_key(group: GroupId, slot: Slot, user: &UserId) -> Key {
    Key::table(Table::Members).group(group).slot(slot).user(user)
}

/// What every key of a member in this slot or a later one is above.
pub(super) fn members_key(group: GroupId, slot: u16) -> Key {
    let first = Key::table(Table::Members).group(group);
    Slot::new(slot).map_or(first.clone(), |slot| first.slot(slot))
}

pub(super) fn group_of_user_key(user: &UserId, group: GroupId) -> Key {
    Key::table(Table::GroupsOfUser).user(user).group(group)
}

pub(super) fn edit_key(group: GroupId, record: Seq, edit: Seq) -> Key {
    Key::table(Table::Edits).group(group).seq(record).seq(edit)
}

pub(super) fn cursors_key(user: &UserId, group: GroupId) -> Key {
    Key::table(Table::Cursors).user(user).group(group)
}

pub(super) fn setting_key(key: &str) -> Key {
    Key::table(Table::Settings).text(key)
}

/// The checksum that stands behind a value.
pub(super) fn seal(key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes()
}

pub(super) fn sealed(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let seal = seal(key, &value);
    value.extend_from_slice(&seal);
    value
}

/// What was sealed under this key.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match sealed.split_last_chunk::<SEAL_BYTES>() {
        Some((value, found)) if *found == seal(key, value) => Ok(value),
        _ => Err(damaged(key, "its checksum is wrong")),
    }
}

pub(super) fn damaged(key: &[u8], how: &str) -> StoreError {
    StoreError::Corrupt(format!("the row {}: {how}", key.escape_ascii()))
}

/// A group's row. The tail is the one at the time of writing: records say what it is now, and it
/// is never below.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredGroup {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "3")]
    tail: u64,
    #[prost(message, optional, tag = "4")]
    settings: Option<wire::Settings>,
    #[prost(uint64, tag = "5")]
    created_ms: u64,
    #[prost(bool, tag = "6")]
    closed: bool,
    #[prost(uint64, tag = "7")]
    members: u64,
    #[prost(uint64, tag = "8")]
    senders_watermark: u64,
    #[prost(uint64, tag = "9")]
    notices_watermark: u64,
    #[prost(message, optional, tag = "10")]
    layout: Option<wire::Layout>,
    #[prost(message, optional, tag = "11")]
    features: Option<wire::Features>,
}

impl StoredGroup {
    pub(super) fn new(epoch: Epoch, incarnation: u64, tail: Seq, state: &GroupState) -> Self {
        Self {
            epoch: epoch.0,
            incarnation,
            tail: tail.get(),
            settings: Some(state.settings.clone()),
            created_ms: state.created_ms,
            closed: state.closed,
            members: state.members,
            senders_watermark: state.senders_watermark.get(),
            notices_watermark: state.notices_watermark.map_or(0, Seq::get),
            layout: state.layout.as_deref().cloned(),
            features: state.features.as_deref().cloned(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// No tail is below this one.
    pub(super) fn tail_min(&self) -> Option<Seq> {
        Seq::new(self.tail)
    }

    pub(super) fn into_state(self) -> Option<GroupState> {
        Some(GroupState {
            settings: self.settings?,
            created_ms: self.created_ms,
            closed: self.closed,
            members: self.members,
            senders_watermark: Seq::new(self.senders_watermark)?,
            notices_watermark: Seq::new(self.notices_watermark),
            layout: self.layout.map(Box::new),
            features: self.features.map(Box::new),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredMember {
    #[prost(enumeration = "wire::Role", tag = "1")]
    role: i32,
    #[prost(uint64, tag = "2")]
    muted_until_ms: u64,
    #[prost(bool, tag = "3")]
    banned: bool,
    #[prost(uint64, tag = "4")]
    joined: u64,
    #[prost(uint64, tag = "5")]
    changed: u64,
    #[prost(string, tag = "6")]
    user: String,
}

pub(super) fn encode_member(row: &MemberRow) -> Vec<u8> {
    let stored = StoredMember {
        role: row.role.into(),
        muted_until_ms: row.muted_until_ms,
        banned: row.banned,
        joined: row.joined.get(),
        changed: row.changed.get(),
        user: row.user.as_str().into(),
    };
    stored.encode_to_vec()
}

pub(super) fn decode_member(key: &[u8], value: &[u8]) -> Result<MemberRow, StoreError> {
    let stored: StoredMember = decode(key, value)?;
    let row = || {
        Some(MemberRow {
            role: wire::Role::try_from(stored.role).ok()?,
            muted_until_ms: stored.muted_until_ms,
            banned: stored.banned,
            joined: Seq::new(stored.joined)?,
            changed: Seq::new(stored.changed)?,
            user: UserId::new(&stored.user).ok()?,
        })
    };
    row().ok_or_else(|| damaged(key, "it is no member's"))
}

/// An outcome is a number: a Seq, doubled, or a code, doubled and one.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredSender {
    #[prost(uint64, tag = "1")]
    last: u64,
    #[prost(uint64, repeated, tag = "2")]
    outcomes: Vec<u64>,
}

pub(super) fn encode_sender(numbers: &SenderNumbers) -> Vec<u8> {
    let encode = |outcome| match outcome {
        Outcome::Committed { seq } => seq.get() << 1,
        Outcome::Refused(code) => u64::from(code as u32) << 1 | 1,
    };
    StoredSender { last: numbers.last(), outcomes: numbers.outcomes().map(encode).collect() }.encode_to_vec()
}

pub(super) fn decode_sender(key: &[u8], value: &[u8]) -> Result<SenderNumbers, StoreError> {
    let stored: StoredSender = decode(key, value)?;
    let outcome = |number: &u64| match number & 1 {
        0 => Seq::new(number >> 1).map(|seq| Outcome::Committed { seq }),
        _ => u32::try_from(number >> 1).ok().map(|code| Outcome::Refused(Code::from_wire(code))),
    };
    let outcomes: Option<Vec<_>> = stored.outcomes.iter().map(outcome).collect();
    let outcomes = outcomes.ok_or_else(|| damaged(key, "it has an outcome that is none"))?;
    Ok(SenderNumbers::restore(stored.last, outcomes))
}

/// The sender that a key of [`Table::Senders`] names.
pub(super) fn sender_of_key(user: &UserId, key: &[u8]) -> Result<SenderId, StoreError> {
    let ids = key.split_last_chunk::<16>().map(|(_, ids)| u128::from_be_bytes(*ids));
    let ids = ids.ok_or_else(|| damaged(key, "it is no sender's"))?;
    let (device, incarnation) = ((ids >> 64) as u64, ids as u64);
    Ok(SenderId { user: user.clone(), device: DeviceId(device), incarnation: Incarnation(incarnation) })
}

/// The Seq at the end of a key.
pub(super) fn seq_of_key(key: &[u8]) -> Result<Seq, StoreError> {
    let seq = key.split_last_chunk::<8>().and_then(|(_, seq)| Seq::new(u64::from_be_bytes(*seq)));
    seq.ok_or_else(|| damaged(key, "it has no place"))
}

/// The group at the end of a key.
pub(super) fn group_of_key(key: &[u8]) -> Result<GroupId, StoreError> {
    let group = key.split_last_chunk::<16>().and_then(|(_, group)| GroupId::from_wire(group).ok());
    group.ok_or_else(|| damaged(key, "it names no group"))
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredCursors {
    #[prost(uint64, tag = "1")]
    read: u64,
    #[prost(uint64, tag = "2")]
    delivered: u64,
}

pub(super) fn encode_cursors(cursors: Cursors) -> Vec<u8> {
    let number = |cursor: Option<Seq>| cursor.map_or(0, Seq::get);
    StoredCursors { read: number(cursors.read), delivered: number(cursors.delivered) }.encode_to_vec()
}

pub(super) fn decode_cursors(key: &[u8], value: &[u8]) -> Result<Cursors, StoreError> {
    let stored: StoredCursors = decode(key, value)?;
    Ok(Cursors { read: Seq::new(stored.read), delivered: Seq::new(stored.delivered) })
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredSetting {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

pub(super) fn encode_setting(setting: &Setting) -> Vec<u8> {
    StoredSetting { version: setting.version, value: setting.value.clone() }.encode_to_vec()
}

pub(super) fn decode_setting(key: &[u8], value: &[u8]) -> Result<Setting, StoreError> {
    let stored: StoredSetting = decode(key, value)?;
    Ok(Setting { version: stored.version, value: stored.value })
}

/// Which store this is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identity {
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint32, tag = "2")]
    pub(super) format: u32,
}

pub(super) fn decode<M: prost::Message + Default>(key: &[u8], value: &[u8]) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| damaged(key, &error.to_string()))
}
