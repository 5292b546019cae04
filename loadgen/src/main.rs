//! `shoal-loadgen`: loads a node and judges every delivery; exits with 1 where one is wrong.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use shoal_loadgen::{Options, Report};

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
    /// Runs a load, tells what it came to, and fails if one message was lost, doubled, out of order
    /// or corrupt
    Run {
        #[command(flatten)]
        options: Options,
        /// Where to write the report as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let Command::Run { options, json } = Arguments::parse().command;
    match run(options, json).await {
        Ok(report) if report.passed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shoal-loadgen: {error:#}");
            // Not a verdict: the run did not come about.
            ExitCode::from(2)
        }
    }
}

async fn run(options: Options, json: Option<PathBuf>) -> Result<Report> {
    let report = shoal_loadgen::run(options).await?;
    println!("{report}");
    if let Some(path) = json {
        std::fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}
