//! What a run found, for people and for programs.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    checker::Verdict,
    judge::Judge,
    network::NetworkReport,
    timeline::{Attendance, Step},
};

/// The longest latency told apart, in microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How many clients that failed are told of in words.
const FINDINGS_MAX: usize = 20;

/// Latencies, from the moment a message was meant to be sent.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("these bounds are valid"))
    }
}

impl Latencies {
    /// Told to 1 %, in a tenth of the memory: for many of them.
    #[must_use]
    pub fn coarse() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("these bounds are valid"))
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Takes in all of others.
    pub fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("both have the same bounds");
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes one in.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX));
    }

    /// Half, 99 %, 99.9 % and all of them lie below these.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let ms = |us: u64| us as f64 / 1000.0;
        Quantiles {
            p50: ms(self.0.value_at_quantile(0.5)),
            p99: ms(self.0.value_at_quantile(0.99)),
            p999: ms(self.0.value_at_quantile(0.999)),
            max: ms(self.0.max()),
        }
    }
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p999, max } = self;
        write!(f, "p50 {p50:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} ms")
    }
}

/// Who came and went, in a run along a curve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Turnout {
    /// Members who joined on the way.
    pub joined: u64,
    /// Members who left.
    pub left: u64,
    /// Those of them whose session was lost, or went to another node, while they left: a node serves nobody
    /// who is no member any more, so they are owed nothing beyond what they had.
    pub cut_off: u64,
    /// The most members that were there at a time.
    pub members_max: u32,
    /// The most sub-groups that there were.
    pub sub_groups_max: u32,
    /// How many sub-groups there were in the end.
    pub sub_groups_last: u32,
    /// How often the group was laid out anew.
    pub layouts: u64,
}

impl Turnout {
    /// Takes in who is there now.
    pub fn saw(&mut self, attendance: &Attendance) {
        self.members_max = self.members_max.max(attendance.members);
        self.sub_groups_max = self.sub_groups_max.max(attendance.sub_groups);
        self.sub_groups_last = attendance.sub_groups;
        self.layouts = attendance.layout_version;
    }
}

impl fmt::Display for Turnout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joined, left, cut_off, members_max, sub_groups_max, sub_groups_last, layouts } = self;
        write!(
            f,
            "{members_max} at most, {joined} joined, {left} left ({cut_off} whose session ended meanwhile); {sub_groups_max} sub-groups at most, \
             {sub_groups_last} in the end, by {layouts} layouts"
        )
    }
}

/// What a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Nothing was lost, doubled, out of order, corrupt or made up, something was acknowledged, and no
    /// client failed.
    pub passed: bool,
    /// Clients, each with a connection of its own.
    pub connections: u64,
    /// Messages given to clients for sending.
    pub published: u64,
    /// Receipts that say "durable".
    pub acknowledged: u64,
    /// Messages refused for good.
    pub refused: u64,
    /// Messages whose outcome was still unknown at the end.
    pub unanswered: u64,
    /// Messages that were due and not given to a client, because it had too many waiting.
    pub unsent: u64,
    /// Records that apps got, over all receivers.
    pub deliveries: u64,
    /// Deliveries owed and never made.
    pub lost: u64,
    /// Deliveries of what was had before, and messages with two places.
    pub duplicated: u64,
    /// Deliveries out of order.
    pub reordered: u64,
    /// Deliveries with bytes that nobody sent.
    pub corrupted: u64,
    /// Deliveries of what was refused or never sent.
    pub phantoms: u64,
    /// Deliveries of what was said before their receiver joined, or after it left.
    pub strays: u64,
    /// Places that a client passed over, though a group's sequence has no hole.
    pub holes: u64,
    /// Clients that were closed, or whose follow ended, for good.
    pub failed_clients: u64,
    /// Holes that clients noticed and filled before the app saw them.
    pub gaps_refilled: u64,
    /// Times a client lost its connection and came back by itself.
    pub reconnects: u64,
    /// Those among them for which nobody was offline: the node had asked for it.
    pub moves: u64,
    /// Times a client moved its connection to another socket, as it was told of another network.
    pub rebinds: u64,
    /// Times a client was ended and begun again from its saved state.
    pub restarts: u64,
    /// Times a client stopped reading.
    pub pauses: u64,
    /// Times a group's delivery was stopped because its client did not read, and went on later.
    pub parked: u64,
    /// The most records a client had to catch up on when it read again.
    pub behind_max: u64,
    /// From the intended moment to the receipt, without clients that leave: theirs are due while
    /// they are away.
    pub publish_latency_ms: Quantiles,
    /// From the intended moment to an app, without senders that leave, and without receivers that
    /// leave or stop reading.
    pub delivery_latency_ms: Quantiles,
    /// The longest that a member who kept its session was behind the first to have a message, without
    /// those who leave or stop reading.
    pub kept_lag_ms: f64,
    /// The same for those who lost theirs.
    pub moved_lag_ms: f64,
    /// How many these were.
    pub moved: u64,
    /// Who came and went, in a run along a curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turnout: Option<Turnout>,
    /// What apps felt of a weak network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    /// What happened when.
    pub timeline: Vec<Step>,
    /// When the first message was due: milliseconds since 1970.
    pub began_ms: u64,
    /// How long messages were sent.
    pub seconds: f64,
    /// How long it took, after the last, until everything had arrived.
    pub drain_seconds: f64,
    /// Repeats the plan of the run.
    pub seed: u64,
    /// The first things wrong, in words.
    pub findings: Vec<String>,
}

