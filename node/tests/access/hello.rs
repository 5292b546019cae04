//! Who is let in, and what the others are told.

use std::time::Duration;

use prost::Message as _;
use quinn::{ConnectionError, TransportErrorCode};
use shoal_certs::{Claims, PrivateKey, Seed, TokenSigner};
use shoal_node::clock::Clock;
use shoal_protocol::{ALPN_PEER, Code, GroupId, UserId, frame, wire};
use tokio::time::timeout;
use wire::{to_client::Body as Told, to_node::Body as Say};

use super::{
    bystander::Bystander,
    client::{Client, Dial, close_code, dial, hello, say},
    world::World,
};

/// What the node closes the connection with after these bytes on the control stream.
async fn refusal(world: &World, bytes: &[u8], is_end: bool) -> Code {
    let (_endpoint, connection) = dial(world, &Dial::default()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    // The node may close before it has read all.
    let _ = send.write_all(bytes).await;
    if is_end {
        let _ = send.finish();
    }
    close_code(&connection).await
}

async fn hello_refusal(world: &World, hello: wire::Hello) -> Code {
    refusal(world, &say(Say::Hello(hello)), false).await
}

#[tokio::test]
async fn a_good_hello_is_welcomed() {
    let world = World::new().await;
    let client = Client::connect(&world, "ada", 7).await;
    let welcome = &client.welcome;
    assert_eq!((welcome.version, welcome.user.as_str()), (1, "ada"));
    assert_eq!(welcome.own_group, GroupId::own(&UserId::new("ada").unwrap()).to_wire());
    assert_eq!(welcome.nodes.len(), 2);
    assert!(welcome.token_expires_ms > welcome.time_ms);
    let limits = welcome.limits.as_ref().unwrap();
    assert!(limits.payload_bytes_max > 0 && limits.publish_window > 0 && limits.follows_max > 0);
    assert_eq!(world.node.as_ref().unwrap().sessions(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_good_is_told_apart() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let other_key = PrivateKey::derive(&Seed::from_number(2), "token");
    let other_signer = TokenSigner::from_pem(&other_key.to_pem()).unwrap();
    let expired = Claims { expires_ms: world.clock.now_ms() - 1_000, ..world.claims("ada") };
    let cases = [
        (String::new(), Code::TokenMissing),
        ("nonsense".to_owned(), Code::TokenInvalid),
        (other_signer.sign(&world.claims("ada")), Code::TokenInvalid),
        (world.signer.sign(&expired), Code::TokenExpired),
        (world.device_token("ada", 8), Code::DeviceMismatch),
    ];
    for (token, code) in cases {
        assert_eq!(hello_refusal(&world, hello(token, 7)).await, code);
        assert!(world.metrics.sessions_ended.get(code) > 0, "counted: {code}");
    }
    let client = Client::connect_with(&world, hello(world.device_token("ada", 7), 7), &Dial::default()).await;
    assert_eq!(client.welcome.user, "ada");
    bystander.is_well().await;
}

#[tokio::test]
async fn a_version_without_overlap_is_refused() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    for (version_min, version_max) in [(2, 9), (0, 0), (3, 1)] {
        let strange = wire::Hello { version_min, version_max, ..hello(world.token("ada"), 7) };
        assert_eq!(hello_refusal(&world, strange).await, Code::VersionUnsupported);
    }
    let both = wire::Hello { version_min: 1, version_max: 9, ..hello(world.token("ada"), 7) };
    assert_eq!(Client::connect_with(&world, both, &Dial::default()).await.welcome.version, 1);
    bystander.is_well().await;
}

#[tokio::test]
async fn another_protocol_gets_no_connection() {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    for alpn in [b"h3".to_vec(), ALPN_PEER.to_vec()] {
        let error = dial(&world, &Dial { alpn, ..Dial::default() }).await.unwrap_err();
        let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
        assert_eq!(close.error_code, TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL));
    }
    bystander.is_well().await;
}

#[tokio::test]
async fn bytes_that_are_no_hello_are_refused() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let good = say(Say::Hello(hello(world.token("ada"), 7)));
    assert_eq!(refusal(&world, &[4, 0xff, 0xff, 0xff, 0xff], false).await, Code::BadFrame);
    assert_eq!(refusal(&world, &good[..good.len() / 2], true).await, Code::BadFrame);
    assert_eq!(refusal(&world, &[], true).await, Code::BadFrame);
    assert_eq!(refusal(&world, &[0xff, 0xff, 0xff, 0x7f], false).await, Code::FrameTooLarge);
    assert_eq!(refusal(&world, &frame::encode(&wire::ToNode { body: None }), false).await, Code::BadFrame);
    assert_eq!(refusal(&world, &say(Say::Goodbye(wire::Goodbye {})), false).await, Code::BadFrame);
    bystander.is_well().await;
}

