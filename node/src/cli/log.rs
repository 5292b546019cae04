//! The log, to standard error.

use std::io::{self, IsTerminal};

use anyhow::Context;
use shoal_node::config::LogFormat;
use tracing_subscriber::{EnvFilter, reload};

/// What is logged, of a log that has started.
pub(super) struct Filter(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Filter {
    /// From now on this is logged. What is no filter changes nothing.
    pub(super) fn set(&self, filter: &str) {
        let set = EnvFilter::try_new(filter).map_err(anyhow::Error::from);
        if let Err(error) = set.and_then(|filter| Ok(self.0(filter)?)) {
            tracing::warn!(filter, %error, "the log goes on as it was");
        }
    }
}

/// Starts to log what the filter lets through.
pub(super) fn init(filter: &str, format: LogFormat) -> anyhow::Result<Filter> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log: {filter:?} is no filter"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let (started, filter) = match format {
        LogFormat::Human => {
            let ansi = io::stderr().is_terminal();
            let builder = builder.with_ansi(ansi).with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Filter(Box::new(move |filter| handle.reload(filter))))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Filter(Box::new(move |filter| handle.reload(filter))))
        }
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    Ok(filter)
}
