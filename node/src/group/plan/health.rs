//! How an owner does, as the home sees it: is it slow, behind, or wrong more often than before?

use std::time::Duration;

use crate::clock::milliseconds;

/// What an owner says of itself, and how long it took to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Report {
    /// It has the members of all its slots.
    pub(crate) ready: bool,
    /// From the question to the answer: as long as a message takes to be judged.
    pub(crate) round_trip: Duration,
    /// So long ago the home had what the owner has folded.
    pub(crate) lag: Duration,
    /// Messages judged since it has been the owner.
    pub(crate) judged: u64,
    /// Those it objected to.
    pub(crate) objected: u64,
    /// How often a feed did not bring what was next.
    pub(crate) gaps: u64,
}

/// How good an owner was, to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Standard {
    delay: Duration,
    /// Of the messages judged, so many were objected to.
    objections: Option<f64>,
}

/// Why a plan makes things worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Worse {
    /// Slow to judge, or behind in what it judges by.
    #[error("an owner takes {took_ms} ms, {bound_ms} at most")]
    Slow {
        /// The longer of the two.
        took_ms: u64,
        /// By the settings, or twice what it was before.
        bound_ms: u64,
    },
    /// Not heard of.
    #[error("an owner has said nothing for {0} ms")]
    Silent(u64),
    /// It refuses more than was refused before.
    #[error("an owner objects to {percent} % of the messages, {before} % before")]
    Objects {
        /// Now.
        percent: u32,
        /// Before.
        before: u32,
    },
    /// Its feed had holes.
    #[error("an owner missed records, {0} times, and had to fetch them")]
    Gaps(u64),
}

/// An owner is slow once so many reports in a row were.
const SLOW_REPORTS: u32 = 3;

/// Objections count from so many messages on, and when they are so much more.
const MESSAGES_MIN: u64 = 50;
const OBJECTIONS_MORE: f64 = 0.2;

/// One owner, since the plan's last step.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    first: Option<Report>,
    last: Option<Report>,
    heard: Option<Duration>,
    reports: u32,
    slow: u32,
    worst: Duration,
}

impl Owner {
    /// It has answered, at this moment.
    pub(crate) fn handle_report(&mut self, report: Report, bound: Duration, now: Duration) {
        self.first.get_or_insert(report);
        self.last = Some(report);
        self.heard = Some(now);
        self.reports += 1;
        let delay = report.round_trip.max(report.lag);
        self.worst = self.worst.max(delay);
        self.slow = if delay > bound { self.slow + 1 } else { 0 };
    }

    /// Does it have the members of all its slots?
    pub(crate) fn is_ready(&self) -> bool {
        self.last.is_some_and(|last| last.ready)
    }

    /// How often it has answered.
    pub(crate) fn reports(&self) -> u32 {
        self.reports
    }

    /// How long it has not been heard of.
    pub(crate) fn silent(&self, now: Duration) -> Duration {
        self.heard.map_or(Duration::MAX, |heard| now.saturating_sub(heard))
    }

    /// Another step begins: what it is measured by stays.
    pub(crate) fn begin_step(&mut self) {
        let (last, heard) = (self.last, self.heard);
        *self = Self { first: last, last, heard, ..Self::default() };
    }

    /// What it was like.
    pub(crate) fn standard(&self) -> Standard {
        Standard { delay: self.worst, objections: self.objections() }
    }

    /// Is it worse than the bound allows? Not heard of for `silence_max` since `since` is.
    pub(crate) fn worse(
        &self,
        before: Standard,
        bound: Duration,
        silence_max: Duration,
        since: Duration,
        now: Duration,
    ) -> Option<Worse> {
        let silent = now.saturating_sub(self.heard.map_or(since, |heard| heard.max(since)));
        if silent > silence_max {
            return Some(Worse::Silent(milliseconds(silent)));
        }
        if self.slow >= SLOW_REPORTS {
            return Some(Worse::Slow { took_ms: milliseconds(self.worst), bound_ms: milliseconds(bound) });
        }
        let (first, last) = (self.first?, self.last?);
        if last.gaps > first.gaps {
            return Some(Worse::Gaps(last.gaps - first.gaps));
        }
        let (now, before) = (self.objections()?, before.objections.unwrap_or(0.0));
        let percent = |share: f64| (share * 100.0).round() as u32;
        (now > before + OBJECTIONS_MORE)
            .then(|| Worse::Objects { percent: percent(now), before: percent(before) })
    }

    fn objections(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let judged = last.judged.checked_sub(first.judged).filter(|judged| *judged >= MESSAGES_MIN)?;
        Some(last.objected.saturating_sub(first.objected) as f64 / judged as f64)
    }
}

impl Standard {
    /// Which delay is worse: above the bound, and above twice what it was before.
    pub(crate) fn bound(self, bound: Duration) -> Duration {
        bound.max(self.delay * 2)
    }

    /// The worse of two.
    pub(crate) fn or(self, other: Self) -> Self {
        let objections = match (self.objections, other.objections) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        Self { delay: self.delay.max(other.delay), objections }
    }
}
