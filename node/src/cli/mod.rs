//! The commands: a node, its tokens, its groups, its state.

mod config;

mod connection;

mod dev_cluster;

mod events;

mod folder;

mod group;

mod log;

mod node;

mod output;

mod plan;

mod serve;

mod status;

mod token;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use shoal_node::{
    clock::{Clock as _, SystemClock},
    config::LogFormat,
};

use output::Output;

/// A messaging node over QUIC whose groups have no size limit.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    shared: Shared,
}

const EXAMPLES: &str = "\
Run a node, make a group, and see who is in it:
  shoal serve
  shoal group create '#general' --title General --owner ann --member bob
  shoal group members '#general'

A token for an app:
  shoal token --user ann --ttl 7d";

/// What every command takes.
#[derive(Debug, Args)]
struct Shared {
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// What to log, as a filter of tracing: info, shoal_node=debug,info.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How to log.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is told to stop.
    ///
    /// The first start makes keys and certificates in the data folder. SIGINT and SIGTERM drain
    /// the node: clients are told and get time to leave. A second signal stops it at once.
    Serve(serve::Serve),
    /// Make a token that says who a user is.
    Token(token::Token),
    /// Create groups, show them, and change who is in them.
    Group(group::Group),
    /// Show what a running node does, and the nodes beside it.
    Status(status::Status),
    /// Show what has happened on all nodes, and what does.
    Events(events::Events),
    /// Show the nodes of a cluster.
    Node(node::Node),
    /// Empty a node, so that it can be removed.
    ///
    /// Its groups and its clients go to other nodes, one after the other, and nobody notices. The wish
    /// stands, whatever becomes of this command, until the node goes in good order or starts anew, or
    /// until it is taken back.
    Drain(node::Drain),
    /// Show the plans that change how groups are cut into sub-groups, and start, halt or undo them.
    Plan(plan::Plan),
    /// Spread a group's sub-groups evenly over the nodes, by a plan.
    Rebalance(plan::Rebalance),
    /// Check and show what a node starts with; see and change what running ones go by.
    #[command(subcommand)]
    Config(config::Command),
    /// Run several nodes on this machine, for development.
    DevCluster(dev_cluster::DevCluster),
}

/// Where the node's data folder is, for commands that sign tokens.
#[derive(Debug, Clone, Args)]
struct DataFolder {
    /// The node's data folder, with the keys.
    #[arg(long, global = true, value_name = "DIR", env = "SHOAL_DATA", default_value = "shoal-data")]
    data: PathBuf,
}

/// Parses the command line and carries it out.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.shared.json);
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, output: Output) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(serve) => serve.run(&cli.shared),
        Command::Token(token) => token.run(output),
        Command::Group(group) => {
            log_of_client(&cli.shared)?;
            group.run(output)
        }
        Command::Status(status) => {
            log_of_client(&cli.shared)?;
            status.run(output)
        }
        Command::Events(events) => {
            log_of_client(&cli.shared)?;
            events.run(output)
        }
        Command::Node(node) => {
            log_of_client(&cli.shared)?;
            node.run(output)
        }
        Command::Drain(drain) => {
            log_of_client(&cli.shared)?;
            drain.run(output)
        }
        Command::Plan(plan) => {
            log_of_client(&cli.shared)?;
            plan.run(output)
        }
        Command::Rebalance(rebalance) => {
            log_of_client(&cli.shared)?;
            rebalance.run(output)
        }
        Command::Config(command) => command.run(&cli.shared, output),
        Command::DevCluster(cluster) => cluster.run(&cli.shared, output),
    }
}

/// Only what somebody asked for: the command says itself what went wrong.
fn log_of_client(shared: &Shared) -> anyhow::Result<()> {
    let filter = shared.log.clone().or_else(|| std::env::var("SHOAL_LOG").ok());
    log::init(filter.as_deref().unwrap_or("off"), shared.log_format.unwrap_or(LogFormat::Human)).map(drop)
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
}
