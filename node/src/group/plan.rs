//! A plan: a group's layout is changed in steps that can be watched, stopped and undone.
//!
//! Pure. [`Plan`] is told what owners report and what time it is, and says which step comes next. What
//! has been done stands in the group's row ([`steps`]), so the next home begins a [`Plan`] where the row
//! says the last one stood; only what was observed is observed again.
//!
//! ```text
//!            all owners        observed, and not worse
//!            are ready      ┌────────────┴────────────┐
//!  prepare ────────────► 10 % ────────► 30 % ────────► all ────────► committed
//!     │                    │              │             │
//!     └────────────────────┴──────────────┴─────────────┴─► rolled back: an owner is worse, or
//!                                                           somebody wants it
//! ```

mod backlog;

mod health;

mod size;

pub(crate) mod steps;

pub(crate) mod told;

use std::{collections::BTreeMap, time::Duration};

use crate::coordination::Partition;

pub(crate) use backlog::Backlog;
use health::{Owner, Standard};
pub(crate) use health::{Report, Worse};
pub(crate) use size::{Growth, sub_groups, wanted};

/// An owner has been observed once it has answered so often.
const REPORTS_MIN: u32 = 4;

/// An owner whose node has died is another's once its lease has run out and placement has changed.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// How long owners may take to fetch their members, from the last one heard of.
const PREPARE_MAX: Duration = Duration::from_secs(60);

/// Where growth presses, it is observed for so much less.
const PRESSED: u32 = 8;

/// What holds for all plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How long each step is observed.
    pub(crate) observe: Duration,
    /// An owner that takes longer makes things worse.
    pub(crate) delay_max: Duration,
    /// The members outgrow the sub-groups there are.
    pub(crate) pressed: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many in a hundred of the slots that move have moved.
    Move(u32),
    /// It has reached its end.
    Commit,
    /// It makes things worse.
    RollBack(String),
}

/// A plan under way.
#[derive(Debug)]
pub(crate) struct Plan {
    percent: u32,
    paused: bool,
    /// When this step began, or somebody let it go on; none until the first look.
    since: Option<Duration>,
    owners: BTreeMap<Partition, Owner>,
    /// Those by whom it is measured whether it makes things worse.
    serving: Vec<Partition>,
    /// Those that have to have their members before anything moves.
    coming: Vec<Partition>,
    before: Standard,
}

impl Plan {
    /// A plan that stands where the row says. `now` and `to` are the partitions of the sub-groups before
    /// and after it.
    #[must_use]
    pub(crate) fn new(now: &[Partition], to: &[Partition], percent: u32, paused: bool) -> Self {
        let owners = now.iter().chain(to).map(|partition| (*partition, Owner::default())).collect();
        let (serving, coming) = (now.to_vec(), to.to_vec());
        Self { percent, paused, since: None, owners, serving, coming, before: Standard::default() }
    }

    /// Whom to ask how they do.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Partition> {
        self.owners.keys().copied()
    }

    /// An owner has answered.
    pub(crate) fn handle_report(&mut self, owner: Partition, report: Report, pace: Pace, now: Duration) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.handle_report(report, self.before.bound(pace.delay_max), now);
        }
    }

    /// It stays where it is, or goes on: what was observed meanwhile counts no more.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.begin_step();
    }

    /// A step has been taken.
    pub(crate) fn moved(&mut self, percent: u32) {
        if self.percent == 0 {
            let serving = self.serving.iter().filter_map(|owner| self.owners.get(owner));
            self.before = serving.map(Owner::standard).fold(self.before, Standard::or);
        }
        self.percent = percent;
        self.begin_step();
    }

    /// How often to ask: so that a step is observed often enough, and nobody is asked all the time.
    #[must_use]
    pub(crate) fn interval(pace: Pace) -> Duration {
        (pace.observe_now() / (REPORTS_MIN * 2)).clamp(Duration::from_millis(20), Duration::from_millis(250))
    }

    /// The next step, if it is time for one.
    pub(crate) fn poll(&mut self, pace: Pace, now: Duration) -> Option<Step> {
        let since = *self.since.get_or_insert(now);
        if self.percent == 0 {
            return self.poll_prepared(pace, since, now);
        }
        if let Some(worse) = self.worse(pace, since, now) {
            return Some(Step::RollBack(worse.to_string()));
        }
        let observed = now.saturating_sub(since) >= pace.observe_now() && self.are_observed(pace, now);
        (observed && !self.paused).then_some(match self.percent {
            ..10 => Step::Move(10),
            10..30 => Step::Move(30),
            30..100 => Step::Move(100),
            _ => Step::Commit,
        })
    }

    fn poll_prepared(&self, pace: Pace, since: Duration, now: Duration) -> Option<Step> {
        if self.paused {
            return None;
        }
        let is_ready = |owner: &Partition| self.owners.get(owner).is_some_and(Owner::is_ready);
        let late = self.coming.iter().find(|owner| !is_ready(owner));
        match late {
            None if self.are_observed(pace, now) => Some(Step::Move(10)),
            _ if now.saturating_sub(since) > PREPARE_MAX => {
                let why = late.map_or("an owner does not answer".into(), |owner| {
                    format!("the owner in partition {} has not fetched its members", owner.number())
                });
                Some(Step::RollBack(why))
            }
            _ => None,
        }
    }

    /// All owners have answered often enough, and lately.
    fn are_observed(&self, pace: Pace, now: Duration) -> bool {
        let lately = self.before.bound(pace.delay_max).max(Self::interval(pace) * REPORTS_MIN);
        self.owners.values().all(|owner| owner.reports() >= REPORTS_MIN && owner.silent(now) <= lately)
    }

    fn worse(&self, pace: Pace, since: Duration, now: Duration) -> Option<Worse> {
        let bound = self.before.bound(pace.delay_max);
        self.owners.values().find_map(|owner| owner.worse(self.before, bound, SILENCE_MAX, since, now))
    }

    fn begin_step(&mut self) {
        self.since = None;
        self.owners.values_mut().for_each(Owner::begin_step);
    }
}

impl Pace {
    fn observe_now(self) -> Duration {
        if self.pressed { self.observe / PRESSED } else { self.observe }
    }

    /// About how long a plan takes.
    #[must_use]
    pub(crate) fn plan(self) -> Duration {
        self.observe_now() * 3 + Plan::interval(self) * REPORTS_MIN
    }
}

#[cfg(test)]
mod tests;
