use std::collections::BTreeMap;

use super::*;
use crate::store::{Epoch, GroupRow};

const WALL_MS: u64 = 1_800_000_000_000;

fn at(ms: u64) -> Now {
    Now { wall_ms: WALL_MS + ms, since_start: Duration::from_millis(ms) }
}

/// A home of a group of ten that is cut as its last plan has left it.
fn home(layout: Option<wire::Layout>) -> Home<()> {
    let state = GroupState {
        settings: wire::Settings::default(),
        created_ms: WALL_MS,
        closed: false,
        members: 10,
        senders_watermark: Seq::FIRST,
        notices_watermark: None,
        layout: layout.map(Box::new),
        features: None,
    };
    let row = GroupRow { epoch: Epoch(1), tail: Seq::FIRST.next(), incarnation: 1, state };
    Home::new(GroupId::named("g"), row, BTreeMap::new(), GroupLimits::default())
}

/// A second of a lively group in which a message waited so long.
fn second(home: &mut Home<()>, second: u64, waited_ms: u64) -> Vec<Effect<()>> {
    let now = at(second * 1000);
    (0..200).for_each(|_| home.note_message(now));
    home.handle_tick(now);
    let owner = wire::Owner { waited_ms, ..Default::default() };
    let answered = Answered { owner, round_trip: Duration::ZERO };
    home.handle_owner(Partition::of(GroupId::named("g")), &answered, now);
    std::iter::from_fn(|| home.poll_effect()).collect()
}

fn cuts(effects: &[Effect<()>]) -> Vec<(Goal, Cause)> {
    let cut = |effect: &Effect<()>| match effect {
        Effect::LayOut(wanted) => Some((wanted.goal, wanted.cause)),
        _ => None,
    };
    effects.iter().filter_map(cut).collect()
}

#[test]
fn messages_that_wait_too_long_again_and_again_get_more_owners() {
    let mut home = home(None);
    for late in [false, true] {
        let waited_ms = home.limits.plan_delay_max_ms + u64::from(late);
        let found: Vec<_> =
            (0..5).flat_map(|nth| cuts(&second(&mut home, nth + u64::from(late) * 10, waited_ms))).collect();
        let expected = if late { vec![(Goal::SubGroups(2), Cause::Late)] } else { vec![] };
        assert_eq!(found, expected);
    }
}

#[test]
fn what_it_got_for_that_is_kept_by_the_next_home_for_a_while() {
    let ended = |cause: Cause, ended_ms| {
        let last =
            wire::PlanEnd { number: 1, committed: true, cause: cause.into(), ended_ms, ..Default::default() };
        home(Some(wire::Layout {
            version: 5,
            partitions: vec![1, 2],
            last: Some(last),
            ..Default::default()
        }))
    };
    let thin = |mut home: Home<()>| {
        home.handle_tick(at(0));
        cuts(&std::iter::from_fn(|| home.poll_effect()).collect::<Vec<_>>())
    };
    assert_eq!(thin(ended(Cause::Late, WALL_MS - 60_000)), []);
    assert_eq!(thin(ended(Cause::Late, WALL_MS - 3_600_000)), [(Goal::SubGroups(1), Cause::Thin)]);
    assert_eq!(thin(ended(Cause::Grown, WALL_MS - 60_000)), [(Goal::SubGroups(1), Cause::Thin)]);
}
