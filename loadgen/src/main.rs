//! `shoal-loadgen`: loads a node and judges every delivery; exits with 1 where one is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use shoal_loadgen::{DayOptions, GrowOptions, Options, Report, follow_curve, plot};

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
        #[command(flatten)]
        out: Out,
    },
    /// Lets one group grow and shrink again while its members talk, and judges every delivery: to each
    /// all from its join on, and nothing from after its leave
    Grow {
        #[command(flatten)]
        options: GrowOptions,
        #[command(flatten)]
        out: Out,
    },
    /// The same along a day's curve of members and messages, compressed into minutes
    Day {
        #[command(flatten)]
        options: Box<DayOptions>,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Args)]
struct Out {
    /// Where to write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to draw what happened when, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse().command).await {
        Ok(report) if report.passed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shoal-loadgen: {error:#}");
            // Not a verdict: the run did not come about.
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> Result<Report> {
    let (report, out) = match command {
        Command::Run { options, out } => (shoal_loadgen::run(options).await?, out),
        Command::Grow { options, out } => {
            (follow_curve(&options.clients, options.bounds, &options.curve()).await?, out)
        }
        Command::Day { options, out } => {
            (follow_curve(&options.clients, options.bounds, &options.curve()).await?, out)
        }
    };
    println!("{report}");
    if let Some(path) = out.json {
        write(&path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = out.plot {
        write(&path, &plot::svg(&report))?;
    }
    Ok(report)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
