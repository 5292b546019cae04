//! Clients of a real node.

use std::{sync::Arc, time::Duration};

use shoal_certs::Claims;
use shoal_client::{
    Client, Closed, Code, Config, ConnectError, Delivered, DeviceId, FollowError, GroupId, Message,
    PublishError, RequestError, Saved, Seq, SignalKind, Start, State, TokenSource, wire,
};
use tokio::time::{Instant, sleep};

use crate::{
    net::MemoryTransport,
    world::{NODE, PATIENCE, START_MS, World, ada_and_bob, message, open_group, state, texts, users},
};

#[tokio::test(start_paused = true)]
async fn what_one_member_says_reaches_the_other_in_order() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..300 {
        receipts.push(ada.send(group, format!("{number}")).await.unwrap());
    }
    let mut last = None;
    for receipt in receipts {
        let seq = receipt.await.unwrap();
        assert!(last < Some(seq));
        last = Some(seq);
    }
    let expected: Vec<_> = (0..300).map(|number| format!("{number}")).collect();
    assert_eq!(texts(&mut heard, 300).await, expected);
    assert_eq!(heard.watermark(), last.unwrap().next());
    assert_eq!(ada.stats().acknowledged, 300);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashes_and_comes_back_is_noticed_by_its_delay_only() {
    let mut world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut receipts = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            receipts.push(ada.send(group, format!("{round}.{number}")).await.unwrap());
        }
        sleep(Duration::from_millis(7)).await;
        world.crash();
        sleep(Duration::from_secs(3)).await;
        world.start().await;
    }
    let mut places = Vec::new();
    for receipt in receipts {
        places.push(receipt.await.unwrap());
    }
    assert!(places.is_sorted(), "{places:?}");
    let expected: Vec<_> =
        (0..3).flat_map(|round| (0..20).map(move |number| format!("{round}.{number}"))).collect();
    assert_eq!(texts(&mut heard, 60).await, expected);
    assert!(ada.stats().reconnects >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_gone_for_a_while_loses_nothing() {
    let world = World::new().await;
    let group = GroupId::named("test");
    let ada = world.client("ada").await;
    ada.create(group, open_group(), &[]).await.unwrap();
    let host = world.host();
    let bob = Client::connect(world.config_at("bob", 1, host)).await.unwrap();
    bob.join(group).await.unwrap();
    let mut heard = bob.follow(group, Start::Join).await.unwrap();

    world.net.cut(host, true);
    let queued = bob.send(group, "from afar").await.unwrap();
    ada.publish(group, "meanwhile").await.unwrap();
    let offline = state(&bob, |state| matches!(state, State::Reconnecting { .. })).await;
    assert!(matches!(offline, State::Reconnecting { .. }));
    sleep(Duration::from_secs(120)).await;
    world.net.cut(host, false);

    state(&bob, State::is_online).await;
    queued.await.unwrap();
    assert_eq!(texts(&mut heard, 2).await, ["meanwhile", "from afar"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_network_is_survived_without_a_new_session() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    bob.network_changed().unwrap();
    ada.publish(group, "still there?").await.unwrap();
    assert_eq!(texts(&mut heard, 1).await, ["still there?"]);
    sleep(Duration::from_secs(30)).await;
    let stats = bob.stats();
    assert_eq!((stats.migrations, stats.reconnects), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queue_outlives_the_process_and_is_sent_once() {
    let mut world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    ada.publish(group, "before").await.unwrap();
    world.crash();
    for text in ["one", "two"] {
        drop(ada.send(group, text).await.unwrap());
    }
    let saved = Saved::from_bytes(&ada.save().to_bytes()).unwrap();
    assert_eq!(saved.queued(), 2);
    ada.close().await;
    world.start().await;

    // The save is used twice, as after a crash before the next one.
    for (round, new) in ["three", "four"].into_iter().enumerate() {
        let ada = Client::connect(world.config("ada", 1).saved(saved.clone())).await.unwrap();
        let restored = ada.restored();
        assert_eq!(restored.len(), 2);
        let receipt = ada.send(group, new).await.unwrap();
        for (_, message, sending) in restored {
            sending.await.unwrap_or_else(|error| panic!("{round}: {message:?}: {error}"));
        }
        receipt.await.unwrap();
        ada.close().await;
    }
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    assert_eq!(texts(&mut heard, 5).await, ["before", "one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn a_follow_resumes_where_the_app_was_and_not_where_the_network_was() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    for text in ["a", "b", "c", "d"] {
        ada.publish(group, text).await.unwrap();
    }
    assert_eq!(texts(&mut heard, 2).await, ["a", "b"]);
    let saved = bob.save();
    assert_eq!(saved.watermark(group), Some(heard.watermark()));
    drop(heard);
    drop(bob);

    let bob = Client::connect(world.config("bob", 1).saved(saved)).await.unwrap();
    let mut heard = bob.follow(group, Start::Resume).await.unwrap();
    assert_eq!(texts(&mut heard, 2).await, ["c", "d"]);
    // Within the run, too.
    drop(heard);
    ada.publish(group, "e").await.unwrap();
    let mut heard = bob.follow(group, Start::Resume).await.unwrap();
    assert_eq!(texts(&mut heard, 1).await, ["e"]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_read_costs_no_memory_and_misses_nothing() {
    let world = World::new().await;
    let group = GroupId::named("test");
    let ada = world.client("ada").await;
    ada.create(group, open_group(), &users(&["bob"])).await.unwrap();
    let quiet = GroupId::named("quiet");
    ada.create(quiet, open_group(), &users(&["bob"])).await.unwrap();
    let config = world.config("bob", 1).follow_buffer_bytes(16 << 10);
    let bob = Client::connect(config).await.unwrap();
    let mut slow = bob.follow(group, Start::Join).await.unwrap();
    let mut quick = bob.follow(quiet, Start::Join).await.unwrap();

    let payload = "x".repeat(4000);
    for _ in 0..400 {
        ada.publish(group, payload.clone()).await.unwrap();
    }
    ada.publish(quiet, "hello").await.unwrap();
    assert_eq!(texts(&mut quick, 1).await, ["hello"], "the one that is not read holds up no other");
    sleep(Duration::from_secs(30)).await;
    let stats = bob.stats();
    assert_eq!(stats.parked, 1);
    assert!(stats.records < 40, "{} records were taken in", stats.records);

    let first = message(&mut slow).await.0;
    let mut last = first;
    for _ in 1..400 {
        let (seq, text) = message(&mut slow).await;
        assert_eq!((seq, text.len()), (last + 1, 4000));
        last = seq;
    }
    assert_eq!(bob.stats().gaps_refilled, 0);
}

#[tokio::test(start_paused = true)]
async fn the_second_client_of_a_device_replaces_the_first_for_good() {
    let world = World::new().await;
    let first = world.client("ada").await;
    let second = world.client("ada").await;
    let closed = state(&first, |state| matches!(state, State::Closed { .. })).await;
    let State::Closed { why: Closed::Refused(why) } = closed else { panic!("{closed:?}") };
    assert_eq!(why.code, Code::SessionReplaced);
    sleep(Duration::from_secs(60)).await;
    assert!(second.state().borrow().is_online(), "they do not fight");
    assert_eq!(second.stats().reconnects, 0);
    assert_eq!(first.publish(GroupId::named("g"), "x").await, Err(PublishError::Closed));
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_by_no_node_is_told_why() {
    let world = World::new().await;
    let with = |token: String| {
        let transport = Arc::new(MemoryTransport::new(&world.net, world.host()));
        let config = Config::new([NODE.to_string()], world.keys.tls.clone(), token, DeviceId(7));
        Client::connect(config.transport(transport).seed(1))
    };
    let code = |result: Result<Client, ConnectError>| match result {
        Err(ConnectError::Closed(Closed::Refused(why))) => why.code,
        other => panic!("{other:?}"),
    };
    let claims = |expires_ms, device| Claims {
        device,
        ..Claims::new("ada".parse().unwrap(), START_MS - 10_000, expires_ms)
    };
    let sign = |claims| world.keys.signer.sign(&claims);
    assert_eq!(code(with(String::new()).await), Code::TokenMissing);
    assert_eq!(code(with("nonsense".to_owned()).await), Code::TokenInvalid);
    assert_eq!(code(with(sign(claims(START_MS - 1000, None))).await), Code::TokenExpired);
    let other = Some(DeviceId(8));
    assert_eq!(code(with(sign(claims(START_MS + 60_000, other))).await), Code::DeviceMismatch);
    let none = Config::new(Vec::<String>::new(), world.keys.tls.clone(), "t", DeviceId(7));
    assert_eq!(Client::connect(none).await.unwrap_err(), ConnectError::NoNodes);
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_token_where_the_source_renews() {
    let world = World::new().await;
    let began = Instant::now();
    let signer = world.keys.signer.clone();
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = asked.clone();
    let source = TokenSource::renewing(move || {
        let now_ms = START_MS + u64::try_from(began.elapsed().as_millis()).unwrap();
        let token = signer.sign(&Claims::new("ada".parse().unwrap(), now_ms, now_ms + 60_000));
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok(token) }
    });
    let transport = Arc::new(MemoryTransport::new(&world.net, world.host()));
    let config = Config::new([NODE.to_string()], world.keys.tls.clone(), source, DeviceId(7));
    let ada = Client::connect(config.transport(transport).seed(1)).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ada.stats().reconnects, 0);
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((60..90).contains(&asked), "asked {asked} times in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_closes_a_client_that_has_no_other() {
    let world = World::new().await;
    let token = world.keys.signer.sign(&Claims::new("ada".parse().unwrap(), START_MS, START_MS + 30_000));
    let transport = Arc::new(MemoryTransport::new(&world.net, world.host()));
    let config = Config::new([NODE.to_string()], world.keys.tls.clone(), token, DeviceId(7));
    let ada = Client::connect(config.transport(transport).seed(1)).await.unwrap();
    let closed = state(&ada, |state| matches!(state, State::Closed { .. })).await;
    let State::Closed { why: Closed::Refused(why) } = closed else { panic!("{closed:?}") };
    assert_eq!(why.code, Code::TokenExpired);
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_hears_of_it_and_then_nothing_more() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut own = bob.own().await.unwrap();
    ada.publish(group, "last").await.unwrap();
    ada.remove(group, &users(&["bob"])).await.unwrap();
    ada.publish(group, "secret").await.unwrap();

    assert_eq!(message(&mut heard).await.1, "last");
    let Some(Ok(Delivered::Record(record))) = heard.next().await else { panic!("the removal is told") };
    let Some(wire::record::Body::Members(changes)) = record.body else { panic!("{record:?}") };
    assert_eq!(changes.changes[0].kind(), wire::member_change::Kind::Removed);
    let Some(Err(FollowError::Refused(why))) = heard.next().await else { panic!("it ends") };
    assert_eq!(why.code, Code::NotMember);
    assert!(heard.next().await.is_none());

    let Some(Ok(Delivered::Record(notice))) = own.next().await else { panic!("a notice comes") };
    assert!(matches!(notice.body, Some(wire::record::Body::Notice(_))), "{notice:?}");
    let refused = bob.publish(group, "may I?").await.unwrap_err();
    assert!(matches!(&refused, PublishError::Refused(why) if why.code == Code::NotMember), "{refused:?}");
    ada.add(group, &users(&["bob"])).await.unwrap();
    bob.publish(group, "I am back").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_left_and_came_back_is_told_what_was_not_theirs() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    ada.publish(group, "one").await.unwrap();
    message(&mut heard).await;
    let watermark = heard.watermark();
    drop(heard);
    bob.leave(group).await.unwrap();
    ada.publish(group, "two").await.unwrap();
    bob.join(group).await.unwrap();
    ada.publish(group, "three").await.unwrap();
    let mut heard = bob.follow(group, Start::Watermark(watermark)).await.unwrap();
    let first = heard.next().await.unwrap().unwrap();
    assert!(matches!(first, Delivered::Skipped { from, .. } if from == watermark), "{first:?}");
    assert_eq!(message(&mut heard).await.1, "three");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_changed_listed_and_read_by_requests() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let first = ada.publish(group, "first").await.unwrap();
    ada.edit(group, first, "first, better").await.unwrap();
    bob.react(group, first, "+1").await.unwrap();
    ada.recall(group, first).await.unwrap();
    ada.set_role(group, &"bob".parse().unwrap(), wire::Role::Admin).await.unwrap();

    let history = bob.history(group, None, 3, true).await.unwrap();
    assert_eq!(history.records.len(), 3);
    assert_eq!(history.records.last().unwrap().seq + 1, history.tail);
    let members = bob.members(group, None, 10).await.unwrap();
    assert_eq!(members.members.len(), 2);
    let info = bob.group(group).await.unwrap();
    assert_eq!((info.members, info.me.unwrap().role()), (2, wire::Role::Admin));
    bob.set_read(group, Seq::new(info.tail).unwrap()).await.unwrap();
    let groups = bob.groups(None, 10).await.unwrap();
    assert_eq!(groups.groups.iter().map(|group| group.unread).collect::<Vec<_>>(), [0]);
    let refused = bob.close_group(group).await.unwrap_err();
    assert!(matches!(&refused, RequestError::Refused(why) if why.code == Code::NotAllowed), "{refused:?}");
    let stranger = world.client("eve").await;
    let refused = stranger.history(group, None, 3, true).await.unwrap_err();
    assert!(matches!(&refused, RequestError::Refused(why) if why.code == Code::NotMember), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_lost_reaches_those_who_follow() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let _ada_follows = ada.follow(group, Start::Tail).await.unwrap();
    let _bob_follows = bob.follow(group, Start::Tail).await.unwrap();
    let mut signals = bob.signals();
    assert!(ada.signal(group, SignalKind::Typing(true)));
    let signal = tokio::time::timeout(PATIENCE, signals.next()).await.unwrap().unwrap();
    assert_eq!((signal.user.as_str(), signal.what), ("ada", SignalKind::Typing(true)));
    assert_eq!(bob.presence(group, &users(&["ada", "eve"])).await.unwrap().users, ["ada"]);
    bob.close().await;
    assert!(signals.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_payload_above_the_limit_is_not_queued() {
    let world = World::new().await;
    let (group, ada, _bob) = ada_and_bob(&world).await;
    let too_large = ada.publish(group, vec![0; 64 * 1024 + 1]).await.unwrap_err();
    assert_eq!(too_large, PublishError::TooLarge { bytes: 64 * 1024 + 1, bytes_max: 64 * 1024 });
    ada.publish(group, vec![0; 64 * 1024]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_too_fast_is_slowed_and_stays_in_order() {
    let world = World::with(|limits| {
        limits.group.member_rate_per_second = 20;
        limits.group.member_burst = 10;
    })
    .await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..100 {
        receipts.push(ada.send(group, format!("{number}")).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let expected: Vec<_> = (0..100).map(|number| format!("{number}")).collect();
    assert_eq!(texts(&mut heard, 100).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_app_may_start_without_a_network() {
    let mut world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    ada.close().await;
    world.crash();
    let ada = Client::start(world.config("ada", 1)).unwrap();
    let early = ada.send(group, Message::new("early")).await.unwrap();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(*ada.state().borrow(), State::Connecting);
    world.start().await;
    early.await.unwrap();
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    assert_eq!(texts(&mut heard, 1).await, ["early"]);
}

#[tokio::test(start_paused = true)]
async fn a_save_of_another_user_or_device_is_not_sent() {
    let world = World::new().await;
    let ada = world.client("ada").await;
    let saved = ada.save();
    let refused = Client::connect(world.config("ada", 2).saved(saved.clone())).await.unwrap_err();
    assert_eq!(refused, ConnectError::OtherDevice);
    let refused = Client::connect(world.config("bob", 1).saved(saved)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Closed(Closed::OtherUser { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn more_follows_than_the_node_allows_are_refused_here() {
    let world = World::with(|limits| limits.access.follows_max = 2).await;
    let ada = world.client("ada").await;
    let mut follows = Vec::new();
    for number in 0..2 {
        let group = GroupId::named(&format!("{number}"));
        ada.create(group, open_group(), &[]).await.unwrap();
        follows.push(ada.follow(group, Start::Join).await.unwrap());
    }
    let refused = ada.follow(GroupId::named("2"), Start::Join).await.unwrap_err();
    assert!(matches!(&refused, FollowError::Refused(why) if why.code == Code::TooMany), "{refused:?}");
    let again = ada.follow(GroupId::named("1"), Start::Join).await.unwrap_err();
    assert_eq!(again, FollowError::AlreadyFollowed);
    follows.pop();
    sleep(Duration::from_secs(1)).await;
    follows.push(ada.follow(GroupId::named("1"), Start::Resume).await.unwrap());
    assert_eq!(ada.stats().reconnects, 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_handle_is_dropped_the_node_forgets_the_session() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let follow = bob.follow(group, Start::Tail).await.unwrap();
    drop(bob);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.node.as_ref().unwrap().sessions(), 2, "a follow is a handle too");
    drop(follow);
    ada.close().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.node.as_ref().unwrap().sessions(), 0);
}