/// A good hello whose frame has a body of so many bytes.
fn hello_of(world: &World, bytes: usize) -> wire::Hello {
    let with_agent = |length| wire::Hello { agent: "x".repeat(length), ..hello(world.token("ada"), 7) };
    let body = |length| wire::ToNode { body: Some(Say::Hello(with_agent(length))) }.encoded_len();
    let length = bytes - (body(bytes / 2) - bytes / 2);
    assert_eq!(body(length), bytes);
    with_agent(length)
}

#[tokio::test]
async fn a_hello_has_a_limit_of_its_own_which_is_lifted_after_it() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let above = say(Say::Hello(hello_of(&world, frame::HELLO_BYTES_MAX + 1)));
    assert_eq!(refusal(&world, &above[..10], false).await, Code::FrameTooLarge, "its beginning is enough");
    let largest = hello_of(&world, frame::HELLO_BYTES_MAX);
    let mut client = Client::connect_with(&world, largest, &Dial::default()).await;
    let follows_max = u64::from(client.welcome.limits.as_ref().unwrap().follows_max);
    let watermark = |number: u64| wire::Watermark {
        group: GroupId::from_random(number.into()).to_wire(),
        watermark: u64::MAX / 2 - number,
    };
    let watermarks = (0..follows_max).map(watermark).collect();
    let full = say(Say::Heartbeat(wire::Heartbeat { token: 5, watermarks }));
    assert!(full.len() > frame::HELLO_BYTES_MAX);
    client.send.write_all(&full).await.unwrap();
    let Told::HeartbeatAck(ack) = client.told().await else { panic!("an answer") };
    assert_eq!(ack.token, 5);
    client.send.write_all(&[0xff, 0xff, 0x3f]).await.unwrap();
    assert_eq!(close_code(&client.connection).await, Code::FrameTooLarge, "it has one, too");
    bystander.is_well().await;
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_not_waited_for() {
    let world = World::with(|limits| limits.access.hello_ms = 100).await;
    let (_endpoint, silent) = dial(&world, &Dial::default()).await.unwrap();
    let (_other_endpoint, half) = dial(&world, &Dial::default()).await.unwrap();
    let (mut send, _recv) = half.open_bi().await.unwrap();
    send.write_all(&say(Say::Hello(hello(world.token("ada"), 7)))[..5]).await.unwrap();
    assert_eq!(close_code(&silent).await, Code::TimedOut);
    assert_eq!(close_code(&half).await, Code::TimedOut);
}

#[tokio::test]
async fn a_hello_with_too_much_to_follow_is_refused() {
    let world = World::with(|limits| limits.access.follows_max = 3).await;
    let follow = |name: &str| wire::Follow {
        group: GroupId::named(name).to_wire(),
        from: Some(wire::follow::From::Tail(true)),
    };
    let follows = ["a", "b", "c", "d"].map(follow).to_vec();
    let crowded = wire::Hello { follows, ..hello(world.token("ada"), 7) };
    assert_eq!(hello_refusal(&world, crowded).await, Code::TooMany);
    let senseless = wire::Hello {
        follows: vec![wire::Follow { group: vec![1, 2].into(), from: None }],
        ..hello(world.token("ada"), 7)
    };
    assert_eq!(hello_refusal(&world, senseless).await, Code::BadRequest);
}

#[tokio::test]
async fn clients_open_no_unidirectional_streams() {
    let world = World::new().await;
    let client = Client::connect(&world, "ada", 7).await;
    let opening = timeout(Duration::from_millis(50), client.connection.open_uni()).await;
    assert!(opening.is_err(), "QUIC permits none");
}
