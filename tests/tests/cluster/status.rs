//! What administrators are shown of a cluster: copies, and how far nodes are behind their groups' homes.

use shoal_client::{Client, GroupId, Start, wire};
use shoal_node::coordination::Roles;
use tokio::time::timeout;
use wire::{to_follower::Body as ToFollower, to_home::Body as ToHome};

use crate::{
    link::Link,
    world::{PATIENCE, World, hear, until, user},
};

/// What a node reports; it does not lead, so that nothing moves.
const REPORTS: Roles = Roles { access: true, group: true, coordination: false };

async fn node(admin: &Client, name: &str) -> wire::ClusterNode {
    let cluster = admin.cluster().await.unwrap();
    cluster.nodes.into_iter().find(|node| node.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_of_each_record_is_fed_to_each_node_that_follows_and_counted() {
    let mut world = World::new(&["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        world.takes_part(name, REPORTS);
    }
    world.place(&["a"]).await;
    let admin = world.admin("c").await;
    let group = GroupId::named("copies");
    let ann = world.client("ann", "a").await;
    let members = [("bob", "b"), ("ben", "b"), ("cat", "c")];
    let users = members.map(|(name, _)| user(name));
    ann.create(group, wire::Settings::default(), &users).await.unwrap();
    let mut follows = Vec::new();
    for (name, on) in members {
        let client = world.client(name, on).await;
        follows.push((client.follow(group, Start::Tail).await.unwrap(), client));
    }
    ann.publish(group, "first").await.unwrap();
    for (follow, _) in &mut follows {
        hear(follow).await;
    }
    let fed = || world.nodes["a"].metrics.fed.get();
    let before = fed();
    for number in 0..50 {
        ann.publish(group, number.to_string()).await.unwrap();
    }
    for (follow, _) in &mut follows {
        for _ in 0..50 {
            hear(follow).await;
        }
    }
    assert_eq!(fed() - before, 100, "two nodes follow");
    until("all of it is told", async || {
        let [a, b, c] = [node(&admin, "a").await, node(&admin, "b").await, node(&admin, "c").await];
        a.fed >= 100 && a.committed >= 50 && b.received >= 50 && c.received >= 50
    })
    .await;
    let b = node(&admin, "b").await;
    assert_eq!((b.fed, b.lag_records, b.lease_ms), (0, 0, None), "it is no home, and has all");
}

/// A node that does not read is told how much it misses, with each beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_read_hears_how_far_it_is_behind() {
    const MESSAGES: usize = 240;
    let world = World::new(&["a"]).await;
    let group = GroupId::named("behind");
    let ann = world.client("ann", "a").await;
    ann.create(group, wire::Settings::default(), &[]).await.unwrap();
    let mut link = Link::to(&world, "a").await;
    let from = Some(wire::follow::From::Watermark(1));
    link.tell(ToHome::Follow(wire::Follow { group: group.to_wire(), from })).await;
    // More than one stream may have under way.
    let talking = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            ann.publish(group, vec![b'x'; 60_000]).await.unwrap();
        }
        ann
    });
    let behind = async {
        loop {
            match link.next().await {
                ToFollower::Beat(wire::Beat { behind: behind @ 1.. }) => return behind,
                ToFollower::Beat(_) => link.tell(ToHome::Beat(wire::Beat::default())).await,
                _ => {}
            }
        }
    };
    let behind = timeout(PATIENCE, behind).await.unwrap();
    assert!(behind < MESSAGES as u64, "{behind}");
    drop(talking.await.unwrap());
}
