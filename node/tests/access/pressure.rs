//! More than there is room for: strangers are kept at the door, and those inside notice nothing.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use quinn::ConnectionError;
use shoal_protocol::{GroupId, wire};
use tokio::time::timeout;
use wire::to_client::Body as Told;

use super::{
    bystander::Bystander,
    client::{CREATED, Client, Dial, connect, dial, endpoint},
    world::{PATIENCE, World, eventually},
};

#[tokio::test]
async fn a_flood_of_handshakes_is_asked_for_proof_then_turned_away() {
    let world = World::with(|limits| {
        limits.access.newcomers_before_retry = 2;
        limits.access.newcomers_max = 4;
        limits.access.hello_ms = 400;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(dial(&world, &Dial::default()).await.unwrap());
    }
    assert!(world.metrics.connections_retried.get() >= 2, "the third and fourth had to prove their address");
    let refused = dial(&world, &Dial::default()).await.unwrap_err();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused}");
    assert!(world.metrics.connections_refused.get() >= 1);

    for (_, stranger) in &strangers {
        stranger.closed().await;
    }
    let _next = Client::connect(&world, "bob", 1).await;
    bystander.is_well().await;
}

/// The first packets of so many connections, each of another, from clients that never hear an
/// answer.
async fn first_packets(world: &World, count: usize) -> Vec<Vec<u8>> {
    /// Where the id that the client chose for the server stands in a first packet.
    const ID_LENGTH_AT: usize = 5;
    let nowhere = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let how = Dial::default();
    let strangers = endpoint();
    let mut connecting = Vec::new();
    let (mut packets, mut bytes) = (BTreeMap::new(), [0; 2_000]);
    while packets.len() < count {
        connecting.push(connect(world, &strangers, nowhere.local_addr().unwrap(), &how));
        let (length, _) = timeout(PATIENCE, nowhere.recv_from(&mut bytes)).await.unwrap().unwrap();
        let id_length = usize::from(bytes[ID_LENGTH_AT]);
        // What is sent again goes under the same id.
        let id = bytes[ID_LENGTH_AT + 1..][..id_length].to_vec();
        packets.insert(id, bytes[..length].to_vec());
    }
    packets.into_values().collect()
}

/// Sends each from a socket of its own, which is kept.
fn send_each(world: &World, packets: &[Vec<u8>]) -> Vec<UdpSocket> {
    let send = |packet: &Vec<u8>| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(packet, world.address).unwrap();
        socket
    };
    packets.iter().map(send).collect()
}

#[tokio::test]
async fn of_a_flood_of_handshakes_few_are_begun_and_an_honest_newcomer_is_let_in() {
    const FEW: u64 = 20;
    const FLOOD: usize = 400;
    const AT_ONCE: usize = 50;
    let world = World::with(|limits| {
        limits.access.newcomers_before_retry = 20;
        limits.access.newcomers_max = 100;
        limits.access.hello_ms = 60_000;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let metrics = &world.metrics;
    let (accepted, retried) = (&metrics.connections_accepted, &metrics.connections_retried);
    let (before, mut sent) = (accepted.get(), 0);
    let mut sockets = Vec::new();
    for packets in first_packets(&world, FLOOD).await.chunks(AT_ONCE) {
        sockets.push(send_each(&world, packets));
        sent += packets.len() as u64;
        eventually("each is looked at", || accepted.get() - before + retried.get() == sent).await;
    }
    assert_eq!(accepted.get() - before, FEW, "of the others the node keeps nothing");
    assert_eq!(metrics.connections_refused.get(), 0);
    let _newcomer = Client::connect(&world, "bob", 1).await;
    assert_eq!(accepted.get() - before, FEW + 1, "who proves their address is let in");
    bystander.is_well().await;
}

#[tokio::test]
async fn handshakes_that_are_not_finished_are_given_up() {
    let world = World::with(|limits| {
        limits.access.newcomers_before_retry = 2;
        limits.access.newcomers_max = 2;
        limits.access.hello_ms = 300;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let _sockets = send_each(&world, &first_packets(&world, 2).await);
    eventually("both are begun", || world.metrics.connections_accepted.get() == 3).await;
    let until_let_in = async { while dial(&world, &Dial::default()).await.is_err() {} };
    timeout(PATIENCE, until_let_in).await.expect("there is room again");
    bystander.is_well().await;
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
