//! A client that a node knows says hello in early data, and what it has to say behind it: on a network without
//! faults, and on tokio's clock, a round trip takes what it takes exactly.

use std::{sync::Arc, time::Duration};

use shoal_client::{Client, Config, DeviceId, Follow, GroupId, Start};
use tokio::time::{Instant, sleep};

use crate::{
    net::{DELAY, MemoryTransport},
    world::{NODE, World, message, open_group},
};

/// How long a node is away.
const DOWN: Duration = Duration::from_secs(3);

const ROUND_TRIP: Duration = Duration::from_millis(2 * DELAY.as_millis() as u64);

/// A client whose connections can be hung up.
struct Phone {
    client: Client,
    transport: Arc<MemoryTransport>,
    group: GroupId,
}

impl Phone {
    async fn new(world: &World, change: impl FnOnce(&mut rustls::ClientConfig)) -> Self {
        let host = world.host();
        let transport = Arc::new(MemoryTransport::new(&world.net, host));
        let mut tls = (*world.keys.tls).clone();
        change(&mut tls);
        let config = Config::new([NODE.to_string()], tls, world.keys.token("ada"), DeviceId(1));
        let config = config.transport(transport.clone()).seed(1);
        let client = Client::connect(config).await.unwrap();
        let group = GroupId::named("early");
        client.create(group, open_group(), &[]).await.unwrap();
        client.publish(group, "one").await.unwrap();
        Self { client, transport, group }
    }

    /// From when a connection that was hung up is begun anew until somebody hears what was to be said.
    async fn first_word(&self, bobs: &mut Follow, text: &'static str) -> Duration {
        self.transport.hang_up();
        let receipt = self.client.send(self.group, text).await.unwrap();
        let said = message(bobs).await;
        let heard = Instant::now();
        assert_eq!(said.1, text);
        receipt.await.unwrap();
        heard - self.transport.begun()
    }
}

async fn bob(world: &World, group: GroupId) -> (Client, Follow) {
    let bob = world.client("bob").await;
    bob.join(group).await.unwrap();
    let mut follow = bob.follow(group, Start::Join).await.unwrap();
    bob.publish(group, "hello").await.unwrap();
    assert_eq!(message(&mut follow).await.1, "hello");
    (bob, follow)
}

#[tokio::test(start_paused = true)]
async fn a_first_message_arrives_a_round_trip_earlier_in_early_data() {
    let mut took = Vec::new();
    for is_early in [true, false] {
        let world = World::new().await;
        let phone = Phone::new(&world, |tls| tls.enable_early_data = is_early).await;
        let (_bob, mut bobs) = bob(&world, phone.group).await;
        took.push(phone.first_word(&mut bobs, "two").await);
        assert_eq!(phone.client.stats().early_sessions, u64::from(is_early));
    }
    let (early, late) = (took[0], took[1]);
    println!("a round trip takes {ROUND_TRIP:?}; a first word {early:?} in early data, {late:?} without");
    assert!((late - early).abs_diff(ROUND_TRIP) < Duration::from_millis(2), "{early:?} {late:?}");
    assert!(early < 2 * ROUND_TRIP, "half of one to the node, and half of one to bob: {early:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_forgotten_its_clients_is_said_hello_to_again() {
    let mut world = World::new().await;
    let phone = Phone::new(&world, |_| {}).await;
    let (_bob, mut bobs) = bob(&world, phone.group).await;
    for (nth, text) in ["two", "three", "four"].into_iter().enumerate() {
        world.crash();
        sleep(DOWN).await;
        world.start().await;
        let receipt = phone.client.send(phone.group, text).await.unwrap();
        assert_eq!(message(&mut bobs).await.1, text, "once, and in order");
        receipt.await.unwrap();
        let stats = phone.client.stats();
        assert_eq!((stats.early_sessions, stats.reconnects), (0, nth as u64 + 1));
    }
    phone.first_word(&mut bobs, "five").await;
    assert_eq!(phone.client.stats().early_sessions, 1, "it knows it again");
}
