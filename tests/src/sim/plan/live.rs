//! What is set live while apps are busy.

use std::{ops::RangeInclusive, time::Duration};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::{Disturbance, Host, ms};

/// By it groups are cut into sub-groups and put together again, as often as it changes.
const SUB_GROUPS: (&str, RangeInclusive<u64>) = ("limits.group.sub_group_max", 1..=16);

/// Others, and what they may be: little, but enough to go on with.
const OTHERS: [(&str, RangeInclusive<u64>); 15] = [
    ("limits.group.announced_members_max", 0..=20),
    ("limits.group.member_rate_per_second", 1..=50),
    ("limits.group.member_burst", 1..=50),
    ("limits.group.payload_bytes_max", 300..=4096),
    ("limits.group.batch_records_max", 1..=256),
    ("limits.group.windows_bytes_max", 65_536..=200_000),
    ("limits.group.sender_checkpoint_records", 4..=256),
    ("limits.group.awake_max", 4..=40),
    ("limits.group.idle_ms", 100..=8_000),
    ("limits.access.sessions_max", 16..=24),
    ("limits.access.publish_rate_per_second", 2..=100),
    ("limits.access.request_rate_per_second", 2..=100),
    ("limits.access.delivery_streams_max", 1..=16),
    ("limits.access.delivered_flush_ms", 100..=3_000),
    ("limits.view.members_max", 1..=20),
];

/// Settings that are set, or taken away again, in two runs of three. Now and then a node goes down, or
/// groups are placed anew, while nodes come to hear of it.
pub(super) fn draw(random: &mut StdRng, nodes: usize, busy: Duration) -> Vec<(Duration, Disturbance)> {
    let mut all = Vec::new();
    let changes = if random.random_ratio(1, 3) { 0 } else { random.random_range(1..12) };
    for _ in 0..changes {
        let at = busy.mul_f64(random.random_range(0.05..0.95));
        all.push((at, change(random)));
        let soon = (at + ms(random.random_range(0..600))).min(busy);
        match random.random_range(0..6) {
            0 => {
                let node = Host::Node(random.random_range(0..nodes));
                let until = (soon + ms(random.random_range(50..2_000))).min(busy);
                all.extend([(soon, Disturbance::Down(node)), (until, Disturbance::Up(node))]);
            }
            1 if nodes > 1 => all.push((soon, Disturbance::Place(random.random()))),
            _ => {}
        }
    }
    all
}

fn change(random: &mut StdRng) -> Disturbance {
    let (key, values) = match OTHERS.choose(random).filter(|_| random.random()) {
        Some(other) => other.clone(),
        None => SUB_GROUPS,
    };
    let value = random.random_range(values);
    Disturbance::Live(key, (!random.random_ratio(1, 6)).then_some(value))
}

/// Nothing is set live any more.
pub(super) fn remedies() -> impl Iterator<Item = Disturbance> {
    let keys = OTHERS.iter().chain([&SUB_GROUPS]).map(|(key, _)| *key);
    keys.map(|key| Disturbance::Live(key, None))
}

#[cfg(test)]
mod tests {
    use shoal_node::config::{Config, Live, lay_live_over};

    use super::*;
    use crate::sim::plan::Plan;

    /// What nodes do not go by changes nothing, and nothing would come of it.
    #[test]
    fn nodes_go_by_all_that_is_set() {
        for seed in 0..300 {
            let plan = Plan::new(seed, None);
            let (own, mut live) = (Config { limits: plan.limits, ..Config::default() }, Live::new());
            for (_, disturbance) in plan.disturbances {
                if let Disturbance::Live(key, Some(value)) = disturbance {
                    live.insert(key.into(), value.to_string());
                    assert_eq!(lay_live_over(&own, &live).ignored, Live::new(), "seed {seed}");
                }
            }
        }
    }
}
