//! What operators are told, followed through any node of three.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shoal_client::{Client, Code, GroupId, RequestError, wire};
use shoal_node::coordination::Roles;
use tokio::time::timeout;
use wire::{change::Body, plan_command::Action};

use crate::world::{PATIENCE, World};

/// A follower of all nodes' events, with a watermark for each.
struct Follower {
    admin: Client,
    watermarks: BTreeMap<String, wire::EventWatermark>,
    heard: Vec<(String, wire::Event)>,
}

impl Follower {
    /// From now on.
    async fn new(admin: Client) -> Self {
        let mut follower = Self { admin, watermarks: BTreeMap::new(), heard: Vec::new() };
        follower.ask(false).await;
        follower.heard.clear();
        follower
    }

    async fn ask(&mut self, wait: bool) {
        let from = self.watermarks.values().cloned().collect();
        let answer = timeout(PATIENCE, self.admin.events(from, 0, wait)).await.unwrap().unwrap();
        for node in answer.nodes {
            let (Some(watermark), None) = (node.watermark, node.failure) else { continue };
            let name = watermark.node.clone();
            let before = self.watermarks.insert(name.clone(), watermark.clone());
            let goes_on = before.filter(|before| before.life == watermark.life);
            let mut next = goes_on.map_or(1, |before| before.watermark) + node.missed;
            for event in node.events {
                assert_eq!(event.number, next, "no event of {name} twice, and none left out");
                next += 1;
                self.heard.push((name.clone(), event));
            }
            assert_eq!(watermark.watermark, next);
        }
    }

    /// Waits for an event of this kind; the node that told it, and what it says.
    async fn hear(&mut self, kind: &str) -> (String, wire::Event) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.heard.iter().position(|(_, event)| event.kind == kind) {
                return self.heard.remove(at);
            }
            assert!(begun.elapsed() < PATIENCE, "no {kind}: {:?}", self.heard);
            self.ask(true).await;
        }
    }

    async fn order(&self, group: GroupId, action: Action) {
        let command = wire::PlanCommand { action: action.into(), sub_groups: 3 };
        let change = wire::Change { group: group.to_wire(), body: Some(Body::Plan(command)) };
        self.admin.change(change).await.unwrap();
    }
}

async fn led(names: &[&'static str]) -> World {
    let mut world = World::empty().await;
    world.limits.group.plan_observe_ms = 1_000;
    for name in names {
        world.start(name, Roles::ALL).await;
    }
    for name in names {
        world.takes_part(name, Roles::ALL);
    }
    world.settled().await;
    world
}

async fn group(world: &World, name: &str) -> GroupId {
    let group = GroupId::named(name);
    world.client("ann", "a").await.create(group, wire::Settings::default(), &[]).await.unwrap();
    group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_for_administrators() {
    let world = World::new(&["a"]).await;
    let answer = world.client("eve", "a").await.events(Vec::new(), 0, false).await;
    assert!(matches!(answer, Err(RequestError::Refused(why)) if why.code == Code::NotAllowed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_plan_is_told_once_by_the_groups_home_whichever_node_is_asked() {
    let world = led(&["a", "b", "c"]).await;
    let group = group(&world, "grown").await;
    let home = world.home(group);
    let elsewhere = ["a", "b", "c"].into_iter().find(|name| *name != home).unwrap();
    let mut follower = Follower::new(world.admin(elsewhere).await).await;
    follower.order(group, Action::Start).await;
    let (node, begun) = follower.hear("plan_begun").await;
    assert_eq!((node.as_str(), begun.group), (home, group.to_wire()));
    assert!(begun.text.contains("an administrator wants it"), "{}", begun.text);
    follower.hear("plan_step").await;
    follower.order(group, Action::Pause).await;
    follower.hear("plan_paused").await;
    follower.order(group, Action::Resume).await;
    for kind in ["plan_resumed", "plan_step", "plan_step", "plan_committed"] {
        follower.hear(kind).await;
    }
    assert!(follower.heard.iter().all(|(_, event)| !event.kind.starts_with("plan_")), "{:?}", follower.heard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_is_told_once_and_a_node_that_is_new_counts_anew() {
    let mut world = led(&["a", "b"]).await;
    let mut follower = Follower::new(world.admin("a").await).await;
    world.start("c", Roles::ALL).await;
    world.takes_part("c", Roles::ALL);
    follower.hear("started").await;
    let (leader, joined) = follower.hear("node_joined").await;
    assert!(joined.text.contains("node c"), "{}", joined.text);

    follower.admin.drain_node("c", false).await.unwrap();
    assert_eq!(follower.hear("node_draining").await.0, leader);
    let life = follower.watermarks["c"].life;
    follower.hear("node_drained").await;
    world.nodes.remove("c").unwrap().stop().await;
    follower.hear("node_left").await;
    world.start("c", Roles::ALL).await;
    let (node, started) = follower.hear("started").await;
    assert_eq!((node.as_str(), started.number), ("c", 1));
    assert!(follower.watermarks["c"].life > life);
    follower.hear("node_joined").await;
    let twice = follower.heard.iter().filter(|(_, event)| event.kind.starts_with("node_")).count();
    assert_eq!(twice, 0, "{:?}", follower.heard);
}

/// One who is not woken waits for the next look, a second later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_who_waits_is_woken() {
    let world = World::new(&["a"]).await;
    let groups = [group(&world, "one").await, group(&world, "two").await, group(&world, "three").await];
    let mut follower = Follower::new(world.admin("a").await).await;
    let mut waited = Duration::ZERO;
    for group in groups {
        let (admin, from) = (follower.admin.clone(), follower.watermarks.values().cloned().collect());
        let waiting = tokio::spawn(async move { admin.events(from, 0, true).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        let begun = Instant::now();
        follower.order(group, Action::Start).await;
        waiting.await.unwrap();
        waited += begun.elapsed();
        // What else the plan does at once.
        tokio::time::sleep(Duration::from_millis(500)).await;
        follower.ask(false).await;
    }
    assert!(waited < Duration::from_millis(1_500), "{waited:?}");
}
