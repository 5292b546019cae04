use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{
    coordination::InProcess,
    store::{MemoryFault, MemoryStore},
};

const RATE: &str = "limits.group.member_rate_per_second";

/// Nodes of one cluster: what each has of its own is its own.
struct Cluster {
    store: MemoryStore,
    coordination: InProcess,
}

impl Cluster {
    async fn new() -> Self {
        let store = MemoryStore::new(1);
        let (coordination, writer) = InProcess::open(Arc::new(store.clone())).await.unwrap();
        tokio::spawn(writer.run());
        Self { store, coordination }
    }

    async fn node(&self, change: impl FnOnce(&mut Config)) -> Settings {
        let mut config = Config::default();
        change(&mut config);
        let origins = [("store.postgres".to_owned(), Origin::File)].into();
        let own = Loaded { config, origins, warnings: Vec::new() };
        Settings::begin(own, Arc::new(self.coordination.clone())).await.unwrap()
    }

    /// As another version would.
    async fn write(&self, key: &str, value: &'static str) {
        let key = format!("{PREFIX}{key}");
        self.coordination.compare_and_swap(&key, 0, Some(value.into())).await.unwrap().unwrap();
    }
}

fn rate(settings: &Settings) -> u32 {
    settings.config().limits.group.member_rate_per_second
}

fn entry(settings: &Settings, key: &str) -> wire::ConfigEntry {
    settings.shown().entries.into_iter().find(|entry| entry.key == key).unwrap()
}

#[tokio::test]
async fn what_is_set_through_one_node_is_gone_by_on_all_until_it_is_unset() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(|_| {}).await, cluster.node(|own| own.log = "debug".into()).await);
    a.change(RATE, Some("3")).await.unwrap();
    assert_eq!((rate(&a), rate(&b)), (3, 3));
    let shown = entry(&b, RATE);
    assert_eq!((shown.value.as_deref(), shown.origin()), (Some("3"), WireOrigin::Live));
    b.change(RATE, Some("4")).await.unwrap();
    assert_eq!((rate(&a), rate(&cluster.node(|_| {}).await)), (4, 4), "one that starts later, too");
    a.change(RATE, None).await.unwrap();
    a.change(RATE, None).await.unwrap();
    assert_eq!((rate(&a), rate(&b)), (200, 200));
    assert_eq!(entry(&b, RATE).origin(), WireOrigin::Default);
}

#[tokio::test]
async fn what_nodes_could_not_go_by_is_refused_and_not_recorded() {
    let cluster = Cluster::new().await;
    let node = cluster.node(|_| {}).await;
    for (key, value) in [(RATE, "many"), (RATE, "0"), ("listen", "127.0.0.1:1"), ("limits.moons", "1")] {
        let refused = node.change(key, Some(value)).await.unwrap_err();
        assert!(refused.code == Code::BadRequest && refused.reason.contains(key), "{refused}");
    }
    assert!(node.live().is_empty());
    assert_eq!(cluster.coordination.setting(&format!("{PREFIX}{RATE}")).await.unwrap(), None);
}

#[tokio::test]
async fn while_coordination_is_away_a_change_is_to_be_tried_again_and_what_held_holds() {
    let cluster = Cluster::new().await;
    let node = cluster.node(|_| {}).await;
    node.change(RATE, Some("3")).await.unwrap();
    cluster.store.disk().inject(MemoryFault::Stop);
    let refused = node.change(RATE, Some("4")).await.unwrap_err();
    assert!(refused.code == Code::Busy && refused.reason.contains("coordination is away"), "{refused}");
    assert_eq!(rate(&node), 3);
}

#[tokio::test]
async fn what_another_version_has_set_is_shown_and_not_gone_by() {
    let cluster = Cluster::new().await;
    let node = cluster.node(|_| {}).await;
    cluster.write("limits.group.moons", "9").await;
    cluster.write("limits.group.queue_max", "9").await;
    cluster.write(RATE, "[1, 2]").await;
    cluster.write("limits.group.idle_ms", "5000").await;
    let config = node.config();
    assert_eq!(config.limits.group.idle_ms, 5000);
    assert_eq!((rate(&node), config.limits.group.queue_max), (200, 4096));
    let ignored = |key: &str| entry(&node, key).ignored.unwrap();
    assert_eq!(ignored("limits.group.moons").why, "this version has no such setting");
    assert_eq!(ignored("limits.group.queue_max").value, "9");
    assert_eq!(ignored(RATE).value, "[1, 2]");
    assert_eq!(entry(&node, RATE).value.as_deref(), Some("200"));
    node.change("limits.group.moons", None).await.unwrap();
    assert!(node.shown().entries.iter().all(|entry| entry.key != "limits.group.moons"));
}

#[tokio::test]
async fn passwords_are_not_shown() {
    let cluster = Cluster::new().await;
    let node = cluster.node(|own| own.store.postgres = vec!["postgres://shoal:secret@db/shoal".into()]).await;
    let shown = entry(&node, "store.postgres");
    assert_eq!((shown.value, shown.origin), (None, WireOrigin::File.into()));
    assert!(!format!("{:?}", node.shown()).contains("secret"));
}

#[tokio::test]
async fn whoever_follows_acts_by_each_change() {
    let cluster = Cluster::new().await;
    let (node, other) = (cluster.node(|_| {}).await, cluster.node(|_| {}).await);
    let (acted, mut acts) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        let act = |config: &Config| acted.try_send(config.limits.group.member_rate_per_second).unwrap();
        node.follow(act).await
    });
    assert_eq!(acts.recv().await, Some(200));
    other.change(RATE, Some("3")).await.unwrap();
    assert_eq!(acts.recv().await, Some(3));
    other.change(RATE, None).await.unwrap();
    assert_eq!(acts.recv().await, Some(200));
}

/// It was shown what is live on one node, and waits on another.
#[tokio::test]
async fn whoever_waits_for_a_change_waits_for_another_than_they_know() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.node(|_| {}).await, cluster.node(|own| own.log = "debug".into()).await);
    let nothing = a.shown().live;
    assert_eq!(nothing, b.shown().live, "what a node has of its own makes no difference");
    let soon = Duration::from_millis(50);
    assert!(timeout(soon, b.changed_from(nothing)).await.is_err(), "nothing has changed");
    a.change(RATE, Some("3")).await.unwrap();
    timeout(soon, b.changed_from(nothing)).await.expect("it has changed before it was asked");
    let known = b.shown().live;
    let (waited, changed) =
        tokio::join!(timeout(Duration::from_secs(3), b.changed_from(known)), a.change(RATE, Some("4")));
    waited.expect("it changes while it is waited for");
    changed.unwrap();
}
