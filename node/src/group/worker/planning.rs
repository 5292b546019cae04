//! The shell round a plan: where sub-groups go, how their owners do, and what it looks like to operators.

use std::{collections::BTreeSet, time::Duration};

use shoal_protocol::{Code, Refusal, Slot, wire};
use tokio::time::Instant;
use wire::plan::Cause;

use super::{Done, Worker};
use crate::{
    clock::milliseconds,
    coordination::{NodeName, Partition},
    group::{
        Place,
        home::{Answered, Entry, Fold, Goal, Wanted},
        input::{AskedOwner, Reply},
        layout::Layout,
        plan::told,
    },
    ops::{Event, Kind},
};

impl Worker {
    /// When the home's plan, or its size, is to be looked at.
    pub(super) fn tick_at(&self) -> Option<Instant> {
        let home = self.home.as_ref().filter(|_| !self.is_stopping)?;
        home.tick_at().map(|since_start| self.groups.started() + since_start)
    }

    pub(super) fn tick(&mut self) {
        self.take_limits();
        let now = self.groups.now();
        if let Some(home) = &mut self.home {
            home.handle_tick(now);
        }
    }

    /// Places the sub-groups that the home wants.
    pub(super) fn lay_out(&mut self, wanted: Wanted<Reply>) {
        let now = self.groups.now();
        let is_late = wanted.cause == Cause::Late;
        let is_of_use = !is_late || self.groups.are_more_nodes_than(self.owners());
        if is_late {
            self.tell_backlog(is_of_use);
        }
        // Each node has one worker for the group: more sub-groups on the same nodes are of no use.
        let Some(home) = self.home.as_mut().filter(|_| is_of_use) else { return };
        let Some(permit) = self.groups.permit_plan() else {
            let why = Refusal::new(Code::Busy, "as many plans are under way on this node as may be");
            return home.refuse_plan(wanted, why, now);
        };
        let groups = &self.groups;
        let node_of = |partition| match groups.place(partition) {
            Place::Here => None,
            Place::There(node) => Some(node.0),
            Place::Nowhere => Some(String::new()),
        };
        let layout = Layout::from_wire(self.group, home.state().layout.as_deref());
        let to = match wanted.goal {
            Goal::SubGroups(count) => layout.now().with(self.group, count, node_of),
            Goal::Even => layout.now().evened(self.group, node_of),
        };
        home.begin_plan(wanted, &to, now);
        self.permit = home.has_plan().then_some(permit);
    }

    fn tell_backlog(&self, can_be_cut: bool) {
        let what_helps = match can_be_cut {
            true => "the group is to have more sub-groups",
            false => "every node owns members already",
        };
        let text = format!("messages wait too long for their turn: {what_helps}");
        self.groups.tell(Event::new(Kind::Backlog, text).of(self.group));
    }

    /// How many nodes own members of the group.
    fn owners(&self) -> usize {
        let Some(layout) = &self.layout else { return 1 };
        let places = layout.now().partitions().iter().map(|partition| self.groups.place(*partition));
        places.collect::<BTreeSet<_>>().len()
    }

    /// Asks the owners in these partitions how they do: each node once, and not while it still owes an
    /// answer.
    pub(super) async fn ask_owners(&mut self, partitions: Vec<Partition>, layout: u64) {
        let asked_at = Instant::now();
        let mut here = Vec::new();
        let mut there: Vec<(NodeName, Vec<Partition>)> = Vec::new();
        for partition in partitions {
            match self.groups.place(partition) {
                Place::Here => here.push(partition),
                Place::Nowhere => {}
                Place::There(node) => match there.iter_mut().find(|(other, _)| *other == node) {
                    Some((_, partitions)) => partitions.push(partition),
                    None => there.push((node, vec![partition])),
                },
            }
        }
        there.retain(|(node, _)| self.asked.insert(node.clone()));
        for (node, partitions) in there {
            let (groups, group) = (self.groups.clone(), self.group);
            self.begin(async move {
                let asked = wire::GetOwner { group: group.to_wire(), layout, count: false };
                let owner = groups.elsewhere().owner(&node, asked).await;
                let answered = owner.map(|owner| Answered { owner, round_trip: asked_at.elapsed() });
                Done::Owner { node, partitions, answered }
            });
        }
        if !here.is_empty()
            && let Ok(owner) = self.report(AskedOwner { layout, count: false }).await
        {
            self.take_owner(&here, &Answered { owner, round_trip: asked_at.elapsed() });
        }
    }

