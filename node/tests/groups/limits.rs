//! Limits that change while groups are awake.

use std::time::Duration;

use shoal_node::{config::GroupLimits, store::MemoryTiming};
use shoal_protocol::{Code, GroupId};

use crate::world::{World, committed, refused};

#[tokio::test(start_paused = true)]
async fn another_rate_holds_from_the_next_message_on() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let ann = world.sender("ann");
    committed(&world.publish(group, &ann, 1, "one").await);
    world.groups.set_limits(GroupLimits { member_rate_per_second: 1, member_burst: 1, ..Default::default() });
    committed(&world.publish(group, &ann, 2, "two").await);
    assert_eq!(refused(&world.publish(group, &ann, 3, "three").await), (Code::TooFast, false));
    world.groups.set_limits(GroupLimits::default());
    committed(&world.publish(group, &ann, 3, "three").await);
    assert_eq!(world.texts(group).await, ["one", "two", "three"]);
}

/// What one of them would have to wait for is not forgotten with a limit that does not concern it.
#[tokio::test(start_paused = true)]
async fn another_limit_gives_nobody_a_new_burst() {
    let limits = GroupLimits { member_rate_per_second: 1, member_burst: 1, ..GroupLimits::default() };
    let world = World::with(1, limits.clone(), MemoryTiming::default());
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let ann = world.sender("ann");
    committed(&world.publish(group, &ann, 1, "one").await);
    world.groups.set_limits(GroupLimits { payload_bytes_max: 4, ..limits });
    assert_eq!(refused(&world.publish(group, &ann, 2, "two").await), (Code::TooFast, false));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(refused(&world.publish(group, &ann, 2, "too long").await), (Code::PayloadTooLarge, true));
}

#[tokio::test(start_paused = true)]
async fn smaller_sub_groups_cut_a_group_when_it_does_the_next_thing() {
    let world = World::new(1);
    let group = GroupId::named("g");
    let members: Vec<_> = (0..30).map(|at| format!("member-{at}")).collect();
    world.create("ann", group, &members.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.groups.set_limits(GroupLimits { sub_group_max: 10, ..GroupLimits::default() });
    let ann = world.sender("ann");
    committed(&world.publish(group, &ann, 1, "one").await);
    tokio::time::sleep(Duration::from_secs(200)).await;
    let row = world.store.group(group).await.unwrap().unwrap();
    let layout = row.state.layout.expect("it is cut");
    assert!(layout.partitions.len() >= 3 && layout.plan.is_none(), "{layout:?}");
}
