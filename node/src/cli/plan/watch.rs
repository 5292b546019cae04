//! A plan's progress, live in the terminal.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use shoal_protocol::GroupId;
use tokio::time::sleep;

use super::show::{Layout, Plan};
use crate::cli::{connection::Connection, output::Output};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The steps up to the end, as they move.
const STEPS: [u32; 4] = [0, 10, 30, 100];

const STYLE: &str = "{bar:30} {prefix}\n{msg}";

/// Shows a plan until it has ended; an error where it was rolled back.
pub(super) async fn until_ended(
    connection: &Connection,
    group: GroupId,
    output: Output,
) -> anyhow::Result<()> {
    let bar = ProgressBar::new(STEPS.len() as u64).with_style(ProgressStyle::with_template(STYLE)?);
    let mut said = None;
    loop {
        let layout = Layout::from(connection.layout(group).await?);
        let Some(plan) = &layout.plan else {
            bar.finish_and_clear();
            output.show(&layout, Layout::text)?;
            return match &layout.last_plan {
                Some(end) if !end.committed && said.is_some() => bail!("plan {}", end.text()),
                _ => Ok(()),
            };
        };
        bar.set_position(STEPS.iter().filter(|step| **step <= plan.moved_percent).count() as u64);
        bar.set_prefix(plan.text());
        bar.set_message(layout.table());
        // Where nothing is drawn, each step is a line.
        let step = (plan.number, plan.moved_percent, plan.paused);
        if bar.is_hidden() && said != Some(step) {
            output.show(plan, Plan::text)?;
        }
        said = Some(step);
        sleep(LOOK).await;
    }
}
