//! A group is cut by a plan, step by step; whoever administers it halts it, or has it undone; and the
//! next home goes on where the last one died.

use std::time::Duration;

use shoal_node::{config::GroupLimits, group::Actor, store::MemoryTiming};
use shoal_protocol::{Code, GroupId, Refusal, wire};
use wire::{change::Body, plan::Cause, plan_command::Action};

use super::world::{World, committed, id, text_message};

const OBSERVE: Duration = Duration::from_secs(4);

fn limits() -> GroupLimits {
    let plan_observe_ms = OBSERVE.as_millis() as u64;
    GroupLimits { sub_group_max: 1_000, plan_observe_ms, plan_retry_ms: 1, ..GroupLimits::default() }
}

async fn world(group: GroupId) -> World {
    let world = World::with(1, limits(), MemoryTiming::default());
    world.create("ann", group, &["bob", "cid", "dot"]).await;
    world
}

async fn order(world: &World, group: GroupId, action: Action, sub_groups: u32) -> Result<(), Refusal> {
    let actor = Actor { user: id("operator"), admin: true };
    let command = wire::PlanCommand { action: action.into(), sub_groups };
    let change = wire::Change { group: group.to_wire(), body: Some(Body::Plan(command)) };
    world.groups.change(actor, change).await.map(drop)
}

async fn layout(world: &World, group: GroupId) -> wire::Layout {
    let row = world.store.group(group).await.expect("reads").expect("there is one");
    row.state.layout.map(|layout| *layout).unwrap_or_default()
}

/// How many sub-groups there are, and how far a plan has got.
async fn state(world: &World, group: GroupId) -> (usize, Option<u32>) {
    let layout = layout(world, group).await;
    (layout.partitions.len(), layout.plan.map(|plan| plan.percent))
}

