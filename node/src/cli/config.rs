//! `shoal config`: what holds, and whether it may.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use shoal_node::config::{self, Config, Loaded, Override};

use super::{Shared, output::Output};

/// Check or show the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say whether a node would start with it.
    Check(Sources),
    /// Print all of it, as the file that would make it.
    Show(Sources),
}

/// Where settings come from, besides the environment.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// The file.
    #[arg(long, value_name = "FILE", env = "SHOAL_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Any setting, over file and environment; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(super) set: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Checked<'c> {
    file: Option<&'c Path>,
    warnings: &'c [String],
}

impl Command {
    pub(super) fn run(self, shared: &Shared, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Check(sources) => {
                let Loaded { warnings, .. } = sources.load(shared, Vec::new())?;
                let checked = Checked { file: sources.config.as_deref(), warnings: &warnings };
                let text = |checked: &Checked<'_>| {
                    let warned = checked.warnings.iter().map(|warning| format!("warning: {warning}\n"));
                    format!("{}good", warned.collect::<String>())
                };
                output.show(&checked, text).context("the result cannot be printed")
            }
            Self::Show(sources) => {
                let Loaded { config, .. } = sources.load(shared, Vec::new())?;
                output.show::<Config>(&config, config::to_toml).context("it cannot be printed")
            }
        }
    }
}

impl Sources {
    /// File, environment and flags; those of the command itself come last.
    pub(super) fn load(&self, shared: &Shared, flags: Vec<Override>) -> anyhow::Result<Loaded> {
        let set = self.set.iter().map(|(key, value)| Override {
            key: key.clone(),
            value: value.clone(),
            origin: format!("--set {key}={value}"),
        });
        let format = shared.log_format.and_then(|format| clap::ValueEnum::to_possible_value(&format));
        let log = [
            shared.log.as_ref().map(|filter| flag("log", filter, "--log")),
            format.map(|format| flag("log_format", format.get_name(), "--log-format")),
        ];
        let all = set.chain(log.into_iter().flatten()).chain(flags).collect();
        // A variable that is no text is none of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(config::load(self.config.as_deref(), environment, all)?)
    }
}

/// A flag that sets a key.
pub(super) fn flag(key: &str, value: &str, origin: &str) -> Override {
    Override { key: key.into(), value: value.into(), origin: origin.into() }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not of the form KEY=VALUE")?;
    Ok((key.trim().into(), value.trim().into()))
}
