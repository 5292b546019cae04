//! What happened when: a run in short steps.

use std::time::Duration;

use serde::Serialize;

use crate::report::{Latencies, Quantiles};

/// Steps of a run; one that goes on longer than so many seconds is told in longer steps.
const STEPS_MAX: u32 = 1200;

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Step {
    /// Its beginning, in seconds since the first message was due.
    pub at: f64,
    /// Messages given to clients for sending.
    pub published: u64,
    /// Receipts that came.
    pub acknowledged: u64,
    /// Deliveries to apps.
    pub deliveries: u64,
    /// Of those receipts.
    pub publish_latency_ms: Quantiles,
    /// Of those deliveries.
    pub delivery_latency_ms: Quantiles,
    /// The longest that anybody who reads was behind the first to have a message.
    pub lag_ms: f64,
    /// Who was there, in a run along a curve: as of the last second.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub crowd: Option<Crowd>,
}

/// Who is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Attendance {
    /// Members that there should be by the curve.
    pub wanted: u32,
    /// Members that are there and read.
    pub members: u32,
    /// Clients that are connected: these, who is about to join, and who has just left.
    pub connected: u32,
    /// Into how many sub-groups the node has cut the group.
    pub sub_groups: u32,
    /// By the layout of this version.
    pub layout_version: u64,
}

/// Who is there, and how far they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Crowd {
    /// Who is there.
    #[serde(flatten)]
    pub attendance: Attendance,
    /// Records that the member furthest behind lacks.
    pub behind_records: u64,
}

/// The steps of a run so far.
#[derive(Debug)]
pub struct Timeline {
    step: Duration,
    at: Duration,
    published: u64,
    publish: Latencies,
    delivery: Latencies,
    lag: Duration,
    crowd: Option<Crowd>,
    done: Vec<Step>,
}

impl Timeline {
    /// Of a run that sends for so long.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let step = (duration / STEPS_MAX).max(Duration::from_secs(1));
        let (publish, delivery) = (Latencies::coarse(), Latencies::coarse());
        let (at, lag) = (Duration::ZERO, Duration::ZERO);
        Self { step, at, published: 0, publish, delivery, lag, crowd: None, done: Vec::new() }
    }

    /// A message was given to a client.
    pub fn published(&mut self, now: Duration) {
        self.advance(now);
        self.published += 1;
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

    /// Somebody was so far behind.
    pub fn lagged(&mut self, now: Duration, lag: Duration) {
        self.advance(now);
        self.lag = self.lag.max(lag);
    }

    /// Who is there.
    pub fn observed(&mut self, now: Duration, crowd: Crowd) {
        self.advance(now);
        self.crowd = Some(crowd);
    }

    /// Who was there of late.
    #[must_use]
    pub fn crowd(&self) -> Option<Crowd> {
        self.crowd
    }

    /// All steps, the one under way among them.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.done.iter().cloned().chain([self.current()]).collect()
    }

    fn advance(&mut self, now: Duration) {
        while now >= self.at + self.step && self.done.len() < 2 * STEPS_MAX as usize {
            self.done.push(self.current());
            self.published = 0;
            self.publish.clear();
            self.delivery.clear();
            self.lag = Duration::ZERO;
            self.at += self.step;
        }
    }

    fn current(&self) -> Step {
        Step {
            at: self.at.as_secs_f64(),
            published: self.published,
            acknowledged: self.publish.count(),
            deliveries: self.delivery.count(),
            publish_latency_ms: self.publish.quantiles(),
            delivery_latency_ms: self.delivery.quantiles(),
            lag_ms: self.lag.as_secs_f64() * 1000.0,
            crowd: self.crowd,
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
    fn who_is_there_holds_until_it_is_said_again_and_a_lag_only_for_its_step() {
        let mut timeline = Timeline::new(Duration::from_secs(5));
        let seconds = Duration::from_secs;
        let crowd = |behind_records| Crowd { behind_records, ..Crowd::default() };
        timeline.observed(seconds(0), crowd(1));
        timeline.lagged(seconds(1), seconds(3));
        timeline.lagged(seconds(1), seconds(2));
        timeline.observed(seconds(2), crowd(2));
        let steps = timeline.steps();
        assert_eq!(steps.iter().map(|step| step.lag_ms).collect::<Vec<_>>(), [0.0, 3000.0, 0.0]);
        assert_eq!([0, 1, 2].map(|at| steps[at].crowd), [Some(crowd(1)), Some(crowd(1)), Some(crowd(2))]);
        let json = serde_json::to_value(&steps[2]).unwrap();
        assert_eq!((&json["behind_records"], &json["sub_groups"]), (&2.into(), &0.into()));
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
