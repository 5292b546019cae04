//! Three nodes on real etcd and PostgreSQL, under load: drained, and restarted in good order. Every
//! delivery is judged by the load generator.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use shoal_engines::{Etcd, Postgres};
use shoal_loadgen::{Options, Report};
use shoal_tests::process::Machine;

use crate::{
    faults::{self, CLIENTS, assert_all_are_served},
    load::{assert_nothing_is_wrong, options, run},
};

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Machine>,
    pub(crate) etcd: Etcd,
    pub(crate) postgres: Postgres,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Nodes with these settings besides (`key=value`).
    pub(crate) fn with(besides: &[&str]) -> Self {
        Self::with_each([besides; 3])
    }

    /// The same, each with its own.
    pub(crate) fn with_each(besides: [&[&str]; 3]) -> Self {
        let (etcd, postgres) = (Etcd::start(), Postgres::start());
        let settings = [
            format!("coordination.etcd={}", etcd.endpoint()),
            format!("store.postgres={}", postgres.url()),
            "peer_listen=127.0.0.1:0".to_owned(),
            "drain_grace_ms=2000".to_owned(),
        ];
        let [first, second, third] = besides.map(|besides| {
            settings.iter().map(String::as_str).chain(besides.iter().copied()).collect::<Vec<_>>()
        });
        let first = Machine::start(&first);
        let others = [first.start_beside(&second), first.start_beside(&third)];
        Self { nodes: [first].into_iter().chain(others).collect(), etcd, postgres }
    }

    /// Waits until each node has its share of the partitions.
    pub(crate) fn settle(&self) {
        let begun = Instant::now();
        let share = |node: &serde_json::Value| node["partitions"].as_u64().unwrap();
        loop {
            let cluster = self.nodes[0].command(&["node", "list"]);
            let nodes = cluster["nodes"].as_array().unwrap();
            let has_lease =
                |node: &serde_json::Value| node["lease_ms"].as_u64().is_some_and(|left| left <= 20_000);
            let is_spread = nodes.len() == self.nodes.len() && nodes.iter().all(|node| share(node) >= 341);
            if is_spread && nodes.iter().all(has_lease) {
                println!("settled after {:?}", begun.elapsed());
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{cluster}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sixty clients, spread over all nodes, for so long.
    fn load(&self, seconds: u64) -> JoinHandle<Report> {
        self.load_with(options(&self.nodes[0], seconds))
    }

    /// Clients spread over all nodes, once they are all there.
    pub(crate) fn load_with(&self, options: Options) -> JoinHandle<Report> {
        self.load_at(&self.nodes, options)
    }

    /// The same, spread over these.
    pub(crate) fn load_at(&self, nodes: &[Machine], mut options: Options) -> JoinHandle<Report> {
        options.clients.nodes = nodes.iter().map(|node| node.address().to_string()).collect();
        let clients: u32 = options.shapes.iter().map(|shape| shape.groups * shape.members).sum();
        let load = thread::spawn(move || run(options));
        while self.nodes.iter().map(|node| node.metric("shoal_sessions")).sum::<f64>() < f64::from(clients) {
            assert!(!load.is_finished(), "the load ended before all clients were there");
            thread::sleep(Duration::from_millis(20));
        }
        load
    }
}

pub(crate) fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn clients_of_three_nodes_hear_everything() {
    let cluster = Cluster::start();
    cluster.settle();
    let report = cluster.load(8).join().unwrap();
    assert_nothing_is_wrong(&report);
    for node in &cluster.nodes {
        assert!(node.metric("shoal_committed_total") > 0.0, "every node has homes");
    }
}

/// Each hands over what it does before it goes: none of six hundred is offline for a moment.
#[test]
fn a_rolling_restart_is_noticed_by_nobody() {
    let mut cluster = Cluster::start();
    cluster.settle();
    let before = faults::load(&cluster, 20).join().unwrap();
    let load = faults::load(&cluster, 40);
    // What a load begins with (groups made, members told) is not what is compared.
    pause(5);
    for node in &mut cluster.nodes {
        let begun = Instant::now();
        assert!(node.stop().success());
        println!("stopped after {:?}", begun.elapsed());
        node.up();
        pause(2);
    }
    assert!(!load.is_finished(), "all were restarted under load");
    let during = load.join().unwrap();
    assert_all_are_served(&before);
    assert_all_are_served(&during);
    assert!(during.moves >= CLIENTS && during.moves == during.reconnects, "nobody was offline: {during}");
    let (before, during) = (before.delivery_latency_ms, during.delivery_latency_ms);
    println!("delivered after: before {before}; during {during}");
}

#[test]
fn a_node_that_was_drained_is_safe_to_kill() {
    let mut cluster = Cluster::start();
    cluster.settle();
    let load = cluster.load(40);
    let [first, second, _] = cluster.nodes.as_mut_slice() else { panic!("three nodes") };
    let name = second.name().unwrap().to_owned();
    let done = first.command(&["drain", &name]);
    assert!(!load.is_finished(), "it was drained under load");
    assert_eq!((done["node"].as_str(), done["safe_to_remove"].as_bool()), (Some(&*name), Some(true)));
    assert_eq!(second.metric("shoal_sessions"), 0.0);
    second.kill();
    pause(1);
    second.up();
    let report = load.join().unwrap();
    assert_nothing_is_wrong(&report);
    assert!(report.moves > 0 && report.moves == report.reconnects, "nobody was offline: {report}");
    let status = second.command(&["status"]);
    let node =
        status["cluster"]["nodes"].as_array().unwrap().iter().find(|node| node["name"] == *name).unwrap();
    assert_eq!(node["state"], "up", "it takes part again: {node}");
    assert!(node["partitions"].as_u64().unwrap() > 0, "{node}");
}
