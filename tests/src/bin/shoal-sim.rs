//! Runs simulated seeds by hand: `shoal-sim --seeds 0..1000`, or one with all that happens in it:
//! `shoal-sim --seed 17 --log`.

use std::{ops::Range, process::ExitCode, time::Instant};

use clap::Parser;
use shoal_tests::sim::{
    mutation::Mutation,
    plan::WeakNetwork,
    run::Options,
    seeds::{self, run_all},
    slowing::Slowing,
    strike::Strike,
};

/// Simulated runs of a node and twenty clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from one up to, not including, another.
    #[arg(long, value_name = "FROM..TO", default_value = "0..200", value_parser = seeds::parse)]
    seeds: Range<u64>,
    /// Print what happens, with its time.
    #[arg(long)]
    log: bool,
    /// Print what the node and the clients log (as RUST_LOG has it).
    #[arg(long)]
    trace: bool,
    /// So many nodes, whatever the seed says.
    #[arg(long)]
    nodes: Option<usize>,
    /// Hit a node at a step of a plan: every step × every victim, for each seed.
    #[arg(long)]
    strikes: bool,
    /// Slow a node while all else is well: the home, an owner and the leader, for each seed.
    #[arg(long, conflicts_with_all = ["strikes", "nodes"])]
    slowings: bool,
    /// Put all phones on a weak network while all else is well: every profile × every trouble, for each seed.
    #[arg(long, conflicts_with_all = ["strikes", "slowings", "nodes"])]
    networks: bool,
    /// Break something on purpose.
    #[arg(long, value_name = "WHAT")]
    mutation: Option<Mutation>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stdout).init();
    }
    let Arguments { mutation, nodes, log, .. } = arguments;
    let begun = Instant::now();
    let options = Options { mutation, nodes, log, ..Options::default() };
    let all: Vec<_> = if arguments.strikes {
        Strike::all().map(|strike| Options { strike: Some(strike), ..options }).collect()
    } else if arguments.slowings {
        Slowing::ALL.map(|slowing| Options { slowing: Some(slowing), ..options }).to_vec()
    } else if arguments.networks {
        WeakNetwork::all().map(|network| Options { network: Some(network), ..options }).collect()
    } else {
        vec![options]
    };
    let mut failed = 0;
    for options in &all {
        if all.len() > 1 {
            println!("{options:?}");
        }
        let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
        let reports = run_all(seeds, arguments.threads, *options, |report| print!("{report}"));
        failed += reports.iter().filter(|report| !report.is_clean()).count();
    }
    println!("{failed} failed, {:.1} s", begun.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
