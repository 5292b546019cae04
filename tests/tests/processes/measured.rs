//! What moving members costs others, and what many members cost a home: measured, in windows that take
//! turns, so that whatever else the machine does concerns both sides.
//!
//! `SHOAL_TEST_BINARY=target/release/shoal cargo test --release -p shoal-tests --test processes --
//! --ignored --nocapture --test-threads=1 measured`, after `cargo build --release -p shoal-node`.

use std::{
    fs,
    ops::Range,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shoal_loadgen::{Bounds, Clients, Report, curve::Curve, follow_curve, plan::Shape, timeline::Step};
use shoal_tests::process::Machine;

use crate::{
    cluster::{Cluster, pause},
    load::{assert_nothing_is_lost, options},
};

const PAIRS: usize = 5;

/// Steps of a plan are watched for half a second each, so that a plan takes eleven.
const OBSERVE: &str = "limits.group.plan_observe_ms=3500";

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Carries out `what`: from when to when that took.
fn window(what: impl FnOnce()) -> Range<u64> {
    let from = now_ms();
    what();
    from..now_ms()
}

/// The median of the delivery p99 of each second that lies within.
pub(crate) fn delivery_p99(report: &Report, windows: &[Range<u64>]) -> f64 {
    let at = |step: &Step| report.began_ms + (step.at * 1000.0) as u64;
    let is_within =
        |step: &&Step| windows.iter().any(|window| window.start <= at(step) && at(step) + 1000 <= window.end);
    let steps = report.timeline.iter().filter(is_within).filter(|step| step.deliveries > 0);
    let mut found: Vec<f64> = steps.map(|step| step.delivery_latency_ms.p99).collect();
    assert!(!found.is_empty(), "a second lies within {windows:?}");
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

/// The windows with something and those without, in turn: by pairs, and all together.
fn compare(what: &str, report: &Report, with: &[Range<u64>], without: &[Range<u64>]) -> f64 {
    for (with, without) in with.iter().zip(without) {
        let p99 = |window: &Range<u64>| delivery_p99(report, std::slice::from_ref(window));
        let (with, without) = (p99(with), p99(without));
        println!("delivery p99: {with:.1} ms with {what}, {without:.1} ms without: {:.2}", with / without);
    }
    let (with, without) = (delivery_p99(report, with), delivery_p99(report, without));
    println!("of all: {with:.1} ms with {what}, {without:.1} ms without: {:.2}", with / without);
    with / without
}

fn in_background<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    thread::spawn(|| {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        threads.unwrap().block_on(work)
    })
}

/// The first group that gets a plan by itself, once that has ended.
fn planned(machine: &Machine) -> String {
    let group = loop {
        let plans = machine.command(&["plan", "list"]);
        if let Some(plan) = plans.as_array().unwrap().first() {
            break plan["group"].as_str().unwrap().to_owned();
        }
        thread::sleep(Duration::from_millis(100));
    };
    while !ended(machine, &group) {}
    group
}

/// As long as a plan takes, and looked at as often: the looks cost both sides the same.
fn rest(machine: &Machine, group: &str) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(11) {
        assert!(ended(machine, group), "no plan begins by itself");
    }
}

/// Looks, a little later, whether no plan of the group is under way.
fn ended(machine: &Machine, group: &str) -> bool {
    thread::sleep(Duration::from_millis(200));
    let shown = machine.command(&["plan", "show", group]);
    assert_ne!(shown["last_plan"]["committed"], false, "{shown}");
    shown["plan"].is_null()
}

/// Has the group cut otherwise, and waits until it is.
fn cut(machine: &Machine, group: &str, sub_groups: usize) {
    drop(machine.command(&["plan", "start", group, "--sub-groups", &sub_groups.to_string()]));
    while !ended(machine, group) {}
}

