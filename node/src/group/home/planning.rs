//! How the group is cut: when it is to be cut otherwise, and the plan that does so.
//!
//! Each step is a record that gathers like any other; what it says is so for this home at once, and for
//! everybody else once it is durable. A home whose append fails is finished, and the next one goes on from
//! the row.

mod commands;

use std::{collections::VecDeque, time::Duration};

use shoal_protocol::{Code, GroupId, Refusal, Seq, wire};
use wire::{plan::Cause, record::Body};

use super::{Effect, Home};
use crate::{
    config::GroupLimits,
    coordination::Partition,
    group::{
        layout::Layout,
        plan::{self, Backlog, Growth, Pace, Plan, Report, Step, steps},
        sub_group::Now,
    },
    store::GroupState,
};

/// How soon it is looked again at what could not be begun.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// By so many questions it is known when the home had what an owner has folded.
const MARKS_MAX: usize = 64;

/// A cut that the group is to have.
#[derive(Debug)]
pub(crate) struct Wanted<R> {
    pub(crate) goal: Goal,
    pub(crate) cause: Cause,
    /// There are to be no fewer, from then on.
    sub_groups_min: u32,
    /// Who is told, if somebody asked for it.
    pub(crate) to: Option<R>,
}

/// What a plan is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// So many sub-groups.
    SubGroups(u16),
    /// The same ones, spread evenly.
    Even,
}

/// What an owner has answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    pub(crate) owner: wire::Owner,
    /// From the question to the answer.
    pub(crate) round_trip: Duration,
}

/// The home's part in how the group is cut.
#[derive(Debug)]
pub(super) struct Planning {
    plan: Option<Plan>,
    growth: Growth,
    backlog: Backlog,
    /// When to look at the group's size again.
    look_at: Option<Duration>,
    /// When to look whether its sub-groups are spread evenly; none while there is one alone.
    even_at: Option<Duration>,
    /// When owners are asked next.
    ask_at: Duration,
    /// What was durable when owners were asked.
    marks: VecDeque<(Seq, Duration)>,
}

impl Planning {
    /// As the row says.
    pub(super) fn new(group: GroupId, state: &GroupState) -> Self {
        Self {
            plan: resume(group, state.layout.as_deref()),
            growth: Growth::default(),
            backlog: Backlog::default(),
            look_at: Some(Duration::ZERO),
            even_at: None,
            ask_at: Duration::ZERO,
            marks: VecDeque::new(),
        }
    }

    /// So long ago the home had what is folded below `watermark`.
    fn lag(&self, watermark: u64, now: Duration) -> Duration {
        let lacks = self.marks.iter().find(|(durable, _)| durable.get() > watermark);
        lacks.map_or(Duration::ZERO, |(_, at)| now.saturating_sub(*at))
    }
}

fn resume(group: GroupId, layout: Option<&wire::Layout>) -> Option<Plan> {
    let plan = layout?.plan.as_ref()?;
    let layout = Layout::from_wire(group, layout);
    Some(Plan::new(layout.now().partitions(), layout.to()?.partitions(), plan.percent, plan.paused))
}

impl<R> Home<R> {
    /// When [`Self::handle_tick`] is due, since the node's start.
    #[must_use]
    pub(crate) fn tick_at(&self) -> Option<Duration> {
        let Planning { plan, backlog, look_at, even_at, ask_at, .. } = &self.planning;
        let ask_at = plan.as_ref().map(|_| *ask_at);
        ask_at.into_iter().chain(*look_at).chain(*even_at).chain(backlog.look_at()).min()
    }

    /// A plan is under way that goes on by itself.
    #[must_use]
    pub(crate) fn is_moving(&self) -> bool {
        self.plan().is_some_and(|plan| !plan.paused)
    }

    /// A plan is under way: another home would have to finish it.
    #[must_use]
    pub(crate) fn has_plan(&self) -> bool {
        self.plan().is_some()
    }

    fn plan(&self) -> Option<&wire::Plan> {
        self.state.layout.as_deref()?.plan.as_ref()
    }

    /// By these limits the group may have too many or too few sub-groups.
    pub(super) fn look_soon(&mut self) {
        self.planning.look_at = Some(Duration::ZERO);
    }

