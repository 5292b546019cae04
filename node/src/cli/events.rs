//! `shoal events`: what has happened on all nodes, and what does.

mod follower;

use anyhow::Context;
use clap::Args;

use super::{
    connection::{self, Access},
    now_ms,
    output::Output,
};
use follower::{Follower, Line};

/// Show what has happened on all nodes: plans, nodes that come and go, alarms.
#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    access: Access,
    /// Then print what comes, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// How many of the latest to begin with.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Events {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            let mut follower = Follower::default();
            let latest = connection.events(self.limit).await?;
            let mut lines = follower.take(latest, now_ms());
            lines.drain(..lines.len().saturating_sub(self.limit as usize));
            while print(output, &lines)? && self.follow {
                let news = connection.events_after(follower.watermarks()).await?;
                lines = follower.take(news, now_ms());
            }
            Ok(())
        })
    }
}

/// False where nobody reads any more.
fn print(output: Output, lines: &[Line]) -> anyhow::Result<bool> {
    for line in lines {
        if !output.show_next(line, Line::text).context("output")? {
            return Ok(false);
        }
    }
    Ok(true)
}
