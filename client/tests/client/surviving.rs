//! What a client lives through: crashes, lost networks, its own restart.

use std::{sync::Arc, time::Duration};

use quinn::{Runtime, TokioRuntime};
use shoal_client::{Client, Config, DeviceId, GroupId, Message, Saved, Start, State, UdpTransport};
use tokio::time::sleep;

use crate::world::{World, ada_and_bob, open_group, state, texts, users};

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

#[tokio::test] // On the machine's own sockets and clock.
async fn over_real_sockets_it_is_the_same() {
    let mut world = World::new().await;
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(socket) = std::net::UdpSocket::bind(local) else {
            continue;
        };
        let address = socket.local_addr().unwrap().to_string();
        world.start_on(TokioRuntime.wrap_udp_socket(socket).unwrap()).await;
        let transport = Arc::new(UdpTransport::new());
        let with = |user| {
            let config = Config::new([&address], world.keys.tls.clone(), world.keys.token(user), DeviceId(9));
            Client::connect(config.transport(transport.clone()))
        };
        let (ada, bob) = (with("ada").await.unwrap(), with("bob").await.unwrap());
        let group = GroupId::named(local);
        ada.create(group, open_group(), &users(&["bob"])).await.unwrap();
        let mut heard = bob.follow(group, Start::Join).await.unwrap();
        ada.publish(group, "one").await.unwrap();
        bob.network_changed().unwrap();
        ada.publish(group, "two").await.unwrap();
        assert_eq!(texts(&mut heard, 2).await, ["one", "two"]);
        assert_eq!(bob.stats().reconnects, 0);
        bob.close().await;
        ada.close().await;
    }
}
