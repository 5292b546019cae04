//! Publish streams and requests: what they break is theirs, and nothing else suffers.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quinn::{RecvStream, SendStream};
use shoal_protocol::{Code, GroupId, frame, wire};
use wire::{request::Body as Ask, response::Body as Answer};

use super::{
    bystander::Bystander,
    client::{Client, Frames},
    world::{World, eventually},
};

fn group() -> GroupId {
    GroupId::named("fish")
}

async fn open(client: &Client, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, recv) = client.connection.open_bi().await.unwrap();
    // The node may stop the stream before it has read all.
    let _ = send.write_all(bytes).await;
    (send, recv)
}

/// A frame with this body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

fn publish_open() -> Bytes {
    let open = wire::stream_open::Body::Publish(wire::PublishOpen {});
    frame::encode(&wire::StreamOpen { body: Some(open) })
}

fn request_open(body: Option<Ask>) -> Bytes {
    let open = wire::stream_open::Body::Request(wire::Request { body });
    frame::encode(&wire::StreamOpen { body: Some(open) })
}

#[tokio::test]
async fn a_message_gets_its_receipt() {
    let world = World::new().await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &[]).await;
    let mut publisher = client.publisher().await;
    publisher.send(group(), 1, b"hello").await;
    let first = publisher.committed().await;
    publisher.send(group(), 2, b"again").await;
    assert_eq!(publisher.committed().await, first + 1);
    publisher.send.finish().unwrap();
    assert!(publisher.receipts.try_next::<wire::Receipt>().await.unwrap().is_none(), "finished, as asked");
}

#[tokio::test]
async fn a_stream_that_breaks_the_protocol_is_ended_alone() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &[]).await;
    let mut healthy = client.publisher().await;

    let garbage = framed(&[0xff, 0xff, 0xff]);
    let oversized = vec![0xff, 0xff, 0xff, 0x7f];
    let endless = vec![0x80; 4];
    let after_open = |bytes: &[u8]| [&publish_open()[..], bytes].concat();
    let message = Some(wire::Message::default());
    let no_message = wire::Publish { group: group().to_wire(), number: 1, ..Default::default() };
    let short_id = wire::Publish { group: Bytes::from_static(b"short"), message, ..Default::default() };
    let cases = [
        (garbage.clone(), Code::BadFrame),
        (framed(&[]), Code::BadFrame),
        (oversized.clone(), Code::FrameTooLarge),
        (endless.clone(), Code::FrameTooLarge),
        (after_open(&garbage), Code::BadFrame),
        (after_open(&oversized), Code::FrameTooLarge),
        (after_open(&endless), Code::FrameTooLarge),
        (after_open(&frame::encode(&no_message)), Code::BadRequest),
        (after_open(&frame::encode(&short_id)), Code::BadRequest),
    ];
    for (bytes, code) in cases {
        let (_send, recv) = open(&client, &bytes).await;
        assert_eq!(Frames::new(recv).reset_code().await, code, "{bytes:?}");
    }
    let request = request_open(Some(Ask::Group(wire::GetGroup { group: group().to_wire() })));
    for cut_off in [after_open(&garbage[..2]), request[..request.len() - 1].to_vec()] {
        let (mut send, recv) = open(&client, &cut_off).await;
        send.finish().unwrap();
        assert_eq!(Frames::new(recv).reset_code().await, Code::BadFrame, "{cut_off:?}");
    }

    healthy.send(group(), 1, b"still here").await;
    healthy.committed().await;
    bystander.is_well().await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_answered_so() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    let no_change = wire::Change { group: group().to_wire(), body: None };
    let cases = [
        None,
        Some(Ask::Group(wire::GetGroup { group: Bytes::from_static(b"short") })),
        Some(Ask::Change(no_change)),
    ];
    for body in cases {
        let (_send, recv) = open(&client, &request_open(body.clone())).await;
        let answer = Frames::new(recv).next::<wire::Response>().await.body;
        let Some(Answer::Failure(failure)) = answer else { panic!("{body:?}: {answer:?}") };
        assert_eq!(Code::from_wire(failure.code), Code::BadRequest, "{body:?}");
    }
    bystander.is_well().await;
}

