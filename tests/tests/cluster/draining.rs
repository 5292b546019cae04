//! Emptying nodes while everybody goes on: judged by the load generator, and by what apps see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::{Connection, crypto::rustls::QuicClientConfig};
use shoal_client::{Client, Code, GroupId, RequestError, Start, wire};
use shoal_loadgen::{Options, Report, plan::Shape};
use shoal_node::coordination::{Coordination, PARTITIONS, Roles};
use shoal_protocol::{ALPN, FrameBuffer, VERSION, frame, frame::FRAME_BYTES_MAX};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use wire::cluster_node::State as NodeState;

use crate::world::{PATIENCE, World, hear, named, until, user};

const ABC: [(&str, Roles); 3] = [("a", Roles::ALL), ("b", Roles::ALL), ("c", Roles::ALL)];

fn load(world: &World, nodes: &[&str], seconds: u64) -> JoinHandle<Report> {
    let mut options = Options::new("", world.dir.path());
    options.clients.nodes = nodes.iter().map(|node| world.address(node)).collect();
    options.shapes =
        vec![Shape { groups: 10, members: 3, offline: 0 }, Shape { groups: 1, members: 10, offline: 0 }];
    options.rate = 100.0;
    options.duration = Duration::from_secs(seconds);
    tokio::spawn(async move { shoal_loadgen::run(options).await.unwrap() })
}

async fn state_of(admin: &Client, node: &str) -> wire::ClusterNode {
    let cluster = admin.cluster().await.unwrap();
    cluster.nodes.into_iter().find(|other| other.name == node).unwrap()
}

async fn drained(admin: &Client, node: &str) {
    until("the node is empty", async || state_of(admin, node).await.state() == NodeState::Drained).await;
}

/// Everything that an app sees of its connection is that it is there.
pub(crate) struct Onlooker {
    was_always_online: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

impl Onlooker {
    pub(crate) fn new(client: &Client) -> Self {
        let was_always_online = Arc::new(AtomicBool::new(true));
        let (mut states, seen) = (client.state(), Arc::clone(&was_always_online));
        let looking = tokio::spawn(async move {
            while states.changed().await.is_ok() {
                if !states.borrow_and_update().is_online() {
                    seen.store(false, Ordering::Relaxed);
                }
            }
        });
        Self { was_always_online, looking }
    }

