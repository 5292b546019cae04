//! What clients get: everything, in order, once, however slow they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::{IdleTimeout, VarInt};
use shoal_protocol::{Code, GroupId, wire};
use wire::{request::Body as Ask, response::Body as Answer, to_client::Body as Told, to_node::Body as Say};

use super::{
    client::{CREATED, Client, Delivery, Dial, hello, payload},
    world::{World, eventually},
};

fn group(name: &str) -> GroupId {
    GroupId::named(name)
}

#[tokio::test]
async fn records_come_on_one_stream_for_each_group_in_order() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    for name in ["a", "b"] {
        client.create(group(name), &[]).await;
        client.follow(group(name)).await;
    }
    let mut publisher = client.publisher().await;
    publisher.send_many(group("a"), 1, 20, b"to a").await;
    publisher.send_many(group("b"), 1, 20, b"to b").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut delivery = client.delivery().await;
        assert_eq!(delivery.from, 1);
        delivery.read_until(CREATED).await;
        let records = delivery.read_until(CREATED + 20).await;
        assert!(records.iter().all(|record| payload(record).starts_with(b"to ")));
        seen.push(delivery.group);
    }
    seen.sort();
    let mut both = [group("a"), group("b")];
    both.sort();
    assert_eq!(seen, both);
}

#[tokio::test]
async fn a_slow_session_catches_up_from_the_store_and_pages_are_shared() {
    let world = World::with(|limits| limits.group.window_records_max = 8).await;
    let writer = Client::connect(&world, "ada", 1).await;
    writer.create(group("a"), &["bob", "eve"]).await;
    writer.publisher().await.send_many(group("a"), 1, 1_000, &[7; 100]).await;
    for user in ["bob", "eve"] {
        let mut reader = Client::connect(&world, user, 1).await;
        reader.follow(group("a")).await;
        reader.delivery().await.read_until(CREATED + 1_000).await;
    }
    let (fetched, shared) = (world.metrics.pages_fetched.get(), world.metrics.pages_shared.get());
    assert!((8..=10).contains(&fetched), "{fetched} pages of 128 for about 1,000 records, once");
    assert!(shared >= 7, "the second reader finds them: {shared}");
}

#[tokio::test]
async fn a_session_that_stops_reading_costs_no_memory_and_loses_nothing() {
    let world = World::with(|limits| {
        limits.group.window_records_max = 8;
        limits.access.page_bytes_max = 4_000;
    })
    .await;
    let writer = Client::connect(&world, "ada", 1).await;
    writer.create(group("a"), &["bob"]).await;
    let narrow = Dial::transport(|transport| {
        transport.stream_receive_window(VarInt::from_u32(8_000));
    });
    let mut reader = Client::connect_with(&world, hello(world.token("bob"), 1), &narrow).await;
    reader.follow(group("a")).await;
    let mut publisher = writer.publisher().await;
    for round in 0..20 {
        publisher.send_many(group("a"), 1 + round * 50, 50, &[7; 300]).await;
    }
    let mut delivery = reader.delivery().await;
    delivery.read_until(CREATED + 1_000).await;
    assert!(world.metrics.pages_fetched.get() > 0, "the window was long past it");
    publisher.send(group("a"), 1_001, b"live again").await;
    assert_eq!(payload(&delivery.next().await), b"live again");
}

#[tokio::test]
async fn a_group_whose_stream_is_blocked_holds_up_no_other() {
    let world = World::new().await;
    let narrow = Dial::transport(|transport| {
        transport.stream_receive_window(VarInt::from_u32(2_000));
    });
    let mut client = Client::connect_with(&world, hello(world.token("ada"), 1), &narrow).await;
    for name in ["blocked", "free"] {
        client.create(group(name), &[]).await;
        client.follow(group(name)).await;
    }
    let mut publisher = client.publisher().await;
    publisher.send_many(group("blocked"), 1, 100, &[1; 500]).await;
    publisher.send_many(group("free"), 1, 3, b"through").await;
    let first = client.delivery().await;
    let second = client.delivery().await;
    let (mut blocked, mut free) =
        if first.group == group("blocked") { (first, second) } else { (second, first) };
    free.read_until(CREATED + 3).await;
    blocked.read_until(CREATED + 100).await;
}

#[tokio::test]
async fn a_stream_of_a_group_that_is_followed_no_more_goes_to_who_waits_for_one() {
    let world = World::with(|limits| limits.access.delivery_streams_max = 1).await;
    let narrow = Dial::transport(|transport| {
        transport.stream_receive_window(VarInt::from_u32(2_000));
    });
    let mut client = Client::connect_with(&world, hello(world.token("ada"), 1), &narrow).await;
    client.create(group("blocked"), &[]).await;
    client.follow(group("blocked")).await;
    let mut publisher = client.publisher().await;
    publisher.send_many(group("blocked"), 1, 100, &[1; 500]).await;
    let blocked = client.delivery().await;
    client.create(group("waiting"), &[]).await;
    client.follow(group("waiting")).await;
    publisher.send(group("waiting"), 1, b"through").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.say(Say::Unfollow(wire::Unfollow { group: blocked.group.to_wire() })).await;
    let mut waiting = client.delivery().await;
    assert_eq!(waiting.group, group("waiting"));
    waiting.read_until(CREATED + 1).await;
}