#[test]
#[ignore = "it measures, for four minutes"]
fn deliveries_take_as_long_with_a_plan_as_without() {
    const MEMBERS: u32 = 5_000;
    let machine = Machine::start(&[OBSERVE]);
    let (growing, steady) = (Duration::from_secs(60), Duration::from_secs(160));
    let curve = Curve::grow(10, MEMBERS, growing, steady, None).at_most(20.0, 15_000.0);
    let clients = Clients::new(machine.address().to_string(), machine.data());
    let bounds = Bounds { deliveries: 15_000.0, turnover: 0.0 };
    let load = in_background(async move { follow_curve(&clients, bounds, &curve).await.unwrap() });
    let group = planned(&machine);
    thread::sleep(growing + Duration::from_secs(5));
    while !ended(&machine, &group) {}
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        with.push(window(|| cut(&machine, &group, if pair % 2 == 0 { 14 } else { 8 })));
        without.push(window(|| rest(&machine, &group)));
    }
    assert!(!load.is_finished(), "all under load");
    let report = load.join().unwrap();
    println!("{report}");
    assert_nothing_is_lost(&report);
    let ratio = compare("a plan", &report, &with, &without);
    assert!(ratio <= 1.2, "{ratio}");
}

/// The members of a group that nobody follows are fetched by their new owners, while others talk.
#[test]
#[ignore = "it measures, for three minutes"]
fn who_talks_in_other_groups_does_not_feel_that_members_are_moved() {
    let cluster = Cluster::with(&[OBSERVE]);
    cluster.settle();
    let [machine, ..] = cluster.nodes.as_slice() else { panic!("three nodes") };
    // Every second one moves, and every third of them stays on its node.
    let mut crowd = options(machine, 1);
    crowd.shapes = vec![Shape { groups: 1, members: 1, offline: 60_000 }];
    let making = thread::spawn(|| crate::load::run(crowd));
    let group = planned(machine);
    assert_nothing_is_lost(&making.join().unwrap());
    // One plan after the other, for as long as it has grown.
    while !(0..20).all(|_| ended(machine, &group)) {}
    cut(machine, &group, 60);

    let mut talk = options(machine, 150);
    (talk.shapes, talk.rate) = (vec![Shape::new(20, 10)], 200.0);
    let load = cluster.load_with(talk);
    pause(3);
    let moved = || cluster.nodes.iter().map(|node| node.metric("shoal_members_loaded_total")).sum::<f64>();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let before = moved();
        with.push(window(|| cut(machine, &group, if pair % 2 == 0 { 120 } else { 60 })));
        println!("{} members moved", moved() - before);
        assert!(moved() - before >= 10_000.0, "they are moved");
        without.push(window(|| rest(machine, &group)));
    }
    assert!(!load.is_finished(), "all under load");
    let report = load.join().unwrap();
    assert_nothing_is_lost(&report);
    let ratio = compare("members on the move", &report, &with, &without);
    assert!(ratio <= 1.2, "{ratio}");
}

/// CPU time that a process has had so far.
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let had = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    let nanoseconds = had.filter_map(|had| had.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(nanoseconds.sum())
}

/// The home's node has no sessions: these are on two others.
#[test]
#[ignore = "it measures, for ten minutes"]
fn a_message_costs_its_home_the_same_however_many_members_there_are() {
    let elsewhere = ["roles=access", "limits.access.surplus_sessions=1000000"].as_slice();
    let cluster = Cluster::with_each([&["roles=access,group,coordination"], elsewhere, elsewhere]);
    let (home, others) = cluster.nodes.split_first().unwrap();
    let of = || (cpu(home.pid().unwrap()), home.metric("shoal_committed_total"));
    // Of the greatest so many messages that two cores are not full with sending them to everybody.
    let connected = Shape::new(1, 1_000);
    let cases = [
        (Shape::new(1, 100), 4.0, 40),
        (connected, 4.0, 40),
        (Shape { offline: 9_000, ..connected }, 4.0, 40),
        (Shape::new(1, 10_000), 2.0, 80),
    ];
    let found = cases.map(|(shape, rate, seconds)| {
        let [quiet, talking] = [0.1, rate].map(|rate| {
            let mut options = options(home, seconds + 10);
            (options.shapes, options.rate) = (vec![shape], rate);
            let load = cluster.load_at(others, options);
            pause(5);
            let (before, committed_before) = of();
            pause(seconds);
            let (after, committed) = of();
            assert_nothing_is_lost(&load.join().unwrap());
            (after.checked_sub(before).unwrap(), committed - committed_before)
        });
        let messages = talking.1 - quiet.1;
        let each = (talking.0.as_secs_f64() - quiet.0.as_secs_f64()) * 1e6 / messages;
        println!("{shape}: {each:.0} us of the home for each message ({quiet:?}, {talking:?})");
        each
    });
    assert!(found.iter().all(|each| *each <= found[0] * 1.5), "{found:?}");
}
