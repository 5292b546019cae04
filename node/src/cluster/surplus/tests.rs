use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::coordination::{Load, conformance};

const TOLERANCE: Tolerance = Tolerance { percent: 125, sessions: 100 };

fn node(name: &str, capacity: u32, sessions: u64) -> NodeRecord {
    let load = Load { sessions, sessions_max: 1_000_000, ..Load::default() };
    NodeRecord { capacity, load, ..conformance::node(name) }
}

/// The surplus of the first of these.
fn surplus(nodes: &[NodeRecord]) -> u64 {
    region(nodes).surplus(TOLERANCE)
}

fn region(nodes: &[NodeRecord]) -> Region<'_> {
    Region::new(&nodes[0], nodes[0].load.sessions, nodes[1..].iter())
}

#[test]
fn who_has_clearly_more_than_its_share_gives_away_what_is_clearly_too_much() {
    assert_eq!(surplus(&[node("a", 1, 1_000), node("b", 1, 0)]), 1_000 - 550);
    assert_eq!(surplus(&[node("a", 1, 620), node("b", 1, 380)]), 0, "less than a quarter above");
    assert_eq!(surplus(&[node("a", 1, 199), node("b", 1, 0)]), 0, "less than a hundred above");
    assert_eq!(surplus(&[node("a", 1, 1_000)]), 0, "nobody else is there");
    assert_eq!(surplus(&[node("a", 3, 900), node("b", 1, 300)]), 0, "it can carry more");
    assert_eq!(surplus(&[node("a", 1, 900), node("b", 3, 300)]), 900 - 330);
    let never = Tolerance { percent: 0, ..TOLERANCE };
    assert_eq!(region(&[node("a", 1, 1_000), node("b", 1, 0)]).surplus(never), 0);
}

#[test]
fn what_it_carries_now_counts_and_not_its_record() {
    let nodes = [node("a", 1, 1_000), node("b", 1, 400)];
    assert_eq!(Region::new(&nodes[0], 500, nodes[1..].iter()).surplus(TOLERANCE), 0);
    assert_eq!(Region::new(&nodes[0], 500, nodes[1..].iter()).above_enough(), 500 - 495);
}

#[test]
fn only_who_lacks_some_in_this_region_and_has_room_is_given_any() {
    let far = NodeRecord { region: "there".into(), ..node("far", 9, 0) };
    let mut full = node("full", 1, 100);
    full.load.sessions_max = 150;
    let nodes = [node("a", 1, 1_000), node("b", 1, 500), far, full, node("d", 1, 400)];
    let region = region(&nodes);
    let lacking: Vec<_> = region.lacking().map(|(node, lacks)| (node.name.0.as_str(), lacks)).collect();
    assert_eq!(lacking, [("full", 50), ("d", 100)]);
}

/// Nodes that see each other late and give away in waves, a second at a time.
struct World {
    sessions: Vec<u64>,
    capacities: Vec<u32>,
    /// What the nodes' records said, second by second.
    records: VecDeque<Vec<u64>>,
    giving: Vec<Giving>,
    moved: u64,
}

/// How far a node is: it still gives so many, and then rests for so many seconds.
#[derive(Clone, Copy, Default)]
struct Giving {
    left: u64,
    rests: u32,
}

impl World {
    const STALE: usize = 3;
    const RESTS: u32 = 5;

    fn new(all: &[(u64, u32)]) -> Self {
        let (sessions, capacities): (Vec<_>, Vec<_>) = all.iter().copied().unzip();
        let records = std::iter::repeat_n(sessions.clone(), Self::STALE).collect();
        Self { giving: vec![Giving::default(); sessions.len()], sessions, capacities, records, moved: 0 }
    }

    fn share(&self, node: usize) -> u64 {
        let (all, can) = (self.sessions.iter().sum::<u64>(), self.capacities.iter().sum::<u32>());
        (all * u64::from(self.capacities[node])).div_ceil(can.into())
    }

    fn excess(&self) -> u64 {
        (0..self.sessions.len()).map(|node| self.sessions[node].saturating_sub(self.share(node))).sum()
    }

