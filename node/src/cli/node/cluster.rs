//! The nodes of a cluster, for people and for programs.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use shoal_protocol::wire;
use wire::cluster_node::State;

use crate::cli::output;

/// All nodes.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Cluster {
    /// Who decides what is placed where; nobody between two elections.
    pub(in crate::cli) leader: Option<String>,
    /// Since which election.
    term: u64,
    /// The version of the placement.
    placement: u64,
    partitions: u32,
    /// How many nodes it would like to have.
    nodes_desired: u32,
    pub(in crate::cli) nodes: Vec<Node>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Node {
    pub(in crate::cli) name: String,
    /// up, draining, drained or gone.
    pub(in crate::cli) state: &'static str,
    roles: Vec<&'static str>,
    region: String,
    addresses: Vec<String>,
    capacity: u32,
    /// Its lease is held: the others see it.
    lease: bool,
    /// How much longer it lasts if it is not prolonged; null where it is not held, or never runs out.
    lease_ms: Option<u64>,
    pub(in crate::cli) partitions: u32,
    pub(in crate::cli) sessions: u64,
    /// How many it takes.
    sessions_max: u64,
    /// How busy it keeps its processors, in hundredths of all that it has, of late and roughly.
    processor_percent: u32,
    groups: u64,
    committed: u64,
    /// Records fed to other nodes, one copy for each that follows.
    fed: u64,
    /// Records received from homes on other nodes.
    received: u64,
    /// How old the oldest of these was when it came, of late.
    lag_ms: u64,
    /// The most records of one group that its home has and has not sent yet.
    lag_records: u64,
    /// The version of the placement by which it acts.
    placement: u64,
    /// It is slow, and emptied for that: since when, in milliseconds since 1970; null where it is not.
    slow_since_ms: Option<u64>,
    /// Who says so.
    slow_by: Vec<String>,
}

impl Cluster {
    /// A node by its name.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// One line for each node.
pub(in crate::cli) fn table(cluster: &Cluster) -> String {
    let mut table = output::table([
        "NODE",
        "STATE",
        "ROLES",
        "REGION",
        "CLIENTS AT",
        "LEASE",
        "PARTITIONS",
        "SESSIONS",
        "GROUPS",
        "COMMITTED",
        "FED",
        "RECEIVED",
        "LAG",
    ]);
    let row = |node: &Node| {
        let leads = cluster.leader.as_ref() == Some(&node.name);
        vec![
            node.name.clone() + if leads { " *" } else { "" },
            node.state.to_owned(),
            node.roles.join(" "),
            node.region.clone(),
            node.addresses.join(" "),
            lease(node),
            node.partitions.to_string(),
            node.sessions.to_string(),
            node.groups.to_string(),
            node.committed.to_string(),
            node.fed.to_string(),
            node.received.to_string(),
            lag(node),
        ]
    };
    let leads = if cluster.leader.is_some() { "* leads" } else { "nobody leads at the moment" };
    table.add_rows(cluster.nodes.iter().map(row));
    let slow: String = cluster.nodes.iter().filter_map(slow).collect();
    format!("{table}\n{leads}\n{}\n{slow}", copies(&cluster.nodes))
}

/// A line about one that is slow.
fn slow(node: &Node) -> Option<String> {
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(node.slow_since_ms?))?;
    let (name, since) = (&node.name, humantime::format_rfc3339_seconds(since));
    Some(format!("{name} is emptied: it is slow since {since}, as said by {}\n", node.slow_by.join(", ")))
}

fn lease(node: &Node) -> String {
    match node.lease_ms {
        _ if !node.lease => "run out".into(),
        Some(left_ms) => format!("{} s left", left_ms.div_ceil(1_000)),
        None => "held".into(),
    }
}

fn lag(node: &Node) -> String {
    if node.received == 0 && node.lag_records == 0 {
        return "–".into();
    }
    format!("{} ms, {} records", node.lag_ms, node.lag_records)
}

