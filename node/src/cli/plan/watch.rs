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

/// Shows the plan that is under way, or has ended since the one numbered `ended_before`, until it has ended;
/// an error where it was rolled back.
pub(super) async fn until_ended(
    connection: &Connection,
    group: GroupId,
    ended_before: u64,
    output: Output,
) -> anyhow::Result<()> {
    let bar = ProgressBar::new(STEPS.len() as u64).with_style(ProgressStyle::with_template(STYLE)?);
    let (mut watched, mut said) = (None, None);
    loop {
        let layout = Layout::from(connection.layout(group).await?);
        let is_watched = |plan: &&Plan| watched.is_none_or(|number| plan.number == number);
        let Some(plan) = layout.plan.as_ref().filter(is_watched) else {
            bar.finish_and_clear();
            output.show(&layout, Layout::text)?;
            let has_ended = |number| watched.map_or(number > ended_before, |watched| number == watched);
            return match &layout.last_plan {
                Some(end) if !end.committed && has_ended(end.number) => bail!("plan {}", end.text()),
                _ => Ok(()),
            };
        };
        watched = Some(plan.number);
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
