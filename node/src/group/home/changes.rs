//! Changes of membership, roles and settings, decided on together: one read of all rows that
//! they concern, then one after the other, then one append.

use std::collections::{BTreeSet, VecDeque};

use shoal_protocol::{Code, Refusal, Seq, UserId, wire};
use wire::{member_change::Kind, record::Body};

use super::{Effect, Home};
use crate::{
    group::{
        Actor,
        change::{self, Roster},
        sub_group::Now,
    },
    store::MemberRow,
};

/// The most changes that are decided on together.
const TOGETHER_MAX: usize = 256;

#[derive(Debug)]
struct Waiting<R> {
    actor: Actor,
    change: wire::change::Body,
    concerned: Vec<UserId>,
    to: R,
}

/// The changes that wait, and those whose rows are being read.
#[derive(Debug)]
pub(super) struct Changing<R> {
    waiting: VecDeque<Waiting<R>>,
    reading: Vec<Waiting<R>>,
}

impl<R> Default for Changing<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), reading: Vec::new() }
    }
}

impl<R> Changing<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_empty()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = R> + '_ {
        self.reading.drain(..).chain(self.waiting.drain(..)).map(|waiting| waiting.to)
    }
}

impl<R> Home<R> {
    /// A change that somebody asks for.
    pub(crate) fn handle_change(&mut self, actor: Actor, change: wire::change::Body, to: R, now: Now) {
        if let wire::change::Body::Plan(command) = change {
            return self.handle_plan_command(&actor, command, to, now);
        }
        if self.changes.waiting.len() >= self.limits.queue_max {
            let busy = Refusal::new(Code::Busy, "too many changes of this group wait");
            return self.effects.push_back(Effect::Changed(to, Err(busy)));
        }
        match change::concerned(&actor, &change, self.limits.change_users_max) {
            Ok(concerned) => {
                self.changes.waiting.push_back(Waiting { actor, change, concerned, to });
                self.start_changes();
            }
            Err(refusal) => self.effects.push_back(Effect::Changed(to, Err(refusal))),
        }
    }

    /// Reads the rows for the next changes, unless some are being read, or rows are on their way
    /// to the store.
    pub(super) fn start_changes(&mut self) {
        let writes = self.appending.iter().chain([&self.gathering]);
        let unsettled = writes.into_iter().any(|batch| !batch.changed.is_empty());
        if unsettled || !self.changes.reading.is_empty() || self.changes.waiting.is_empty() {
            return;
        }
        let count = self.changes.waiting.len().min(TOGETHER_MAX);
        self.changes.reading = self.changes.waiting.drain(..count).collect();
        let users: BTreeSet<_> =
            self.changes.reading.iter().flat_map(|waiting| waiting.concerned.iter().cloned()).collect();
        self.effects.push_back(Effect::LoadMembers(users.into_iter().collect()));
    }

    /// The rows that were asked for, or why they cannot be read.
    pub(crate) fn handle_members(&mut self, rows: Result<Vec<MemberRow>, Refusal>, now: Now) {
        let reading = std::mem::take(&mut self.changes.reading);
        match rows {
            Err(why) => {
                for waiting in reading {
                    self.effects.push_back(Effect::Changed(waiting.to, Err(why.clone())));
                }
            }
            Ok(rows) => {
                let mut roster = Roster::new(rows);
                for waiting in reading {
                    self.decide_change(waiting, &mut roster, now);
                }
                self.write_members(roster.into_touched());
                self.look_at_size(now);
            }
        }
        self.start_changes();
    }

    fn decide_change(&mut self, waiting: Waiting<R>, roster: &mut Roster, now: Now) {
        let Waiting { actor, change, to, .. } = waiting;
        let (seq, features_max) = (self.gathering.end(), self.limits.features_max);
        match change::decide(&actor, &change, roster, &mut self.state, seq, features_max) {
            Err(refusal) => self.effects.push_back(Effect::Changed(to, Err(refusal))),
            Ok(decided) => {
                let changed =
                    wire::Changed { seq: decided.seq.map_or(0, Seq::get), changed: decided.changed };
                for body in decided.bodies {
                    self.write_change(&actor, body, now);
                }
                // Also where there is nothing to write: what holds already may be on its way.
                self.gathering.changed.push((to, changed));
            }
        }
    }

    fn write_change(&mut self, actor: &Actor, body: Body, now: Now) -> Seq {
        if matches!(body, Body::Members(_)) {
            let at = self.gathering.end();
            self.members_changed = at.next();
            if self.state.notices_watermark.is_none() {
                self.state.notices_watermark = Some(at);
                self.note_unfinished();
            }
        }
        self.state_changed = true;
        let author = Some(wire::Author { user: actor.user.to_string(), ..wire::Author::default() });
        if self.is_silent(&body) {
            self.gathering.push_silent(author, body, now.wall_ms)
        } else {
            self.gathering.push(author, body, now.wall_ms)
        }
    }

    /// Is it no more than that some come and go, in a group too large for each of them to hear of each?
    fn is_silent(&self, body: &Body) -> bool {
        let comes_or_goes = |change: &wire::MemberChange| {
            matches!(change.kind(), Kind::Joined | Kind::Added | Kind::Left | Kind::Removed)
        };
        let Body::Members(members) = body else { return false };
        self.state.members > self.limits.announced_members_max && members.changes.iter().all(comes_or_goes)
    }
}