    /// It is time.
    pub(crate) fn handle_tick(&mut self, now: Now) {
        if self.planning.look_at.is_some_and(|at| at <= now.since_start) {
            self.look_at_size(now);
        }
        if self.planning.even_at.is_some_and(|at| at <= now.since_start) {
            self.look_at_spread(now);
        }
        if self.planning.backlog.look_at().is_some_and(|at| at <= now.since_start) {
            self.look_at_backlog(now);
        }
        let pace = self.pace();
        let durable = self.durable;
        let Planning { plan: Some(plan), ask_at, marks, .. } = &mut self.planning else { return };
        if let Some(step) = plan.poll(pace, now.since_start) {
            let _ = self.take_step(step, now);
            return;
        }
        if *ask_at <= now.since_start {
            *ask_at = now.since_start + Plan::interval(pace);
            marks.push_back((durable, now.since_start));
            if marks.len() > MARKS_MAX {
                marks.pop_front();
            }
            let version = self.state.layout.as_deref().map_or(0, |layout| layout.version);
            self.effects.push_back(Effect::AskOwners(plan.owners().collect(), version));
        }
    }

    /// An owner has answered what it was asked.
    pub(crate) fn handle_owner(&mut self, partition: Partition, answered: &Answered, now: Now) {
        let Answered { owner, round_trip } = answered;
        let report = Report {
            ready: owner.ready,
            round_trip: *round_trip,
            lag: self.planning.lag(owner.watermark, now.since_start),
            judged: owner.judged,
            objected: owner.objected,
            gaps: owner.gaps,
        };
        let pace = self.pace();
        match &mut self.planning {
            Planning { plan: Some(plan), .. } => {
                plan.handle_report(partition, report, pace, now.since_start);
            }
            Planning { backlog, .. } => {
                backlog.handle_wait(Duration::from_millis(owner.waited_ms), pace.delay_max);
            }
        }
    }

    /// A message has come: where many do, owners are looked at.
    pub(super) fn note_message(&mut self, now: Now) {
        self.planning.backlog.handle_message(now.since_start);
    }

    /// Owners of a lively group are asked how long messages wait with them; where that was too long again
    /// and again, it is cut into more.
    fn look_at_backlog(&mut self, now: Now) {
        let is_late = self.planning.backlog.look(now.since_start);
        if self.has_plan() || self.state.closed {
            return;
        }
        let sub_groups = self.sub_groups();
        let by_size = plan::sub_groups(self.state.members, self.limits.sub_group_max);
        if is_late
            && self.may_begin_plan(now)
            && let Some(wanted) = self.planning.backlog.relieve(sub_groups, by_size)
        {
            return self.lay_out(Goal::SubGroups(wanted), Cause::Late, self.sub_groups_min(), None);
        }
        let layout = Layout::from_wire(self.group, self.state.layout.as_deref());
        self.effects.push_back(Effect::AskOwners(layout.now().partitions().to_vec(), layout.version()));
    }

    /// Members may have become too many, or too few, for the sub-groups there are.
    pub(super) fn look_at_size(&mut self, now: Now) {
        let kept_until = self.kept_until(now);
        self.planning.look_at = kept_until;
        if self.planning.even_at.is_none() && self.sub_groups() > 1 {
            self.planning.even_at = Some(now.since_start + self.rebalance());
        }
        self.planning.growth.observe(self.state.members, now.since_start);
        if self.has_plan() || self.state.closed {
            return;
        }
        let members = self.state.members;
        let expected = self.planning.growth.expected(members, self.pace().plan());
        let (target, least) = (self.limits.sub_group_max, self.sub_groups_min());
        let least_now = u16::try_from(least).unwrap_or(shoal_protocol::SLOTS);
        let kept = kept_until.map_or(0, |_| self.sub_groups());
        let least_now = least_now.max(u16::try_from(kept).unwrap_or(shoal_protocol::SLOTS));
        let Some(wanted) = plan::wanted(members, expected, self.sub_groups(), target, least_now) else {
            return;
        };
        if !self.may_begin_plan(now) {
            self.planning.look_at = Some(now.since_start + LOOK_AGAIN);
            return;
        }
        let cause = if usize::from(wanted) > self.sub_groups() { Cause::Grown } else { Cause::Thin };
        self.lay_out(Goal::SubGroups(wanted), cause, least, None);
    }

    /// Its sub-groups may have drifted together, by nodes that came and went.
    fn look_at_spread(&mut self, now: Now) {
        let is_cut = self.sub_groups() > 1;
        self.planning.even_at = is_cut.then(|| now.since_start + self.rebalance());
        if is_cut && !self.has_plan() && !self.state.closed && self.may_begin_plan(now) {
            self.lay_out(Goal::Even, Cause::Uneven, self.sub_groups_min(), None);
        }
    }

    /// Until when it keeps the sub-groups that it got since messages waited too long; none where it got them
    /// for another reason, or does not need them any more.
    fn kept_until(&self, now: Now) -> Option<Duration> {
        let last = self.state.layout.as_deref()?.last.as_ref()?;
        let ago = Duration::from_millis(now.wall_ms.saturating_sub(last.ended_ms));
        let is_relief = last.committed && last.cause() == Cause::Late;
        is_relief.then(|| self.planning.backlog.kept_until(ago, now.since_start)).flatten()
    }

