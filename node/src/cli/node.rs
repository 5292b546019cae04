//! `shoal node` and `shoal drain`: the nodes of a cluster, and emptying one.

mod cluster;

mod drain;

use clap::{Args, Subcommand};

use super::{
    connection::{self, Access},
    output::Output,
};
pub(super) use cluster::{Cluster, table};
pub(super) use drain::Drain;

/// The nodes of a cluster.
#[derive(Debug, Args)]
pub(super) struct Node {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all nodes, as any of them knows them.
    List,
}

impl Node {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let Command::List = self.command;
        connection::with(&self.access, async |connection| {
            let cluster = Cluster::from(connection.cluster().await?);
            Ok(output.show(&cluster, table)?)
        })
    }
}
