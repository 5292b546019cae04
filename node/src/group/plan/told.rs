//! What operators are told of a plan, step by step. Pure: records in, sentences out.

use shoal_protocol::wire;
use wire::plan::Cause;

use crate::ops::{Event, Kind};

/// What a layout that has just become durable says of a plan. Before it so many hundredths of what moves had
/// moved by a plan that was under way.
pub(crate) fn event(moved_before: Option<u32>, layout: &wire::Layout) -> Option<Event> {
    let event = match (&layout.plan, &layout.last) {
        (Some(plan), _) if plan.number == layout.version => begun(layout.partitions.len(), plan),
        (Some(plan), _) => goes_on(moved_before, plan),
        (None, Some(end)) => ended(layout.partitions.len(), end),
        (None, None) => return None,
    };
    Some(event)
}

fn begun(from: usize, plan: &wire::Plan) -> Event {
    let (number, to, why) = (plan.number, plan.partitions.len(), trigger(plan.cause()));
    Event::new(Kind::PlanBegun, format!("plan {number} begins, from {from} sub-groups to {to}: {why}"))
}

fn goes_on(moved_before: Option<u32>, plan: &wire::Plan) -> Event {
    let wire::Plan { number, percent, paused, .. } = plan;
    if *paused {
        return Event::new(
            Kind::PlanPaused,
            format!("plan {number} stays at {percent} % until it is resumed"),
        );
    }
    if moved_before == Some(*percent) {
        return Event::new(Kind::PlanResumed, format!("plan {number} goes on from {percent} %"));
    }
    Event::new(Kind::PlanStep, format!("plan {number} has moved {percent} % of what it moves"))
}

fn ended(sub_groups: usize, end: &wire::PlanEnd) -> Event {
    let number = end.number;
    if end.committed {
        let text = format!("plan {number} is committed: the group has {sub_groups} sub-groups");
        return Event::new(Kind::PlanCommitted, text);
    }
    Event::new(Kind::PlanRolledBack, format!("plan {number} is rolled back: {}", end.why))
}

fn trigger(cause: Cause) -> &'static str {
    match cause {
        Cause::Grown => "a sub-group is near its target, or above",
        Cause::Thin => "its members are few for so many sub-groups",
        Cause::Uneven => "a node has far more of its sub-groups than another",
        Cause::Command => "an administrator wants it",
        Cause::Late => "messages wait too long for their turn",
        Cause::Unknown => "this version does not know why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(version: u64, percent: u32, paused: bool) -> wire::Layout {
        let partitions = vec![1, 2, 3];
        let cause = Cause::Grown.into();
        let plan = wire::Plan { number: 4, partitions, percent, paused, cause, ..Default::default() };
        wire::Layout { version, partitions: vec![1], plan: Some(plan), ..Default::default() }
    }

    fn ended(committed: bool) -> wire::Layout {
        let end = wire::PlanEnd { number: 4, committed, why: "gaps in a feed".into(), ..Default::default() };
        wire::Layout { version: 9, partitions: vec![1, 2], last: Some(end), ..Default::default() }
    }

    #[test]
    fn each_step_of_a_plan_is_told_by_its_kind_and_with_its_cause() {
        let told = [
            (None, under_way(4, 0, false), Kind::PlanBegun, "from 1 sub-groups to 3: a sub-group is near"),
            (Some(0), under_way(5, 10, false), Kind::PlanStep, "10 %"),
            (Some(10), under_way(6, 10, true), Kind::PlanPaused, "stays at 10 %"),
            (Some(10), under_way(7, 10, false), Kind::PlanResumed, "goes on from 10 %"),
            (Some(10), under_way(8, 30, false), Kind::PlanStep, "30 %"),
            (Some(100), ended(true), Kind::PlanCommitted, "2 sub-groups"),
            (Some(30), ended(false), Kind::PlanRolledBack, "gaps in a feed"),
        ];
        for (before, layout, kind, part) in told {
            let event = event(before, &layout).unwrap();
            assert_eq!(event.kind, kind);
            assert!(event.text.contains("plan 4") && event.text.contains(part), "{}", event.text);
        }
        assert_eq!(event(None, &wire::Layout::default()), None);
    }
}
