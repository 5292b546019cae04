//! What a node makes of how long others take to answer it, and of how late its own timers fire. Pure: looks
//! and answers in, complaints and questions out.

use std::{collections::BTreeMap, time::Duration};

use crate::coordination::{Complaints, NodeName, Nodes};

/// How much a node puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// What takes longer is late.
    pub(super) late: Duration,
    /// Who is late for so long, every time, is slow.
    pub(super) slow_after: Duration,
    /// Who is slow is well once it has been in time for so long, every time.
    pub(super) well_after: Duration,
}

/// Who is asked for a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Node(NodeName),
    Store,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of this node itself.
    own: Suspicion,
    others: BTreeMap<Asked, Subject>,
}

impl Findings {
    /// Looks at everybody, at a moment that was due so long ago; who is to be asked now.
    pub(super) fn look(
        &mut self,
        now: Duration,
        overdue: Duration,
        nodes: &Nodes,
        me: &NodeName,
        patience: Patience,
    ) -> Vec<Asked> {
        self.meet(nodes, me);
        let is_late = overdue > patience.late;
        self.own.see(is_late, now, patience);
        let mut asked = Vec::new();
        for (whom, subject) in &mut self.others {
            if is_late {
                subject.excuse(now);
            } else {
                subject.look(now, patience);
            }
            if subject.is_there && subject.asked_at.is_none() {
                subject.asked_at = Some(now);
                asked.push(whom.clone());
            }
        }
        asked
    }

    /// An answer has come, or there will be none; how long that took.
    pub(super) fn answered(&mut self, whom: &Asked, is_well: bool, now: Duration) -> Duration {
        let Some(subject) = self.others.get_mut(whom) else { return Duration::ZERO };
        let took = now.saturating_sub(subject.asked_at.take().unwrap_or(now));
        subject.longest = subject.longest.max(Some(if is_well { took } else { Duration::MAX }));
        took
    }

    /// Who is slow, with moments that are counted from `began_ms`.
    pub(super) fn complaints(&self, me: &NodeName, began_ms: u64) -> Complaints {
        let at_ms =
            |since: Duration| began_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut complaints = Complaints::default();
        if let Some(since) = self.own.slow_since() {
            complaints.of.insert(me.clone(), at_ms(since));
        }
        for (whom, subject) in &self.others {
            match (whom, subject.suspicion.slow_since()) {
                (Asked::Node(node), Some(since)) => drop(complaints.of.insert(node.clone(), at_ms(since))),
                (Asked::Store, Some(since)) => complaints.store_since_ms = Some(at_ms(since)),
                (_, None) => {}
            }
        }
        complaints
    }

    /// Goes by who is there now. One that started anew is judged anew; one that is gone is remembered while
    /// it is slow, for its lease may come and go.
    fn meet(&mut self, nodes: &Nodes, me: &NodeName) {
        for subject in self.others.values_mut() {
            subject.is_there = false;
        }
        let others = nodes.values().filter(|node| node.name != *me);
        let others = others.map(|node| (Asked::Node(node.name.clone()), node.started_ms));
        for (whom, started_ms) in others.chain([(Asked::Store, 0)]) {
            let subject = self.others.entry(whom).or_default();
            if subject.started_ms != started_ms {
                *subject = Subject { started_ms, ..Subject::default() };
            }
            subject.is_there = true;
        }
        self.others.retain(|_, subject| subject.is_there || subject.suspicion.slow_since().is_some());
    }
}

/// One that is asked again and again.
#[derive(Debug, Default)]
struct Subject {
    started_ms: u64,
    is_there: bool,
    /// Since when an answer is due.
    asked_at: Option<Duration>,
    /// How long the slowest answer took, of those since the last look.
    longest: Option<Duration>,
    suspicion: Suspicion,
}

impl Subject {
    fn look(&mut self, now: Duration, patience: Patience) {
        let waited = self.asked_at.map(|asked_at| now.saturating_sub(asked_at));
        let longest = self.longest.take();
        let is_late = longest.max(waited) > Some(patience.late);
        if !self.is_there {
            // Who is gone is not late.
            self.suspicion.see(false, now, patience);
        } else if is_late || longest.is_some() {
            self.suspicion.see(is_late, now, patience);
        }
        // Of a question that is under way nothing can be said yet.
    }

    /// Whoever was late in looking cannot tell whether others were.
    fn excuse(&mut self, now: Duration) {
        self.asked_at = self.asked_at.map(|_| now);
        self.longest = None;
    }
}

/// Is somebody slow, or going to be, or to be well again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    Well { late_since: Option<Duration> },
    Slow { since: Duration, in_time_since: Option<Duration> },
}

impl Suspicion {
    fn see(&mut self, is_late: bool, now: Duration, patience: Patience) {
        let lasts = |since: Duration, time: Duration| now.saturating_sub(since) >= time;
        *self = match (*self, is_late) {
            (Self::Well { .. }, false) => Self::default(),
            (Self::Well { late_since }, true) => match late_since.unwrap_or(now) {
                since if lasts(since, patience.slow_after) => Self::Slow { since, in_time_since: None },
                since => Self::Well { late_since: Some(since) },
            },
            (Self::Slow { since, .. }, true) => Self::Slow { since, in_time_since: None },
            (Self::Slow { since, in_time_since }, false) => match in_time_since.unwrap_or(now) {
                in_time if lasts(in_time, patience.well_after) => Self::default(),
                in_time => Self::Slow { since, in_time_since: Some(in_time) },
            },
        };
    }

    fn slow_since(self) -> Option<Duration> {
        match self {
            Self::Well { .. } => None,
            Self::Slow { since, .. } => Some(since),
        }
    }
}

impl Default for Suspicion {
    fn default() -> Self {
        Self::Well { late_since: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coordination::{NodeRecord, conformance::node};

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

    proptest! {
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
}
