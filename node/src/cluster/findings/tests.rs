use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::coordination::{NodeRecord, conformance::node, slow};

const PATIENCE: Patience =
    Patience { late: ms(500), slow_after: Duration::from_secs(3), well_after: Duration::from_secs(30) };
const STEP: Duration = ms(250);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn named(name: &str) -> NodeName {
    NodeName(name.into())
}

fn nodes(started: &[(&str, u64)]) -> Nodes {
    let record = |(name, started_ms): &(&str, u64)| {
        (named(name), NodeRecord { started_ms: *started_ms, ..node(name) })
    };
    started.iter().map(record).collect()
}

/// Node `a`, which looks at the others.
struct World {
    findings: Findings,
    now: Duration,
    nodes: Nodes,
    /// Whoever answers in time, to the questions of each look.
    answering: Vec<Asked>,
}

impl World {
    fn new() -> Self {
        let answering = vec![Asked::Store, Asked::Node(named("b")), Asked::Node(named("c"))];
        let nodes = nodes(&[("a", 1), ("b", 1), ("c", 1)]);
        Self { findings: Findings::default(), now: Duration::ZERO, nodes, answering }
    }

    fn silence(&mut self, whom: &Asked) {
        self.answering.retain(|other| other != whom);
    }

    /// For so long, with looks that are so late; who is slow then.
    fn pass(&mut self, time: Duration, overdue: Duration) -> Vec<String> {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP + overdue;
            self.findings.look(self.now, overdue, &self.nodes, &named("a"), PATIENCE);
            for whom in &self.answering {
                self.findings.answered(whom, true, self.now + ms(1));
            }
        }
        self.slow()
    }

    fn slow(&self) -> Vec<String> {
        let found = self.findings.complaints(&named("a"), 0);
        let store = found.store_since_ms.map(|_| "store".to_owned());
        found.of.into_keys().map(|node| node.0).chain(store).collect()
    }
}

#[test]
fn one_that_does_not_answer_is_slow_after_a_while_and_well_once_it_has_answered_for_long() {
    for (whom, shown) in [(Asked::Node(named("b")), "b"), (Asked::Store, "store")] {
        let mut world = World::new();
        assert!(world.pass(Duration::from_secs(60), ms(0)).is_empty());
        world.silence(&whom);
        assert!(world.pass(ms(3_500), ms(0)).is_empty());
        assert_eq!(world.pass(ms(500), ms(0)), [shown]);
        world.answering.push(whom.clone());
        world.findings.answered(&whom, true, world.now);
        assert_eq!(world.pass(Duration::from_secs(30), ms(0)), [shown]);
        assert!(world.pass(ms(1_000), ms(0)).is_empty());
    }
}

#[test]
fn one_that_cannot_be_reached_is_as_late_as_can_be() {
    let mut world = World::new();
    let b = Asked::Node(named("b"));
    world.silence(&b);
    for _ in 0..14 {
        world.pass(STEP, ms(0));
        world.findings.answered(&b, false, world.now + ms(2));
    }
    assert_eq!(world.slow(), ["b"]);
}

#[test]
fn one_whose_link_is_lost_again_and_again_is_late_each_time() {
    let mut world = World::new();
    let b = Asked::Node(named("b"));
    world.silence(&b);
    for _ in 0..3 {
        assert!(world.pass(ms(1_250), ms(0)).is_empty());
        world.findings.answered(&b, false, world.now + ms(2));
    }
    assert_eq!(world.pass(STEP, ms(0)), ["b"]);
}

#[test]
fn one_answer_in_time_begins_the_count_anew() {
    let mut world = World::new();
    let b = Asked::Node(named("b"));
    world.silence(&b);
    for _ in 0..10 {
        assert!(world.pass(ms(3_000), ms(0)).is_empty());
        world.findings.answered(&b, true, world.now);
        // It was late, and is asked again at the next look.
        world.pass(STEP, ms(0));
        world.findings.answered(&b, true, world.now + ms(1));
        world.pass(STEP, ms(0));
    }
}

#[test]
fn one_that_stands_still_now_and_then_calls_itself_slow_and_nobody_else() {
    let mut world = World::new();
    world.silence(&Asked::Node(named("b")));
    world.silence(&Asked::Node(named("c")));
    assert!(world.pass(ms(3_000), ms(740)).is_empty());
    assert_eq!(world.pass(ms(60_000), ms(740)), ["a"]);
    world.answering = World::new().answering;
    for whom in world.answering.clone() {
        world.findings.answered(&whom, true, world.now);
    }
    assert_eq!(world.pass(ms(29_000), ms(0)), ["a"]);
    assert!(world.pass(ms(2_000), ms(0)).is_empty());
}

#[test]
fn one_long_standstill_is_held_against_nobody() {
    let mut world = World::new();
    world.pass(ms(1_000), ms(0));
    assert!(world.pass(STEP, Duration::from_secs(60)).is_empty());
    assert!(world.pass(ms(5_000), ms(0)).is_empty());
}

