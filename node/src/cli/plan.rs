//! `shoal plan` and `shoal rebalance`: how groups are cut into sub-groups, and the plans that change it.

mod show;

mod watch;

use clap::{Args, Subcommand};
use shoal_protocol::{GroupId, wire};
use wire::{change::Body, plan_command::Action};

use super::{
    connection::{self, Access, Connection},
    group::Named,
    output::Output,
};
pub(super) use show::Layout;

/// See how groups are cut into sub-groups, and change it.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    access: Access,
}

/// A group is `#name`, or its id of 32 hexadecimal digits.
#[derive(Debug, Subcommand)]
enum Command {
    /// List the plans that are under way.
    List,
    /// Show how a group is cut, how its owners do, and how far a plan has got.
    Show {
        #[command(flatten)]
        group: Named,
        /// Go on showing it until the plan has ended.
        #[arg(long)]
        watch: bool,
    },
    /// Start a plan that cuts a group into more or fewer sub-groups.
    Start {
        #[command(flatten)]
        group: Named,
        /// So many; unless given, as many as its members ask for.
        #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
        sub_groups: u32,
        /// Show it until it has ended.
        #[arg(long)]
        watch: bool,
    },
    /// Halt a plan where it stands. It still rolls back if it makes things worse.
    Pause(Named),
    /// Let a plan go on that was paused.
    Resume(Named),
    /// Undo a plan: all members that have moved go back. For a while (`plan_retry_ms`) none begins by
    /// itself.
    Rollback(Named),
}

/// Spread a group's sub-groups evenly over the nodes: as few as possible move.
#[derive(Debug, Args)]
pub(super) struct Rebalance {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    group: Named,
    /// Show it until it has ended.
    #[arg(long)]
    watch: bool,
}

impl Plan {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| match &self.command {
            Command::List => show::plans(connection, output).await,
            Command::Show { group, watch: false } => show::layout(connection, group.id()?, output).await,
            Command::Show { group, watch: true } => {
                watch::until_ended(connection, group.id()?, u64::MAX, output).await
            }
            Command::Start { group, sub_groups, watch } => {
                order(connection, group.id()?, Action::Start, *sub_groups, *watch, output).await
            }
            Command::Pause(group) => order(connection, group.id()?, Action::Pause, 0, false, output).await,
            Command::Resume(group) => order(connection, group.id()?, Action::Resume, 0, false, output).await,
            Command::Rollback(group) => {
                order(connection, group.id()?, Action::RollBack, 0, false, output).await
            }
        })
    }
}

impl Rebalance {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        connection::with(&self.access, async |connection| {
            order(connection, self.group.id()?, Action::Rebalance, 0, self.watch, output).await
        })
    }
}

/// Gives the order, and shows what became of it.
async fn order(
    connection: &Connection,
    group: GroupId,
    action: Action,
    sub_groups: u32,
    watch: bool,
    output: Output,
) -> anyhow::Result<()> {
    let command = wire::PlanCommand { action: action.into(), sub_groups };
    if !watch {
        connection.change(group, Body::Plan(command)).await?;
        return show::layout(connection, group, output).await;
    }
    let before = connection.layout(group).await?;
    let ended_before = before.layout.and_then(|layout| layout.last).map_or(0, |last| last.number);
    connection.change(group, Body::Plan(command)).await?;
    watch::until_ended(connection, group, ended_before, output).await
}