#[tokio::test]
async fn publish_streams_above_the_limit_are_turned_away() {
    let world = World::with(|limits| limits.access.publish_streams_max = 2).await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &[]).await;
    let mut first = client.publisher().await;
    first.send(group(), 1, b"one").await;
    first.committed().await;
    let mut second = client.publisher().await;
    second.send(group(), 2, b"two").await;
    second.committed().await;
    let mut third = client.publisher().await;
    assert_eq!(third.receipts.reset_code().await, Code::TooMany);
    drop((second, third));
    let mut fourth = loop {
        // The node hears of the second one's end in its own time.
        let mut again = client.publisher().await;
        again.send(group(), 3, b"three").await;
        if let Ok(Some(_)) = again.receipts.try_next::<wire::Receipt>().await {
            break again;
        }
    };
    fourth.send(group(), 4, b"four").await;
    fourth.committed().await;
    bystander.is_well().await;
}

#[tokio::test]
async fn requests_above_the_limit_are_turned_away() {
    let world = World::with(|limits| {
        limits.access.requests_max = 1;
        limits.access.request_rate_per_second = 1;
        limits.access.request_burst = 3;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    // Once the burst is used up, one waits for its turn and holds the only place.
    let ask = request_open(Some(Ask::Incarnation(wire::NewIncarnation {})));
    let mut waiting = Vec::new();
    let turned_away = tokio::time::timeout(super::world::PATIENCE, async {
        loop {
            let (send, recv) = open(&client, &ask).await;
            let mut answer = Frames::new(recv);
            let answered =
                tokio::time::timeout(Duration::from_millis(20), answer.try_next::<wire::Response>());
            match answered.await {
                Ok(Ok(_)) => {}
                Ok(Err(quinn::ReadError::Reset(code))) => return code,
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => waiting.push((send, answer)),
            }
        }
    });
    assert_eq!(turned_away.await.expect("one is too many"), (Code::TooMany as u32).into());
    for (_, mut answer) in waiting {
        let answer = answer.next::<wire::Response>().await.body;
        assert!(matches!(answer, Some(Answer::Incarnation(_))), "those that waited are answered: {answer:?}");
    }
    bystander.is_well().await;
}

#[tokio::test]
async fn streams_above_what_quic_permits_wait_for_one_to_end() {
    let world = World::with(|limits| {
        limits.access.publish_streams_max = 1;
        limits.access.requests_max = 1;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    let (mut a, a_recv) = client.connection.open_bi().await.unwrap();
    let (_b, _b_recv) = client.connection.open_bi().await.unwrap();
    let mut third = std::pin::pin!(client.connection.open_bi());
    assert!(tokio::time::timeout(Duration::from_millis(30), &mut third).await.is_err());
    a.write_all(&framed(&[0xff])).await.unwrap();
    assert_eq!(Frames::new(a_recv).reset_code().await, Code::BadFrame);
    drop(a);
    let third = tokio::time::timeout(super::world::PATIENCE, third).await;
    assert!(third.is_ok_and(|opened| opened.is_ok()), "the broken one made room");
    bystander.is_well().await;
}

#[tokio::test]
async fn unanswered_messages_are_bounded_and_all_answered_in_the_end() {
    let world = World::with(|limits| limits.access.publishes_unanswered_max = 2).await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &[]).await;
    let mut publisher = client.publisher().await;
    publisher.send_many(group(), 1, 200, b"in a row").await;
}

#[tokio::test]
async fn who_is_too_fast_is_read_more_slowly_and_stays_in_order() {
    let world = World::with(|limits| {
        limits.access.publish_rate_per_second = 200;
        limits.access.publish_burst = 10;
    })
    .await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &[]).await;
    let mut publisher = client.publisher().await;
    let begun = tokio::time::Instant::now();
    publisher.send_many(group(), 1, 50, b"in a hurry").await;
    let took = begun.elapsed();
    assert!(took.as_millis() >= 190, "40 above the burst at 200 a second took {took:?}");
    bystander.is_well().await;
}

#[tokio::test]
async fn requests_are_answered_and_bad_ones_with_a_reason() {
    let world = World::new().await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group(), &["bob"]).await;
    let Answer::Incarnation(incarnation) = client.ask(Ask::Incarnation(wire::NewIncarnation {})).await else {
        panic!("an incarnation")
    };
    assert!(incarnation.incarnation > client.welcome.incarnation & !0xf_ffff, "issued later");
    let unknown = wire::GetGroup { group: GroupId::named("nowhere").to_wire() };
    let Answer::Failure(failure) = client.ask(Ask::Group(unknown)).await else { panic!("a failure") };
    assert_eq!(Code::from_wire(failure.code), Code::UnknownGroup);
    let Answer::Failure(failure) = client.ask(Ask::Status(wire::GetStatus {})).await else {
        panic!("a failure")
    };
    assert_eq!(Code::from_wire(failure.code), Code::NotAllowed);
    let hello = super::client::hello(world.admin_token("root"), 1);
    let admin = Client::connect_with(&world, hello, &Default::default()).await;
    let Answer::Status(status) = admin.ask(Ask::Status(wire::GetStatus {})).await else { panic!("a status") };
    assert_eq!((status.node.as_str(), status.sessions, status.writable), ("node-1", 2, true));
}

#[tokio::test]
async fn presence_counts_users_and_names_those_asked_for() {
    let world = World::new().await;
    let mut ada = Client::connect(&world, "ada", 1).await;
    ada.create(group(), &["bob", "eve"]).await;
    ada.follow(group()).await;
    let mut ada_again = Client::connect(&world, "ada", 2).await;
    ada_again.follow(group()).await;
    let mut bob = Client::connect(&world, "bob", 1).await;
    bob.follow(group()).await;
    let users = ["bob", "eve", "nobody at all"].map(str::to_owned).to_vec();
    let asked = wire::GetPresence { group: group().to_wire(), users };
    let Answer::Presence(presence) = bob.ask(Ask::Presence(asked.clone())).await else { panic!("presence") };
    assert_eq!((presence.online, presence.users), (2, vec!["bob".to_owned()]));
    let stranger = Client::connect(&world, "mallory", 1).await;
    let Answer::Failure(failure) = stranger.ask(Ask::Presence(asked)).await else { panic!("a failure") };
    assert_eq!(Code::from_wire(failure.code), Code::NotMember);
}

#[tokio::test]
async fn typing_reaches_those_who_follow_with_the_users_true_name() {
    let world = World::with(|limits| {
        limits.access.signal_rate_per_second = 1;
        limits.access.signal_burst = 2;
    })
    .await;
    let mut ada = Client::connect(&world, "ada", 1).await;
    ada.create(group(), &["bob", "eve"]).await;
    ada.follow(group()).await;
    let mut bob = Client::connect(&world, "bob", 1).await;
    bob.follow(group()).await;
    let eve = Client::connect(&world, "eve", 1).await;

    let typing = wire::Signal {
        group: group().to_wire(),
        user: "bob".into(),
        what: Some(wire::signal::What::Typing(wire::Typing { active: true })),
    };
    ada.connection.send_datagram(typing.encode_to_vec().into()).unwrap();
    let received =
        tokio::time::timeout(super::world::PATIENCE, bob.connection.read_datagram()).await.unwrap();
    let received = wire::Signal::decode(received.unwrap()).unwrap();
    assert_eq!(received, wire::Signal { user: "ada".into(), ..typing.clone() });

    ada.connection.send_datagram(Bytes::from_static(&[0xff; 20])).unwrap();
    eve.connection.send_datagram(typing.encode_to_vec().into()).unwrap();
    for _ in 0..3 {
        ada.connection.send_datagram(typing.encode_to_vec().into()).unwrap();
    }
    let dropped = || world.metrics.datagrams_dropped.get();
    eventually("garbage, a stranger's and those too fast are dropped", || dropped() >= 5).await;
    assert_eq!(world.metrics.datagrams_forwarded.get(), 1);
}
