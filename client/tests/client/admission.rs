//! Who is let in, for how long, and how much of it.

use std::{sync::Arc, time::Duration};

use shoal_certs::Claims;
use shoal_client::{
    Client, Closed, Code, Config, ConnectError, DeviceId, FollowError, GroupId, PublishError, Start, State,
    TokenSource,
};
use tokio::time::{Instant, sleep};

use crate::{
    net::MemoryTransport,
    world::{NODE, START_MS, World, ada_and_bob, message, open_group, state},
};

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

/// A hello is read before it is known who sends it, and so may not say all of this.
#[tokio::test(start_paused = true)]
async fn more_follows_than_a_hello_may_hold_come_back_after_a_restart() {
    const FOLLOWS: usize = 2_000;
    let mut world = World::with(|limits| limits.access.request_rate_per_second = 1_000_000).await;
    let ada = world.client("ada").await;
    let mut follows = Vec::new();
    for number in 0..FOLLOWS {
        let group = GroupId::named(&number.to_string());
        ada.create(group, open_group(), &[]).await.unwrap();
        follows.push(ada.follow(group, Start::Tail).await.unwrap());
    }
    world.crash();
    sleep(Duration::from_secs(1)).await;
    world.start().await;
    for number in [0, FOLLOWS / 2, FOLLOWS - 1] {
        ada.publish(GroupId::named(&number.to_string()), "are you there?").await.unwrap();
        assert_eq!(message(&mut follows[number]).await.1, "are you there?");
    }
    assert_eq!(ada.stats().reconnects, 1);
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
