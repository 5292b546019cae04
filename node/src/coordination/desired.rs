//! How many nodes the cluster would like to have. Pure: what nodes carry goes in, a number comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{NodeRecord, Nodes, Slow};

/// Less is wished for only after so long: a node that goes and comes back moves groups and clients twice.
const LESS_AFTER: Duration = Duration::from_secs(300);

/// The wish, which rises at once and falls late.
#[derive(Debug, Default)]
pub struct Desired {
    nodes: u32,
    less: Option<Less>,
}

/// Less has been enough for a while.
#[derive(Debug)]
struct Less {
    since: Duration,
    /// The most that was needed in this time.
    most: u32,
}

impl Desired {
    /// What is wished for when so much is needed.
    pub fn turn(&mut self, needed: u32, now: Duration) -> u32 {
        if needed >= self.nodes {
            *self = Self { nodes: needed, less: None };
            return needed;
        }
        let less = self.less.get_or_insert(Less { since: now, most: needed });
        less.most = less.most.max(needed);
        if now.saturating_sub(less.since) >= LESS_AFTER {
            *self = Self { nodes: less.most, less: None };
        }
        self.nodes
    }
}

/// As many nodes as carry what all carry now, of the nodes' average size, if `headroom_percent` of each is
/// to stay free; at least one of each kind, and one more for each that is slow, which carries nothing.
#[must_use]
pub fn needed(nodes: &Nodes, slow: &Slow, headroom_percent: u32) -> u32 {
    let capacity = |node: &NodeRecord| u128::from(node.capacity.max(1));
    let all: u128 = nodes.values().map(capacity).sum();
    let may_use = u128::from(100 - headroom_percent.min(99));
    let use_of = |used: fn(&NodeRecord) -> u128| {
        // In millionths of a node's hundredth, each as large as it is.
        let used: u128 = nodes.values().map(|node| used(node) * capacity(node)).sum();
        (used * nodes.len() as u128).div_ceil((all * may_use * MILLION).max(1))
    };
    let carrying = use_of(sessions_percent).max(use_of(processor_percent)).max(kinds(nodes));
    u32::try_from(carrying + slow.len() as u128).unwrap_or(u32::MAX)
}

const MILLION: u128 = 1_000_000;

fn sessions_percent(node: &NodeRecord) -> u128 {
    u128::from(node.load.sessions) * 100 * MILLION / u128::from(node.load.sessions_max.max(1))
}

fn processor_percent(node: &NodeRecord) -> u128 {
    u128::from(node.load.processor_percent) * MILLION
}

