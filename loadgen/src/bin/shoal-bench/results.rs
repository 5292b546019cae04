//! Runs the measurements in turn and tells what they came to: medians, ratios and goals.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    Bench,
    conditions::Conditions,
    fanout::{self, Case, Pace},
    hop::Hop,
    idle, lone,
    process::Kind,
    throughput,
};

/// The most that a delivery may cost, as a multiple of the bare server's.
const FANOUT_RATIO_MAX: f64 = 1.3;
/// The most that an idle session may weigh.
const SESSION_KIB_MAX: f64 = 48.0;
/// The longest that a lone sender may wait, as a multiple of the disk's time.
const RECEIPT_RATIO_MAX: f64 = 2.0;

pub(crate) const PAYLOAD_BYTES: usize = 128;

/// Two servers on the same load, in turn.
#[derive(Debug, Serialize)]
struct Fanout {
    connections: usize,
    pace: Pace,
    payload_bytes: usize,
    cpu_ratio: f64,
    datagrams_ratio: f64,
    goal: f64,
    rounds: Vec<fanout::Sample>,
}

#[derive(Debug, Serialize)]
struct Lone {
    p50_ratio: f64,
    goal: f64,
    rounds: Vec<lone::Sample>,
}

/// All figures of a run, with the conditions.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    conditions: Conditions,
    fanout: Vec<Fanout>,
    idle_goal_kib: f64,
    idle: Vec<idle::Sample>,
    lone: Option<Lone>,
    throughput: Vec<throughput::Sample>,
    hop: Option<Hop>,
}

impl Results {
    pub(crate) fn new(conditions: Conditions) -> Self {
        println!("{conditions:#?}");
        let idle_goal_kib = SESSION_KIB_MAX;
        Self {
            conditions,
            fanout: vec![],
            idle_goal_kib,
            idle: vec![],
            lone: None,
            throughput: vec![],
            hop: None,
        }
    }

    pub(crate) async fn fanout(&mut self, bench: &Bench) -> Result<()> {
        for (connections, pace) in [(1000, Pace::PerSecond(50)), (200, Pace::Saturated)] {
            let case = Case { connections, pace, payload_bytes: PAYLOAD_BYTES, measured: bench.measured };
            let mut samples = Vec::new();
            for round in 1..=bench.rounds {
                for &kind in &bench.kinds {
                    eprintln!(
                        "{connections} connections, {pace:?}, round {round} of {}: {kind:?}",
                        bench.rounds
                    );
                    samples.push(fanout::measure(kind, case, &bench.shoal, &bench.dir).await?);
                }
            }
            let result = Fanout {
                connections,
                pace,
                payload_bytes: PAYLOAD_BYTES,
                cpu_ratio: ratio(&samples, |sample| sample.cpu_us_per_delivery),
                datagrams_ratio: ratio(&samples, |sample| sample.datagrams_out_per_delivery),
                goal: FANOUT_RATIO_MAX,
                rounds: samples,
            };
            result.print();
            self.fanout.push(result);
        }
        Ok(())
    }

    pub(crate) async fn idle(&mut self, bench: &Bench, sessions: usize) -> Result<()> {
        let mut table = table(&["server", "sessions", "groups each", "MiB before", "KiB a session", "goal"]);
        let turns =
            [1, 200].into_iter().flat_map(|groups| bench.kinds.iter().map(move |&kind| (kind, groups)));
        for (kind, groups) in turns {
            eprintln!("{sessions} idle sessions in {groups} groups: {kind:?}");
            let sample = idle::measure(kind, sessions, groups, &bench.shoal, &bench.dir).await?;
            table.add_row([
                format!("{kind:?}"),
                sample.sessions.to_string(),
                sample.groups.to_string(),
                format!("{:.1}", sample.resident_before_mib),
                format!("{:.1}", sample.kib_per_session),
                goal(kind, format!("≤ {SESSION_KIB_MAX}")),
            ]);
            self.idle.push(sample);
        }
        println!("{table}");
        Ok(())
    }

