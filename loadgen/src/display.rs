//! How far a run is, on a terminal.

use std::{sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::judge::Judge;

const EVERY: Duration = Duration::from_millis(250);
const CONNECTING: &str = "connecting {bar:30} {pos} of {len}";
const SENDING: &str = "{bar:30} {elapsed_precise}  {msg}";

/// A progress bar; nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Display {
    bar: ProgressBar,
}

impl Display {
    /// While so many clients connect.
    pub(crate) fn new(clients: usize) -> Self {
        let bar = ProgressBar::new(clients as u64);
        bar.set_style(style(CONNECTING));
        Self { bar }
    }

    /// So many are there.
    pub(crate) fn connected(&self, count: usize) {
        self.bar.set_position(count as u64);
    }

    /// Shows how far the sending is, until it is dropped.
    pub(crate) async fn show(&self, judge: Arc<Judge>, begun: Instant, duration: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.bar.reset();
        self.bar.set_length(millis(duration));
        self.bar.set_style(style(SENDING));
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            self.bar.set_position(millis(begun.elapsed()));
            let (so_far, progress) = (judge.so_far(), judge.progress());
            let crowd = judge.crowd().map_or(String::new(), |crowd| {
                format!(
                    "{} members in {} sub-groups; ",
                    crowd.attendance.members, crowd.attendance.sub_groups
                )
            });
            self.bar.set_message(format!(
                "{crowd}{} sent, {} acknowledged, {} delivered, {} under way",
                so_far.published, so_far.acknowledged, so_far.deliveries, progress.owed
            ));
        }
    }

    /// Everything has been sent.
    pub(crate) fn draining(&self, most: Duration) {
        self.bar.set_message(format!("waiting up to {} s for the last deliveries", most.as_secs()));
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid").progress_chars("━╸─")
}