    pub(crate) fn verdict(self) -> bool {
        self.looking.abort();
        self.was_always_online.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_is_noticed_by_nobody() {
    let world = World::led(&ABC).await;
    let admin = world.admin("c").await;
    let load = load(&world, &["a", "b", "c"], 10);
    until("all are there", async || {
        world.nodes.values().map(|member| member.node.sessions()).sum::<usize>() > 40
    })
    .await;
    let onlooker = Onlooker::new(&admin);
    let begun = Instant::now();
    admin.drain_node("b", false).await.unwrap();
    drained(&admin, "b").await;
    println!("drained after {:?}", begun.elapsed());
    assert!(!load.is_finished(), "it was drained under load");
    assert_eq!((world.held("b"), world.nodes["b"].node.sessions()), (0, 0));
    let report = load.await.unwrap();
    println!("{report}");
    assert!(report.passed && report.refused == 0 && report.published == report.acknowledged, "{report}");
    assert!(report.moves > 0 && report.moves == report.reconnects, "nobody was offline: {report}");
    assert!(onlooker.verdict());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_drained_and_is_filled_again_when_that_is_taken_back() {
    let world = World::led(&ABC).await;
    let leader = world.coordination.leader().borrow().clone().unwrap().node.0;
    let other = if leader == "a" { "b" } else { "a" };
    let admin = world.admin(other).await;
    let talker = world.client("ann", &leader).await;
    let onlooker = Onlooker::new(&talker);
    let group = GroupId::named("talk");
    talker.create(group, wire::Settings::default(), &[]).await.unwrap();
    let mut heard = talker.follow(group, Start::Join).await.unwrap();
    admin.drain_node(&leader, false).await.unwrap();
    admin.drain_node(&leader, false).await.unwrap();
    for number in 0..50 {
        talker.publish(group, number.to_string()).await.unwrap();
        assert_eq!(hear(&mut heard).await.1, number.to_string());
    }
    drained(&admin, &leader).await;
    assert_eq!(world.coordination.leader().borrow().clone().unwrap().node.0, leader, "it still leads");
    let share = usize::from(PARTITIONS) / 2;
    assert!(ABC.iter().all(|(name, _)| *name == leader || world.held(name) == share), "evenly");
    assert!(world.client("eve", other).await.cluster().await.is_err(), "for administrators");

    admin.drain_node(&leader, true).await.unwrap();
    let share = usize::from(PARTITIONS) / 3;
    until("it takes part again", async || world.held(&leader) >= share).await;
    assert_eq!(state_of(&admin, &leader).await.state(), NodeState::Up);
    world.client("bob", &leader).await;
    assert!(onlooker.verdict() && talker.stats().moves == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_take_over_is_not_drained() {
    let access = Roles { access: true, group: false, coordination: false };
    let world = World::led(&[("a", Roles::ALL), ("b", access)]).await;
    let admin = world.admin("b").await;
    let refused = async |node: &str| match admin.drain_node(node, false).await {
        Err(RequestError::Refused(refusal)) => (refusal.code, refusal.reason),
        other => panic!("{other:?}"),
    };
    let (code, reason) = refused("a").await;
    assert!(code == Code::BadRequest && reason.contains("roles that a has"), "{reason}");
    assert!(refused("nowhere").await.1.contains("no node nowhere"));
    admin.drain_node("b", false).await.unwrap();
    until("its only client has left", async || world.nodes["b"].node.sessions() == 0).await;
}

/// A wish to empty a node does not shut the last door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_takes_clients_again_when_no_other_does() {
    let mut world = World::led(&[("a", Roles::ALL), ("b", Roles::ALL)]).await;
    let admin = world.admin("b").await;
    let ann = world.client("ann", "a").await;
    admin.drain_node("a", false).await.unwrap();
    drained(&admin, "a").await;
    assert!(world.nodes["a"].node.load().is_draining && ann.stats().moves == 1);
    let alone = world.nodes.remove("b");
    drop((alone, admin));
    until("it takes clients", async || !world.nodes["a"].node.load().is_draining).await;
    let bob = timeout(PATIENCE, Client::connect(world.config("bob", "a", false))).await.unwrap().unwrap();
    until("it has what the other left", async || world.held("a") == usize::from(PARTITIONS)).await;
    bob.create(GroupId::named("still"), wire::Settings::default(), &[]).await.unwrap();
    world.start("b", Roles::ALL).await;
    world.takes_part("b", Roles::ALL);
    until("it is emptied after all", async || world.nodes["a"].node.load().is_draining).await;
    until("its client has left", async || world.nodes["a"].node.sessions() == 0).await;
}

/// A client that says hello and nothing more, whatever it is told.
async fn deaf(world: &World, node: &str) -> (Connection, impl Sized) {
    let mut tls =
        shoal_client::tls_from_ca(&std::fs::read_to_string(world.dir.path().join("ca.pem")).unwrap())
            .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let quic = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting =
        endpoint.connect_with(quic, world.address(node).parse().unwrap(), shoal_certs::NODE_NAME).unwrap();
    let connection = connecting.await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let hello = wire::Hello {
        version_min: VERSION,
        version_max: VERSION,
        token: world.token("deaf", false),
        device: 7,
        ..Default::default()
    };
    let body = Some(wire::to_node::Body::Hello(hello));
    send.write_chunk(frame::encode(&wire::ToNode { body })).await.unwrap();
    let mut frames = FrameBuffer::new(FRAME_BYTES_MAX);
    let welcome = loop {
        frames.push(recv.read_chunk(1 << 16, true).await.unwrap().unwrap().bytes);
        if let Some(frame) = frames.next_message::<wire::ToClient>().unwrap() {
            break frame.body;
        }
    };
    let Some(wire::to_client::Body::Welcome(welcome)) = welcome else { panic!("{welcome:?}") };
    let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|other| *other != node).collect();
    assert_eq!(welcome.nodes[0], world.address(node));
    assert!(others.iter().all(|other| welcome.nodes.contains(&world.address(other))), "{welcome:?}");
    (connection, (endpoint, send, recv))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_leave_is_closed_and_nobody_else() {
    let mut world = World::empty().await;
    world.limits.access.leave_ms = 1_500;
    for (name, roles) in ABC {
        world.start(name, roles).await;
    }
    for (name, roles) in ABC {
        world.takes_part(name, roles);
    }
    world.settled().await;
    let (deaf, _kept_open) = deaf(&world, "a").await;
    let ann = world.client("ann", "a").await;
    let onlooker = Onlooker::new(&ann);
    let admin = world.admin("b").await;
    let begun = Instant::now();
    admin.drain_node("a", false).await.unwrap();
    let closed = timeout(PATIENCE, deaf.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else { panic!("{closed}") };
    assert_eq!(closed.error_code, Code::Draining.number().into());
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    drained(&admin, "a").await;
    ann.create(GroupId::named("still"), wire::Settings::default(), &[user("bob")]).await.unwrap();
    assert!(onlooker.verdict() && ann.stats().moves == 1);
}

/// Whoever is going hands over first, and its wish goes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_hands_over_and_one_of_its_name_takes_part_again() {
    let mut world = World::led(&ABC).await;
    let ann = world.client("ann", "a").await;
    let onlooker = Onlooker::new(&ann);
    let group = GroupId::named("going");
    ann.create(group, wire::Settings::default(), &[]).await.unwrap();
    let node = Arc::clone(&world.nodes["a"].node);
    timeout(3 * PATIENCE, node.hand_over()).await.unwrap();
    assert_eq!((world.held("a"), node.sessions()), (0, 0));
    ann.publish(group, "elsewhere").await.unwrap();
    drop(node);
    let shutdown = world.nodes.remove("a").unwrap().stop();
    timeout(PATIENCE, shutdown).await.unwrap();
    let key = "drain/a";
    assert_eq!(world.coordination.setting(key).await.unwrap(), None, "the wish has gone with it");

    world.coordination.compare_and_swap(key, 0, Some("of a life before".into())).await.unwrap().unwrap();
    world.start("a", Roles::ALL).await;
    world.takes_part("a", Roles::ALL);
    until("it takes part", async || world.held("a") >= usize::from(PARTITIONS) / 3).await;
    assert!(onlooker.verdict());
    sleep(Duration::from_millis(1)).await;
    assert!(world.coordination.nodes().borrow().contains_key(&named("a")));
}
