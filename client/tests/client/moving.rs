//! A client whose address changes: with its knowledge, and without.

use std::{net::IpAddr, time::Duration};

use shoal_client::{Client, Follow, GroupId, Start};
use tokio::time::Instant;

use crate::{
    net::DELAY,
    world::{World, message, open_group},
};

const ROUND_TRIP: Duration = DELAY.saturating_mul(2);
/// As nodes ask for it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between ada's messages.
const PAUSE: Duration = Duration::from_millis(20);

/// A group in which ada talks and bob only listens, and the host that bob is on.
struct Talk {
    world: World,
    group: GroupId,
    ada: Client,
    bob: Client,
    host: IpAddr,
    heard: Follow,
}

impl Talk {
    async fn new() -> Self {
        let world = World::new().await;
        let group = GroupId::named("test");
        let ada = world.client("ada").await;
        ada.create(group, open_group(), &[]).await.unwrap();
        let host = world.host();
        let bob = Client::connect(world.config_at("bob", 1, host)).await.unwrap();
        bob.join(group).await.unwrap();
        let heard = bob.follow(group, Start::Join).await.unwrap();
        Self { world, group, ada, bob, host, heard }
    }

    /// Ada talks on for a while; when each of her messages came to bob, and that none is missing.
    async fn talk(&mut self, messages: usize) -> Vec<Duration> {
        let began = Instant::now();
        let talking = async {
            for number in 0..messages {
                self.ada.publish(self.group, format!("{number}")).await.unwrap();
                tokio::time::sleep(PAUSE).await;
            }
        };
        let listening = async {
            let mut came = Vec::new();
            for number in 0..messages {
                assert_eq!(message(&mut self.heard).await.1, format!("{number}"));
                came.push(began.elapsed());
            }
            came
        };
        tokio::join!(talking, listening).1
    }
}

#[tokio::test(start_paused = true)]
async fn who_knows_of_another_network_hears_on_within_three_round_trips() {
    let mut talk = Talk::new().await;
    for _ in 0..5 {
        talk.talk(10).await;
        talk.bob.network_changed().unwrap();
        let came = talk.talk(1).await[0];
        assert!(came <= ROUND_TRIP * 3, "{came:?}");
    }
    let stats = talk.bob.stats();
    assert_eq!((stats.migrations, stats.reconnects, stats.gaps_refilled), (5, 0, 0));
}

/// What is lost in between is sent again once the node knows where bob is.
#[tokio::test(start_paused = true)]
async fn who_only_listens_hears_on_a_heartbeat_after_a_nat_has_forgotten_them() {
    let mut talk = Talk::new().await;
    for _ in 0..3 {
        talk.talk(10).await;
        talk.world.net.forget(talk.host);
        let longest = HEARTBEAT + ROUND_TRIP;
        let messages = (longest.as_millis() / (PAUSE + ROUND_TRIP).as_millis()) as usize + 20;
        let came = talk.talk(messages).await;
        let silence = came.windows(2).map(|pair| pair[1] - pair[0]).chain([came[0]]).max().unwrap();
        assert!(silence <= longest, "{silence:?}");
    }
    assert_eq!(talk.bob.stats().reconnects, 0);
}