/// What came in each group, on whatever stream.
type Seen = Arc<Mutex<BTreeMap<GroupId, Vec<u64>>>>;

/// Reads every stream that comes, each to its end.
async fn read_all(connection: quinn::Connection, seen: Seen) {
    while let Ok(recv) = connection.accept_uni().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut delivery = Delivery::new(recv).await;
            while let Some(record) = delivery.try_next().await {
                seen.lock().unwrap().entry(delivery.group).or_default().push(record.seq);
            }
        });
    }
}

#[tokio::test]
async fn more_groups_than_streams_take_turns() {
    let ours = Dial::default();
    let theirs = Dial::transport(|transport| {
        transport.max_concurrent_uni_streams(VarInt::from_u32(2));
    });
    for (streams_max, how) in [(2, ours), (64, theirs)] {
        let world = World::with(|limits| limits.access.delivery_streams_max = streams_max).await;
        let mut client = Client::connect_with(&world, hello(world.token("ada"), 1), &how).await;
        let seen = Seen::default();
        let reading = tokio::spawn(read_all(client.connection.clone(), Arc::clone(&seen)));
        let groups: Vec<GroupId> = (0..7).map(|n| group(&format!("group {n}"))).collect();
        for group in &groups {
            client.create(*group, &[]).await;
            client.follow(*group).await;
        }
        let mut publisher = client.publisher().await;
        for number in 1..=20 {
            for group in &groups {
                publisher.send(*group, number, b"a turn for each").await;
            }
        }
        let all: Vec<u64> = (1..CREATED + 20).collect();
        eventually("everything came, in every group", || {
            let seen = seen.lock().unwrap();
            seen.values().all(|seqs| seqs.len() >= all.len()) && seen.len() == groups.len()
        })
        .await;
        for seqs in seen.lock().unwrap().values_mut() {
            // Streams that follow each other may be read at once.
            seqs.sort_unstable();
            assert_eq!(*seqs, all, "each once");
        }
        reading.abort();
    }
}

#[tokio::test]
async fn a_quiet_stream_is_finished_and_the_next_record_opens_another() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    client.follow(group("a")).await;
    let mut first = client.delivery().await;
    first.read_until(CREATED).await;
    for token in 0..2 {
        client.say(Say::Heartbeat(wire::Heartbeat { token, watermarks: Vec::new() })).await;
        client.told().await;
    }
    assert!(first.try_next().await.is_none(), "unused since the last heartbeat");
    eventually("the node counts it out", || world.metrics.delivery_streams.get() == 0).await;
    client.publisher().await.send(group("a"), 1, b"again").await;
    let mut second = client.delivery().await;
    assert_eq!((second.from, payload(&second.next().await)), (CREATED, &b"again"[..]));
}

#[tokio::test]
async fn a_hello_resumes_where_the_client_was() {
    let world = World::new().await;
    let client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    client.create(group("b"), &[]).await;
    client.publisher().await.send_many(group("a"), 1, 10, b"before").await;
    drop(client);
    let follow = |name, number| wire::Follow {
        group: group(name).to_wire(),
        from: Some(wire::follow::From::Watermark(number)),
    };
    let resume = wire::Hello {
        follows: vec![follow("a", 7), follow("b", 3), follow("nowhere", 1), follow("b", 3)],
        ..hello(world.token("ada"), 1)
    };
    let mut client = Client::connect_with(&world, resume, &Dial::default()).await;
    let (mut followed, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        match client.told().await {
            Told::Followed(told) => {
                followed.push((GroupId::from_wire(&told.group).unwrap(), told.from, told.tail))
            }
            Told::FollowEnded(told) => ended.push(Code::from_wire(told.why.unwrap().code)),
            told => panic!("{told:?}"),
        }
    }
    followed.sort();
    let mut expected = [(group("a"), 7, CREATED + 10), (group("b"), 3, CREATED)];
    expected.sort();
    assert_eq!(followed, expected);
    assert_eq!(ended, [Code::UnknownGroup]);
    let mut delivery = client.delivery().await;
    assert_eq!((delivery.group, delivery.from), (group("a"), 7));
    assert_eq!(delivery.read_until(CREATED + 10).await.len(), 6);
    assert!(client.is_left_alone().await);
}

