//! A node joins, and some of the clients of the other come to it.

use std::{collections::BTreeSet, time::Duration};

use shoal_client::{Client, Follow, GroupId, Start, wire};
use shoal_node::coordination::Roles;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    draining::Onlooker,
    world::{PATIENCE, World, hear, until, user},
};

const CLIENTS: usize = 200;

/// Hears all that is said, up to the last word.
async fn hear_all(mut heard: Follow) -> Vec<String> {
    let mut all = Vec::new();
    while all.last().is_none_or(|last: &String| last != "the end") {
        all.push(hear(&mut heard).await.1);
    }
    all
}

async fn join_all(world: &World, group: GroupId) -> (Vec<Client>, JoinSet<Vec<String>>) {
    let names: Vec<_> = (0..CLIENTS).map(|number| format!("u{number}")).collect();
    let (mut clients, mut hearing) = (Vec::new(), JoinSet::new());
    for name in &names {
        let client = world.client(name, "a").await;
        if clients.is_empty() {
            let all: Vec<_> = names.iter().map(|name| user(name)).collect();
            client.create(group, wire::Settings::default(), &all).await.unwrap();
        }
        hearing.spawn(hear_all(client.follow(group, Start::Join).await.unwrap()));
        clients.push(client);
    }
    (clients, hearing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_even_out_over_a_node_that_joins_and_no_app_notices() {
    let mut world = World::empty().await;
    world.limits.access.surplus_sessions = 20;
    world.limits.access.offer_after_ms = 500;
    world.start("a", Roles::ALL).await;
    world.takes_part("a", Roles::ALL);
    world.settled().await;
    let group = GroupId::named("town");
    let (clients, hearing) = join_all(&world, group).await;
    let onlookers: Vec<_> = clients.iter().map(Onlooker::new).collect();

    world.start("b", Roles::ALL).await;
    world.takes_part("b", Roles::ALL);
    let begun = Instant::now();
    let mut said = Vec::new();
    let sessions = |name: &str| world.nodes[name].node.sessions();
    while sessions("a") > CLIENTS * 11 / 20 || sessions("b") < CLIENTS * 4 / 10 {
        assert!(begun.elapsed() < 3 * PATIENCE, "{} and {}", sessions("a"), sessions("b"));
        let text = said.len().to_string();
        clients[said.len() % CLIENTS].publish(group, text.clone()).await.unwrap();
        said.push(text);
        sleep(Duration::from_millis(10)).await;
    }
    println!("{} and {} after {:?}", sessions("a"), sessions("b"), begun.elapsed());
    let moved = clients.iter().filter(|client| client.stats().moves > 0).count();
    sleep(Duration::from_secs(8)).await;
    let moves: u64 = clients.iter().map(|client| client.stats().moves).sum();
    assert_eq!(moves, moved as u64, "nobody moves twice, and it is at rest");

    clients[0].publish(group, "the end").await.unwrap();
    said.push("the end".into());
    let heard = timeout(PATIENCE, hearing.join_all()).await.expect("all hear the end");
    assert_eq!(heard.len(), CLIENTS);
    assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), [said].into(), "the same, whole and in order");
    assert!(onlookers.into_iter().all(Onlooker::verdict), "online throughout");
    let metrics = &world.nodes["a"].metrics;
    assert!(metrics.sessions_offered.get() >= moves);
    until("all that left are counted", async || metrics.sessions_moved.get() == moves).await;
}
