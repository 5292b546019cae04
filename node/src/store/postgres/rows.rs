//! Between the columns of a row and what it means.

use bytes::Bytes;
use prost::Message as _;
use shoal_protocol::{DeviceId, GroupId, Incarnation, SenderId, SenderNumbers, Seq, UserId, wire};
use tokio_postgres::Row;

use crate::store::{Cursors, Epoch, GroupRow, GroupState, MemberRow, Setting, StoreError, codec};

/// A number without a sign, bit for bit.
pub(super) fn to_column(number: u64) -> i64 {
    number.cast_signed()
}

/// The same, back.
pub(super) fn from_column(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A row that the statement `group` or `activate` has found.
pub(super) fn group(row: &Row) -> Result<(GroupId, GroupRow), StoreError> {
    let group = group_id(row, 0)?;
    let settings = wire::Settings::decode(column::<&[u8]>(row, 4)?)
        .map_err(|error| damaged(row, format!("settings: {error}")))?;
    let layout = column::<Option<&[u8]>>(row, 10)?.map(wire::Layout::decode).transpose();
    let features = column::<Option<&[u8]>>(row, 11)?.map(wire::Features::decode).transpose();
    let state = GroupState {
        settings,
        created_ms: number(row, 5)?,
        closed: column(row, 6)?,
        members: number(row, 7)?,
        senders_watermark: seq(row, 8)?,
        notices_watermark: maybe_seq(row, 9)?,
        layout: layout.map_err(|error| damaged(row, format!("layout: {error}")))?.map(Box::new),
        features: features.map_err(|error| damaged(row, format!("features: {error}")))?.map(Box::new),
    };
    let (epoch, incarnation) = (Epoch(number(row, 1)?), number(row, 3)?);
    Ok((group, GroupRow { epoch, tail: seq(row, 2)?, incarnation, state }))
}

/// user_id, role, muted_until_ms, banned, joined, changed.
pub(super) fn member(row: &Row) -> Result<MemberRow, StoreError> {
    let user = user_id(row, 0)?;
    let role = wire::Role::try_from(column::<i32>(row, 1)?).ok();
    let role = role.ok_or_else(|| damaged(row, "it is no member's".into()))?;
    let (muted_until_ms, banned) = (number(row, 2)?, column(row, 3)?);
    Ok(MemberRow { user, role, muted_until_ms, banned, joined: seq(row, 4)?, changed: seq(row, 5)? })
}

/// user_id, device, incarnation, numbers.
pub(super) fn sender(row: &Row) -> Result<(SenderId, SenderNumbers), StoreError> {
    let (device, incarnation) = (DeviceId(number(row, 1)?), Incarnation(number(row, 2)?));
    let numbers = codec::decode_sender(b"shoal.senders", column(row, 3)?)?;
    Ok((SenderId { user: user_id(row, 0)?, device, incarnation }, numbers))
}

/// group_id, read, delivered.
pub(super) fn cursors(row: &Row) -> Result<(GroupId, Cursors), StoreError> {
    Ok((group_id(row, 0)?, Cursors { read: maybe_seq(row, 1)?, delivered: maybe_seq(row, 2)? }))
}

/// version and value, from a column on.
pub(super) fn setting(row: &Row, at: usize) -> Result<Setting, StoreError> {
    Ok(Setting { version: number(row, at)?, value: bytes(row, at + 1)? })
}

pub(super) fn group_id(row: &Row, at: usize) -> Result<GroupId, StoreError> {
    GroupId::from_wire(column(row, at)?).map_err(|error| damaged(row, error.to_string()))
}

fn user_id(row: &Row, at: usize) -> Result<UserId, StoreError> {
    let name = std::str::from_utf8(column(row, at)?).ok();
    name.and_then(|name| UserId::new(name).ok()).ok_or_else(|| damaged(row, "it is no user's".into()))
}

pub(super) fn seq(row: &Row, at: usize) -> Result<Seq, StoreError> {
    Seq::new(number(row, at)?).ok_or_else(|| damaged(row, "it has no place".into()))
}

pub(super) fn number(row: &Row, at: usize) -> Result<u64, StoreError> {
    column(row, at).map(from_column)
}

pub(super) fn bytes(row: &Row, at: usize) -> Result<Bytes, StoreError> {
    column(row, at).map(Bytes::copy_from_slice)
}

pub(super) fn column<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| damaged(row, error.to_string()))
}

fn maybe_seq(row: &Row, at: usize) -> Result<Option<Seq>, StoreError> {
    let number: Option<i64> = column(row, at)?;
    let of = |number| {
        Seq::new(from_column(number)).ok_or_else(|| damaged(row, "it has a watermark that is none".into()))
    };
    number.map(of).transpose()
}

fn damaged(row: &Row, how: String) -> StoreError {
    let columns: Vec<&str> = row.columns().iter().map(tokio_postgres::Column::name).collect();
    StoreError::Corrupt(format!("a row of ({}): {how}", columns.join(", ")))
}