    fn pass_a_second(&mut self, chance: &mut impl FnMut() -> u64) {
        let seen = self.records.pop_front().expect("there is one for each second");
        for me in 0..self.sessions.len() {
            let nodes: Vec<_> =
                seen.iter().zip(&self.capacities).map(|(seen, can)| node("n", *can, *seen)).collect();
            let others = nodes.iter().enumerate().filter(|(other, _)| *other != me).map(|(_, node)| node);
            let region = Region::new(&nodes[me], self.sessions[me], others);
            let mut giving = self.giving[me];
            if giving.rests > 0 {
                giving.rests -= 1;
            } else if giving.left == 0 {
                giving.left = region.surplus(TOLERANCE);
            }
            let wave = giving.left.min(40).min(region.above_enough());
            let lacking: Vec<_> = region.lacking().collect();
            for _ in 0..wave {
                let Some(all) = lacking.iter().map(|(_, lacks)| lacks).sum::<u64>().checked_sub(1) else {
                    break;
                };
                let mut lot = chance() % (all + 1);
                let drawn = lacking.iter().find(|(_, lacks)| {
                    let is_drawn = lot < *lacks;
                    lot = lot.saturating_sub(*lacks);
                    is_drawn
                });
                let to = nodes.iter().position(|node| std::ptr::eq(node, drawn.expect("a lot is one's").0));
                self.sessions[to.expect("it is one of them")] += 1;
                self.sessions[me] -= 1;
                self.moved += 1;
            }
            if giving.left > 0 {
                giving.left -= wave;
                if wave == 0 || giving.left == 0 {
                    giving = Giving { left: 0, rests: Self::RESTS };
                }
            }
            self.giving[me] = giving;
        }
        self.records.push_back(self.sessions.clone());
    }
}

proptest! {
    /// However old the figures are by which they go: nothing goes to and fro.
    #[test]
    fn sessions_even_out_and_no_more_move_than_were_too_many(
        all in prop::collection::vec((0_u64..3_000, 1_u32..4), 1..6),
        seed: u64,
    ) {
        let mut world = World::new(&all);
        let (excess, mut state) = (world.excess(), seed);
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for _ in 0..400 {
            world.pass_a_second(&mut chance);
        }
        prop_assert!(world.moved <= excess, "{} of {excess}", world.moved);
        for node in 0..all.len() {
            let (has, share) = (world.sessions[node], world.share(node));
            prop_assert!(has * 100 <= share * 125 || has <= share + 100, "{:?}", world.sessions);
        }
        let moved = world.moved;
        (0..100).for_each(|_| world.pass_a_second(&mut chance));
        prop_assert_eq!(world.moved, moved, "it is at rest");
    }

    #[test]
    fn where_all_have_about_their_share_nothing_moves(
        all in prop::collection::vec((1_u32..5, 0_u64..=10), 1..6),
        each in 0_u64..100_000,
    ) {
        let node = |(capacity, percent): &(u32, u64)| {
            node("n", *capacity, each * u64::from(*capacity) * (100 + percent) / 100)
        };
        let nodes: Vec<_> = all.iter().map(node).collect();
        prop_assert_eq!(surplus(&nodes), 0);
    }

    #[test]
    fn what_goes_is_never_more_than_is_above_the_share(
        all in prop::collection::vec((0_u64..u64::from(u32::MAX), 0_u32..9), 1..9),
        percent in 0_u32..300,
        sessions in 0_u64..200,
    ) {
        let nodes: Vec<_> = all.iter().map(|(sessions, capacity)| node("n", *capacity, *sessions)).collect();
        let region = region(&nodes);
        let surplus = region.surplus(Tolerance { percent, sessions });
        prop_assert!(surplus <= region.above_enough());
        prop_assert!(surplus + region.share(&nodes[0]) <= nodes[0].load.sessions || surplus == 0);
        prop_assert!(region.lacking().all(|(node, lacks)| node.load.sessions + lacks <= region.share(node)));
    }
}
