//! The nodes of a cluster, for people and for programs.

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
    pub(in crate::cli) partitions: u32,
    pub(in crate::cli) sessions: u64,
    groups: u64,
    committed: u64,
    /// Records received from homes on other nodes, one copy each.
    received: u64,
    /// How old the latest of these was when it came.
    lag_ms: u64,
    /// The version of the placement by which it acts.
    placement: u64,
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
        "PARTITIONS",
        "SESSIONS",
        "GROUPS",
        "COMMITTED",
        "COPIES",
        "LAG",
    ]);
    let row = |node: &Node| {
        let leads = cluster.leader.as_ref() == Some(&node.name);
        let lag = if node.received > 0 { format!("{} ms", node.lag_ms) } else { "–".into() };
        vec![
            node.name.clone() + if leads { " *" } else { "" },
            node.state.to_owned(),
            node.roles.join(" "),
            node.region.clone(),
            node.addresses.join(" "),
            node.partitions.to_string(),
            node.sessions.to_string(),
            node.groups.to_string(),
            node.committed.to_string(),
            node.received.to_string(),
            lag,
        ]
    };
    let leads = if cluster.leader.is_some() { "* leads" } else { "nobody leads at the moment" };
    table.add_rows(cluster.nodes.iter().map(row));
    format!("{table}\n{leads}\n")
}

impl From<wire::Cluster> for Cluster {
    fn from(cluster: wire::Cluster) -> Self {
        Self {
            leader: Some(cluster.leader).filter(|leader| !leader.is_empty()),
            term: cluster.term,
            placement: cluster.placement,
            partitions: cluster.partitions,
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
            roles: roles.into_iter().filter_map(|(has, role)| has.then_some(role)).collect(),
            name: node.name,
            region: node.region,
            addresses: node.addresses,
            capacity: node.capacity,
            partitions: node.partitions,
            sessions: node.sessions,
            groups: node.groups,
            committed: node.committed,
            received: node.received,
            lag_ms: node.lag_ms,
            placement: node.placement,
        }
    }
}
