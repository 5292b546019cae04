//! A first message in early data (0-RTT) beside one without, to a real node over a path of 200 ms.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use shoal_client::{Client, Follow, GroupId, Start, Transport, wire};
use shoal_network::{Conditions, Profile, Relay, Trouble, Weather, profile::Stage};
use shoal_tests::process::Machine;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::chat::{client, config, user};

const PATIENCE: Duration = Duration::from_secs(20);

const ONE_WAY: Duration = Duration::from_millis(100);

const FAR: Profile = Profile {
    name: "far",
    about: "200 ms for a round trip, and nothing else",
    source: "chosen: the path that the promise is given for",
    stages: &[Stage {
        lasts: Duration::from_secs(3600),
        up: Conditions { delay: ONE_WAY, ..Conditions::CLEAR },
        down: Conditions { delay: ONE_WAY, ..Conditions::CLEAR },
        is_dark: false,
        moves: false,
    }],
};

/// First messages of each kind.
const TIMES: usize = 5;

/// A machine that does other things as well is so late at times.
const LATE: Duration = Duration::from_millis(80);

/// A socket whose connections can be hung up; and when the latest of them was begun.
#[derive(Debug)]
struct Phone(Mutex<(Endpoint, Instant)>);

impl Phone {
    fn new() -> Self {
        Self(Mutex::new((endpoint(), Instant::now())))
    }

    fn begun(&self) -> Instant {
        self.0.lock().unwrap().1
    }

    fn hang_up(&self) {
        let gone = std::mem::replace(&mut self.0.lock().unwrap().0, endpoint());
        gone.close(0_u32.into(), b"");
    }
}

fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap()
}

impl Transport for Phone {
    fn endpoint(&self, _: SocketAddr) -> io::Result<Endpoint> {
        let (endpoint, begun) = &mut *self.0.lock().unwrap();
        *begun = Instant::now();
        Ok(endpoint.clone())
    }
}

/// What a first message takes from the beginning of its connection until somebody at the node has it, in the
/// order of length.
async fn first_messages(
    machine: &Machine,
    relay: &Relay,
    group: GroupId,
    bobs: &mut Follow,
    is_early: bool,
) -> Vec<Duration> {
    let phone = Arc::new(Phone::new());
    let config = config(machine, "ann", u64::from(is_early), [relay.address().to_string()], |tls| {
        tls.enable_early_data = is_early;
    });
    let ann = Client::connect(config.transport(phone.clone())).await.unwrap();
    ann.publish(group, "I am here").await.unwrap();
    let mut took = Vec::new();
    for _ in 0..TIMES {
        // The node's tickets are on their way.
        sleep(4 * ONE_WAY).await;
        hear_all(bobs).await;
        phone.hang_up();
        let receipt = ann.send(group, "and again").await.unwrap();
        timeout(PATIENCE, bobs.next()).await.expect("in time").expect("it goes on").expect("a record");
        took.push(phone.begun().elapsed());
        receipt.await.unwrap();
    }
    let stats = ann.stats();
    assert_eq!(
        (stats.reconnects, stats.early_sessions),
        (TIMES as u64, if is_early { TIMES as u64 } else { 0 })
    );
    took.sort();
    took
}

/// Reads what is there.
async fn hear_all(follow: &mut Follow) {
    while timeout(Duration::from_millis(20), follow.next()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_in_early_data_saves_a_round_trip_of_200_ms() {
    let machine = Machine::start(&[]);
    let (changed, _) = watch::channel(None);
    let weather = |_| Weather::new(&FAR, Trouble::Steady, Duration::ZERO);
    let relay = Relay::start(machine.address(), 1, Instant::now(), changed, weather).unwrap();
    let (group, bob) = (GroupId::named("far"), client(&machine, "bob", 1).await);
    bob.create(group, wire::Settings::default(), &[user("ann")]).await.unwrap();
    let mut bobs = bob.follow(group, Start::Join).await.unwrap();
    let mut took = Vec::new();
    for is_early in [true, false] {
        took.push(first_messages(&machine, &relay, group, &mut bobs, is_early).await);
    }
    let median = |took: &[Duration]| took[took.len() / 2];
    let (early, late) = (median(&took[0]), median(&took[1]));
    println!("a first message: {early:?} in early data, {late:?} without ({took:?})");
    assert!(early <= ONE_WAY + LATE, "half a round trip: {early:?}");
    assert!((late - early).abs_diff(2 * ONE_WAY) <= LATE, "a round trip: {:?}", late - early);
}