/// Waits until a plan has got so far.
async fn at(world: &World, group: GroupId, percent: Option<u32>) {
    for _ in 0..4_000 {
        if state(world, group).await.1 == percent {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays at {:?}, and does not come to {percent:?}", state(world, group).await);
}

#[tokio::test(start_paused = true)]
async fn a_plan_goes_from_step_to_step_and_members_talk_all_the_while() {
    let group = GroupId::named("g");
    let world = world(group).await;
    order(&world, group, Action::Start, 5).await.unwrap();
    let ann = world.sender("ann");
    for (number, percent) in (1..).zip([Some(0), Some(10), Some(30), Some(100), None]) {
        at(&world, group, percent).await;
        committed(&world.publish(group, &ann, number, "still here").await);
    }
    assert_eq!(state(&world, group).await, (5, None));
    assert!(layout(&world, group).await.last.unwrap().committed);
    order(&world, group, Action::Start, 0).await.unwrap();
    at(&world, group, Some(0)).await;
    at(&world, group, None).await;
    assert_eq!(state(&world, group).await, (1, None), "as few members ask for");
    order(&world, group, Action::Start, 1).await.unwrap();
    at(&world, group, Some(0)).await;
    at(&world, group, None).await;
    assert_eq!(layout(&world, group).await.sub_groups_min, 1, "it is kept, though nothing moves for it");
    let again = order(&world, group, Action::Start, 1).await;
    assert_eq!((again, layout(&world, group).await.plan), (Ok(()), None), "it is so already");
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_undone_from_every_step() {
    for percent in [0, 10, 30, 100] {
        let group = GroupId::named("g");
        let world = world(group).await;
        order(&world, group, Action::Start, 3).await.unwrap();
        at(&world, group, Some(percent)).await;
        order(&world, group, Action::RollBack, 0).await.unwrap();
        assert_eq!(state(&world, group).await, (1, None), "at {percent}");
        let end = layout(&world, group).await.last.unwrap();
        assert!(!end.committed && end.why.contains("operator"), "{end:?}");
        committed(&world.publish(group, &world.sender("bob"), 1, "back").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_paused_waits_also_over_a_restart() {
    let group = GroupId::named("g");
    let mut world = world(group).await;
    order(&world, group, Action::Start, 3).await.unwrap();
    at(&world, group, Some(10)).await;
    order(&world, group, Action::Pause, 0).await.unwrap();
    tokio::time::sleep(OBSERVE * 20).await;
    assert_eq!(state(&world, group).await, (1, Some(10)));
    world.restart();
    world.groups.finish_notices().await.unwrap();
    tokio::time::sleep(OBSERVE * 20).await;
    assert_eq!(state(&world, group).await, (1, Some(10)));
    order(&world, group, Action::Resume, 0).await.unwrap();
    at(&world, group, None).await;
    assert_eq!(state(&world, group).await, (3, None));
}

/// Nobody asks for the group after the crash: what is unfinished is listed in the store.
#[tokio::test(start_paused = true)]
async fn the_next_home_finishes_what_the_last_one_left_at_any_step() {
    for percent in [0, 10, 30, 100] {
        let group = GroupId::named("g");
        let mut world = world(group).await;
        order(&world, group, Action::Start, 4).await.unwrap();
        at(&world, group, Some(percent)).await;
        world.restart();
        world.groups.finish_notices().await.unwrap();
        at(&world, group, None).await;
        assert_eq!(state(&world, group).await, (4, None), "from {percent}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.store.notices_due(None, 1).await.unwrap(), [], "nothing is left to do");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_does_not_wait_for_a_plan() {
    let group = GroupId::named("g");
    let mut world = world(group).await;
    order(&world, group, Action::Start, 3).await.unwrap();
    at(&world, group, Some(10)).await;
    tokio::time::timeout(Duration::from_millis(500), world.groups.shut_down()).await.expect("it goes");
    assert_eq!(state(&world, group).await, (1, Some(10)));
    world.restart();
    world.groups.finish_notices().await.unwrap();
    at(&world, group, None).await;
    assert_eq!(state(&world, group).await, (3, None));
}

/// However slowly members are fetched for new owners, nobody who sends waits for that.
#[tokio::test(start_paused = true)]
async fn a_message_does_not_wait_behind_the_meter() {
    let limits = GroupLimits { migration_rows_per_second: 1, ..limits() };
    let world = World::with(1, limits, MemoryTiming::default());
    let members: Vec<_> = (0..50).map(|at| format!("member-{at}")).collect();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    for group in [GroupId::named("g"), GroupId::named("h")] {
        world.create("ann", group, &members).await;
        let sent = async { committed(&world.publish(group, &world.sender("ann"), 1, "now").await) };
        tokio::time::timeout(Duration::from_secs(1), sent).await.expect("at once");
    }
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused() {
    let group = GroupId::named("g");
    let world = world(group).await;
    let code = |answer: Result<(), Refusal>| answer.map_err(|refusal| refusal.code);
    for action in [Action::Pause, Action::Resume, Action::RollBack] {
        assert_eq!(code(order(&world, group, action, 0).await), Err(Code::BadRequest), "{action:?}: no plan");
    }
    assert_eq!(code(order(&world, group, Action::Start, 16_385).await), Err(Code::BadRequest));
    assert_eq!(code(order(&world, GroupId::named("none"), Action::Start, 2).await), Err(Code::UnknownGroup));
    let command = wire::PlanCommand { action: Action::Start.into(), sub_groups: 2 };
    let owner = world.change("ann", group, Body::Plan(command)).await;
    assert_eq!(owner.map_err(|refusal| refusal.code), Err(Code::NotAllowed), "not for a group's owner");
    order(&world, group, Action::Start, 3).await.unwrap();
    for action in [Action::Start, Action::Rebalance, Action::Resume] {
        assert_eq!(
            code(order(&world, group, action, 5).await),
            Err(Code::BadRequest),
            "{action:?}: under way"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn plans_by_themselves_keep_to_their_bounds() {
    let group = GroupId::named("g");
    let members: Vec<_> = (0..30).map(|at| format!("member-{at}")).collect();
    let world = World::with(1, GroupLimits { plans_max: 0, ..limits() }, MemoryTiming::default());
    world.create("ann", group, &members.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let small = GroupLimits { sub_group_max: 10, ..limits() };
    // The clock of the test stands at eight in the morning.
    let night = "22:00-05:30".to_owned().try_into().unwrap();
    for limits in
        [GroupLimits { plans_max: 0, ..small.clone() }, GroupLimits { plan_hours: night, ..small.clone() }]
    {
        world.groups.set_limits(limits);
        committed(&world.publish(group, &world.sender("ann"), 1, "on").await);
        tokio::time::sleep(OBSERVE).await;
        assert_eq!(layout(&world, group).await.version, 0);
    }
    world.groups.set_limits(small);
    committed(&world.publish(group, &world.sender("ann"), 2, "on").await);
    at(&world, group, Some(0)).await;
    assert_eq!(layout(&world, group).await.plan.unwrap().cause(), Cause::Grown);
}

/// A message a hundredth of a second, for so long, each of which has waited so long for its turn.
async fn talk(world: &World, group: GroupId, numbers: std::ops::Range<u64>, waited: Duration) {
    let ann = world.sender("ann");
    for number in numbers {
        let arrived = tokio::time::Instant::now() - waited;
        let mut receipts = world.send_arrived(group, &ann, number, text_message("on"), arrived);
        receipts.recv().await.expect("every message is answered");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// There is nobody else who could own some of its members.
#[tokio::test(start_paused = true)]
async fn a_node_alone_does_not_cut_a_group_because_its_messages_wait() {
    let group = GroupId::named("g");
    let limits = GroupLimits { member_rate_per_second: 1_000, ..limits() };
    let world = World::with(1, limits, MemoryTiming::default());
    world.create("ann", group, &["bob"]).await;
    talk(&world, group, 1..1_200, Duration::from_millis(1_100)).await;
    assert_eq!(layout(&world, group).await.version, 0);
}
