//! `shoal config`: what a node would start with and whether it may; what running nodes go by.

mod live;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use shoal_node::config::{self, Config, Loaded, Override};

use super::{Shared, log_of_client, output::Output};

/// What nodes start with, and what running ones go by.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say whether a node would start with file, environment and flags.
    Check(Sources),
    /// Print all that a node would start with, as the file that would make it.
    Show(Sources),
    Get(live::Get),
    Set(live::Set),
    Unset(live::Unset),
    Watch(live::Watch),
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
            Self::Get(get) => log_of_client(shared).and_then(|()| get.run(output)),
            Self::Set(set) => log_of_client(shared).and_then(|()| set.run(output)),
            Self::Unset(unset) => log_of_client(shared).and_then(|()| unset.run(output)),
            Self::Watch(watch) => log_of_client(shared).and_then(|()| watch.run(output)),
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
