//! What happened when: a run in short steps.

use std::time::Duration;

use serde::Serialize;

use crate::report::{Latencies, Quantiles};

/// Steps of a run; one that goes on longer is told in longer steps.
const STEPS_MAX: u32 = 300;

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Step {
    /// Its beginning, in seconds since the first message was due.
    pub at: f64,
    /// Receipts that came.
    pub acknowledged: u64,
    /// Deliveries to apps.
    pub deliveries: u64,
    /// Of those receipts.
    pub publish_latency_ms: Quantiles,
    /// Of those deliveries.
    pub delivery_latency_ms: Quantiles,
}

/// The steps of a run so far.
#[derive(Debug)]
pub struct Timeline {
    step: Duration,
    at: Duration,
    publish: Latencies,
    delivery: Latencies,
    done: Vec<Step>,
}

impl Timeline {
    /// Of a run that sends for so long.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let step = (duration / STEPS_MAX).max(Duration::from_secs(1));
        let (publish, delivery) = (Latencies::coarse(), Latencies::coarse());
        Self { step, at: Duration::ZERO, publish, delivery, done: Vec::new() }
    }

    /// A receipt came.
    pub fn acknowledged(&mut self, now: Duration, latency: Duration) {
        self.advance(now);
        self.publish.record(latency);
    }

    /// An app got a message.
    pub fn delivered(&mut self, now: Duration, latency: Duration) {
        self.advance(now);
        self.delivery.record(latency);
    }

    /// All steps, the one under way among them.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.done.iter().cloned().chain([self.current()]).collect()
    }

    fn advance(&mut self, now: Duration) {
        while now >= self.at + self.step && self.done.len() < 2 * STEPS_MAX as usize {
            self.done.push(self.current());
            self.publish.clear();
            self.delivery.clear();
            self.at += self.step;
        }
    }

    fn current(&self) -> Step {
        Step {
            at: self.at.as_secs_f64(),
            acknowledged: self.publish.count(),
            deliveries: self.delivery.count(),
            publish_latency_ms: self.publish.quantiles(),
            delivery_latency_ms: self.delivery.quantiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_shows_as_empty_steps_and_one_of_late_receipts() {
        let mut timeline = Timeline::new(Duration::from_secs(5));
        let ms = Duration::from_millis;
        for at in (0..1000).chain(3500..4000) {
            timeline.acknowledged(ms(at), ms(if at == 3500 { 2500 } else { 5 }));
        }
        let steps = timeline.steps();
        assert_eq!(steps.iter().map(|step| step.acknowledged).collect::<Vec<_>>(), [1000, 0, 0, 500]);
        assert!(steps[3].publish_latency_ms.max > 2000.0 && steps[0].publish_latency_ms.max < 6.0);
        assert_eq!(steps[3].at, 3.0);
    }

    #[test]
    fn a_long_run_has_no_more_steps_than_a_short_one() {
        let mut timeline = Timeline::new(Duration::from_secs(36_000));
        timeline.delivered(Duration::from_secs(35_999), Duration::ZERO);
        assert_eq!(timeline.steps().len(), STEPS_MAX as usize);
        timeline.delivered(Duration::from_secs(36_000_000), Duration::ZERO);
        assert_eq!(timeline.steps().len(), 2 * STEPS_MAX as usize + 1, "a drain has an end too");
    }
}
