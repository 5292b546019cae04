//! A thousand clients lose their network at once, for longer than their sessions live, and come back at once.
//!
//! `SHOAL_TEST_BINARY=target/release/shoal cargo test --release -p shoal-tests --test processes --
//! --ignored --nocapture storm`, after `cargo build --release -p shoal-node`.

use std::{
    slice, thread,
    time::{Duration, Instant},
};

use shoal_loadgen::{Options, Report, plan::Shape};
use shoal_network::Profile;
use shoal_tests::process::Machine;

use crate::{
    load::{assert_nothing_is_lost, options, run},
    measured::delivery_p99,
};

/// Longer than the idle timeout.
const DARK: Duration = Duration::from_secs(45);
/// The first blackout begins so long after the beginning: there are 30 s between two.
const BEFORE: Duration = Duration::from_secs(75);
/// All must be back within this.
const BACK: Duration = Duration::from_secs(15);

/// Retries come five seconds after each other at most, and by chance: so a second brings no more than this of a
/// thousand clients, twice what it would be if they were spread evenly.
const HANDSHAKES_MAX: f64 = 400.0;

/// A hundred groups of ten, all on the network that goes dark.
fn crowd(machine: &Machine, lasts: Duration) -> Options {
    let mut options = options(machine, lasts.as_secs());
    options.shapes = vec![Shape::new(100, 10)];
    options.rate = 20.0;
    options.clients.network.network = Profile::named("clear");
    options.clients.network.blackout = Some(DARK);
    options
}

/// How many connections each second brought.
fn count_connections(machine: &Machine, lasts: Duration) -> Vec<f64> {
    let accepted = || machine.metric("shoal_connections_accepted_total");
    let (begun, mut before, mut each) = (Instant::now(), accepted(), Vec::new());
    while begun.elapsed() < lasts {
        thread::sleep(Duration::from_secs(1));
        let now = accepted();
        each.push(now - before);
        before = now;
    }
    each
}

#[test]
#[ignore = "it measures, for three minutes"]
fn a_thousand_clients_come_back_without_a_storm() {
    let machine = Machine::start(&[]);
    let lasts = BEFORE + DARK + BACK * 2;
    let load = |options: Options| thread::spawn(move || run(options));
    let away = load(crowd(&machine, lasts));
    // They connect first; and then those who stay.
    while machine.metric("shoal_sessions") < 1_000.0 {
        thread::sleep(Duration::from_millis(200));
    }
    let stay = load(options(&machine, (lasts - Duration::from_secs(5)).as_secs()));
    thread::sleep(Duration::from_secs(5));
    let each = count_connections(&machine, lasts - Duration::from_secs(5));
    let (away, stay): (Report, Report) = (away.join().unwrap(), stay.join().unwrap());
    assert_nothing_is_lost(&away);
    assert_nothing_is_lost(&stay);
    let most = each.iter().copied().fold(0.0, f64::max);
    let within = |from: Duration, until: Duration| {
        let at = |since: Duration| away.began_ms + since.as_millis() as u64;
        delivery_p99(&stay, slice::from_ref(&(at(from)..at(until))))
    };
    let usual = within(Duration::from_secs(8), BEFORE);
    let storm = within(BEFORE + DARK, BEFORE + DARK + BACK);
    println!("{} reconnects; {most} connections a second at most: {each:?}", away.reconnects);
    println!(
        "delivery p99 of those who stay: {usual:.1} ms before, {storm:.1} ms while the others come back"
    );
    // Those to whom nothing was said in the dark go on with the session that they have.
    assert!(away.reconnects >= 500, "most had lost their sessions: {away}");
    assert!(most <= HANDSHAKES_MAX, "{each:?}");
}