    fn rebalance(&self) -> Duration {
        Duration::from_millis(self.limits.rebalance_ms)
    }

    /// May one begin by itself? Not outside its hours, nor shortly after one that was rolled back.
    fn may_begin_plan(&self, now: Now) -> bool {
        let last = self.state.layout.as_deref().and_then(|layout| layout.last.as_ref());
        let rested = last.is_none_or(|last| {
            last.committed || now.wall_ms >= last.ended_ms.saturating_add(self.limits.plan_retry_ms)
        });
        rested && self.limits.plan_hours.contain(now.wall_ms)
    }

    /// A plan begins, to this cut.
    pub(crate) fn begin_plan(&mut self, wanted: Wanted<R>, to: &[Partition], now: Now) {
        let before = self.state.layout.as_deref();
        let (here, least) = (Partition::of(self.group), wanted.sub_groups_min);
        let is_other = self.has_plan();
        let is_there = Layout::from_wire(self.group, before).now().partitions() == to;
        let is_new = !is_there || least != self.sub_groups_min();
        let begun =
            (is_new && !is_other).then(|| steps::begun(before, here, to, wanted.cause, least, now.wall_ms));
        let record = begun.map(|begun| {
            self.planning.plan = resume(self.group, Some(&begun));
            self.planning.ask_at = Duration::ZERO;
            self.write_layout(begun, now)
        });
        match wanted.to {
            // Another was wanted in the same breath.
            Some(asker) if is_other => self.effects.push_back(Effect::Changed(asker, Err(under_way()))),
            Some(asker) => self.answer_planned(asker, record),
            None => {}
        }
    }

    /// None can begin now.
    pub(crate) fn refuse_plan(&mut self, wanted: Wanted<R>, why: Refusal, now: Now) {
        match wanted.to {
            Some(to) => self.effects.push_back(Effect::Changed(to, Err(why))),
            None => self.planning.look_at = Some(now.since_start + LOOK_AGAIN),
        }
    }

    fn take_step(&mut self, step: Step, now: Now) -> Option<Seq> {
        let layout = self.state.layout.as_deref()?;
        let next = match step {
            Step::Move(percent) => {
                if let Some(plan) = &mut self.planning.plan {
                    plan.moved(percent);
                }
                steps::moved(layout, percent)
            }
            Step::Commit => steps::committed(layout, now.wall_ms),
            Step::RollBack(why) => steps::rolled_back(layout, why, now.wall_ms),
        }?;
        if next.plan.is_none() {
            self.planning.plan = None;
            self.planning.look_at = Some(now.since_start);
        }
        self.planning.ask_at = now.since_start;
        Some(self.write_layout(next, now))
    }

    fn write_layout(&mut self, layout: wire::Layout, now: Now) -> Seq {
        self.state.layout = Some(Box::new(layout.clone()));
        self.state_changed = true;
        self.note_unfinished();
        self.gathering.push_silent(None, Body::Layout(layout), now.wall_ms)
    }

    /// Once what was decided is durable; it was so before, where there is no record of it.
    fn answer_planned(&mut self, to: R, record: Option<Seq>) {
        let seq = record.map_or(0, Seq::get);
        self.gathering.changed.push((to, wire::Changed { seq, changed: 0 }));
    }

    fn lay_out(&mut self, goal: Goal, cause: Cause, sub_groups_min: u32, to: Option<R>) {
        self.effects.push_back(Effect::LayOut(Wanted { goal, cause, sub_groups_min, to }));
    }

    fn sub_groups_min(&self) -> u32 {
        self.state.layout.as_deref().map_or(0, |layout| layout.sub_groups_min)
    }

    fn sub_groups(&self) -> usize {
        self.state.layout.as_deref().map_or(1, |layout| layout.partitions.len().max(1))
    }

    fn pace(&self) -> Pace {
        let GroupLimits { plan_observe_ms, plan_delay_max_ms, sub_group_max, .. } = *self.limits;
        let room = sub_group_max.saturating_mul(self.sub_groups() as u64);
        Pace {
            observe: Duration::from_millis(plan_observe_ms),
            delay_max: Duration::from_millis(plan_delay_max_ms),
            pressed: self.state.members > room,
        }
    }
}

fn under_way() -> Refusal {
    Refusal::new(Code::BadRequest, "a plan is under way: it ends first, or is rolled back")
}

#[cfg(test)]
mod tests;
