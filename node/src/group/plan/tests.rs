use proptest::prelude::*;

use super::*;

const OBSERVE: Duration = Duration::from_secs(4);
const PACE: Pace = Pace { observe: OBSERVE, delay_max: Duration::from_millis(500), pressed: false };

fn partitions(numbers: std::ops::Range<u16>) -> Vec<Partition> {
    numbers.filter_map(Partition::new).collect()
}

/// Two owners there, a third to come.
fn plan() -> Plan {
    Plan::new(&partitions(0..2), &partitions(0..3), 0, false)
}

fn good() -> Report {
    Report { ready: true, round_trip: Duration::from_millis(5), ..Report::default() }
}

/// A clock, and what the owners report.
struct World {
    /// Whose reports are not simply good.
    odd: u16,
    plan: Plan,
    now: Duration,
    pace: Pace,
}

impl World {
    fn new(plan: Plan) -> Self {
        Self { odd: 2, plan, now: Duration::from_secs(100), pace: PACE }
    }

    /// Every owner answers, the odd one what `says` says; the steps taken meanwhile.
    fn run(&mut self, time: Duration, mut says: impl FnMut() -> Option<Report>) -> Vec<Step> {
        let (mut taken, end) = (Vec::new(), self.now + time);
        while self.now < end {
            for owner in partitions(0..3) {
                let report = if owner.number() == self.odd { says() } else { Some(good()) };
                if let Some(report) = report {
                    self.plan.handle_report(owner, report, self.pace, self.now);
                }
            }
            if let Some(step) = self.plan.poll(self.pace, self.now) {
                if let Step::Move(percent) = step {
                    self.plan.moved(percent);
                }
                taken.push(step);
                if !matches!(taken.last(), Some(Step::Move(_))) {
                    return taken;
                }
            }
            self.now += Plan::interval(self.pace);
        }
        taken
    }
}

#[test]
fn a_plan_that_does_no_harm_is_committed() {
    let mut world = World::new(plan());
    let began = world.now;
    let steps = world.run(OBSERVE * 9, || Some(good()));
    assert_eq!(steps, [Step::Move(10), Step::Move(30), Step::Move(100), Step::Commit]);
    let took = world.now - began;
    assert!(took >= OBSERVE * 3 && took <= OBSERVE * 4, "{took:?}");
}

#[test]
fn it_is_observed_for_less_where_growth_presses() {
    let mut world = World::new(plan());
    world.pace.pressed = true;
    let began = world.now;
    let steps = world.run(OBSERVE * 9, || Some(good()));
    assert_eq!(steps.last(), Some(&Step::Commit));
    assert!(world.now - began < OBSERVE, "{:?}", world.now - began);
}

#[test]
fn nothing_moves_before_every_new_owner_is_ready() {
    let mut world = World::new(plan());
    assert_eq!(world.run(OBSERVE * 4, || Some(Report { ready: false, ..good() })), []);
    assert_eq!(world.run(OBSERVE / 4, || Some(good())), [Step::Move(10)]);
    let mut world = World::new(plan());
    assert_eq!(world.run(OBSERVE * 4, || None), [], "nor before it was heard of");
    let steps = world.run(PREPARE_MAX, || None);
    assert!(matches!(&steps[..], [Step::RollBack(_)]), "{steps:?}");
}

/// At each step: an owner that gets slow, falls behind, misses records or refuses is found.
#[test]
fn one_that_makes_things_worse_is_rolled_back_from_every_step() {
    let slow = Report { round_trip: Duration::from_millis(600), ..good() };
    let behind = Report { lag: Duration::from_millis(600), ..good() };
    let gaps = Report { gaps: 1, ..good() };
    let objects = Report { judged: 200, objected: 150, ..good() };
    for steps in 1..=3 {
        for (bad, why) in [(slow, "600 ms"), (behind, "600 ms"), (gaps, "missed"), (objects, "75 %")] {
            let mut world = World::new(plan());
            let mut taken = Vec::new();
            while taken.len() < steps {
                taken.extend(world.run(Plan::interval(PACE), || Some(good())));
            }
            let taken = world.run(OBSERVE, || Some(bad));
            assert!(matches!(&taken[..], [Step::RollBack(said)] if said.contains(why)), "{steps}: {taken:?}");
        }
    }
}

