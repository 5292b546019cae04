//! Two nodes that both take themselves for a group's home, because one of them has been told a
//! placement that is not so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_client::{Client, Follow, GroupId, Start, wire};
use shoal_node::{
    coordination::{
        Coordination, CoordinationError, InProcess, Leadership, NodeRecord, Nodes, Placed, Placement,
        Refused, Registration, Roles,
    },
    store::Setting,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::world::{PATIENCE, World, hear, named, user};

/// What is watched by a node that is told another placement than the one that holds.
struct Deceived {
    truth: InProcess,
    told: watch::Receiver<Arc<Placed>>,
}

#[async_trait]
impl Coordination for Deceived {
    async fn register(&self, node: NodeRecord) -> Result<Box<dyn Registration>, CoordinationError> {
        self.truth.register(node).await
    }

    fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.truth.nodes()
    }

    fn placement(&self) -> watch::Receiver<Arc<Placed>> {
        self.told.clone()
    }

    fn leader(&self) -> watch::Receiver<Option<Leadership>> {
        self.truth.leader()
    }

    async fn place(
        &self,
        leadership: &Leadership,
        expected: u64,
        placement: Placement,
    ) -> Result<Result<u64, Refused>, CoordinationError> {
        self.truth.place(leadership, expected, placement).await
    }

    async fn depose(&self, leadership: &Leadership) -> Result<(), CoordinationError> {
        self.truth.depose(leadership).await
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, CoordinationError> {
        self.truth.setting(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, CoordinationError> {
        self.truth.compare_and_swap(key, expected, value).await
    }

    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<watch::Receiver<Arc<BTreeMap<String, Setting>>>, CoordinationError> {
        self.truth.watch(prefix).await
    }
}

/// All partitions on one node.
fn all_on(name: &str, version: u64) -> Arc<Placed> {
    let capacities = BTreeMap::from([(named(name), 1)]);
    let nothing = Placement::default();
    Arc::new(Placed { version, placement: nothing.after(&nothing.balance(&capacities)) })
}

/// Everything is on `a`, and `b` is told whatever is sent.
async fn two() -> (World, watch::Sender<Arc<Placed>>) {
    let mut world = World::empty().await;
    world.start("a", Roles::ALL).await;
    let (tell, told) = watch::channel(all_on("a", 1));
    let deceived = Deceived { truth: world.coordination.clone(), told };
    world.start_with("b", Roles::ALL, Arc::new(deceived)).await;
    world.place(&["a"]).await;
    (world, tell)
}

async fn pair(world: &World, group: GroupId) -> [(Client, Follow); 2] {
    let (ann, bob) = (world.client("ann", "a").await, world.client("bob", "b").await);
    ann.create(group, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let anns = ann.follow(group, Start::Join).await.unwrap();
    let bobs = bob.follow(group, Start::Join).await.unwrap();
    [(ann, anns), (bob, bobs)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_busy_group_one_of_two_homes_writes_and_everybody_hears_everything() {
    const MESSAGES: usize = 200;
    let (world, tell) = two().await;
    let [ann, bob] = pair(&world, GroupId::named("busy")).await;
    let talk = |(client, mut follow): (Client, Follow)| async move {
        let group = GroupId::named("busy");
        let name = client.user().unwrap();
        let sending = tokio::spawn(async move {
            for number in 0..MESSAGES {
                client.publish(group, format!("{name} {number}")).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client
        });
        let mut heard = Vec::new();
        while heard.len() < 2 * MESSAGES {
            heard.push(hear(&mut follow).await);
        }
        drop(sending.await.unwrap());
        heard
    };
    let talking = [tokio::spawn(talk(ann)), tokio::spawn(talk(bob))];
    for (version, home) in [(2, "b"), (3, "a")] {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        tell.send_replace(all_on(home, version));
    }
    let mut heard = Vec::new();
    for talking in talking {
        heard.push(timeout(3 * PATIENCE, talking).await.unwrap().unwrap());
    }
    assert_eq!(heard[0], heard[1], "one order");
    let fenced = ["a", "b"].map(|name| world.nodes[name].metrics.fenced.get());
    let activations = ["a", "b"].map(|name| world.nodes[name].metrics.activations.get());
    assert!(fenced[0] > 0, "the one that was right was shut out for a while: {fenced:?}");
    // Each takes the group back once a second at most, not with each message.
    assert!(activations.iter().sum::<u64>() < 20, "{activations:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_quiet_group_the_home_that_was_replaced_finds_out() {
    let group = GroupId::named("quiet");
    let (world, tell) = two().await;
    let [(ann, mut anns), (bob, mut bobs)] = pair(&world, group).await;
    ann.publish(group, "first").await.unwrap();
    for follow in [&mut anns, &mut bobs] {
        assert_eq!(hear(follow).await.1, "first");
    }
    tell.send_replace(all_on("b", 2));
    // Nobody says anything at `a`, whose home is awake and believes that all is as it was.
    bob.publish(group, "from the other").await.unwrap();
    let sent = Instant::now();
    for follow in [&mut bobs, &mut anns] {
        assert_eq!(hear(follow).await.1, "from the other");
    }
    assert!(sent.elapsed() < Duration::from_secs(4), "found out after {:?}", sent.elapsed());
    ann.publish(group, "taken back").await.unwrap();
    for follow in [&mut anns, &mut bobs] {
        assert_eq!(hear(follow).await.1, "taken back");
    }
}
