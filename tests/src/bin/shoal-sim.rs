//! Runs simulated seeds by hand: `shoal-sim --seeds 0..1000`, or one with all that happens in it:
//! `shoal-sim --seed 17 --log`.

use std::{ops::Range, process::ExitCode, time::Instant};

use clap::Parser;
use shoal_tests::sim::{
    mutation::Mutation,
    run::{Options, run},
    seeds::{self, run_all},
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
    let options = Options { mutation: arguments.mutation, nodes: arguments.nodes, log: arguments.log };
    let begun = Instant::now();
    let failed = match arguments.seed {
        Some(seed) => {
            let report = run(seed, options);
            print!("{report}");
            usize::from(!report.is_clean())
        }
        None => {
            let reports = run_all(arguments.seeds, arguments.threads, options, |report| print!("{report}"));
            reports.iter().filter(|report| !report.is_clean()).count()
        }
    };
    println!("{failed} failed, {:.1} s", begun.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
