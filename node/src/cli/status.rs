//! `shoal status`: what a running node says of itself.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use shoal_protocol::wire;

use super::{connection, connection::Access, output::Output};

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
}

impl Status {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            let shown = Shown::from(connection.status().await?);
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
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

impl From<wire::Status> for Shown {
    fn from(status: wire::Status) -> Self {
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
        Self { node, version, uptime_ms, sessions, active_groups, committed, delivered, writable }
    }
}
