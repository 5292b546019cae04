//! Three nodes on real etcd and PostgreSQL, under load: killed, stopped in good order, deprived of
//! their engines. Every delivery is judged by the load generator.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use shoal_engines::{Etcd, Postgres};
use shoal_loadgen::Report;
use shoal_tests::process::Machine;

use crate::load::{assert_nothing_is_wrong, options, run};

/// Their sessions before anything is done to them.
const SESSIONS: f64 = 60.0;

struct Cluster {
    nodes: Vec<Machine>,
    etcd: Etcd,
    postgres: Postgres,
}

impl Cluster {
    fn start() -> Self {
        let (etcd, postgres) = (Etcd::start(), Postgres::start());
        let settings = [
            format!("coordination.etcd={}", etcd.endpoint()),
            format!("store.postgres={}", postgres.url()),
            "peer_listen=127.0.0.1:0".to_owned(),
            "drain_grace_ms=2000".to_owned(),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let first = Machine::start(&settings);
        let others = [first.start_beside(&settings), first.start_beside(&settings)];
        Self { nodes: [first].into_iter().chain(others).collect(), etcd, postgres }
    }

    /// Sixty clients, spread over all nodes, for so long.
    fn load(&self, seconds: u64) -> JoinHandle<Report> {
        let mut options = options(&self.nodes[0], seconds);
        options.nodes = self.nodes.iter().map(|node| node.address().to_string()).collect();
        let load = thread::spawn(move || run(options));
        while self.nodes.iter().map(|node| node.metric("shoal_sessions")).sum::<f64>() < SESSIONS {
            assert!(!load.is_finished(), "the load ended before all clients were there");
            thread::sleep(Duration::from_millis(20));
        }
        load
    }
}

fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn clients_of_three_nodes_hear_everything() {
    let cluster = Cluster::start();
    let report = cluster.load(8).join().unwrap();
    assert_nothing_is_wrong(&report);
    for node in &cluster.nodes {
        assert!(node.metric("shoal_committed_total") > 0.0, "every node has homes");
    }
}

#[test]
fn each_node_is_killed_in_turn_and_nothing_is_lost() {
    let mut cluster = Cluster::start();
    let load = cluster.load(36);
    for node in &mut cluster.nodes {
        pause(2);
        node.kill();
        pause(6);
        node.up();
    }
    assert_nothing_is_wrong(&load.join().unwrap());
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let mut cluster = Cluster::start();
    let load = cluster.load(30);
    for node in &mut cluster.nodes {
        pause(2);
        assert!(node.stop().success());
        node.up();
        pause(2);
    }
    assert_nothing_is_wrong(&load.join().unwrap());
}

#[test]
fn engines_that_are_killed_and_come_back_lose_nothing() {
    let mut cluster = Cluster::start();
    let load = cluster.load(24);
    pause(2);
    cluster.etcd.kill();
    pause(4);
    cluster.etcd.up();
    pause(3);
    cluster.postgres.kill();
    pause(2);
    cluster.postgres.up();
    assert_nothing_is_wrong(&load.join().unwrap());
}