#[tokio::test]
async fn a_watermark_above_the_tail_is_an_alarm() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    let from = Some(wire::follow::From::Watermark(900));
    client.say(Say::Follow(wire::Follow { group: group("a").to_wire(), from })).await;
    let Told::FollowEnded(ended) = client.told().await else { panic!("it ends") };
    assert_eq!(Code::from_wire(ended.why.unwrap().code), Code::WatermarkAhead);
}

#[tokio::test]
async fn who_is_removed_gets_the_removal_and_nothing_after() {
    let world = World::new().await;
    let owner = Client::connect(&world, "ada", 1).await;
    owner.create(group("a"), &["bob"]).await;
    let mut bob = Client::connect(&world, "bob", 1).await;
    bob.follow(group("a")).await;
    let mut delivery = bob.delivery().await;
    delivery.read_until(CREATED).await;
    let mut publisher = owner.publisher().await;
    publisher.send(group("a"), 1, b"for bob too").await;
    publisher.committed().await;
    let remove = wire::Remove { users: vec!["bob".to_owned()] };
    owner.change(group("a"), wire::change::Body::Remove(remove)).await;
    publisher.send(group("a"), 2, b"not for bob").await;
    publisher.committed().await;
    let records = delivery.read_until(CREATED + 2).await;
    assert_eq!(payload(&records[0]), b"for bob too");
    assert!(matches!(records[1].body, Some(wire::record::Body::Members(_))), "his own removal");
    assert!(delivery.try_next().await.is_none(), "the stream ends there");
    let Told::FollowEnded(ended) = bob.told().await else { panic!("it ends") };
    assert_eq!(Code::from_wire(ended.why.unwrap().code), Code::NotMember);
    assert!(bob.is_left_alone().await);
}

#[tokio::test]
async fn a_follow_can_be_taken_back_and_made_again() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    client.follow(group("a")).await;
    let mut first = client.delivery().await;
    first.read_until(CREATED).await;
    client.say(Say::Unfollow(wire::Unfollow { group: group("a").to_wire() })).await;
    assert!(first.try_next().await.is_none());
    let mut publisher = client.publisher().await;
    publisher.send(group("a"), 1, b"unseen").await;
    publisher.committed().await;
    assert!(client.is_left_alone().await);
    client.follow_from(group("a"), wire::follow::From::Watermark(CREATED)).await;
    let mut second = client.delivery().await;
    assert_eq!(payload(&second.next().await), b"unseen");
    client.follow_from(group("a"), wire::follow::From::Watermark(1)).await;
    let mut third = client.delivery().await;
    assert_eq!((third.from, third.next().await.seq), (1, 1), "from anew, as the client wished");
}

#[tokio::test]
async fn a_delivery_stream_that_the_client_stops_ends_its_follow() {
    let world = World::new().await;
    let mut client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    client.follow(group("a")).await;
    let Delivery { mut frames, .. } = client.delivery().await;
    frames.recv.stop(0_u32.into()).unwrap();
    let mut publisher = client.publisher().await;
    for number in 1..=2 {
        publisher.send(group("a"), number, b"unwanted").await;
        publisher.committed().await;
    }
    eventually("nobody follows", || world.metrics.follows.get() == 0).await;
    client.follow_from(group("a"), wire::follow::From::Watermark(CREATED + 1)).await;
    assert_eq!(client.delivery().await.next().await.seq, CREATED + 1);
}

#[tokio::test]
async fn what_heartbeats_report_as_delivered_is_kept_and_never_goes_back() {
    let world = World::with(|limits| limits.access.delivered_flush_ms = 10).await;
    let mut client = Client::connect(&world, "ada", 1).await;
    client.create(group("a"), &[]).await;
    client.follow(group("a")).await;
    client.publisher().await.send_many(group("a"), 1, 9, b"x").await;
    client.delivery().await.read_until(CREATED + 9).await;
    for watermark in [CREATED + 9, 4, 1_000] {
        let watermarks = vec![wire::Watermark { group: group("a").to_wire(), watermark }];
        client.say(Say::Heartbeat(wire::Heartbeat { token: 1, watermarks })).await;
        client.told().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let get = wire::GetGroup { group: group("a").to_wire() };
    let Answer::Group(seen) = client.ask(Ask::Group(get)).await else { panic!("the group") };
    assert_eq!(seen.delivered, CREATED + 9);
}

#[tokio::test]
async fn a_connection_that_dies_takes_its_cursors_off() {
    let world = World::new().await;
    let how = Dial::transport(|transport| {
        transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(200))));
    });
    let mut client = Client::connect_with(&world, hello(world.token("ada"), 1), &how).await;
    client.create(group("a"), &[]).await;
    client.follow(group("a")).await;
    let metrics = Arc::clone(&world.metrics);
    assert_eq!((metrics.follows.get(), metrics.sessions.get()), (1, 1));
    eventually("silence ends it", || metrics.sessions.get() == 0).await;
    assert_eq!((metrics.follows.get(), metrics.delivery_streams.get()), (0, 0));
}
