//! All groups' messages on their way, served in turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use shoal_protocol::{GroupId, Incarnation, PUBLISH_WINDOW, wire};

use super::lane::{Answer, Lane, Limits, Place, Settled, Ticket};

/// A receipt that says nothing that could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a receipt that makes no sense")]
pub(crate) struct BadReceipt;

/// What is queued and not answered, for each group.
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: BTreeMap<GroupId, Lane>,
    /// Groups with messages.
    active: BTreeSet<GroupId>,
    /// The latest incarnation that a node issued.
    issued: Option<Incarnation>,
    limits: Limits,
    /// Who was served last.
    turn: Option<GroupId>,
    tickets: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            active: BTreeSet::new(),
            issued: None,
            limits: Limits { window: PUBLISH_WINDOW as u64, payload_bytes_max: usize::MAX },
            turn: None,
            tickets: 0,
        }
    }

    /// Queues a message.
    pub(crate) fn push(&mut self, group: GroupId, message: wire::Message) -> Ticket {
        let ticket = self.ticket();
        self.active.insert(group);
        self.lanes.entry(group).or_insert_with(Lane::new).push(ticket, message, self.issued);
        ticket
    }

    /// Queues a message of an earlier run, with the number it had.
    pub(crate) fn restore(&mut self, group: GroupId, message: wire::Message, place: Option<Place>) -> Ticket {
        let ticket = self.ticket();
        self.active.insert(group);
        self.lanes.entry(group).or_insert_with(Lane::new).restore(ticket, message, place);
        ticket
    }

    /// A session begins, with a fresh incarnation and the node's limits, where 0 is none of its
    /// own.
    pub(crate) fn welcomed(&mut self, incarnation: Incarnation, limits: &wire::Limits) {
        self.limits.window = match u64::from(limits.publish_window) {
            0 => PUBLISH_WINDOW as u64,
            window => window.min(PUBLISH_WINDOW as u64),
        };
        self.limits.payload_bytes_max = match limits.payload_bytes_max {
            0 => usize::MAX,
            bytes => bytes as usize,
        };
        self.issue(incarnation);
    }

    /// A node issued an incarnation.
    pub(crate) fn issue(&mut self, incarnation: Incarnation) {
        self.issued = Some(incarnation);
        for group in &self.active {
            if let Some(lane) = self.lanes.get_mut(group) {
                lane.number(self.issued);
            }
        }
    }

    /// Is a new incarnation needed to go on somewhere?
    pub(crate) fn wants_incarnation(&self) -> bool {
        self.active_lanes().any(Lane::wants_incarnation)
    }

    /// The next publish for the wire. What turns out to be too large for the node goes to `out`.
    pub(crate) fn send(&mut self, now: Duration, out: &mut Vec<Settled>) -> Option<wire::Publish> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let before = self.turn.map_or(Bound::Excluded(GroupId::from_random(0)), Bound::Included);
        let later = self.active.range((after, Bound::Unbounded));
        let earlier = self.active.range((Bound::Unbounded, before));
        for group in later.chain(earlier) {
            let Some(lane) = self.lanes.get_mut(group) else {
                continue;
            };
            if let Some((place, message)) = lane.send(now, &self.limits, self.issued, out) {
                self.turn = Some(*group);
                return Some(wire::Publish {
                    group: group.to_wire(),
                    incarnation: place.incarnation.0,
                    number: place.number,
                    message: Some(message.clone()),
                });
            }
        }
        if !out.is_empty() {
            let Self { active, lanes, .. } = self;
            active.retain(|group| lanes.get(group).is_some_and(|lane| !lane.is_empty()));
        }
        None
    }

    /// When something that is held back may go.
    pub(crate) fn next_at(&self, now: Duration) -> Option<Duration> {
        self.active_lanes().filter_map(Lane::held_until).filter(|at| *at > now).min()
    }

    /// Since when the oldest publish has been without an answer.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.active_lanes().filter_map(Lane::unanswered_since).min()
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        for group in &self.active {
            if let Some(lane) = self.lanes.get_mut(group) {
                lane.disconnected();
            }
        }
    }

    /// Takes a receipt; what it settles goes to `out`. `chance` in `0.0..1.0` spreads waits.
    pub(crate) fn receipt(
        &mut self,
        receipt: wire::Receipt,
        now: Duration,
        chance: f64,
        out: &mut Vec<Settled>,
    ) -> Result<(), BadReceipt> {
        let group = GroupId::from_wire(&receipt.group).map_err(|_| BadReceipt)?;
        let answer = receipt.outcome.and_then(Answer::from_wire).ok_or(BadReceipt)?;
        let place = Place { incarnation: Incarnation(receipt.incarnation), number: receipt.number };
        let Some(lane) = self.lanes.get_mut(&group) else {
            return Ok(());
        };
        lane.answer(place, answer, now, chance, out);
        lane.number(self.issued);
        if lane.is_empty() {
            self.active.remove(&group);
        }
        Ok(())
    }

    /// All messages with their numbers, in the order of the app's sends within each group.
    pub(crate) fn queued(&self) -> impl Iterator<Item = (GroupId, Option<Place>, &wire::Message)> {
        let lanes = self.active.iter().filter_map(|group| Some((*group, self.lanes.get(group)?)));
        lanes.flat_map(|(group, lane)| lane.queued().map(move |(place, message)| (group, place, message)))
    }

    fn active_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.active.iter().filter_map(|group| self.lanes.get(group))
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

#[cfg(test)]
mod tests;
