//! Sixty clients under load while the node is killed, stopped and started; every delivery is
//! judged by the load generator.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use shoal_loadgen::{Options, Report, plan::Shape};
use shoal_tests::process::Machine;

/// Three groups of ten and one of thirty.
const CLIENTS: u64 = 60;

pub(crate) fn options(machine: &Machine, seconds: u64) -> Options {
    let mut options = Options::new(machine.address().to_string(), machine.data());
    options.shapes = vec![Shape::new(3, 10), Shape::new(1, 30)];
    options.rate = 100.0;
    options.duration = Duration::from_secs(seconds);
    options
}

pub(crate) fn run(options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = runtime.block_on(shoal_loadgen::run(options)).unwrap();
    println!("{report}");
    report
}

pub(crate) fn assert_nothing_is_wrong(report: &Report) {
    assert_nothing_is_lost(report);
    assert_eq!(report.connections, CLIENTS);
}

pub(crate) fn assert_nothing_is_lost(report: &Report) {
    assert!(report.passed, "{report}");
    assert!(report.acknowledged > 0 && report.refused == 0, "{report}");
    assert_eq!(report.published, report.acknowledged, "{report}");
}

/// Waits until so many clients have a session and the node has taken their messages since it
/// started; false where the load is over before, and then its report says what it came to.
fn is_at_work(machine: &Machine, clients: u64, load: &JoinHandle<Report>) -> bool {
    const MESSAGES: f64 = 50.0;
    while !load.is_finished() {
        let sessions = machine.metric("shoal_sessions");
        if sessions >= clients as f64 && machine.metric("shoal_publish_seconds_count") >= MESSAGES {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Takes the node down and up so many times, always under load: where one load ends too early,
/// another follows. Every client is seen to come back after the last time, and after most others.
fn interrupt(machine: &mut Machine, times: u64, load_seconds: u64, down_and_up: impl Fn(&mut Machine, u64)) {
    let (mut done, mut all_are_back) = (0, false);
    while !all_are_back {
        let options = options(machine, load_seconds);
        let load = thread::spawn(move || run(options));
        let done_before = done;
        // Each third time it hits those who are back first, and the others on their way.
        let awaited = |done: u64| if done % 3 == 2 { CLIENTS / 3 } else { CLIENTS };
        while done < times && is_at_work(machine, awaited(done), &load) {
            down_and_up(machine, done);
            done += 1;
        }
        all_are_back = done == times && is_at_work(machine, CLIENTS, &load);
        assert_nothing_is_wrong(&load.join().unwrap());
        if !all_are_back {
            assert!(done > done_before, "a whole load passed and the clients did not come back");
            // The last time is done again, and what the node counts begins anew.
            done = done.min(times - 1);
            machine.kill();
            machine.up();
        }
    }
}

#[test]
fn ten_kills_under_load_lose_nothing_and_every_client_comes_back_by_itself() {
    let mut machine = Machine::start(&[]);
    interrupt(&mut machine, 10, 40, |machine, kill| {
        machine.kill();
        thread::sleep(Duration::from_millis(60 * kill));
        machine.up();
    });
}

#[test]
fn a_node_that_is_stopped_in_good_order_and_started_again_loses_nothing() {
    let mut machine = Machine::start(&["drain_grace_ms=1000"]);
    interrupt(&mut machine, 3, 12, |machine, _| {
        assert!(machine.stop().success());
        machine.up();
    });
}

#[test]
fn clients_that_stop_reading_and_clients_that_come_and_go_miss_nothing() {
    let machine = Machine::start(&[]);
    let mut options = options(&machine, 10);
    (options.slow, options.churn) = (20.0, 20.0);
    let report = run(options);
    assert_nothing_is_wrong(&report);
    assert!(report.restarts > 0 && report.pauses > 0, "{report}");
}