#[test]
fn a_slow_node_whose_lease_comes_and_goes_stays_slow_and_one_that_starts_anew_does_not() {
    let mut world = World::new();
    let (b, there) = (Asked::Node(named("b")), world.nodes.clone());
    world.silence(&b);
    assert_eq!(world.pass(ms(4_000), ms(0)), ["b"]);
    for _ in 0..20 {
        world.nodes = nodes(&[("a", 1), ("c", 1)]);
        assert_eq!(world.pass(ms(5_000), ms(0)), ["b"]);
        world.nodes = there.clone();
        assert_eq!(world.pass(ms(2_000), ms(0)), ["b"]);
    }
    world.nodes = nodes(&[("a", 1), ("b", 2), ("c", 1)]);
    assert!(world.pass(STEP, ms(0)).is_empty());
    world.nodes = there;
    assert_eq!(world.pass(ms(4_000), ms(0)), ["b"]);
    world.nodes = nodes(&[("a", 1), ("c", 1)]);
    assert!(world.pass(ms(31_000), ms(0)).is_empty(), "what is gone for good is forgotten");
}

#[test]
fn the_store_is_in_doubt_before_it_is_complained_of_and_for_a_while_after() {
    let mut world = World::new();
    let doubts = |world: &World| world.findings.complaints(&named("a"), 0).store_doubted_since_ms.is_some();
    assert!(world.pass(Duration::from_secs(60), ms(0)).is_empty() && !doubts(&world));
    world.silence(&Asked::Store);
    assert!(world.pass(ms(1_000), ms(0)).is_empty() && doubts(&world));
    assert_eq!(world.pass(ms(3_000), ms(0)), ["store"]);
    world.answering.push(Asked::Store);
    world.findings.answered(&Asked::Store, true, world.now);
    assert!(world.pass(ms(31_000), ms(0)).is_empty() && doubts(&world));
    world.pass(PATIENCE.slow_after, ms(0));
    assert!(!doubts(&world));
    world.silence(&Asked::Store);
    assert!(world.pass(ms(1_000), ms(0)).is_empty() && doubts(&world));
    world.answering.push(Asked::Store);
    world.findings.answered(&Asked::Store, true, world.now);
    world.pass(ms(500), ms(0));
    assert!(!doubts(&world), "it was late once");
}

/// A node whose record the others see late: so much later, and once in so long.
struct Reporting {
    findings: Findings,
    name: NodeName,
    phase: Duration,
    asked_at: Option<Duration>,
    /// What is said, and when the others hear of it.
    under_way: VecDeque<(Duration, Complaints)>,
    seen: Complaints,
}

impl Reporting {
    const PULSE: Duration = Duration::from_secs(1);

    fn pass(&mut self, now: Duration, store_answers: bool, nodes: &Nodes, late: Duration) {
        if store_answers && self.asked_at.take().is_some() {
            self.findings.answered(&Asked::Store, true, now);
        }
        let is_time = |every: Duration| {
            now.checked_sub(self.phase).is_some_and(|since| since.as_millis() % every.as_millis() == 0)
        };
        if is_time(STEP) {
            let asked = self.findings.look(now, ms(0), nodes, &self.name, PATIENCE);
            if asked.contains(&Asked::Store) {
                self.asked_at = Some(now);
            }
            for node in asked.iter().filter(|whom| **whom != Asked::Store) {
                self.findings.answered(node, true, now);
            }
        }
        if is_time(Self::PULSE) {
            self.under_way.push_back((now + late, self.findings.complaints(&self.name, 0)));
        }
        while let Some((_, said)) = self.under_way.pop_front_if(|(heard, _)| *heard <= now) {
            self.seen = said;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the moments fall at which nodes look, and at which the others hear of it.
    #[test]
    fn a_store_that_stalls_for_all_empties_nobody(
        phases in prop::collection::vec((0_u64..20, 0_u64..=20), 2..5),
        (begins, lasts) in (40_u64..80, prop_oneof![10_u64..100, 10_u64..400]),
    ) {
        let names: Vec<_> = (0..phases.len()).map(|number| number.to_string()).collect();
        let mut nodes: Nodes = names.iter().map(|name| (named(name), node(name))).collect();
        let reporting = |(name, (phase, _)): (&String, &(u64, u64))| Reporting {
            findings: Findings::default(),
            name: named(name),
            phase: ms(phase * 50),
            asked_at: None,
            under_way: VecDeque::new(),
            seen: Complaints::default(),
        };
        let mut all: Vec<_> = names.iter().zip(&phases).map(reporting).collect();
        for step in 0..begins + lasts + 800 {
            let (now, answers) = (step * 50, !(begins..begins + lasts).contains(&step));
            for (one, (_, late)) in all.iter_mut().zip(&phases) {
                one.pass(ms(now), answers, &nodes, ms(late * 50));
                let record = nodes.get_mut(&one.name).expect("it lives");
                record.load.complaints = Some(one.seen.clone());
            }
            prop_assert!(slow(&nodes, &BTreeSet::new()).is_empty(), "at {now}");
        }
    }

    #[test]
    fn slow_is_who_was_late_all_the_time_and_well_who_was_in_time(looks in prop::collection::vec(any::<bool>(), 1..300)) {
        // Runs, so that either lasts long enough.
        let looks: Vec<bool> = looks.iter().flat_map(|late| [*late; 30]).collect();
        let mut suspicion = Suspicion::default();
        let (mut run, mut is_slow) = (0_u32, false);
        for (at, late) in looks.iter().enumerate() {
            suspicion.see(*late, STEP * u32::try_from(at).unwrap(), PATIENCE);
            run = if at > 0 && looks[at - 1] == *late { run + 1 } else { 0 };
            let lasted = STEP * run;
            if *late && lasted >= PATIENCE.slow_after { is_slow = true }
            if !*late && lasted >= PATIENCE.well_after { is_slow = false }
            prop_assert_eq!(suspicion.slow_since().is_some(), is_slow);
        }
    }
}
