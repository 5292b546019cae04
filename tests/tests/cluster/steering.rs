//! Clients come to a node that joins, and to nodes of their own region.

use std::{collections::BTreeSet, time::Duration};

use shoal_client::{Client, Follow, GroupId, Start, State, wire};
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

/// A client for each of these regions, which it states; they connect to "a" and are in one group.
async fn join_all(
    world: &World,
    group: GroupId,
    regions: impl IntoIterator<Item = &'static str>,
) -> (Vec<Client>, JoinSet<Vec<String>>) {
    let regions: Vec<_> = regions.into_iter().collect();
    let names: Vec<_> = (0..regions.len()).map(|number| format!("u{number}")).collect();
    let (mut clients, mut hearing) = (Vec::new(), JoinSet::new());
    for (name, region) in names.iter().zip(regions) {
        let client = Client::connect(world.config(name, "a", false).region(region)).await.unwrap();
        if clients.is_empty() {
            let all: Vec<_> = names.iter().map(|name| user(name)).collect();
            client.create(group, wire::Settings::default(), &all).await.unwrap();
        }
        hearing.spawn(hear_all(client.follow(group, Start::Join).await.unwrap()));
        clients.push(client);
    }
    (clients, hearing)
}

/// All hear the end, and before it the same, whole and in order.
async fn all_heard(hearing: JoinSet<Vec<String>>, said: Vec<String>) {
    let clients = hearing.len();
    let heard = timeout(PATIENCE, hearing.join_all()).await.expect("all hear the end");
    assert_eq!(heard.len(), clients);
    assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), [said].into(), "the same, whole and in order");
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
    let (clients, hearing) = join_all(&world, group, [""; CLIENTS]).await;
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
    all_heard(hearing, said).await;
    assert!(onlookers.into_iter().all(Onlooker::verdict), "online throughout");
    let metrics = &world.nodes["a"].metrics;
    assert!(metrics.sessions_offered.get() >= moves);
    until("all that left are counted", async || metrics.sessions_moved.get() == moves).await;
}

/// On "a" of the north are clients of the north, of the south, of a region that has no node, and some that
/// say nothing. Those of the south go there, while others talk; the rest stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_to_nodes_of_the_region_they_state_and_all_others_stay() {
    const OF_EACH: usize = 20;
    let mut world = World::empty().await;
    world.limits.access.offer_after_ms = 500;
    for (name, region) in [("a", "north"), ("b", "south"), ("c", "south")] {
        world.start_in(region, name, Roles::ALL).await;
        world.takes_part(name, Roles::ALL);
    }
    world.settled().await;
    let group = GroupId::named("compass");
    let regions = ["south", "north", "", "nowhere"];
    let (clients, hearing) =
        join_all(&world, group, regions.into_iter().cycle().take(regions.len() * OF_EACH)).await;
    let onlookers: Vec<_> = clients.iter().map(Onlooker::new).collect();

    let (begun, mut said) = (Instant::now(), Vec::new());
    let sessions = |name: &str| world.nodes[name].node.sessions();
    while sessions("a") > 3 * OF_EACH || sessions("b") + sessions("c") < OF_EACH {
        assert!(begun.elapsed() < 3 * PATIENCE, "{}", sessions("a"));
        let text = said.len().to_string();
        clients[said.len() % clients.len()].publish(group, text.clone()).await.unwrap();
        said.push(text);
        sleep(Duration::from_millis(10)).await;
    }
    println!("{} and {} in the south after {:?}", sessions("b"), sessions("c"), begun.elapsed());
    // Time for several looks, and for all to have rested anew.
    sleep(Duration::from_secs(8)).await;
    for (client, region) in clients.iter().zip(regions.into_iter().cycle()) {
        assert_eq!(client.stats().moves, u64::from(region == "south"), "{region:?}");
    }
    clients[0].publish(group, "the end").await.unwrap();
    said.push("the end".into());
    all_heard(hearing, said).await;
    assert!(onlookers.into_iter().all(Onlooker::verdict), "online throughout");
    let metrics = &world.nodes["a"].metrics;
    until("all that left are counted", async || metrics.sessions_moved.get() == OF_EACH as u64).await;
    assert_eq!([sessions("a"), sessions("b") + sessions("c")], [3 * OF_EACH, OF_EACH]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_drained_sends_its_clients_to_the_region_they_state_or_else_to_its_own() {
    let mut world = World::empty().await;
    for (name, region) in [("a", "north"), ("b", "north"), ("c", "south")] {
        world.start_in(region, name, Roles::ALL).await;
        world.takes_part(name, Roles::ALL);
    }
    world.settled().await;
    let clients = [("south", "c"), ("north", "b"), ("", "b"), ("nowhere", "b")];
    let mut staying = Vec::new();
    for (number, (region, goes_to)) in clients.into_iter().cycle().take(5 * clients.len()).enumerate() {
        let config = world.config(&format!("u{number}"), "a", false).region(region);
        staying.push((Client::connect(config).await.unwrap(), region, goes_to));
    }
    world.admin("b").await.drain_node("a", false).await.unwrap();
    for (client, region, goes_to) in staying {
        let mut states = client.state();
        let here = State::Online { node: world.address("a") };
        let left = timeout(PATIENCE, states.wait_for(|state| *state != here)).await.unwrap().unwrap().clone();
        assert_eq!(left, State::Online { node: world.address(goes_to) }, "{region:?}");
    }
}
