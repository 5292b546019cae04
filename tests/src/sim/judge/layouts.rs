//! A group's layout goes from one to the next by the steps of a plan, and no plan is left half done.

use shoal_protocol::{GroupId, wire};
use wire::record::Body;

use super::{Case, Findings, Holding};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        check_group(*group, holding, findings);
    }
}

fn check_group(group: GroupId, holding: &Holding, findings: &mut Findings) {
    let mut before = wire::Layout::default();
    for record in &holding.records {
        let Some(Body::Layout(layout)) = &record.body else { continue };
        if let Some(wrong) = wrong(&before, layout) {
            findings.find(|| format!("{group}: at {} {wrong}: {before:?}, then {layout:?}", record.seq));
        }
        before = layout.clone();
    }
    let row = holding.row.state.layout.as_deref().cloned().unwrap_or_default();
    if row != before {
        findings.find(|| format!("{group}: its row has the layout {row:?}, its records {before:?}"));
    }
    if let Some(plan) = row.plan {
        findings.find(|| format!("{group}: a plan was left where it stood: {plan:?}"));
    }
}

/// What is wrong with a layout after another.
fn wrong(before: &wire::Layout, after: &wire::Layout) -> Option<&'static str> {
    if after.version != before.version + 1 {
        return Some("a version is left out, or comes twice");
    }
    let stays = before.partitions.is_empty() || after.partitions == before.partitions;
    match (&before.plan, &after.plan) {
        (None, None) => Some("a layout changes without a plan"),
        (None, Some(plan)) => {
            (!stays || plan.number != after.version || plan.percent != 0).then_some("a plan does not begin")
        }
        (Some(was), Some(is)) => {
            let same = was.number == is.number && was.partitions == is.partitions;
            let next = [(0, 10), (10, 30), (30, 100)].contains(&(was.percent, is.percent));
            let halted = was.percent == is.percent && was.paused != is.paused;
            (!stays || !same || !(next || halted)).then_some("a plan takes no step that there is")
        }
        (Some(plan), None) => {
            let end = after.last.as_ref().filter(|end| end.number == plan.number);
            let is_whole = match end {
                Some(end) if end.committed => plan.percent == 100 && after.partitions == plan.partitions,
                Some(_) => stays,
                None => false,
            };
            (!is_whole).then_some("a plan ends between")
        }
    }
}
