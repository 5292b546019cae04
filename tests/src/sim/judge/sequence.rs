//! Sequences have no hole and no double.

use super::{Case, Findings, Holding};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        for (record, expected) in holding.records.iter().zip(1_u64..) {
            if record.seq != expected {
                findings.find(|| format!("{group}: the record at {expected} says it is at {}", record.seq));
            }
        }
        check_row(holding, findings, group);
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