/// Nodes of one kind stand in for each other: same region, same roles.
fn kinds(nodes: &Nodes) -> u128 {
    let mut kinds: BTreeMap<&str, BTreeSet<[bool; 3]>> = BTreeMap::new();
    for node in nodes.values() {
        let roles = [node.roles.access, node.roles.group, node.roles.coordination];
        kinds.entry(&node.region).or_default().insert(roles);
    }
    kinds.values().map(|roles| roles.len() as u128).sum::<u128>().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coordination::{Load, NodeName, Roles, Verdict, conformance::node};

    /// So many nodes, each with so many of 1,000 sessions, and so much of its processors busy.
    fn cluster(nodes: &[(u64, u32)]) -> Nodes {
        let record = |(number, (sessions, processor_percent)): (usize, &(u64, u32))| {
            let name = number.to_string();
            let load = Load {
                sessions: *sessions,
                sessions_max: 1_000,
                processor_percent: *processor_percent,
                ..Load::default()
            };
            (NodeName(name.clone()), NodeRecord { load, ..node(&name) })
        };
        nodes.iter().enumerate().map(record).collect()
    }

    fn needed_by(nodes: &[(u64, u32)]) -> u32 {
        needed(&cluster(nodes), &Slow::new(), 30)
    }

    #[test]
    fn what_is_scarcest_decides_and_the_headroom_stays_free() {
        assert_eq!(needed_by(&[(0, 0)]), 1);
        assert_eq!(needed_by(&[(700, 0)]), 1);
        assert_eq!(needed_by(&[(701, 0)]), 2);
        assert_eq!(needed_by(&[(100, 70)]), 1);
        assert_eq!(needed_by(&[(100, 75)]), 2);
        assert_eq!(needed_by(&[(900, 10), (900, 95), (0, 10)]), 3, "1,800 of 700 each; 115 of 70");
        assert_eq!(needed_by(&[(10, 0), (10, 0), (10, 5)]), 1);
    }

    #[test]
    fn a_large_node_carries_more() {
        let mut nodes = cluster(&[(0, 90), (0, 0)]);
        nodes.get_mut(&NodeName("0".into())).unwrap().capacity = 3;
        assert_eq!(needed(&nodes, &Slow::new(), 30), 2, "270 of 400, of 280 that may be used");
        nodes.get_mut(&NodeName("0".into())).unwrap().load.processor_percent = 100;
        nodes.get_mut(&NodeName("1".into())).unwrap().load.processor_percent = 100;
        assert_eq!(needed(&nodes, &Slow::new(), 30), 3);
    }

    #[test]
    fn one_of_each_kind_stays_and_what_is_slow_is_replaced() {
        let mut nodes = cluster(&[(0, 0), (0, 0), (0, 0)]);
        let record = |nodes: &mut Nodes, name: &str, change: fn(&mut NodeRecord)| {
            change(nodes.get_mut(&NodeName(name.into())).unwrap());
        };
        record(&mut nodes, "1", |node| node.region = "there".into());
        assert_eq!(needed(&nodes, &Slow::new(), 30), 2);
        record(&mut nodes, "2", |node| node.roles = Roles { group: false, ..Roles::ALL });
        assert_eq!(needed(&nodes, &Slow::new(), 30), 3);
        let verdict = Verdict { since_ms: 1, by: BTreeSet::new() };
        let slow = Slow::from([(NodeName("0".into()), verdict)]);
        assert_eq!(needed(&cluster(&[(300, 0), (300, 0)]), &slow, 30), 2, "one carries all of it");
        assert_eq!(needed(&Nodes::new(), &Slow::new(), 30), 1);
    }

    #[test]
    fn the_wish_rises_at_once_and_falls_once_less_was_enough_for_long() {
        let mut desired = Desired::default();
        let at = Duration::from_secs;
        assert_eq!(desired.turn(3, at(0)), 3);
        assert_eq!(desired.turn(5, at(1)), 5);
        assert_eq!(desired.turn(1, at(2)), 5);
        assert_eq!(desired.turn(4, at(100)), 5);
        assert_eq!(desired.turn(1, at(301)), 5);
        assert_eq!(desired.turn(1, at(302)), 4, "the most that was needed meanwhile");
        assert_eq!(desired.turn(1, at(303)), 4);
        assert_eq!(desired.turn(4, at(304)), 4);
        assert_eq!(desired.turn(1, at(604)), 4, "it was all needed in between");
        assert_eq!(desired.turn(1, at(904)), 1);
    }

    proptest! {
        #[test]
        fn so_many_can_carry_it_and_one_less_could_not(
            nodes in prop::collection::vec((0_u64..1_000, 0_u32..=100), 1..9),
            headroom in 0_u32..90,
        ) {
            let needed = needed(&cluster(&nodes), &Slow::new(), headroom);
            let sessions: u64 = nodes.iter().map(|(sessions, _)| sessions * 100).sum();
            let processors: u64 = nodes.iter().map(|(_, percent)| u64::from(*percent) * 1_000).sum();
            let room = |nodes: u32| u64::from(nodes) * u64::from(100 - headroom) * 1_000;
            prop_assert!(needed >= 1 && room(needed) >= sessions.max(processors));
            prop_assert!(needed == 1 || room(needed - 1) < sessions.max(processors));
        }

        #[test]
        fn the_wish_is_never_below_what_is_needed(all in prop::collection::vec((0_u32..9, 0_u64..400), 1..50)) {
            let (mut desired, mut now) = (Desired::default(), Duration::ZERO);
            for (needed, later) in all {
                now += Duration::from_secs(later);
                prop_assert!(desired.turn(needed, now) >= needed);
            }
        }
    }
}
