//! `shoal group feature`: what members are given by name, some of them first.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use shoal_protocol::{FeatureSlots, Features, wire};
use wire::{change::Body, set_feature::Slots};

use super::{Named, change};
use crate::cli::{
    connection::Connection,
    output::{Output, table},
};

/// What to do with a group's features.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Give some members a value, or all; who is not among them keeps what all had before.
    Set {
        #[command(flatten)]
        group: Named,
        /// 1 to 64 characters out of a-z 0-9 . _ -
        name: String,
        /// At most 256 bytes.
        value: String,
        #[command(flatten)]
        share: Share,
    },
    /// Take a feature from all.
    Clear {
        #[command(flatten)]
        group: Named,
        name: String,
    },
    /// List a group's features.
    List(Named),
}

/// To whom; to all, unless said otherwise.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Share {
    /// To the members that this sub-group has now, by its number from 0.
    #[arg(long, value_name = "NUMBER")]
    sub_group: Option<u32>,
    /// To so many in a hundred of the members, the same ones each time, and more of them for more.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: Option<u32>,
    /// To all.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Feature {
    name: String,
    value: String,
    #[serde(flatten)]
    slots: Shown,
    /// What all others have.
    #[serde(skip_serializing_if = "Option::is_none")]
    otherwise: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shown {
    Percent(u32),
    SubGroup { number: u16, of: u16 },
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Set { group, name, value, share } => {
                let said = format!("{name} is {value:?} for {} of {}", share.text(), group.group);
                let slots = share.slots();
                let body = Body::Feature(wire::SetFeature { name, value: Some(value), slots });
                change::one(connection, &group, body, output, said).await
            }
            Self::Clear { group, name } => {
                let said = format!("nobody in {} has {name}", group.group);
                let body = Body::Feature(wire::SetFeature { name, value: None, slots: None });
                change::one(connection, &group, body, output, said).await
            }
            Self::List(group) => list(connection, &group, output).await,
        }
    }
}

impl Share {
    fn slots(&self) -> Option<Slots> {
        self.sub_group.map(Slots::SubGroup).or(self.percent.map(Slots::Percent))
    }

    fn text(&self) -> String {
        match self.slots() {
            Some(Slots::SubGroup(number)) => format!("the members that sub-group {number} has now"),
            Some(Slots::Percent(percent)) => format!("{percent} % of the members"),
            None => "all members".into(),
        }
    }
}

async fn list(connection: &Connection, group: &Named, output: Output) -> anyhow::Result<()> {
    let found = connection.group(group.id()?).await?.features.unwrap_or_default();
    let features = Features::from_wire(&found);
    let features: Vec<Feature> = features.iter().map(|(name, feature)| shown(name, feature)).collect();
    output.show(&features, |features| features_table(features)).context("output")
}

fn shown(name: &str, feature: &shoal_protocol::Feature) -> Feature {
    let slots = match feature.slots {
        FeatureSlots::Percent(percent) => Shown::Percent(percent),
        FeatureSlots::SubGroup { number, of, .. } => Shown::SubGroup { number, of },
    };
    Feature { name: name.into(), value: feature.value.clone(), slots, otherwise: feature.otherwise.clone() }
}

fn features_table(features: &[Feature]) -> String {
    if features.is_empty() {
        return "no features".into();
    }
    let mut table = table(["NAME", "VALUE", "FOR", "OTHERWISE"]);
    for Feature { name, value, slots, otherwise } in features {
        let slots = match slots {
            Shown::Percent(100) => "all".into(),
            Shown::Percent(percent) => format!("{percent} %"),
            Shown::SubGroup { number, of } => format!("sub-group {number} of {of}"),
        };
        table.add_row([name, value, &slots, otherwise.as_deref().unwrap_or_default()]);
    }
    table.trim_fmt()
}
