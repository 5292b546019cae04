//! What a node says of itself to the others, second by second, and what it shows of all of them.

use std::{convert::Infallible, future::pending, sync::Arc, thread::available_parallelism, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::Node;
use crate::{
    cluster::{Cluster, Others},
    coordination::{Desired, Load, Registration, Slow, needed},
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
        let mut all = All { began: Instant::now(), slow: Arc::default(), desired: Desired::default() };
        loop {
            tokio::select! {
                biased;
                () = changed(&mut acts_by) => {}
                _ = pulse.tick() => {
                    self.metrics.turn();
                    busy.look(Instant::now(), self.clock.processor_time());
                    all.look(self);
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
    slow: Arc<Slow>,
    desired: Desired,
}

impl All {
    fn look(&mut self, node: &Node) {
        let headroom_percent = node.limits.cluster.load().headroom_percent;
        // A node alone cannot be helped by others.
        let needed = node.cluster.as_ref().map_or(1, |cluster| {
            let others = cluster.others();
            let slow = others.slow();
            tell_apart(others, &self.slow, &slow);
            self.slow = slow;
            needed(&others.nodes(), &self.slow, headroom_percent)
        });
        node.metrics.slow_nodes.set(gauged(self.slow.len() as u64));
        node.metrics.nodes_desired.set(self.desired.turn(needed, self.began.elapsed()).into());
    }
}

/// Logs who is emptied since they are slow, and who is no more.
fn tell_apart(others: &Others, before: &Slow, now: &Slow) {
    for (node, verdict) in now.iter().filter(|(node, _)| !before.contains_key(*node)) {
        let by = verdict.by.iter().map(|judge| judge.0.as_str()).collect::<Vec<_>>().join(", ");
        match node == others.me() {
            true => warn!(by, "this node is emptied: it holds its lease and is slow"),
            false => warn!(node = node.0, by, "a node is emptied: it holds its lease and is slow"),
        }
    }
    for node in before.keys().filter(|node| !now.contains_key(*node)) {
        info!(node = node.0, "a node that was slow takes part again, or is gone");
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
