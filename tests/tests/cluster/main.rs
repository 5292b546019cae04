//! Three nodes of one cluster in this process, over loopback: one store, one coordination, and
//! clients that talk across.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod draining;

mod events;

mod features;

mod link;

mod plans;

mod presence;

mod roles;

mod status;

mod steering;

mod two_homes;

mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use shoal_client::{Client, Code, GroupId, PublishError, Start, wire};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::Limits,
};
use tokio::time::timeout;

use world::{PATIENCE, World, hear, user};

fn refusal<T: std::fmt::Debug>(published: Result<T, PublishError>) -> Code {
    match published {
        Err(PublishError::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_three_nodes_hear_each_other_in_one_order() {
    let names = ["a", "b", "c"];
    let world = World::new(&names).await;
    let group = GroupId::named("general");
    let mut talkers = Vec::new();
    for name in names {
        talkers.push(world.client(&format!("user-{name}"), name).await);
    }
    let members: Vec<_> = names.iter().map(|name| user(&format!("user-{name}"))).collect();
    talkers[0].create(group, wire::Settings::default(), &members[1..]).await.unwrap();
    let mut follows = Vec::new();
    for talker in &talkers {
        follows.push(talker.follow(group, Start::Join).await.unwrap());
    }
    for round in 0..20 {
        for (talker, name) in talkers.iter().zip(names) {
            talker.publish(group, format!("{name} {round}")).await.unwrap();
        }
    }
    let mut heard = Vec::new();
    for follow in &mut follows {
        let mut all = Vec::new();
        for _ in 0..60 {
            all.push(hear(follow).await);
        }
        heard.push(all);
    }
    assert!(heard.iter().all(|all| *all == heard[0]), "one order for all");
    assert!(heard[0].is_sorted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_home_moves_goes_on_for_everybody() {
    let names = ["a", "b", "c"];
    let world = World::new(&names).await;
    let group = GroupId::named("moving");
    let (ann, bob) = (world.client("ann", "a").await, world.client("bob", "b").await);
    ann.create(group, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let mut bobs = bob.follow(group, Start::Join).await.unwrap();
    let mut anns = ann.follow(group, Start::Join).await.unwrap();
    let mut homes = Vec::new();
    for (round, on) in [&["a"][..], &["b"], &["c"], &["a", "b", "c"]].into_iter().enumerate() {
        world.place(on).await;
        homes.push(world.home(group));
        for talker in [&ann, &bob] {
            timeout(PATIENCE, talker.publish(group, format!("{round}"))).await.unwrap().unwrap();
        }
        let heard = [hear(&mut anns).await, hear(&mut anns).await];
        assert_eq!([hear(&mut bobs).await, hear(&mut bobs).await], heard);
        assert!(heard.iter().all(|(_, text)| *text == round.to_string()), "{heard:?}");
    }
    assert_eq!(homes[..3], ["a", "b", "c"]);
}

/// What is on its way when a home moves goes to the next by itself, from a session beside the old home,
/// beside the new one, and elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sender_is_asked_to_come_again_when_a_home_moves_under_load() {
    let names = ["a", "b", "c"];
    let world = World::new(&names).await;
    world.place(&["a"]).await;
    let group = GroupId::named("to and fro");
    let clients =
        [world.client("ann", "a").await, world.client("bob", "b").await, world.client("cid", "c").await];
    clients[0].create(group, wire::Settings::default(), &[user("bob"), user("cid")]).await.unwrap();
    let is_moving = Arc::new(AtomicBool::new(true));
    let talking = clients.map(|client| {
        let is_moving = Arc::clone(&is_moving);
        tokio::spawn(async move {
            while is_moving.load(Relaxed) {
                client.publish(group, "on").await.unwrap();
            }
        })
    });
    for home in ["b", "a"].iter().cycle().take(8) {
        world.place(&[home]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_moving.store(false, Relaxed);
    for talker in talking {
        timeout(PATIENCE, talker).await.unwrap().unwrap();
    }
    let refused = |name, code| world.nodes[name].metrics.publishes_refused.get(code);
    assert_eq!(names.map(|name| refused(name, Code::Busy)), [0; 3]);
    // One that is never the home has nobody but its own sessions to say so to; and it did not go to the
    // right place at once.
    assert_eq!(refused("c", Code::NotHome), 0);
    assert!(refused("a", Code::NotHome) + refused("b", Code::NotHome) > 0, "none was on its way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_is_shut_out_and_replaced() {
    let mut world = World::new(&["a", "b", "c"]).await;
    let group = GroupId::named("orphan");
    world.place(&["c"]).await;
    let (ann, bob) = (world.client("ann", "a").await, world.client("bob", "b").await);
    ann.create(group, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let mut bobs = bob.follow(group, Start::Join).await.unwrap();
    ann.publish(group, "before").await.unwrap();
    assert_eq!(hear(&mut bobs).await.1, "before");
    world.nodes.remove("c");
    let waiting = tokio::spawn({
        let ann = ann.clone();
        async move { ann.publish(group, "meanwhile").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.place(&["a", "b"]).await;
    // It has waited on its node, and goes to the new home while the old one is still being dialled.
    // (Its sender would be asked again after a second.)
    timeout(Duration::from_millis(800), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(hear(&mut bobs).await.1, "meanwhile");
    ann.publish(group, "after").await.unwrap();
    assert_eq!(hear(&mut bobs).await.1, "after");
}

/// Each record crosses to a node once, however many of its sessions follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_for_each_node() {
    let world = World::new(&["a", "b"]).await;
    world.place(&["a"]).await;
    let group = GroupId::named("copies");
    let ann = world.client("ann", "a").await;
    let members: Vec<_> = (0..10).map(|at| user(&format!("member-{at}"))).collect();
    ann.create(group, wire::Settings::default(), &members).await.unwrap();
    let mut follows = Vec::new();
    for member in &members {
        let client = world.client(member.as_str(), "b").await;
        follows.push((client.follow(group, Start::Tail).await.unwrap(), client));
    }
    ann.publish(group, "first").await.unwrap();
    for (follow, _) in &mut follows {
        assert_eq!(hear(follow).await.1, "first");
    }
    let delivered = |name: &str| world.nodes[name].metrics.delivered.get();
    let (before_a, before_b) = (delivered("a"), delivered("b"));
    for number in 0..50 {
        ann.publish(group, format!("{number}")).await.unwrap();
    }
    for (follow, _) in &mut follows {
        for number in 0..50 {
            assert_eq!(hear(follow).await.1, number.to_string());
        }
    }
    assert_eq!(delivered("b") - before_b, 500, "to ten sessions");
    assert_eq!(delivered("a") - before_a, 50, "to one node");
}

/// The owners of a group that was cut are on several nodes: each judges what its members send, and
/// one order holds for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_groups_have_their_owners_on_several_nodes() {
    const MEMBERS: usize = 24;
    let mut limits = Limits::default();
    limits.group.sub_group_max = 8;
    limits.group.plan_observe_ms = 100;
    let names = ["a", "b", "c"];
    let world = World::with(&names, limits).await;
    let group = GroupId::named("large");
    let members: Vec<_> = (0..MEMBERS).map(|at| format!("member-{at}")).collect();
    let mut talkers = Vec::new();
    for (at, member) in members.iter().enumerate() {
        talkers.push(world.client(member, names[at % 3]).await);
    }
    let users: Vec<_> = members.iter().map(|name| user(name)).collect();
    talkers[0].create(group, wire::Settings::default(), &users[1..]).await.unwrap();
    let mut follows = Vec::new();
    for talker in &talkers {
        follows.push(talker.follow(group, Start::Join).await.unwrap());
    }
    cut_into(&talkers[0], group, 5).await;
    for round in 0..5 {
        let sent = talkers.iter().map(|talker| talker.publish(group, format!("{round}")));
        timeout(PATIENCE, futures_util::future::try_join_all(sent)).await.unwrap().unwrap();
    }
    let mut heard = Vec::new();
    for follow in &mut follows {
        let mut all = Vec::new();
        for _ in 0..5 * MEMBERS {
            all.push(hear(follow).await);
        }
        heard.push(all);
    }
    assert!(heard.iter().all(|all| *all == heard[0]), "one order for all");
    let judged = names.map(|name| world.nodes[name].metrics.judged.get());
    assert_eq!(judged.iter().sum::<u64>(), 5 * MEMBERS as u64, "each once: {judged:?}");
    assert!(judged.iter().all(|judged| *judged > 0), "by all three: {judged:?}");
}

/// Waits until the group has so many sub-groups.
async fn cut_into(member: &Client, group: GroupId, sub_groups: u32) {
    let cut = async {
        while member.group(group).await.unwrap().sub_groups != sub_groups {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, cut).await.unwrap();
}

/// What an owner on another node thinks of a member does not outlive what the home has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_elsewhere_is_asked_again_when_its_opinion_is_out_of_date() {
    let mut limits = Limits::default();
    limits.group.sub_group_max = 2;
    limits.group.plan_observe_ms = 100;
    let names = ["a", "b", "c"];
    let world = World::with(&names, limits).await;
    let group = GroupId::named("strict");
    let ann = world.client("ann", "a").await;
    let mut others = Vec::new();
    for at in 0..9 {
        others
            .push((user(&format!("other-{at}")), world.client(&format!("other-{at}"), names[at % 3]).await));
    }
    let users: Vec<_> = others.iter().map(|(user, _)| user.clone()).collect();
    ann.create(group, wire::Settings::default(), &users).await.unwrap();
    cut_into(&ann, group, 8).await;
    for (name, other) in &others {
        other.publish(group, "hello").await.unwrap();
        let until = SystemClock.now_ms() + 60_000;
        ann.mute(group, name, until).await.unwrap();
        assert_eq!(refusal(other.publish(group, "muted").await), Code::Muted);
        ann.mute(group, name, 0).await.unwrap();
        other.publish(group, "again").await.unwrap();
        ann.remove(group, std::slice::from_ref(name)).await.unwrap();
        assert_eq!(refusal(other.publish(group, "gone").await), Code::NotMember);
    }
}
