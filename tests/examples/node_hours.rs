//! What a day costs in node-hours, elastic and fixed, and how that changes with the day's curve and with
//! the headrooms: `cargo run -p shoal-tests --example node_hours`.

use std::time::Duration;

use shoal_loadgen::curve::{DAY_MEMBERS, DAY_MESSAGES};
use shoal_tests::node_hours::{Curve, Day};

/// Offices: busy from eight to six.
const OFFICE: Curve = [
    3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 8.0, 30.0, 85.0, 100.0, 98.0, 90.0, //
    70.0, 85.0, 98.0, 95.0, 85.0, 50.0, 20.0, 10.0, 8.0, 6.0, 4.0, 3.0,
];

/// An evening's event, on a day like any other.
const EVENT: Curve = [
    12.0, 8.0, 6.0, 5.0, 5.0, 6.0, 10.0, 15.0, 20.0, 24.0, 26.0, 28.0, //
    30.0, 29.0, 28.0, 28.0, 30.0, 35.0, 60.0, 100.0, 100.0, 70.0, 30.0, 18.0,
];

/// All the world at once: somewhere it is always day.
const WORLD: Curve = [
    78.0, 74.0, 70.0, 68.0, 68.0, 70.0, 74.0, 80.0, 84.0, 86.0, 88.0, 90.0, //
    92.0, 92.0, 94.0, 96.0, 98.0, 100.0, 100.0, 98.0, 95.0, 92.0, 88.0, 82.0,
];

fn main() {
    let curves: [(&str, &Curve, &Curve); 4] = [
        ("a day (shoal-loadgen day)", &DAY_MEMBERS, &DAY_MESSAGES),
        ("offices", &OFFICE, &OFFICE),
        ("an event", &EVENT, &EVENT),
        ("all the world", &WORLD, &WORLD),
    ];
    println!("peak: 20 nodes' worth; a node takes 3 min to start and 2 min to drain");
    println!(
        "| curve | headroom elastic / fixed % | node-hours elastic | fixed | fullest % elastic / fixed | nodes | started | saved % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, members, messages) in curves {
        for (headroom_elastic, headroom_fixed) in [(30, 30), (20, 20), (40, 30)] {
            let (start, drain) = (Duration::from_secs(180), Duration::from_secs(120));
            let day = Day { members, messages, peak: 20.0, headroom_elastic, headroom_fixed, start, drain };
            let cost = day.play();
            println!(
                "| {name} | {headroom_elastic} / {headroom_fixed} | {:.0} | {:.0} | {:.0} / {:.0} | {} to {} | {} | **{:.0}** |",
                cost.elastic_hours,
                cost.fixed_hours,
                cost.elastic_fullest,
                cost.fixed_fullest,
                cost.nodes.0,
                cost.nodes.1,
                cost.started,
                cost.saved()
            );
        }
    }
}
