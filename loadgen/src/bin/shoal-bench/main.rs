//! Measures a node against what there is without it, in one run, in turn, on the same bytes: quinn
//! alone for deliveries and sessions, the disk alone for receipts.
//!
//! Each server is a process of its own; its CPU time and memory are what the kernel says. The other
//! end of all connections is this process.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use process::Kind;

mod bare;

mod cluster;

mod conditions;

mod echo;

mod endpoint;

mod fanout;

mod hop;

mod idle;

mod lone;

mod process;

mod raw;

mod results;

mod setup;

mod throughput;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, prints tables, and writes JSON
    Run(Run),
    /// The bare server, which `run` starts by itself
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        payload: usize,
    },
    /// What stands beside a link between nodes, which `run` starts by itself
    #[command(hide = true)]
    Echo {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        data: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// What to measure; everything where none is named
    measurements: Vec<Measurement>,
    /// The node's binary; the one beside this binary where none is named
    #[arg(long, value_name = "FILE")]
    shoal: Option<PathBuf>,
    /// Where the servers keep their data: a folder on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Rounds of each server, in turn; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds measured in each round
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle sessions
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// One server only: for a profiler, as there is nothing to compare
    #[arg(long)]
    only: Option<Kind>,
    /// Where to write the figures, with the conditions
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What all measurements share.
struct Bench {
    /// The node's binary.
    shoal: PathBuf,
    /// The folder in which servers keep their data.
    dir: PathBuf,
    /// In the order in which they take turns.
    kinds: Vec<Kind>,
    rounds: usize,
    measured: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// CPU and datagrams for each delivery
    Fanout,
    /// Memory for each idle session
    Idle,
    /// A lone sender's wait for the receipt
    Lone,
    /// Durable messages a second
    Throughput,
    /// What a hop between two nodes adds and carries, on an etcd and a PostgreSQL of their own
    Hop,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Run(run) => run.measure().await,
        Command::Bare { listen, data, payload } => bare::serve(listen, &data, payload).await,
        Command::Echo { listen, data } => echo::serve(listen, &data).await,
    }
}

impl Run {
    async fn measure(&self) -> Result<()> {
        let shoal = match &self.shoal {
            Some(shoal) => shoal.clone(),
            None => std::env::current_exe()?.with_file_name("shoal"),
        };
        let dir = self.dir.canonicalize().with_context(|| format!("no folder {}", self.dir.display()))?;
        let kinds = match self.only {
            Some(kind) => vec![kind],
            None => vec![Kind::Bare, Kind::Shoal],
        };
        let bench =
            Bench { shoal, dir, kinds, rounds: self.rounds, measured: Duration::from_secs(self.seconds) };
        let is_wanted = |measurement: &Measurement| {
            self.measurements.is_empty() || self.measurements.contains(measurement)
        };
        if is_wanted(&Measurement::Hop) {
            cluster::Cluster::ensure_engines()?;
        }
        let mut results = results::Results::new(conditions::Conditions::read(&bench.shoal, &bench.dir));
        for measurement in Measurement::value_variants() {
            match measurement {
                unwanted if !is_wanted(unwanted) => {}
                Measurement::Fanout => results.fanout(&bench).await?,
                Measurement::Idle => results.idle(&bench, self.sessions).await?,
                Measurement::Lone => results.lone(&bench).await?,
                Measurement::Throughput => results.throughput(&bench).await?,
                Measurement::Hop => results.hop(&bench).await?,
            }
        }
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&results)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