    pub(crate) async fn lone(&mut self, bench: &Bench) -> Result<()> {
        let mut samples = Vec::new();
        for round in 1..=bench.rounds {
            eprintln!("a lone sender, round {round} of {}", bench.rounds);
            samples.push(lone::measure(&bench.shoal, &bench.dir, bench.measured).await?);
        }
        let receipt = median(samples.iter().map(|sample| sample.receipt_ms.p50));
        let disk = median(samples.iter().map(|sample| sample.fdatasync_ms.p50));
        let receipt_p99 = median(samples.iter().map(|sample| sample.receipt_ms.p99));
        let disk_p99 = median(samples.iter().map(|sample| sample.fdatasync_ms.p99));
        let mut table = table(&["", "p50 ms", "p99 ms", "p50 ratio", "goal"]);
        table.add_row(["fdatasync".into(), format!("{disk:.2}"), format!("{disk_p99:.2}")]);
        table.add_row([
            "publish to receipt".into(),
            format!("{receipt:.2}"),
            format!("{receipt_p99:.2}"),
            format!("{:.2}", receipt / disk),
            format!("≤ {RECEIPT_RATIO_MAX}"),
        ]);
        println!("{table}");
        self.lone = Some(Lone { p50_ratio: receipt / disk, goal: RECEIPT_RATIO_MAX, rounds: samples });
        Ok(())
    }

    pub(crate) async fn throughput(&mut self, bench: &Bench) -> Result<()> {
        let mut table = table(&["groups", "in flight", "durable /s", "delivered /s", "CPU µs a message"]);
        for groups in [1, 1000] {
            let mut samples = Vec::new();
            for round in 1..=bench.rounds {
                eprintln!("durable messages into {groups} groups, round {round} of {}", bench.rounds);
                samples.push(throughput::measure(groups, &bench.shoal, &bench.dir, bench.measured).await?);
            }
            let of = |figure: fn(&throughput::Sample) -> f64| median(samples.iter().map(figure));
            table.add_row([
                groups.to_string(),
                samples.first().map_or(0, |sample| sample.in_flight).to_string(),
                format!("{:.0}", of(|sample| sample.durable_per_second)),
                format!("{:.0}", of(|sample| sample.delivered_per_second)),
                format!("{:.1}", of(|sample| sample.cpu_us_per_message)),
            ]);
            self.throughput.extend(samples);
        }
        println!("{table}");
        Ok(())
    }

    pub(crate) async fn hop(&mut self, bench: &Bench) -> Result<()> {
        self.hop = Some(Hop::measure(bench).await?);
        Ok(())
    }
}

impl Fanout {
    fn print(&self) {
        println!("{} connections, {:?}, {} bytes", self.connections, self.pace, self.payload_bytes);
        let columns =
            ["server", "deliveries /s", "CPU µs each", "datagrams out each", "in each", "CPU ratio", "goal"];
        let mut table = table(&columns);
        for kind in [Kind::Bare, Kind::Shoal] {
            let of = |figure: fn(&fanout::Sample) -> f64| median(only(&self.rounds, kind).map(figure));
            table.add_row([
                format!("{kind:?}"),
                format!("{:.0}", of(|sample| sample.deliveries_per_second)),
                format!("{:.2}", of(|sample| sample.cpu_us_per_delivery)),
                format!("{:.3}", of(|sample| sample.datagrams_out_per_delivery)),
                format!("{:.3}", of(|sample| sample.datagrams_in_per_delivery)),
                goal(kind, format!("{:.2}", self.cpu_ratio)),
                goal(kind, format!("≤ {FANOUT_RATIO_MAX}")),
            ]);
        }
        println!("{table}");
    }
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn goal(kind: Kind, text: String) -> String {
    if kind == Kind::Shoal { text } else { String::new() }
}

fn only(samples: &[fanout::Sample], kind: Kind) -> impl Iterator<Item = &fanout::Sample> {
    samples.iter().filter(move |sample| sample.server == kind)
}

/// The node's median, as a multiple of the bare server's.
fn ratio(samples: &[fanout::Sample], figure: fn(&fanout::Sample) -> f64) -> f64 {
    median(only(samples, Kind::Shoal).map(figure)) / median(only(samples, Kind::Bare).map(figure))
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => figures[middle],
        _ => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
