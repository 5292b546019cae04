//! `shoal status`: what a running node says of itself, and of the nodes beside it.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use shoal_protocol::wire;

use super::{
    connection,
    connection::Access,
    node::{Cluster, table},
    output::Output,
};

/// Show what a running node does.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Serialize)]
struct Shown {
    node: String,
    version: String,
    uptime_ms: u64,
    sessions: u64,
    active_groups: u64,
    committed: u64,
    delivered: u64,
    writable: bool,
    cluster: Cluster,
}

impl Status {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            let cluster = connection.cluster().await?.into();
            let shown = Shown::new(connection.status().await?, cluster);
            output.show(&shown, text).context("output")
        })
    }
}

fn text(status: &Shown) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000)).to_string();
    let lines = [
        ("node", status.node.clone()),
        ("version", status.version.clone()),
        ("up for", uptime),
        ("store", if status.writable { "writes" } else { "DOES NOT WRITE: look into the log" }.into()),
        ("sessions", status.sessions.to_string()),
        ("groups", format!("{} awake", status.active_groups)),
        (
            "messages",
            format!("{} committed, {} delivered since the start", status.committed, status.delivered),
        ),
    ];
    let own: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    if status.cluster.nodes.len() < 2 { own } else { format!("{own}\n{}", table(&status.cluster)) }
}

impl Shown {
    fn new(status: wire::Status, cluster: Cluster) -> Self {
        let wire::Status {
            node,
            version,
            uptime_ms,
            sessions,
            active_groups,
            committed,
            delivered,
            writable,
        } = status;
        Self { node, version, uptime_ms, sessions, active_groups, committed, delivered, writable, cluster }
    }
}