#[test]
fn one_that_is_silent_is_waited_for_as_long_as_a_node_takes_to_be_replaced() {
    let mut world = World::new(plan());
    assert_eq!(world.run(OBSERVE, || Some(good())), [Step::Move(10)]);
    assert_eq!(world.run(SILENCE_MAX - Duration::from_secs(1), || None), [], "and nothing goes on meanwhile");
    let mut back = world;
    assert_eq!(back.run(OBSERVE, || Some(good())).first(), Some(&Step::Move(30)));
    let mut world = World::new(plan());
    world.run(OBSERVE, || Some(good()));
    let steps = world.run(SILENCE_MAX * 2, || None);
    assert!(matches!(&steps[..], [Step::RollBack(why)] if why.contains("said nothing")), "{steps:?}");
}

#[test]
fn what_was_slow_before_is_not_the_plans_fault() {
    let slow = || Some(Report { round_trip: Duration::from_millis(700), ..good() });
    let mut world = World { odd: 0, ..World::new(plan()) };
    assert_eq!(world.run(OBSERVE * 9, slow).last(), Some(&Step::Commit));
    let steps = World::new(plan()).run(OBSERVE * 9, slow);
    assert!(matches!(&steps[..], [Step::Move(10), Step::RollBack(_)]), "but a new owner's is: {steps:?}");
}

#[test]
fn a_hiccup_is_none() {
    let mut world = World::new(plan());
    let mut count = 0;
    let steps = world.run(OBSERVE * 9, || {
        count += 1;
        let round_trip = Duration::from_millis(if count % 5 < 2 { 600 } else { 5 });
        Some(Report { round_trip, ..good() })
    });
    assert_eq!(steps.last(), Some(&Step::Commit));
}

#[test]
fn a_plan_that_is_paused_stays_where_it_is_but_rolls_back() {
    for steps in 0..=3 {
        let mut world = World::new(plan());
        let mut taken = Vec::new();
        while taken.len() < steps {
            taken.extend(world.run(Plan::interval(PACE), || Some(good())));
        }
        world.plan.pause(true);
        assert_eq!(world.run(PREPARE_MAX * 2, || Some(good())), [], "{steps}");
        world.plan.pause(false);
        assert_eq!(world.run(OBSERVE * 9, || Some(good())).last(), Some(&Step::Commit), "{steps}");
    }
    let mut world = World::new(plan());
    world.run(OBSERVE, || Some(good()));
    world.plan.pause(true);
    let steps = world.run(OBSERVE, || Some(Report { gaps: 1, ..good() }));
    assert!(matches!(&steps[..], [Step::RollBack(_)]), "{steps:?}");
}

#[test]
fn the_next_home_goes_on_where_the_last_one_stood() {
    let (now, to) = (partitions(0..2), partitions(0..3));
    for (percent, next) in
        [(0, Step::Move(10)), (10, Step::Move(30)), (30, Step::Move(100)), (100, Step::Commit)]
    {
        let mut world = World::new(Plan::new(&now, &to, percent, false));
        assert_eq!(world.run(OBSERVE * 9, || Some(good())).first(), Some(&next), "{percent}");
    }
}

proptest! {
    /// Whatever owners report and whenever, steps come in their order, and a plan that is left alone with
    /// owners that do well is committed.
    #[test]
    fn a_plan_ends(reports in prop::collection::vec((0_u16..3, any::<bool>(), 0_u64..900, 0_u64..2_000), 0..200)) {
        let mut world = World::new(plan());
        let mut percent = 0;
        for (owner, ready, round_trip, after) in reports {
            let report = Report { ready, round_trip: Duration::from_millis(round_trip), ..good() };
            world.now += Duration::from_millis(after);
            world.plan.handle_report(Partition::new(owner).unwrap(), report, PACE, world.now);
            match world.plan.poll(PACE, world.now) {
                Some(Step::Move(further)) => {
                    prop_assert!(further > percent, "{further} after {percent}");
                    percent = further;
                    world.plan.moved(further);
                }
                Some(Step::Commit) => {
                    prop_assert_eq!(percent, 100);
                    return Ok(());
                }
                Some(Step::RollBack(_)) => return Ok(()),
                None => {}
            }
        }
        let steps = world.run(OBSERVE * 9, || Some(good()));
        prop_assert!(!matches!(steps.last(), None | Some(Step::Move(_))), "{:?}", steps);
    }
}
