//! How sessions end, and what they are told before.

use std::time::Duration;

use shoal_node::clock::Clock;
use shoal_protocol::{Code, GroupId, UserId, wire};
use tokio::time::{Instant, timeout};
use wire::{request::Body as Ask, response::Body as Answer, to_client::Body as Told, to_node::Body as Say};

use super::{
    bystander::Bystander,
    client::{CREATED, Client, Dial, close_code, dial, hello},
    world::{PATIENCE, START_MS, World, eventually},
};

#[tokio::test]
async fn a_device_that_comes_back_takes_over_and_the_others_are_told() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let own = GroupId::own(&UserId::new("ada").unwrap());
    let mut laptop = Client::connect(&world, "ada", 2).await;
    laptop.follow_from(own, wire::follow::From::Tail(true)).await;
    let phone = Client::connect(&world, "ada", 1).await;
    let phone_again = Client::connect(&world, "ada", 1).await;
    assert_eq!(close_code(&phone.connection).await, Code::SessionReplaced);
    let notice = laptop.delivery().await.next().await;
    let Some(wire::record::Body::Notice(notice)) = notice.body else { panic!("{notice:?}") };
    let replaced = wire::notice::SessionReplaced { device: 1 };
    assert_eq!(notice.what, Some(wire::notice::What::SessionReplaced(replaced)));
    eventually("the old session is gone", || world.metrics.sessions_ended.get(Code::SessionReplaced) == 1)
        .await;
    assert_eq!(world.node.as_ref().unwrap().sessions(), 3);
    assert!(phone_again.connection.close_reason().is_none());
    bystander.is_well().await;
}

#[tokio::test]
async fn nobody_takes_over_without_a_token_for_that_user_and_device() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let phone = Client::connect(&world, "ada", 1).await;
    let expired = shoal_certs::Claims { expires_ms: START_MS - 1, ..world.claims("ada") };
    let cases = [
        (String::new(), Code::TokenMissing),
        (world.device_token("ada", 2), Code::DeviceMismatch),
        (world.signer.sign(&expired), Code::TokenExpired),
    ];
    for (token, code) in cases {
        let (_endpoint, connection) = dial(&world, &Dial::default()).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&super::client::say(Say::Hello(hello(token, 1)))).await.unwrap();
        assert_eq!(close_code(&connection).await, code);
    }
    let _same_device_of_another = Client::connect(&world, "eve", 1).await;
    let mut publisher = phone.publisher().await;
    publisher.send(super::bystander::shared(), 1, b"still me").await;
    publisher.committed().await;
    assert_eq!(bystander.is_well().await, [b"still me"]);
}

#[tokio::test]
async fn a_user_has_so_many_devices_and_no_more() {
    let world = World::with(|limits| limits.access.sessions_per_user_max = 2).await;
    let first = Client::connect(&world, "ada", 1).await;
    let _second = Client::connect(&world, "ada", 2).await;
    let (_endpoint, connection) = dial(&world, &Dial::default()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let third = super::client::say(Say::Hello(hello(world.token("ada"), 3)));
    send.write_all(&third).await.unwrap();
    assert_eq!(close_code(&connection).await, Code::TooMany);
    assert!(first.connection.close_reason().is_none());
    let _bob = Client::connect(&world, "bob", 1).await;
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_it_is_renewed() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let short = shoal_certs::Claims { expires_ms: START_MS + 300, ..world.claims("ada") };
    let mut stays = Client::connect_with(&world, hello(world.signer.sign(&short), 1), &Dial::default()).await;
    let leaves = Client::connect_with(&world, hello(world.signer.sign(&short), 2), &Dial::default()).await;
    stays.say(Say::Renew(wire::Renew { token: world.token("ada") })).await;
    let Told::Renewed(renewed) = stays.told().await else { panic!("renewed") };
    assert!(renewed.token_expires_ms > START_MS + 60_000);
    assert_eq!(close_code(&leaves.connection).await, Code::TokenExpired);
    assert!(world.clock.now_ms() >= START_MS + 300, "not before its time");
    assert!(stays.connection.close_reason().is_none());
    bystander.is_well().await;
}

#[tokio::test]
async fn a_renewal_with_a_bad_token_ends_the_session() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let cases = [
        (world.token("bob"), Code::TokenInvalid),
        (world.device_token("ada", 9), Code::DeviceMismatch),
        ("nonsense".to_owned(), Code::TokenInvalid),
    ];
    for (token, code) in cases {
        let mut client = Client::connect(&world, "ada", 1).await;
        client.say(Say::Renew(wire::Renew { token })).await;
        assert_eq!(close_code(&client.connection).await, code);
    }
    bystander.is_well().await;
}

