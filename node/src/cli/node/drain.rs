//! `shoal drain`: empties a node, and says when it is safe to remove.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::sleep;

use super::Cluster;
use crate::cli::{
    connection::{self, Access, Connection},
    output::Output,
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Looks at which it may be said to be up: nodes hear of the wish one after the other.
const LOOKS_UP_MAX: u32 = 20;

const STYLE: &str = "{bar:30} {msg}";

/// Empty a node: its groups and its clients go to other nodes, and nobody notices.
#[derive(Debug, Args)]
pub(in crate::cli) struct Drain {
    #[command(flatten)]
    access: Access,
    /// The node's name; see `shoal node list`.
    #[arg(value_name = "NAME")]
    name: String,
    /// Take it back: the node takes part again.
    #[arg(long)]
    cancel: bool,
}

/// What is left on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    partitions: u32,
    sessions: u64,
    is_done: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    node: String,
    cancelled: bool,
    safe_to_remove: bool,
}

impl Drain {
    pub(in crate::cli) fn run(self, output: Output) -> anyhow::Result<()> {
        let (name, cancelled) = (self.name, self.cancel);
        connection::with(&self.access, async |connection| {
            connection.drain(&name, cancelled).await?;
            if !cancelled {
                watch(connection, &name).await?;
            }
            let shown = Shown { node: name.clone(), cancelled, safe_to_remove: !cancelled };
            Ok(output.show(&shown, |shown| match shown.cancelled {
                true => format!("{} takes part again", shown.node),
                false => format!("{} is empty: it is safe to remove", shown.node),
            })?)
        })
    }
}

/// Shows what is left until nothing is.
async fn watch(connection: &Connection, name: &str) -> anyhow::Result<()> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(STYLE)?);
    let (mut first, mut looks_up) = (None, 0);
    loop {
        let Some(left) = left(&Cluster::from(connection.cluster().await?), name) else {
            looks_up += 1;
            let is_taken_back = looks_up > LOOKS_UP_MAX;
            anyhow::ensure!(!is_taken_back, "{name} is not drained any more: somebody has taken it back");
            sleep(LOOK).await;
            continue;
        };
        looks_up = 0;
        let (total, now) = (first.get_or_insert(left).total(), left.total());
        bar.set_length(total.max(now));
        bar.set_position(total.saturating_sub(now));
        bar.set_message(format!("{} partitions and {} sessions left", left.partitions, left.sessions));
        if left.is_done {
            bar.finish_and_clear();
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// What is left on a node; none where nobody wishes it empty. One that has gone has nothing left.
fn left(cluster: &Cluster, name: &str) -> Option<Left> {
    let Some(node) = cluster.node(name) else {
        return Some(Left { partitions: 0, sessions: 0, is_done: true });
    };
    let is_gone = node.state == "gone" && node.partitions == 0;
    let sessions = if is_gone { 0 } else { node.sessions };
    let left = Left { partitions: node.partitions, sessions, is_done: is_gone || node.state == "drained" };
    (node.state != "up").then_some(left)
}

impl Left {
    fn total(self) -> u64 {
        u64::from(self.partitions) + self.sessions
    }
}

#[cfg(test)]
mod tests {
    use shoal_protocol::wire::{self, cluster_node::State};

    use super::*;

    fn cluster(state: State, partitions: u32, sessions: u64) -> Cluster {
        let node = wire::ClusterNode {
            name: "a".into(),
            state: state.into(),
            partitions,
            sessions,
            ..Default::default()
        };
        wire::Cluster { nodes: vec![node], ..Default::default() }.into()
    }

    #[test]
    fn it_is_done_when_the_node_says_that_it_is_empty_or_has_gone_without_leaving_anything() {
        let is_done = |state, partitions| left(&cluster(state, partitions, 0), "a").unwrap().is_done;
        assert!(!is_done(State::Draining, 0), "it has not shut its door");
        assert!(is_done(State::Drained, 0));
        assert!(is_done(State::Gone, 0) && !is_done(State::Gone, 3));
        assert_eq!(left(&cluster(State::Up, 3, 3), "a"), None);
        assert!(left(&cluster(State::Up, 3, 3), "b").unwrap().is_done);
    }
}
