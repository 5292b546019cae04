//! What a node says of itself to the others, second by second, and what it shows of all of them.

mod health;

use std::{convert::Infallible, future::pending, thread::available_parallelism, time::Duration};

use super::Node;
use crate::{
    cluster::{Cluster, News},
    coordination::{Desired, Load, Registration, needed},
};
use health::Health;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often a node says how much it carries,
const PULSE: Duration = Duration::from_secs(1);

/// and how often it looks how busy its processors are.
const BUSY: Duration = Duration::from_secs(5);

/// Hundredths are rounded to so many: what hardly changes is not written again.
const BUSY_STEP: u128 = 5;

impl Node {
    /// How much it carries.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            sessions: self.sessions() as u64,
            sessions_max: self.limits.access.load().sessions_max as u64,
            processor_percent: 0,
            groups: self.groups.awake() as u64,
            committed: self.metrics.committed.get(),
            received: self.metrics.received.get(),
            lag_ms: self.metrics.received_lag_ms.get(),
            lag_records: self.cluster.as_ref().map_or(0, Cluster::behind),
            fed: self.metrics.fed.get(),
            placement: self.acts_by().map_or(0, |version| *version.borrow()),
            is_draining: self.access.is_draining(),
            complaints: self.cluster.as_ref().and_then(Cluster::complaints),
        }
    }

    /// Reports how much it carries each second, and at once when it acts by another placement, for
    /// which the leader waits before it moves more. Never ends.
    pub async fn report_to(&self, registration: &dyn Registration) -> Infallible {
        let mut acts_by = self.acts_by();
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut busy = Busy::default();
        let mut all = All { began: Instant::now(), news: News::default(), desired: Desired::default() };
        let mut health = Health::default();
        loop {
            tokio::select! {
                biased;
                () = changed(&mut acts_by) => {}
                _ = pulse.tick() => {
                    self.metrics.turn();
                    busy.look(Instant::now(), self.clock.processor_time());
                    all.look(self);
                    health.look(&**self.groups.store(), &self.metrics, &self.events);
                }
            }
            let load = Load { processor_percent: busy.percent, ..self.load() };
            self.metrics.received_lag_records.set(gauged(load.lag_records));
            registration.report(load);
        }
    }

    fn acts_by(&self) -> Option<watch::Receiver<u64>> {
        self.cluster.as_ref().map(Cluster::acts_by)
    }
}

/// Waits for what somebody watches to change; for ever where nobody says so any more.
async fn changed(watched: &mut Option<watch::Receiver<u64>>) {
    if let Some(watched) = watched
        && watched.changed().await.is_ok()
    {
        return;
    }
    pending().await
}

/// What this node sees of all of them.
struct All {
    began: Instant,
    news: News,
    desired: Desired,
}

impl All {
    fn look(&mut self, node: &Node) {
        let headroom_percent = node.limits.cluster.load().headroom_percent;
        let (mut needed_now, mut slow_nodes) = (1, 0);
        // A node alone cannot be helped by others.
        if let Some(others) = node.cluster.as_ref().map(Cluster::others) {
            let slow = others.slow();
            (needed_now, slow_nodes) = (needed(&others.nodes(), &slow, headroom_percent), slow.len());
            self.news.turn(others.me(), others.seen(), &node.events);
        }
        node.metrics.slow_nodes.set(gauged(slow_nodes as u64));
        node.metrics.nodes_desired.set(self.desired.turn(needed_now, self.began.elapsed()).into());
    }
}

/// How busy this process keeps its processors.
#[derive(Debug, Default)]
struct Busy {
    percent: u32,
    before: Option<(Instant, Duration)>,
}

impl Busy {
    /// Looks, if it is time again; `spent` is what all processors have been kept busy for so far.
    fn look(&mut self, now: Instant, spent: Option<Duration>) {
        let Some(spent) = spent else { return };
        let Some((at, before)) = self.before else {
            self.before = Some((now, spent));
            return;
        };
        let lasted = now - at;
        if lasted >= BUSY {
            let processors = available_parallelism().map_or(1, |processors| processors.get() as u128);
            self.percent = rounded(spent.saturating_sub(before), lasted, processors);
            self.before = Some((now, spent));
        }
    }
}

fn rounded(spent: Duration, lasted: Duration, processors: u128) -> u32 {
    let could = lasted.as_millis().max(1) * processors;
    let steps = (spent.as_millis() * (100 / BUSY_STEP) + could / 2) / could;
    u32::try_from(steps * BUSY_STEP).unwrap_or(u32::MAX)
}

fn gauged(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_busy_processors_are_is_looked_at_now_and_then_and_rounded() {
        let (ms, begun) = (Duration::from_millis, Instant::now());
        let mut busy = Busy::default();
        let mut look = |at_ms, spent_ms| {
            busy.look(begun + ms(at_ms), Some(ms(spent_ms)));
            busy.percent
        };
        assert_eq!([look(0, 700), look(4_900, 9_000)], [0, 0], "too soon");
        let all = available_parallelism().unwrap().get() as u64;
        assert_eq!(look(5_000, 700 + all * 2_500), 50);
        assert_eq!(look(15_000, 700 + all * 12_500), 100);
        assert_eq!([rounded(ms(124), ms(1_000), 1), rounded(ms(126), ms(1_000), 1)], [10, 15]);
        assert_eq!(rounded(ms(1_000), ms(1_000), 4), 25);
    }
}