#[tokio::test]
async fn heartbeats_keep_a_session_and_silence_ends_it() {
    let world = World::with(|limits| {
        limits.access.heartbeat_ms = 60;
        limits.access.heartbeats_missed_max = 2;
    })
    .await;
    let mut lively = Client::connect(&world, "ada", 1).await;
    let silent = Client::connect(&world, "bob", 1).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        lively.say(Say::Heartbeat(wire::Heartbeat { token: 5, watermarks: Vec::new() })).await;
        let Told::HeartbeatAck(ack) = lively.told().await else { panic!("an answer") };
        assert_eq!(ack.token, 5);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(close_code(&silent.connection).await, Code::TimedOut);
    assert!(lively.connection.close_reason().is_none());
}

/// Said by nobody; seen at the heartbeat after it, and the session goes on.
#[tokio::test]
async fn a_client_that_comes_from_another_address_is_counted() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    let beat = || Say::Heartbeat(wire::Heartbeat { token: 5, watermarks: Vec::new() });
    for (moves, counted) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
        if moves {
            client.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        }
        client.say(beat()).await;
        let Told::HeartbeatAck(_) = client.told().await else { panic!("an answer") };
        assert_eq!(world.metrics.path_changes.get(), counted);
    }
}

#[tokio::test]
async fn control_frames_that_have_no_place_end_the_connection() {
    let world = World::with(|limits| limits.access.follows_max = 2).await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let follow = |name: &str| {
        let from = Some(wire::follow::From::Tail(true));
        Say::Follow(wire::Follow { group: GroupId::named(name).to_wire(), from })
    };
    let bad_watermark = wire::Watermark { group: vec![1].into(), watermark: 1 };
    let cases = [
        (vec![Say::Hello(hello(String::new(), 1))], Code::BadFrame),
        (vec![follow("a"), follow("b"), follow("c")], Code::TooMany),
        (vec![Say::Follow(wire::Follow { group: vec![1].into(), from: None })], Code::BadRequest),
        (
            vec![Say::Heartbeat(wire::Heartbeat { token: 1, watermarks: vec![bad_watermark] })],
            Code::BadRequest,
        ),
        (vec![Say::Goodbye(wire::Goodbye {})], Code::None),
    ];
    for (frames, code) in cases {
        let mut client = Client::connect(&world, "ada", 1).await;
        let bytes: Vec<u8> = frames.into_iter().flat_map(super::client::say).collect();
        client.send.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&client.connection).await, code);
    }
    bystander.is_well().await;
}

