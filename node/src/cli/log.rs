//! The log, to standard error.

use std::io::{self, IsTerminal};

use anyhow::Context;
use shoal_node::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts to log what the filter lets through.
pub(super) fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log: {filter:?} is no filter"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        LogFormat::Human => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}
