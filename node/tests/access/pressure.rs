//! More than there is room for: strangers are kept at the door, and those inside notice nothing.

use std::time::Duration;

use quinn::ConnectionError;
use shoal_protocol::{GroupId, wire};
use wire::to_client::Body as Told;

use super::{
    client::{CREATED, Client, Dial, dial},
    world::{World, eventually},
};

#[tokio::test]
async fn a_flood_of_handshakes_is_asked_for_proof_then_turned_away() {
    let world = World::with(|limits| {
        limits.access.newcomers_before_retry = 2;
        limits.access.newcomers_max = 4;
        limits.access.hello_ms = 400;
    })
    .await;
    let mut inside = Client::connect(&world, "ada", 1).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(dial(&world, &Dial::default()).await.unwrap());
    }
    assert!(world.metrics.connections_retried.get() >= 2, "the third and fourth had to prove their address");
    let refused = dial(&world, &Dial::default()).await.unwrap_err();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused}");
    assert!(world.metrics.connections_refused.get() >= 1);

    inside.create(GroupId::named("a"), &[]).await;
    inside.follow(GroupId::named("a")).await;
    let mut publisher = inside.publisher().await;
    publisher.send_many(GroupId::named("a"), 1, 50, b"business as usual").await;
    inside.delivery().await.read_until(CREATED + 50).await;

    for (_, stranger) in &strangers {
        stranger.closed().await;
    }
    let _next = Client::connect(&world, "bob", 1).await;
}

#[tokio::test]
async fn connections_faster_than_the_node_accepts_wait_their_turn() {
    let world = World::with(|limits| {
        limits.access.accepts_per_second = 50;
        limits.access.accept_burst = 2;
    })
    .await;
    let begun = tokio::time::Instant::now();
    let how = Dial::default();
    let dialing = (0..8).map(|_| dial(&world, &how));
    let connections = futures_util::future::join_all(dialing).await;
    assert!(connections.iter().all(Result::is_ok));
    assert!(begun.elapsed() >= Duration::from_millis(100), "6 above the burst at 50 a second");
}

#[tokio::test]
async fn a_client_that_takes_no_control_frames_is_not_kept_any() {
    let world = World::new().await;
    let narrow = Dial::transport(|transport| {
        transport.stream_receive_window(2_000_u32.into());
    });
    let hello = super::client::hello(world.token("ada"), 1);
    let mut client = Client::connect_with(&world, hello, &narrow).await;
    // Each is answered with some dozen bytes, and the client reads none.
    for n in 0..900 {
        let follow = wire::to_node::Body::Follow(wire::Follow {
            group: GroupId::named(&format!("nowhere {n}")).to_wire(),
            from: Some(wire::follow::From::Tail(true)),
        });
        client.send.write_all(&super::client::say(follow)).await.unwrap();
    }
    let mut answers = 0;
    while answers < 900 {
        let Told::FollowEnded(_) = client.told().await else { panic!("an end") };
        answers += 1;
    }
    eventually("it is still there", || world.node.as_ref().unwrap().sessions() == 1).await;
}

#[tokio::test]
async fn many_sessions_of_many_users_get_what_is_theirs() {
    let world = World::new().await;
    let writer = Client::connect(&world, "ada", 1).await;
    let users: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    let members: Vec<&str> = users.iter().map(String::as_str).collect();
    writer.create(GroupId::named("a"), &members).await;
    let mut readers = Vec::new();
    for user in &users {
        let mut reader = Client::connect(&world, user, 1).await;
        reader.follow(GroupId::named("a")).await;
        readers.push(reader);
    }
    writer.publisher().await.send_many(GroupId::named("a"), 1, 100, b"to all").await;
    for reader in &readers {
        reader.delivery().await.read_until(CREATED + 100).await;
    }
    assert_eq!(world.metrics.delivered.get(), 40 * (CREATED - 1 + 100));
}
