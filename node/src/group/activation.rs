//! Waking a group: its row under a new epoch, its senders' numbers, its tail.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use shoal_protocol::{Code, GroupId, Outcome, RecordFrame, Refusal, SenderId, SenderNumbers, Seq, wire};

use super::{
    home::{Entry, Fold, Home, sender_of},
    input::Reply,
};
use crate::{
    config::GroupLimits,
    store::{Create, GroupRow, GroupState, ReadLimit, Store, StoreError},
};

/// Records are read in pages of so many, and so many bytes.
pub(super) const PAGE: ReadLimit = ReadLimit { records_max: 1024, bytes_max: 4 << 20 };

/// A group that is awake.
pub(super) struct Active {
    pub(super) home: Home<Reply>,
    pub(super) state: GroupState,
    /// What the tail on this node does not have yet.
    pub(super) missed: Vec<Entry>,
}

/// Activates the home.
///
/// # Errors
/// `UnknownGroup` where there is no row and none is to be made; otherwise what the store says.
pub(super) async fn activate(
    store: &Arc<dyn Store>,
    group: GroupId,
    create: Option<Create>,
    tail_here: Seq,
    limits: Arc<GroupLimits>,
) -> Result<Active, Refusal> {
    let row = store.activate(group, create).await.map_err(refusal)?;
    let row = row.ok_or_else(|| Refusal::new(Code::UnknownGroup, "no such group"))?;
    if tail_here > row.tail {
        tracing::error!(%group, here = %tail_here, stored = %row.tail, "the store is behind what was delivered");
        return Err(Refusal::new(Code::Internal, "the group's sequence went back; an operator must look"));
    }
    let missed = missed(store, group, tail_here, row.tail).await?;
    let numbers = senders(store, group, &row).await?;
    let state = row.state.clone();
    Ok(Active { home: Home::new(group, row, numbers, limits), state, missed })
}

/// The refusal that tells a client of a store's error.
pub(super) fn refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::Corrupt(_) => Refusal::new(Code::Internal, error.to_string()),
        StoreError::Stopped(_) | StoreError::Unavailable(_) => {
            Refusal::new(Code::StoreUnavailable, error.to_string())
        }
    }
}

/// Decodes a record that the store gave.
pub(super) fn decode(record: Bytes) -> Result<wire::Record, Refusal> {
    wire::Record::decode(record)
        .map_err(|error| Refusal::new(Code::Internal, format!("a stored record does not decode: {error}")))
}

/// Calls `visit` with every record from `from` up to `to`.
pub(super) async fn for_each_record(
    store: &Arc<dyn Store>,
    group: GroupId,
    from: Seq,
    to: Seq,
    mut visit: impl FnMut(Seq, Bytes) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut next = from;
    while next < to {
        let page = store.read(group, next, PAGE).await.map_err(refusal)?;
        if page.is_empty() {
            return Err(Refusal::new(
                Code::Internal,
                format!("the store has no record {next} below the tail {to}"),
            ));
        }
        for record in page {
            if next < to {
                visit(next, record)?;
                next = next.next();
            }
        }
    }
    Ok(())
}

/// What was written without this node's having heard of it: by an append whose outcome it never
/// learnt.
async fn missed(store: &Arc<dyn Store>, group: GroupId, from: Seq, to: Seq) -> Result<Vec<Entry>, Refusal> {
    let mut entries = Vec::new();
    for_each_record(store, group, from, to, |seq, record| {
        let decoded = decode(record.clone())?;
        entries.push(Entry { seq, frame: RecordFrame::from_encoded(&record), fold: Fold::of(decoded.body) });
        Ok(())
    })
    .await?;
    Ok(entries)
}

/// The numbers of everyone who has sent since the last checkpoint.
async fn senders(
    store: &Arc<dyn Store>,
    group: GroupId,
    row: &GroupRow,
) -> Result<BTreeMap<SenderId, SenderNumbers>, Refusal> {
    let mut sent: BTreeMap<SenderId, Vec<(u64, Seq)>> = BTreeMap::new();
    for_each_record(store, group, row.state.senders_watermark, row.tail, |seq, record| {
        if let Some((sender, number)) = sender_of(&decode(record)?) {
            sent.entry(sender).or_default().push((number, seq));
        }
        Ok(())
    })
    .await?;
    let ids: Vec<SenderId> = sent.keys().cloned().collect();
    let rows = store.senders(group, &ids).await.map_err(refusal)?;
    let mut senders = BTreeMap::new();
    for ((sender, sent), row) in sent.into_iter().zip(rows) {
        let is_whole = (1..).zip(&sent).all(|(expected, (number, _))| *number == expected);
        if row.is_none() && !is_whole {
            // It expired since: its row is gone on purpose, and with it the numbers before the checkpoint,
            // and those of refusals.
            continue;
        }
        let mut numbers = row.unwrap_or_default();
        fold(&mut numbers, &sent)?;
        senders.insert(sender, numbers);
    }
    Ok(senders)
}

/// A refusal that used up a number wrote the row, with every number before it.
fn fold(numbers: &mut SenderNumbers, sent: &[(u64, Seq)]) -> Result<(), Refusal> {
    for (number, seq) in sent {
        if *number > numbers.last().saturating_add(1) {
            let reason = format!("a sender's number {} is missing in the store", numbers.last() + 1);
            return Err(Refusal::new(Code::Internal, reason));
        }
        numbers.record(*number, Outcome::Committed { seq: *seq });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Append, Changes, MemoryDisk, MemoryStore, MemoryTiming};

    /// Number 3 was refused, which a row said until its sender expired.
    #[tokio::test(start_paused = true)]
    async fn a_sender_that_has_expired_keeps_no_group_asleep() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::new(1), MemoryTiming::default()));
        let group = GroupId::named("reef");
        let create = Create { incarnation: 1, created_ms: 1 };
        let row = store.activate(group, Some(create)).await.unwrap().unwrap();
        let record = |(seq, number)| {
            let author = wire::Author { user: "ann".into(), device: 1, incarnation: 1, number };
            let body = Some(wire::record::Body::Message(wire::Message::default()));
            wire::Record { seq, author: Some(author), body, ..Default::default() }.encode_to_vec().into()
        };
        let records = [(1, 1), (2, 2), (3, 4)].map(record).to_vec();
        let changes = Changes { records, ..Changes::default() };
        store.append(Append { group, epoch: row.epoch, expected_tail: Seq::FIRST, changes }).await.unwrap();
        let active = activate(&store, group, None, Seq::FIRST, Arc::default()).await;
        assert_eq!(active.map(|active| active.missed.len()).unwrap(), 3);
    }
}
