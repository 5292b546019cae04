//! Records by page, forwards and backwards.

use bytes::Bytes;
use shoal_protocol::{Code, GroupId, Refusal, Seq, wire};

use super::{Views, bounded, id};
use crate::{
    group::{
        Actor,
        activation::{decode, refusal},
    },
    store::{GroupRow, MemberRow, ReadLimit},
};

/// Records read at once when going backwards: their sizes show only once they are there.
const BLOCK: u64 = 32;

impl Views {
    /// Forwards from a position or backwards from below it, as far as the member may look.
    pub(super) async fn history(
        &self,
        actor: &Actor,
        get: wire::GetHistory,
    ) -> Result<wire::History, Refusal> {
        let group = id(&get.group)?;
        let member = self.groups.authorize(actor, group).await?;
        let row = self.row(group).await?;
        let floor = floor(&row, &member);
        let limit = bounded(get.limit, self.limits.load().history_records_max);
        let from = Seq::new(get.from);
        let records = if get.backwards {
            let end = from.map_or(row.tail, |from| from.min(row.tail));
            self.read_back(group, floor, end, limit).await?
        } else {
            self.read_on(group, from.unwrap_or(Seq::FIRST).max(floor), row.tail, limit).await?
        };
        // Somebody removed meanwhile is given nothing that came after.
        let still = self.groups.authorize(actor, group).await?;
        if still.joined != member.joined {
            return Err(Refusal::new(Code::Busy, "you left and joined again meanwhile"));
        }
        let records = records.into_iter().map(decode).collect::<Result<_, _>>()?;
        Ok(wire::History { records, tail: row.tail.get() })
    }

    async fn read_on(
        &self,
        group: GroupId,
        from: Seq,
        tail: Seq,
        limit: usize,
    ) -> Result<Vec<Bytes>, Refusal> {
        let wanted = usize::try_from(tail.since(from)).unwrap_or(usize::MAX).min(limit);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let limit = ReadLimit { records_max: wanted, bytes_max: self.limits.load().history_bytes_max };
        self.store().read(group, from, limit).await.map_err(refusal)
    }

    /// The last records from `floor` up to `end`, ascending: no more than `limit`, nor than the
    /// bytes allowed beyond the last.
    async fn read_back(
        &self,
        group: GroupId,
        floor: Seq,
        mut end: Seq,
        limit: usize,
    ) -> Result<Vec<Bytes>, Refusal> {
        let (mut kept, mut bytes) = (Vec::new(), 0);
        while end > floor && kept.len() < limit {
            let distance = end.since(floor);
            let start = floor.advance(distance.saturating_sub(BLOCK.min((limit - kept.len()) as u64)));
            for record in self.read_all(group, start, end).await?.into_iter().rev() {
                if !kept.is_empty() && bytes + record.len() > self.limits.load().history_bytes_max {
                    kept.reverse();
                    return Ok(kept);
                }
                bytes += if kept.is_empty() { 0 } else { record.len() };
                kept.push(record);
            }
            end = start;
        }
        kept.reverse();
        Ok(kept)
    }

    /// Every record of a block, however many reads it takes.
    async fn read_all(&self, group: GroupId, start: Seq, end: Seq) -> Result<Vec<Bytes>, Refusal> {
        let mut records = Vec::new();
        let mut next = start;
        while next < end {
            let page = self.read_on(group, next, end, usize::MAX).await?;
            if page.is_empty() {
                let reason = format!("the store has no record {next} below the tail");
                return Err(Refusal::new(Code::Internal, reason));
            }
            next = next.advance(page.len() as u64);
            records.extend(page);
        }
        Ok(records)
    }
}

/// The first record that a member may see.
fn floor(row: &GroupRow, member: &MemberRow) -> Seq {
    let sees_all = row.state.settings.history_before_join || member.role == wire::Role::None;
    if sees_all { Seq::FIRST } else { member.joined }
}
