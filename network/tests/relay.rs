//! What comes through the relay, between real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use shoal_network::{Profile, Relay, Weather, weather::Trouble};
use tokio::{
    net::UdpSocket,
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};

/// A node that says everything twice as loud: each payload comes back doubled. It notes who sends.
struct Node {
    address: SocketAddr,
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
    socket: Arc<UdpSocket>,
}

async fn node() -> Node {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (address, seen) = (socket.local_addr().unwrap(), Arc::<Mutex<BTreeSet<_>>>::default());
    let (serving, noting) = (socket.clone(), seen.clone());
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((bytes, from)) = serving.recv_from(&mut buffer).await {
            noting.lock().await.insert(from);
            let _ = serving.send_to(&buffer[..bytes].repeat(2), from).await;
        }
    });
    Node { address, seen, socket }
}

fn weather(name: &str, trouble: Trouble) -> impl Fn(u64) -> Weather + Send + 'static {
    let profile = Profile::named(name).unwrap();
    move |_| Weather::new(profile, trouble, Duration::ZERO)
}

async fn client() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Whether something comes within that time.
async fn hear(client: &UdpSocket, within: Duration) -> Option<Vec<u8>> {
    let mut buffer = [0; 4096];
    let (bytes, _) = timeout(within, client.recv_from(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..bytes].to_vec())
}

#[tokio::test]
async fn what_is_sent_comes_back_after_a_round_trip_to_whom_it_is_for() {
    let node = node().await;
    let relay = Relay::start(
        node.address,
        1,
        Instant::now(),
        watch::Sender::new(None),
        weather("clear", Trouble::Steady),
    )
    .unwrap();
    let (ann, bob) = (client().await, client().await);
    let begun = Instant::now();
    ann.send_to(b"ann", relay.address()).await.unwrap();
    bob.send_to(b"bob", relay.address()).await.unwrap();
    assert_eq!(hear(&ann, Duration::from_secs(5)).await.unwrap(), b"annann");
    assert!(begun.elapsed() >= Duration::from_millis(10), "five milliseconds each way");
    assert_eq!(hear(&bob, Duration::from_secs(5)).await.unwrap(), b"bobbob");
    assert_eq!(node.seen.lock().await.len(), 2, "each has an address of their own");
    let stats = relay.stats();
    assert_eq!((stats.up, stats.down, stats.bytes, stats.lost), (2, 2, 18, 0));
}

#[tokio::test]
async fn a_network_that_moves_leads_to_other_addresses_and_nobody_hears_at_the_old_one() {
    let node = node().await;
    let every = Duration::from_millis(200);
    let relay = Relay::start(
        node.address,
        1,
        Instant::now(),
        watch::Sender::new(None),
        weather("clear", Trouble::Moves { every }),
    )
    .unwrap();
    let ann = client().await;
    let begun = Instant::now();
    while begun.elapsed() < every * 6 {
        ann.send_to(b"on", relay.address()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    let seen = node.seen.lock().await.clone();
    assert!((5..=7).contains(&seen.len()), "{seen:?}");
    assert!(seen.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>().len() > 1, "other addresses, too");
    while hear(&ann, Duration::from_millis(100)).await.is_some() {}
    for old in seen {
        node.socket.send_to(b"late", old).await.unwrap();
    }
    assert_eq!(hear(&ann, Duration::from_millis(300)).await, None, "these were the addresses before");
    ann.send_to(b"here", relay.address()).await.unwrap();
    assert_eq!(hear(&ann, Duration::from_secs(5)).await.unwrap(), b"herehere");
}

#[tokio::test]
async fn nothing_passes_in_the_dark_and_everything_after_it() {
    let node = node().await;
    let (every, lasts) = (Duration::from_millis(300), Duration::from_millis(250));
    let dark = Trouble::Blackouts { every, lasts };
    let changed = watch::Sender::new(None);
    let relay =
        Relay::start(node.address, 1, Instant::now(), changed.clone(), weather("clear", dark)).unwrap();
    let (ann, begun) = (client().await, Instant::now());
    ann.send_to(b"before", relay.address()).await.unwrap();
    assert!(hear(&ann, Duration::from_secs(5)).await.is_some());
    assert_eq!(*changed.borrow(), None);
    sleep(Duration::from_millis(400) - begun.elapsed()).await;
    ann.send_to(b"in the dark", relay.address()).await.unwrap();
    assert_eq!(hear(&ann, Duration::from_millis(170)).await, None, "it is lost, not late");
    ann.send_to(b"after", relay.address()).await.unwrap();
    assert_eq!(hear(&ann, Duration::from_secs(5)).await.unwrap(), b"afterafter");
    assert_eq!(relay.stats().lost, 1);
    let change = changed.borrow().expect("it has become light").duration_since(begun);
    assert!((Duration::from_millis(500)..Duration::from_millis(600)).contains(&change), "{change:?}");
}