impl Report {
    /// A client was of no more use before the end.
    pub fn fail(&mut self, finding: String) {
        self.failed_clients += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Takes in all that the judge knows, who forgets it.
    pub fn tell(&mut self, judge: &Judge) {
        self.publish_latency_ms = judge.publish_latency();
        self.delivery_latency_ms = judge.delivery_latency();
        self.timeline = judge.timeline();
        self.began_ms = judge.began_ms();
        self.judge(judge.finish());
    }

    /// Takes in a verdict. A run in which nothing was acknowledged shows nothing, so it fails, and so
    /// does one in which a client did not last.
    pub fn judge(&mut self, verdict: Verdict) {
        self.published = verdict.published;
        self.acknowledged = verdict.acknowledged;
        self.refused = verdict.refused;
        self.unanswered = verdict.published - verdict.acknowledged - verdict.refused;
        self.deliveries = verdict.deliveries;
        self.lost = verdict.lost;
        self.duplicated = verdict.duplicated;
        self.reordered = verdict.reordered;
        self.corrupted = verdict.corrupted;
        self.phantoms = verdict.phantoms;
        self.strays = verdict.strays;
        self.holes = verdict.holes;
        self.passed = verdict.is_clean() && verdict.acknowledged > 0 && self.failed_clients == 0;
        self.findings.extend(verdict.findings);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64| count as f64 / self.seconds.max(0.001);
        let mut line = |name: &str, what: String| writeln!(f, "  {name:<18}{what}");
        line("connections", format!("{}", self.connections))?;
        if let Some(turnout) = &self.turnout {
            line("members", turnout.to_string())?;
        }
        line(
            "published",
            format!("{} ({:.0}/s for {:.1} s)", self.published, rate(self.published), self.seconds),
        )?;
        line("acknowledged", format!("{}", self.acknowledged))?;
        if self.refused + self.unanswered + self.unsent > 0 {
            line(
                "refused",
                format!("{}, unanswered {}, never sent {}", self.refused, self.unanswered, self.unsent),
            )?;
        }
        line("deliveries", format!("{} ({:.0}/s)", self.deliveries, rate(self.deliveries)))?;
        line("receipt after", self.publish_latency_ms.to_string())?;
        line("delivered after", self.delivery_latency_ms.to_string())?;
        let Self { reconnects, moves, gaps_refilled, .. } = self;
        line(
            "reconnects",
            format!("{reconnects}, of these {moves} without a break; gaps refilled {gaps_refilled}"),
        )?;
        let moved = match self.moved {
            0 => String::new(),
            moved => format!("; {:.1} ms of the {moved} that lost their session", self.moved_lag_ms),
        };
        line("longest lag", format!("{:.1} ms{moved}", self.kept_lag_ms))?;
        if let Some(network) = &self.network {
            line("network", network.to_string())?;
        }
        if self.restarts + self.pauses > 0 {
            line(
                "clients",
                format!("left and came back {} times, stopped reading {} times", self.restarts, self.pauses),
            )?;
            line("furthest behind", format!("{} records; parked {} times", self.behind_max, self.parked))?;
        }
        line("drained in", format!("{:.1} s", self.drain_seconds))?;
        line("seed", format!("{}", self.seed))?;
        for finding in &self.findings {
            writeln!(f, "  ! {finding}")?;
        }
        let Self { lost, duplicated, reordered, corrupted, phantoms, strays, holes, .. } = self;
        let verdict = if self.passed { "PASSED" } else { "FAILED" };
        write!(
            f,
            "{verdict}: lost {lost}, doubled {duplicated}, out of order {reordered}, corrupt {corrupted}"
        )?;
        if phantoms + strays + holes + self.failed_clients > 0 {
            write!(
                f,
                ", made up {phantoms}, to no member {strays}, passed over {holes}, clients failed {}",
                self.failed_clients
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let mut latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        latencies.record(Duration::from_secs(3600));
        let quantiles = latencies.quantiles();
        assert!((quantiles.p50 - 500.0).abs() < 5.0, "{quantiles}");
        assert!((quantiles.p99 - 990.0).abs() < 5.0, "{quantiles}");
        assert!((quantiles.max - 600_000.0).abs() < 1000.0, "{quantiles}");
    }

    #[test]
    fn the_report_has_the_fields_that_programs_read() {
        let report = serde_json::to_value(Report::default()).unwrap();
        let fields = [
            "connections",
            "published",
            "acknowledged",
            "refused",
            "deliveries",
            "lost",
            "duplicated",
            "reordered",
            "corrupted",
            "gaps_refilled",
            "reconnects",
            "publish_latency_ms",
            "delivery_latency_ms",
            "seconds",
            "seed",
        ];
        for field in fields {
            assert!(report.get(field).is_some(), "{field}");
        }
        for quantile in ["p50", "p99", "p999", "max"] {
            assert!(report["delivery_latency_ms"][quantile].is_f64(), "{quantile}");
        }
    }

    #[test]
    fn a_run_passes_only_if_something_was_acknowledged_and_nothing_is_wrong() {
        let verdict = Verdict { published: 3, acknowledged: 2, ..Verdict::default() };
        let judge = |verdict| {
            let mut report = Report::default();
            report.judge(verdict);
            report.passed
        };
        assert!(judge(verdict.clone()));
        assert!(!judge(Verdict::default()));
        assert!(!judge(Verdict { lost: 1, ..verdict.clone() }));
        assert!(!judge(Verdict { duplicated: 1, ..verdict.clone() }));
        assert!(!judge(Verdict { reordered: 1, ..verdict.clone() }));
        assert!(!judge(Verdict { corrupted: 1, ..verdict.clone() }));
        assert!(!judge(Verdict { strays: 1, ..verdict.clone() }));
        assert!(!judge(Verdict { phantoms: 1, ..verdict }));
    }
}