    pub(super) fn handle_owner(
        &mut self,
        node: &NodeName,
        partitions: &[Partition],
        answered: Result<Answered, Refusal>,
    ) {
        self.asked.remove(node);
        match answered {
            Ok(answered) => self.take_owner(partitions, &answered),
            Err(why) => tracing::debug!(group = %self.group, node = node.0, %why, "an owner does not answer"),
        }
    }

    fn take_owner(&mut self, partitions: &[Partition], answered: &Answered) {
        let now = self.groups.now();
        if let Some(home) = &mut self.home {
            partitions.iter().for_each(|partition| home.handle_owner(*partition, answered, now));
        }
    }

    /// How this node does as an owner.
    pub(super) async fn report(&mut self, asked: AskedOwner) -> Result<wire::Owner, Refusal> {
        self.learn_layout(Some(asked.layout)).await?;
        let here = self.slots_here();
        if here.is_empty() {
            return Err(Refusal::new(Code::NotHome, "no sub-group is placed on this node"));
        }
        self.prepare(&here, false).await?;
        let (Some(owner), Some(layout)) = (&self.owner, &self.layout) else {
            return Err(Refusal::new(Code::Internal, "an owner that was made ready is none"));
        };
        // Who only looks at it takes nothing from what its home will ask.
        let waited = if asked.count { Duration::ZERO } else { self.waits.take(Instant::now()) };
        let members = owner.members();
        let is_ready = layout.version() >= asked.layout && here.without(members.slots()).is_empty();
        let mut counts = std::collections::BTreeMap::<u16, u64>::new();
        if asked.count {
            for user in members.users() {
                *counts.entry(layout.partition(Slot::of(user)).number()).or_default() += 1;
            }
        }
        let counted =
            |(partition, members): (u16, u64)| wire::OwnedMembers { partition: partition.into(), members };
        let (judged, objected) = owner.judged();
        Ok(wire::Owner {
            watermark: members.watermark().get(),
            ready: is_ready,
            members: counts.into_iter().map(counted).collect(),
            judged,
            objected,
            gaps: self.gaps,
            waited_ms: milliseconds(waited),
        })
    }

    /// What operators see of a plan, once it is durable and before it is gone by.
    pub(super) fn note_plans(&mut self, entries: &[Entry]) {
        let mut moved = self.layout.as_ref().and_then(Layout::moved_percent);
        for entry in entries {
            if let Fold::Layout(layout) = &entry.fold {
                self.note_plan(moved, layout);
                moved = layout.plan.as_ref().map(|plan| plan.percent);
            }
        }
        self.count_plan();
    }

    /// The home's plan is one of those under way here.
    pub(super) fn count_plan(&mut self) {
        let has_plan = self.home.as_ref().is_some_and(|home| home.has_plan());
        match (has_plan, &self.permit) {
            (true, None) => self.permit = Some(self.groups.adopt_plan()),
            (false, Some(_)) => self.permit = None,
            _ => {}
        }
    }

    fn note_plan(&self, moved_before: Option<u32>, layout: &wire::Layout) {
        let Some(event) = told::event(moved_before, layout) else { return };
        let metrics = self.groups.metrics();
        match event.kind {
            Kind::PlanBegun => metrics.plans_begun.inc(),
            Kind::PlanCommitted => metrics.plans_committed.inc(),
            Kind::PlanRolledBack => metrics.plans_rolled_back.inc(),
            _ => {}
        }
        self.groups.tell(event.of(self.group));
    }
}
