//! Three nodes on real etcd and PostgreSQL, six hundred clients, groups of 10, 300 and 2,000: every
//! kind of node is killed, one is paused for longer than its lease, one is slowed a hundred times, the
//! engines are restarted. Every delivery is judged by the load generator.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use shoal_loadgen::{Report, plan::Shape};
use shoal_tests::slowed::Slowed;

use crate::{
    cluster::{Cluster, pause},
    load::{assert_nothing_is_lost, options},
};

/// Ten groups of ten, one of three hundred, and one of two thousand of whom two hundred are there.
const SHAPES: [Shape; 3] =
    [Shape::new(10, 10), Shape::new(1, 300), Shape { groups: 1, members: 200, offline: 1800 }];

pub(crate) const CLIENTS: u64 = 600;

/// How long a node may be silent before another takes its place, in milliseconds.
const LEASE_MS: f64 = 3_000.0;

/// After a death messages are accepted again within the lease and a second; another is for a machine that
/// does many things at once.
const SENDS_AGAIN_MS: f64 = LEASE_MS + 2_000.0;

/// What was committed reaches those whose node lives within the silence after which a link is given up
/// (1.5 s), and what it takes to ask the store.
const LAG_MS: f64 = 3_000.0;

pub(crate) fn load(cluster: &Cluster, seconds: u64) -> JoinHandle<Report> {
    let mut options = options(&cluster.nodes[0], seconds);
    options.shapes = SHAPES.to_vec();
    options.rate = 60.0;
    cluster.load_with(options)
}

pub(crate) fn assert_all_are_served(report: &Report) {
    assert_nothing_is_lost(report);
    assert_eq!(report.connections, CLIENTS);
}

/// Those who were on it go elsewhere, and the others hear all the while what is said in groups whose
/// homes live.
#[test]
fn six_hundred_clients_outlive_the_death_of_a_node() {
    let mut cluster = Cluster::start();
    cluster.settle();
    let load = load(&cluster, 20);
    pause(4);
    cluster.nodes[1].kill();
    let report = load.join().unwrap();
    assert_all_are_served(&report);
    assert!(report.publish_latency_ms.max < SENDS_AGAIN_MS, "{report}");
    assert!(report.kept_lag_ms < LAG_MS, "{report}");
    assert!((1..CLIENTS).contains(&report.moved), "{report}");
}

/// Each has homes, owners and sessions, and one of them leads.
#[test]
fn six_hundred_clients_outlive_the_death_of_each_node_in_turn() {
    let mut cluster = Cluster::start();
    cluster.settle();
    let load = load(&cluster, 44);
    for at in 0..3 {
        pause(3);
        cluster.nodes[at].kill();
        pause(7);
        cluster.nodes[at].up();
        pause(3);
    }
    let report = load.join().unwrap();
    assert_all_are_served(&report);
    assert!(report.moved >= CLIENTS / 3, "{report}");
    for node in &cluster.nodes {
        assert!(node.metric("shoal_judged_total") > 0.0, "every node owns members");
    }
}

/// It comes back and believes for a moment that nothing has happened.
#[test]
fn a_node_that_is_paused_for_twice_its_lease_does_no_harm() {
    let cluster = Cluster::start();
    let load = load(&cluster, 24);
    pause(4);
    cluster.nodes[1].signal("STOP");
    thread::sleep(Duration::from_millis(2 * LEASE_MS as u64));
    cluster.nodes[1].signal("CONT");
    let report = load.join().unwrap();
    assert_all_are_served(&report);
}

/// What another node shows of this one; nothing where it is gone and has left nothing.
fn shown(cluster: &Cluster, at: usize) -> Value {
    let other = &cluster.nodes[(at + 1) % cluster.nodes.len()];
    let all = other.command(&["node", "list"]);
    let is_it = |node: &&Value| node["name"] == cluster.nodes[at].name().unwrap();
    all["nodes"].as_array().unwrap().iter().find(is_it).cloned().unwrap_or_default()
}

fn partitions(cluster: &Cluster, at: usize) -> u64 {
    shown(cluster, at)["partitions"].as_u64().unwrap_or_default()
}

fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(90), "in time: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    begun.elapsed()
}

/// Slows a node of a cluster under load: it is emptied, stays so, and takes part again when it is well.
fn slow_down(cluster: &Cluster, at: usize) {
    let load = load(cluster, 25);
    pause(4);
    let slowed = Slowed::begin(cluster.nodes[at].pid().unwrap());
    let took = until("it is emptied", || partitions(cluster, at) == 0);
    until("the others say why", || shown(cluster, at)["slow_since_ms"].is_u64());
    println!("emptied after {took:?}: {}", shown(cluster, at));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let filled = |seconds| {
        (0..seconds).any(|_| {
            pause(1);
            partitions(cluster, at) > 0
        })
    };
    assert!(!filled(8), "it is as slow as before");
    drop(slowed);
    let report = load.join().unwrap();
    assert_all_are_served(&report);
    assert!(report.kept_lag_ms < LAG_MS, "{report}");
    println!("filled again {:?} later", until("it takes part again", || partitions(cluster, at) > 0));
}

/// At times it is too late to prolong its lease, too: whatever it seems, it gets nothing to do.
#[test]
fn a_node_that_is_slowed_a_hundred_times_is_emptied_within_ten_seconds() {
    let cluster = Cluster::start();
    cluster.settle();
    slow_down(&cluster, 1);
}

/// Its lease never runs out.
#[test]
fn a_leader_that_is_slowed_a_hundred_times_is_deposed_and_emptied_within_ten_seconds() {
    let cluster = Cluster::with(&["coordination.lease_ms=20000"]);
    cluster.settle();
    let leader = cluster.nodes[0].command(&["node", "list"])["leader"].clone();
    let at = cluster.nodes.iter().position(|node| leader == node.name().unwrap()).unwrap();
    slow_down(&cluster, at);
}

#[test]
fn six_hundred_clients_outlive_their_engines() {
    let mut cluster = Cluster::start();
    let load = load(&cluster, 24);
    pause(3);
    cluster.etcd.kill();
    pause(4);
    cluster.etcd.up();
    pause(4);
    cluster.postgres.kill();
    pause(2);
    cluster.postgres.up();
    assert_all_are_served(&load.join().unwrap());
}
