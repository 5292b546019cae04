//! Who types and who is there, across nodes: seen by members on all of them, once, and never by too many.

use std::time::Duration;

use shoal_client::{Client, Code, Follow, GroupId, Signal, SignalKind, Signals, Start, UserId, wire};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::Limits,
};
use tokio::time::{sleep, timeout};

use crate::{
    link::Link,
    world::{PATIENCE, World, hear, until, user},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long nothing comes where nothing is to come.
const QUIET: Duration = Duration::from_millis(300);

/// A member who follows, and listens.
struct Member {
    name: UserId,
    client: Client,
    signals: Signals,
    follow: Follow,
}

impl Member {
    async fn next(&mut self) -> Signal {
        timeout(PATIENCE, self.signals.next()).await.expect("a signal comes").unwrap()
    }

    async fn hears_nothing(&mut self) {
        let heard = timeout(QUIET, self.signals.next()).await;
        assert!(heard.is_err(), "{} heard {heard:?}", self.name);
    }
}

/// Members on these nodes, by name, of whom the first made the group; all hear what is said.
async fn members(world: &World, group: GroupId, members: &[(&str, &str)]) -> Vec<Member> {
    let mut clients = Vec::new();
    for (name, node) in members {
        clients.push(world.client(name, node).await);
    }
    let names: Vec<_> = members.iter().map(|(name, _)| user(name)).collect();
    clients[0].create(group, wire::Settings::default(), &names[1..]).await.unwrap();
    let mut there = Vec::new();
    for (client, name) in clients.into_iter().zip(names) {
        let follow = client.follow(group, Start::Tail).await.unwrap();
        there.push(Member { name, signals: client.signals(), client, follow });
    }
    there[0].client.publish(group, "hello").await.unwrap();
    for member in &mut there {
        assert_eq!(hear(&mut member.follow).await.1, "hello");
    }
    there
}

fn typing(group: GroupId, name: &UserId) -> Signal {
    Signal { group, user: name.clone(), what: SignalKind::Typing(true) }
}

async fn online(client: &Client, group: GroupId, named: &[&str]) -> (u64, Vec<String>) {
    let named: Vec<_> = named.iter().map(|name| user(name)).collect();
    let presence = client.presence(group, &named).await.unwrap();
    (presence.online, presence.users)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_types_is_seen_once_by_every_other_member_wherever_they_are() {
    let world = World::new(&NAMES).await;
    for home in NAMES {
        world.place(&[home]).await;
        let group = GroupId::named(home);
        let mut there =
            members(&world, group, &[("ann", "a"), ("bob", "b"), ("cat", "c"), ("dan", "b")]).await;
        let stranger = world.client("eve", "b").await;
        let mut strangers = stranger.signals();
        for types in 0..there.len() {
            assert!(there[types].client.signal(group, SignalKind::Typing(true)));
            let name = there[types].name.clone();
            for (at, member) in there.iter_mut().enumerate() {
                if at != types {
                    assert_eq!(member.next().await, typing(group, &name));
                }
            }
        }
        for member in &mut there {
            member.hears_nothing().await;
        }
        assert!(timeout(QUIET, strangers.next()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_sees_nobody_type_and_is_not_seen_nor_is_who_is_muted() {
    let world = World::new(&NAMES).await;
    world.place(&["c"]).await;
    let group = GroupId::named("strict");
    let mut there = members(&world, group, &[("ann", "a"), ("bob", "b"), ("mute", "b"), ("gone", "b")]).await;
    let ann = there[0].client.clone();
    ann.mute(group, &user("mute"), SystemClock.now_ms() + 60_000).await.unwrap();
    ann.remove(group, &[user("gone")]).await.unwrap();
    // The last that it is told, and then nothing.
    let gone = &mut there[3];
    timeout(PATIENCE, async { while let Some(Ok(_)) = gone.follow.next().await {} }).await.unwrap();
    for silenced in [2, 3] {
        there[silenced].client.signal(group, SignalKind::Typing(true));
    }
    assert!(ann.signal(group, SignalKind::Typing(true)));
    for listens in [1, 2] {
        assert_eq!(there[listens].next().await, typing(group, &user("ann")));
    }
    for member in &mut there {
        member.hears_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_there_is_known_on_every_node_until_they_or_their_node_have_gone() {
    let mut world = World::new(&NAMES).await;
    world.place(&["c"]).await;
    let group = GroupId::named("online");
    let mut there = members(&world, group, &[("ann", "a"), ("bob", "b"), ("cat", "c"), ("dan", "b")]).await;
    let all = ["ann", "bob", "cat", "dan", "eve"];
    let agree = async |there: &[Member], expected: &[&str]| {
        let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>();
        until("all who are there agree", async || {
            for member in there {
                if online(&member.client, group, &all).await != (expected.len() as u64, expected.clone()) {
                    return false;
                }
            }
            true
        })
        .await;
    };
    agree(&there, &["ann", "bob", "cat", "dan"]).await;
    there.pop().unwrap().client.close().await;
    agree(&there, &["ann", "bob", "cat"]).await;
    let _bob = there.remove(1);
    world.nodes.remove("b");
    agree(&there, &["ann", "cat"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_group_too_large_on_all_nodes_together_nobody_types_and_only_those_named_are_told() {
    let mut limits = Limits::default();
    limits.access.signal_sessions_max = 4;
    let world = World::with(&NAMES, limits).await;
    world.place(&["c"]).await;
    let group = GroupId::named("large");
    let names = ["m0", "m1", "m2", "m3", "m4", "m5"];
    let placed: Vec<_> = names.iter().enumerate().map(|(at, name)| (*name, NAMES[at % 3])).collect();
    let mut there = members(&world, group, &placed).await;
    for member in &there {
        member.client.signal(group, SignalKind::Typing(true));
        assert_eq!(online(&member.client, group, &["m4", "eve"]).await, (6, vec!["m4".to_owned()]));
    }
    for member in &mut there {
        member.hears_nothing().await;
    }
    for left in there.drain(4..) {
        left.client.close().await;
    }
    let ann = there[0].client.clone();
    until("they are few again", async || online(&ann, group, &[]).await.0 == 4).await;
    // What was found out before is believed for a while.
    let ear = &mut there[1];
    let heard = async {
        loop {
            ann.signal(group, SignalKind::Typing(true));
            if let Ok(signal) = timeout(Duration::from_millis(500), ear.signals.next()).await {
                return signal.unwrap();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, heard).await.unwrap().user, user("m0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_a_session_may_send_is_seen_on_any_node() {
    let mut limits = Limits::default();
    (limits.access.signal_rate_per_second, limits.access.signal_burst) = (1, 5);
    let world = World::with(&NAMES, limits).await;
    world.place(&["c"]).await;
    let group = GroupId::named("fast");
    let mut there = members(&world, group, &[("ann", "a"), ("bob", "b"), ("cat", "c")]).await;
    let begun = std::time::Instant::now();
    for _ in 0..40 {
        there[0].client.signal(group, SignalKind::Typing(true));
        sleep(Duration::from_millis(2)).await;
    }
    let most = 6 + begun.elapsed().as_secs();
    for member in &mut there[1..] {
        let mut heard = 0;
        while timeout(QUIET, member.signals.next()).await.is_ok() {
            heard += 1;
        }
        assert!((5..=most).contains(&heard), "{} heard {heard}", member.name);
    }
    let dropped = world.nodes["a"].metrics.datagrams_dropped.get();
    assert!(dropped >= 40 - most, "{dropped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_nonsense_ends_its_link_and_what_this_one_is_not_asked_for_is_dropped() {
    let world = World::new(&["a", "b"]).await;
    world.place(&["a"]).await;
    let group = GroupId::named("elsewhere");
    let mut there = members(&world, group, &[("ann", "a"), ("bob", "b")]).await;
    let what = Some(wire::signal::What::Typing(wire::Typing { active: true }));
    let hint = |group: GroupId| wire::Signal { group: group.to_wire(), user: "eve".into(), what };
    let to_home_elsewhere = hint(group);
    let to_nobody = hint(GroupId::named("unheard of"));
    let link = Link::to(&world, "b").await;
    let connection = &link.connection;
    let dropped = || world.nodes["b"].metrics.peer_datagrams_dropped.get();
    for signal in [to_home_elsewhere, to_nobody] {
        let before = dropped();
        connection.send_datagram(prost::Message::encode_to_vec(&signal).into()).unwrap();
        until("it is dropped", async || dropped() > before).await;
    }
    assert!(connection.close_reason().is_none());
    connection.send_datagram(vec![0xff; 20].into()).unwrap();
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else { panic!("{closed}") };
    assert_eq!(closed.error_code, Code::BadFrame.number().into());
    for member in &mut there {
        member.hears_nothing().await;
    }
    there[0].client.signal(group, SignalKind::Typing(true));
    assert_eq!(there[1].next().await.user, user("ann"), "the other links stand");
}
