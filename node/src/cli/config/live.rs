//! `shoal config get`, `set`, `unset` and `watch`: the settings that running nodes go by.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};
use shoal_protocol::wire::{self, config_entry::Origin};
use toml::{Value, de::ValueDeserializer};

use crate::cli::{
    connection::{self, Access, Connection},
    output::{Hinted, Output, table},
};

/// Show the settings that a running node goes by, and where each comes from.
#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    #[command(flatten)]
    access: Access,
    /// One of them; all where none is named.
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

/// Set a value for all nodes, while they run.
///
/// It stands above every node's own file, environment and flags, and outlives restarts, until it is
/// unset.
#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    access: Access,
    /// The setting; `shoal config get` says which can be set.
    #[arg(value_name = "KEY")]
    key: String,
    /// Its value.
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
}

/// Take away what was set for all nodes: each goes by its own again.
#[derive(Debug, Args)]
pub(in crate::cli) struct Unset {
    #[command(flatten)]
    access: Access,
    /// The setting.
    #[arg(value_name = "KEY")]
    key: String,
}

/// Print what is set and unset for all nodes as it happens, until interrupted.
#[derive(Debug, Args)]
pub(in crate::cli) struct Watch {
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Setting {
    key: String,
    value: Option<Value>,
    from: &'static str,
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Ignored>,
}

/// What is set live, and the node does not go by.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Ignored {
    value: Value,
    why: String,
}

#[derive(Debug, Serialize)]
struct Settings {
    settings: Vec<Setting>,
}

/// What was set live; nothing: unset.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Change {
    key: String,
    value: Option<Value>,
}

impl Get {
    pub(in crate::cli) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            let mut settings = settings(&connection.config().await?);
            let Some(key) = &self.key else {
                return Ok(output.show(&Settings { settings }, |all| rows(&all.settings))?);
            };
            settings.retain(|setting| setting.key == *key);
            let setting = settings.first().ok_or_else(|| unknown(key))?;
            Ok(output.show(setting, |setting| rows(std::slice::from_ref(setting)))?)
        })
    }
}

impl Set {
    pub(in crate::cli) fn run(self, output: Output) -> anyhow::Result<()> {
        change(&self.access, output, &self.key, Some(&self.value))
    }
}

impl Unset {
    pub(in crate::cli) fn run(self, output: Output) -> anyhow::Result<()> {
        change(&self.access, output, &self.key, None)
    }
}

impl Watch {
    pub(in crate::cli) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            let mut before = connection.config().await?;
            loop {
                let now = connection.config_after(before.live).await?;
                for change in changes(&live(&before), &live(&now)) {
                    if !output.show_next(&change, said)? {
                        return Ok(());
                    }
                }
                before = now;
            }
        })
    }
}

/// Changes it, and shows what has become of it on the node that was asked.
fn change(access: &Access, output: Output, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    connection::with(access, async |connection: &Connection| {
        connection.set_config(key, value).await?;
        let settings = settings(&connection.config().await?);
        let setting = settings.iter().find(|setting| setting.key == key);
        let nothing = Setting { key: key.into(), value: None, from: "default", live: false, ignored: None };
        Ok(output.show(setting.unwrap_or(&nothing), |setting| rows(std::slice::from_ref(setting)))?)
    })
}

fn unknown(key: &str) -> Hinted {
    Hinted { message: format!("there is no setting {key:?}"), hint: "all of them: shoal config get".into() }
}

fn settings(config: &wire::Config) -> Vec<Setting> {
    config.entries.iter().map(setting).collect()
}

fn setting(entry: &wire::ConfigEntry) -> Setting {
    Setting {
        key: entry.key.clone(),
        value: entry.value.as_deref().map(value),
        from: match entry.origin() {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::Live => "live",
        },
        live: entry.may_change,
        ignored: entry
            .ignored
            .as_ref()
            .map(|ignored| Ignored { value: value(&ignored.value), why: ignored.why.clone() }),
    }
}

/// What is set live, whether the node goes by it or not.
fn live(config: &wire::Config) -> BTreeMap<String, Value> {
    let live = |setting: Setting| match (setting.ignored, setting.from) {
        (Some(ignored), _) => Some((setting.key, ignored.value)),
        (None, "live") => Some((setting.key, setting.value?)),
        _ => None,
    };
    settings(config).into_iter().filter_map(live).collect()
}

fn changes(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<Change> {
    let gone = before.keys().filter(|key| !now.contains_key(*key)).map(|key| (key, None));
    let set = now.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let all = gone.chain(set.map(|(key, value)| (key, Some(value))));
    all.map(|(key, value)| Change { key: key.clone(), value: value.cloned() }).collect()
}

/// A value of TOML. What a newer version has written, and is none to this one, is shown as text.
fn value(text: &str) -> Value {
    ValueDeserializer::parse(text).and_then(Value::deserialize).unwrap_or_else(|_| Value::from(text))
}

fn said(change: &Change) -> String {
    match &change.value {
        Some(value) => format!("{} = {value}", change.key),
        None => format!("{} is not set any more", change.key),
    }
}

fn rows(settings: &[Setting]) -> String {
    let mut rows = table(["SETTING", "VALUE", "FROM", "LIVE"]);
    for Setting { key, value, from, live, .. } in settings {
        let value = value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
        rows.add_row([key.as_str(), &value, from, if *live { "yes" } else { "no" }]);
    }
    let ignored = settings.iter().filter_map(|Setting { key, ignored, .. }| {
        let Ignored { value, why } = ignored.as_ref()?;
        Some(format!("\n{key} is set live to {value}, and this node does not go by it: {why}"))
    });
    rows.to_string() + &ignored.collect::<String>()
}
