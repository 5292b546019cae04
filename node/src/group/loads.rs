//! What a home wants to know from the store before it decides.

use std::sync::Arc;

use futures_util::future::try_join;
use shoal_protocol::{GroupId, Refusal, SenderId, Seq};

use super::{
    activation::{decode, refusal},
    home::{LoadedRecord, LoadedSender},
};
use crate::store::{ReadLimit, Store};

/// A sender's row, and who else its user has been.
pub(super) async fn sender(
    store: &Arc<dyn Store>,
    group: GroupId,
    id: &SenderId,
) -> Result<LoadedSender, Refusal> {
    if group.is_own() {
        let numbers = store.sender(group, id).await.map_err(refusal)?;
        return Ok(LoadedSender { numbers, siblings: Vec::new() });
    }
    let (row, siblings) = (store.sender(group, id), store.senders_of(group, &id.user));
    let (numbers, siblings) = try_join(row, siblings).await.map_err(refusal)?;
    Ok(LoadedSender { numbers, siblings })
}

/// A record, and its edits if they are asked for.
pub(super) async fn record(
    store: &Arc<dyn Store>,
    group: GroupId,
    seq: Seq,
    with_edits: bool,
) -> Result<LoadedRecord, Refusal> {
    let edits = if with_edits { store.edits_of(group, seq).await.map_err(refusal)? } else { Vec::new() };
    let mut records = Vec::new();
    for seq in [seq].into_iter().chain(edits) {
        let page =
            store.read(group, seq, ReadLimit { records_max: 1, bytes_max: 0 }).await.map_err(refusal)?;
        records.extend(page.into_iter().next().map(decode).transpose()?);
    }
    let mut records = records.into_iter();
    Ok(LoadedRecord { record: records.next(), edits: records.collect() })
}