/// As many as nodes follow, on average, besides the homes' own.
#[expect(clippy::cast_precision_loss, reason = "an average needs no more than 53 bits")]
fn copies(nodes: &[Node]) -> String {
    let sum = |count: fn(&Node) -> u64| nodes.iter().map(count).sum::<u64>();
    let (fed, committed) = (sum(|node| node.fed), sum(|node| node.committed));
    let each = fed as f64 / committed.max(1) as f64;
    format!("{fed} copies fed to other nodes of {committed} records committed: {each:.1} of each")
}

impl From<wire::Cluster> for Cluster {
    fn from(cluster: wire::Cluster) -> Self {
        Self {
            leader: Some(cluster.leader).filter(|leader| !leader.is_empty()),
            term: cluster.term,
            placement: cluster.placement,
            partitions: cluster.partitions,
            nodes_desired: cluster.nodes_desired,
            nodes: cluster.nodes.into_iter().map(Node::from).collect(),
        }
    }
}

impl From<wire::ClusterNode> for Node {
    fn from(node: wire::ClusterNode) -> Self {
        let state = match node.state() {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Draining => "draining",
            State::Drained => "drained",
            State::Gone => "gone",
        };
        let roles = [(node.access, "access"), (node.group, "group"), (node.coordination, "coordination")];
        Self {
            state,
            lease: node.state() != State::Gone,
            lease_ms: node.lease_ms,
            roles: roles.into_iter().filter_map(|(has, role)| has.then_some(role)).collect(),
            name: node.name,
            region: node.region,
            addresses: node.addresses,
            capacity: node.capacity,
            partitions: node.partitions,
            sessions: node.sessions,
            sessions_max: node.sessions_max,
            processor_percent: node.processor_percent,
            groups: node.groups,
            committed: node.committed,
            fed: node.fed,
            received: node.received,
            lag_ms: node.lag_ms,
            lag_records: node.lag_records,
            placement: node.placement,
            slow_since_ms: node.slow_since_ms,
            slow_by: node.slow_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: State, lease_ms: Option<u64>) -> wire::ClusterNode {
        wire::ClusterNode { name: name.into(), state: state.into(), lease_ms, ..Default::default() }
    }

    #[test]
    fn leases_lags_and_copies_are_shown() {
        let home = wire::ClusterNode { committed: 50, fed: 100, ..node("a", State::Up, Some(2_000)) };
        let behind =
            wire::ClusterNode { received: 50, lag_ms: 3, lag_records: 7, ..node("b", State::Up, None) };
        let slow_by = vec!["a".into(), "c".into()];
        let behind = wire::ClusterNode { slow_since_ms: Some(1_000), slow_by, ..behind };
        let nodes = vec![home, behind, node("c", State::Gone, None)];
        let cluster = Cluster::from(wire::Cluster { nodes, leader: "a".into(), ..Default::default() });
        let text = table(&cluster);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("a *") && lines[1].contains("2 s left"), "{text}");
        assert!(lines[2].contains("held") && lines[2].contains("3 ms, 7 records"), "{text}");
        assert!(lines[3].contains("run out") && lines[3].trim_end().ends_with('–'), "{text}");
        assert!(
            text.contains("100 copies fed to other nodes of 50 records committed: 2.0 of each"),
            "{text}"
        );
        let slow = "b is emptied: it is slow since 1970-01-01T00:00:01Z, as said by a, c";
        assert_eq!(text.matches("emptied").count(), 1);
        assert!(lines.contains(&slow), "{text}");
        let json = serde_json::to_value(&cluster).unwrap();
        assert_eq!(
            (&json["nodes"][0]["lease_ms"], &json["nodes"][2]["lease_ms"]),
            (&2_000.into(), &().into())
        );
        assert_eq!((&json["nodes"][0]["fed"], &json["nodes"][1]["lag_records"]), (&100.into(), &7.into()));
    }
}
