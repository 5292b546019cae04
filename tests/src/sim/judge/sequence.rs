//! Sequences have no hole and no double.

use shoal_protocol::wire::{Record, member_change::Kind, record::Body};

use super::{Case, Findings, Holding};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        for (record, expected) in holding.records.iter().zip(1_u64..) {
            if record.silent && !may_be_silent(record) {
                findings.find(|| format!("{group}: the record at {expected} is kept from members"));
            }
            if record.seq != expected {
                findings.find(|| format!("{group}: the record at {expected} says it is at {}", record.seq));
            }
        }
        check_row(holding, findings, group);
    }
}

/// Where the group is cut, and who comes and goes, is all that an app need not be told.
fn may_be_silent(record: &Record) -> bool {
    match &record.body {
        Some(Body::Layout(_)) => true,
        Some(Body::Members(changes)) => changes
            .changes
            .iter()
            .all(|change| matches!(change.kind(), Kind::Joined | Kind::Added | Kind::Left | Kind::Removed)),
        _ => false,
    }
}

fn check_row(holding: &Holding, findings: &mut Findings, group: &shoal_protocol::GroupId) {
    let (row, tail) = (&holding.row, holding.tail());
    if row.tail != tail {
        findings.find(|| format!("{group}: its row says the tail is {}, its records say {tail}", row.tail));
    }
    if row.state.senders_watermark > tail {
        findings.find(|| format!("{group}: senders are kept up to {}", row.state.senders_watermark));
    }
}
