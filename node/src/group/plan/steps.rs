//! Each step of a plan as the layout that takes it: a record of the sequence, and the group's row.
//!
//! A step is safe to repeat, since it is written by one append under the group's epoch; and whoever reads
//! the row knows how far the plan has got.

use shoal_protocol::wire;
use wire::plan::Cause;

use crate::coordination::Partition;

/// The layout after the one that holds, which a group that was never cut has not.
fn next(layout: Option<&wire::Layout>, here: Partition) -> wire::Layout {
    let mut layout = layout.cloned().unwrap_or_default();
    if layout.partitions.is_empty() {
        layout.partitions.push(here.number().into());
    }
    layout.version += 1;
    layout
}

/// A plan has begun: nothing has moved.
pub(crate) fn begun(
    layout: Option<&wire::Layout>,
    here: Partition,
    to: &[Partition],
    cause: Cause,
    sub_groups_min: u32,
    now_ms: u64,
) -> wire::Layout {
    let mut layout = next(layout, here);
    layout.plan = Some(wire::Plan {
        number: layout.version,
        partitions: to.iter().map(|partition| partition.number().into()).collect(),
        percent: 0,
        paused: false,
        cause: cause.into(),
        began_ms: now_ms,
        sub_groups_min,
    });
    layout
}

/// So many in a hundred of the slots that move have moved.
pub(crate) fn moved(layout: &wire::Layout, percent: u32) -> Option<wire::Layout> {
    change(layout, |plan| plan.percent = percent)
}

/// It stays where it is, or goes on.
pub(crate) fn paused(layout: &wire::Layout, paused: bool) -> Option<wire::Layout> {
    change(layout, |plan| plan.paused = paused)
}

/// The layout is what it was to be.
pub(crate) fn committed(layout: &wire::Layout, now_ms: u64) -> Option<wire::Layout> {
    let plan = layout.plan.as_ref()?;
    let last = wire::PlanEnd {
        number: plan.number,
        cause: plan.cause,
        committed: true,
        why: String::new(),
        ended_ms: now_ms,
    };
    let (partitions, sub_groups_min) = (plan.partitions.clone(), plan.sub_groups_min);
    Some(wire::Layout {
        version: layout.version + 1,
        partitions,
        plan: None,
        last: Some(last),
        sub_groups_min,
    })
}

/// The layout is what it was.
pub(crate) fn rolled_back(layout: &wire::Layout, why: String, now_ms: u64) -> Option<wire::Layout> {
    let plan = layout.plan.as_ref()?;
    let last =
        wire::PlanEnd { number: plan.number, cause: plan.cause, committed: false, why, ended_ms: now_ms };
    Some(wire::Layout { version: layout.version + 1, plan: None, last: Some(last), ..layout.clone() })
}

fn change(layout: &wire::Layout, change: impl FnOnce(&mut wire::Plan)) -> Option<wire::Layout> {
    let mut layout = layout.clone();
    change(layout.plan.as_mut()?);
    layout.version += 1;
    Some(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(numbers: impl IntoIterator<Item = u16>) -> Vec<Partition> {
        numbers.into_iter().filter_map(Partition::new).collect()
    }

    #[test]
    fn a_plan_ends_as_what_it_was_to_be_or_as_what_was() {
        let [here, there] = partitions([3, 5])[..] else { panic!() };
        let first = begun(None, here, &[here, there], Cause::Grown, 2, 10);
        assert_eq!((first.version, &first.partitions[..]), (1, &[3][..]));
        let tenth = moved(&first, 10).unwrap();
        let held = paused(&tenth, true).unwrap();
        assert_eq!(
            held.plan.as_ref().map(|plan| (plan.number, plan.percent, plan.paused)),
            Some((1, 10, true))
        );
        let back = rolled_back(&held, "slow".into(), 20).unwrap();
        assert_eq!((back.version, &back.partitions[..], back.plan.is_none()), (4, &[3][..], true));
        assert_eq!(back.sub_groups_min, 0, "nothing of it stays");
        let done = committed(&moved(&tenth, 100).unwrap(), 20).unwrap();
        assert_eq!((done.version, &done.partitions[..], done.plan.is_none()), (4, &[3, 5][..], true));
        assert!(moved(&done, 10).is_none() && rolled_back(&back, String::new(), 0).is_none(), "it has ended");
        let second = begun(Some(&done), here, &[there], Cause::Thin, 0, 30);
        assert_eq!((second.version, second.plan.map(|plan| plan.number)), (5, Some(5)));
    }
}