/// What a client does to its control stream.
#[derive(Debug)]
enum Deed {
    Write(&'static [u8]),
    CutOff(&'static [u8]),
    Reset,
    Stop,
}

#[tokio::test]
async fn a_control_stream_that_is_broken_ends_the_connection() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let cases = [
        (Deed::Write(&[3, 0xff, 0xff, 0xff]), Code::BadFrame),
        (Deed::Write(&[0]), Code::BadFrame),
        (Deed::Write(&[0xff, 0xff, 0xff, 0x7f]), Code::FrameTooLarge),
        (Deed::Write(&[0x80, 0x80, 0x80, 0x80]), Code::FrameTooLarge),
        (Deed::CutOff(&[9, 1, 2]), Code::BadFrame),
        (Deed::CutOff(&[]), Code::None),
        (Deed::Reset, Code::BadFrame),
        (Deed::Stop, Code::BadFrame),
    ];
    for (deed, code) in cases {
        let mut client = Client::connect(&world, "ada", 1).await;
        match deed {
            Deed::Write(bytes) => client.send.write_all(bytes).await.unwrap(),
            Deed::CutOff(bytes) => {
                client.send.write_all(bytes).await.unwrap();
                client.send.finish().unwrap();
            }
            Deed::Reset => client.send.reset(0_u32.into()).unwrap(),
            Deed::Stop => {
                client.control.recv.stop(0_u32.into()).unwrap();
                // It is noticed when there is something to say.
                client.say(Say::Heartbeat(wire::Heartbeat::default())).await;
            }
        }
        assert_eq!(close_code(&client.connection).await, code, "{deed:?}");
    }
    bystander.is_well().await;
}

#[tokio::test]
async fn control_frames_that_come_too_fast_are_taken_later() {
    let world = World::with(|limits| {
        limits.access.request_rate_per_second = 100;
        limits.access.request_burst = 5;
    })
    .await;
    let mut client = Client::connect(&world, "ada", 1).await;
    let begun = Instant::now();
    let heartbeat =
        |token| super::client::say(Say::Heartbeat(wire::Heartbeat { token, watermarks: Vec::new() }));
    let bytes: Vec<u8> = (0..25).flat_map(heartbeat).collect();
    client.send.write_all(&bytes).await.unwrap();
    for token in 0..25 {
        let Told::HeartbeatAck(ack) = client.told().await else { panic!("an answer") };
        assert_eq!(ack.token, token);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(180), "20 above the burst at 100 a second took {took:?}");
}

#[tokio::test]
async fn a_node_that_goes_tells_its_clients_and_waits_for_them() {
    let mut world = World::new().await;
    let mut leaves = Client::connect(&world, "ada", 1).await;
    let mut stays = Client::connect(&world, "bob", 1).await;
    leaves.create(GroupId::named("fish"), &[]).await;
    let node = world.node.take().unwrap();
    let shutdown = tokio::spawn(node.shutdown(Duration::from_millis(400)));
    for client in [&mut leaves, &mut stays] {
        let Told::Drain(drain) = client.told().await else { panic!("a drain notice") };
        assert_eq!(drain.nodes.len(), 2);
        assert_eq!(drain.grace_ms, 400);
    }
    let refused = dial(&world, &Dial::default()).await.err();
    assert!(refused.is_some(), "nobody new is let in");
    let mut publisher = leaves.publisher().await;
    publisher.send(GroupId::named("fish"), 1, b"last words").await;
    publisher.committed().await;
    leaves.say(Say::Goodbye(wire::Goodbye {})).await;
    assert_eq!(close_code(&leaves.connection).await, Code::None);
    assert_eq!(close_code(&stays.connection).await, Code::Draining);
    timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    world.start().await;
    let back = Client::connect(&world, "ada", 1).await;
    let history =
        wire::GetHistory { group: GroupId::named("fish").to_wire(), from: 1, limit: 10, backwards: false };
    let Answer::History(history) = back.ask(Ask::History(history)).await else { panic!("history") };
    assert_eq!(history.tail, CREATED + 1, "the creation and the last words");
}

#[tokio::test]
async fn a_node_whose_clients_have_left_does_not_wait_out_its_grace() {
    let mut world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    let shutdown = tokio::spawn(world.node.take().unwrap().shutdown(Duration::from_secs(600)));
    let Told::Drain(_) = client.told().await else { panic!("a drain notice") };
    client.connection.close(0_u32.into(), b"");
    timeout(PATIENCE, shutdown).await.expect("it has nobody to wait for").unwrap();
}

#[tokio::test]
async fn after_a_crash_clients_hear_at_once_that_their_connection_is_gone() {
    let mut world = World::new().await;
    let how = Dial::transport(|transport| {
        transport.keep_alive_interval(Some(Duration::from_millis(50)));
    });
    let client = Client::connect_with(&world, hello(world.token("ada"), 1), &how).await;
    client.create(GroupId::named("fish"), &[]).await;
    world.crash();
    let nothing = timeout(Duration::from_millis(100), client.connection.closed()).await;
    assert!(nothing.is_err(), "a crash says nothing: {nothing:?}");
    world.start().await;
    let lost = timeout(PATIENCE, client.connection.closed()).await.expect("told before the idle timeout");
    assert!(matches!(lost, quinn::ConnectionError::Reset), "{lost}");
    let back = Client::connect(&world, "ada", 1).await;
    let group = wire::GetGroup { group: GroupId::named("fish").to_wire() };
    assert!(matches!(back.ask(Ask::Group(group)).await, Answer::Group(_)), "what was acknowledged is there");
}
