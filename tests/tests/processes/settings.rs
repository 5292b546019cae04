//! Settings that are changed while nodes run: they hold at once, on all nodes, and over restarts.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shoal_client::{Client, GroupId, wire};
use shoal_tests::process::Machine;

use crate::{chat::client, cluster::Cluster};

const RATE: &str = "limits.group.member_rate_per_second";
const BURST: &str = "limits.group.member_burst";

/// Longer than it takes nodes to hear of a change, also when etcd has just come back.
const PATIENCE: Duration = Duration::from_secs(60);

fn set(machine: &Machine, key: &str, value: &str) {
    assert_eq!(machine.command(&["config", "set", key, value])["from"], "live");
}

fn get(machine: &Machine, key: &str) -> Value {
    machine.command(&["config", "get", key])["value"].clone()
}

/// Waits until the node goes by this value.
fn until(machine: &Machine, key: &str, value: &Value) {
    let begun = Instant::now();
    while get(machine, key) != *value {
        assert!(begun.elapsed() < PATIENCE, "{key} is {}", get(machine, key));
    }
}

fn too_fast(machine: &Machine) -> f64 {
    machine.metric_or_zero("shoal_publishes_refused_total{code=\"TooFast\"}")
}

/// Publishes so many messages, each as soon as the one before is committed; how long that takes.
async fn publish(client: &Client, group: GroupId, messages: usize) -> Duration {
    let begun = Instant::now();
    for number in 0..messages {
        client.publish(group, format!("{number}")).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_rate_holds_from_the_moment_it_is_set() {
    let mut machine = Machine::start(&[]);
    let ann = client(&machine, "ann", 1).await;
    let group = GroupId::named("general");
    ann.create(group, wire::Settings::default(), &[]).await.unwrap();
    publish(&ann, group, 20).await;
    assert_eq!(too_fast(&machine), 0.0);
    set(&machine, BURST, "1");
    set(&machine, RATE, "2");
    let took = publish(&ann, group, 4).await;
    assert!(took > Duration::from_millis(1_400), "{took:?}");
    assert!(too_fast(&machine) > 0.0);

    machine.kill();
    machine.up();
    let took = publish(&ann, group, 4).await;
    assert!(took > Duration::from_millis(1_400), "it outlives a restart: {took:?}");

    for key in [RATE, BURST] {
        assert_eq!(machine.command(&["config", "unset", key])["from"], "default");
    }
    let before = too_fast(&machine);
    publish(&ann, group, 20).await;
    assert_eq!(too_fast(&machine), before);
}

/// `shoal config watch`, until it is dropped.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(machine: &Machine) -> Self {
        let mut command = machine.to_command(&["config", "watch"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_watch_shows_each_change_and_outlives_its_node() {
    let mut machine = Machine::start(&[]);
    let mut watch = Watch::start(&machine);
    // It says nothing of when it has begun: it has once it knows what held before.
    let begun = Instant::now();
    while machine.metric("shoal_requests_total") < 1.0 {
        assert!(begun.elapsed() < PATIENCE, "it does not ask");
        std::thread::sleep(Duration::from_millis(20));
    }
    set(&machine, RATE, "3");
    assert_eq!(watch.next(), json!({ "key": RATE, "value": 3 }));
    machine.kill();
    machine.up();
    set(&machine, "log", "shoal_node=warn");
    assert_eq!(watch.next(), json!({ "key": "log", "value": "shoal_node=warn" }));
    assert_eq!(machine.command(&["config", "unset", RATE])["value"], 200);
    assert_eq!(watch.next(), json!({ "key": RATE, "value": null }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_through_one_node_holds_on_all_whatever_becomes_of_nodes_and_etcd() {
    let mut cluster = Cluster::start();
    cluster.settle();
    set(&cluster.nodes[0], BURST, "1");
    set(&cluster.nodes[0], RATE, "2");
    for node in &cluster.nodes {
        until(node, RATE, &json!(2));
    }
    let ann = client(&cluster.nodes[1], "ann", 1).await;
    let group = GroupId::named("general");
    ann.create(group, wire::Settings::default(), &[]).await.unwrap();
    let took = publish(&ann, group, 4).await;
    assert!(took > Duration::from_millis(1_400), "{took:?}");

    let refused = cluster.nodes[2].refused(&["config", "set", RATE, "0"]);
    assert!(refused.contains(&format!("{RATE}: 0 is not allowed")), "{refused}");

    cluster.nodes[1].kill();
    cluster.nodes[1].up();
    assert_eq!(get(&cluster.nodes[1], RATE), 2, "it outlives a restart");

    cluster.etcd.kill();
    let refused = cluster.nodes[0].refused(&["config", "set", RATE, "9"]);
    assert!(refused.contains("coordination is away") && refused.contains("Busy"), "{refused}");
    for node in &cluster.nodes {
        assert_eq!(get(node, RATE), 2, "what held holds");
    }
    cluster.etcd.up();
    let begun = Instant::now();
    while !cluster.nodes[0].to_command(&["config", "set", RATE, "5"]).output().unwrap().status.success() {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    for node in &cluster.nodes {
        until(node, RATE, &json!(5));
    }
}
