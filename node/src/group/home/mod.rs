//! The home: the one place that numbers a group's records.
//!
//! Pure. Calls come in as `handle_*`; what is to be done goes out through [`Home::poll_effect`]
//! and [`Home::poll_append`]. One append is under way at a time, and the next batch gathers
//! meanwhile. If an append fails the home is finished: whoever wants one activates again, which
//! raises the epoch and reads what is really there.
//!
//! ```text
//!              durable        next
//!                 │             │
//!  ───┬───┬───┬───┼───┬───┬───┬───┐
//!     stored      │ appending │ gathering
//! ```

mod batch;

mod changes;

mod notices;

mod planning;

mod publishes;

mod recent;

mod references;

mod senders;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use shoal_protocol::{
    GroupId, Incarnation, Outcome, RecordFrame, Refusal, SenderId, SenderNumbers, Seq, UserId, wire,
};

use super::judgement::{Judged, Numbered};
use crate::{
    config::GroupLimits,
    coordination::Partition,
    store::{Append, Epoch, GroupRow, GroupState, MemberRow},
};

use batch::Batch;
pub(crate) use batch::{Entry, Fold};
use changes::Changing;
use planning::Planning;
pub(crate) use planning::{Answered, Goal, Wanted};
use recent::Recent;
use references::References;
use senders::Senders;
pub(crate) use senders::sender_of;

/// What a home says to a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// This became of it, for good.
    Outcome(Outcome),
    /// Go back to this number.
    OutOfOrder {
        /// The number the home waits for.
        expected: u64,
    },
    /// Refused, and the number is not used up.
    Refused(Refusal),
    /// Refused, since a later incarnation of its device has sent something.
    Succeeded {
        /// That one.
        by: Incarnation,
    },
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Effect<R> {
    /// Answer a message.
    Answer(R, Answer),
    /// Answer a change.
    Changed(R, Result<wire::Changed, Refusal>),
    /// Answer a notice.
    Noticed(R, Result<(), Refusal>),
    /// Read a sender's row, then [`Home::handle_sender`].
    LoadSender(SenderId),
    /// Read a record (and, where `with_edits`, its edits), then [`Home::handle_record`].
    LoadRecord {
        /// Who waits for it.
        sender: SenderId,
        /// Which.
        record: Seq,
        /// Its edits too.
        with_edits: bool,
    },
    /// Read members' rows, then [`Home::handle_members`].
    LoadMembers(Vec<UserId>),
    /// Place its sub-groups, then [`Home::begin_plan`], or [`Home::refuse_plan`].
    LayOut(Wanted<R>),
    /// Ask the owners in these partitions how they do, by this version of the layout, then
    /// [`Home::handle_owner`].
    AskOwners(Vec<Partition>, u64),
    /// The owner judged by an old member list: again, once it has folded everything below `at`.
    Rejudge(Judged<R>, Seq),
    /// These are durable: move the tail, fold them.
    Committed(Vec<Entry>),
    /// These stand in place of records whose payloads were recalled.
    Redacted(Vec<(Seq, RecordFrame)>),
}

/// What a home leaves unanswered that is finished. What of it was on its way to the store may be durable:
/// the numbers say so to whoever sends it again.
#[derive(Debug)]
pub(crate) enum Unanswered<R> {
    /// It can go to another home as it came.
    Message(Numbered, R),
    /// Whoever asked knows whether it is still wanted.
    Other(R),
}

impl<R> From<Judged<R>> for Unanswered<R> {
    fn from(judged: Judged<R>) -> Self {
        Self::Message(judged.publish, judged.reply)
    }
}

/// A sender's row and who else its user has been, as read from the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadedSender {
    /// The sender's numbers, if there is a row.
    pub(crate) numbers: Option<SenderNumbers>,
    /// The user's other incarnations in this group.
    pub(crate) siblings: Vec<SenderId>,
}

/// A record, and its edits where these were asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadedRecord {
    /// None: there is no such record.
    pub(crate) record: Option<wire::Record>,
    /// The records of its edits.
    pub(crate) edits: Vec<wire::Record>,
}

/// The one place that numbers a group's records. `R` is where an answer goes.
#[derive(Debug)]
pub(crate) struct Home<R> {
    group: GroupId,
    epoch: Epoch,
    limits: Arc<GroupLimits>,
    state: GroupState,
    /// The state has changed since the last append.
    state_changed: bool,
    /// The first Seq that is not durable.
    durable: Seq,
    senders: Senders<R>,
    references: References,
    recent: Recent,
    changes: Changing<R>,
    planning: Planning,
    /// It stands in the store's list of groups with something unfinished.
    is_listed: bool,
    /// Every change of members so far stands below.
    members_changed: Seq,
    gathering: Batch<R>,
    appending: Option<Batch<R>>,
    effects: VecDeque<Effect<R>>,
}

impl<R> Home<R> {
    /// A home that has just been activated, with the numbers of everyone who has sent since the
    /// row's senders watermark.
    #[must_use]
    pub(crate) fn new(
        group: GroupId,
        row: GroupRow,
        since_checkpoint: BTreeMap<SenderId, SenderNumbers>,
        limits: impl Into<Arc<GroupLimits>>,
    ) -> Self {
        Self {
            group,
            epoch: row.epoch,
            limits: limits.into(),
            planning: Planning::new(group, &row.state),
            is_listed: is_unfinished(&row.state),
            state: row.state,
            state_changed: false,
            durable: row.tail,
            senders: Senders::new(since_checkpoint),
            references: References::default(),
            recent: Recent::new(row.tail),
            changes: Changing::default(),
            members_changed: row.tail,
            gathering: Batch::new(row.tail),
            appending: None,
            effects: VecDeque::new(),
        }
    }

    /// From now on these hold; by them the group may have too many or too few sub-groups.
    pub(crate) fn set_limits(&mut self, limits: Arc<GroupLimits>) {
        let was_other = limits.sub_group_max != self.limits.sub_group_max;
        self.limits = limits;
        if was_other {
            self.look_soon();
        }
    }

    /// What it writes under.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first Seq that is not durable.
    #[must_use]
    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    /// The group's state, with what is not durable yet.
    #[must_use]
    pub(crate) fn state(&self) -> &GroupState {
        &self.state
    }

    /// May more come in? If not, wait for the append under way.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        self.gathering.entries.len() < self.limits.batch_records_max
            && self.gathering.bytes < self.limits.batch_bytes_max
    }

    /// Nothing is under way: it may go to sleep once [`Self::checkpoint`] has been appended.
    #[must_use]
    pub(crate) fn is_quiet(&self) -> bool {
        self.appending.is_none()
            && self.gathering.is_empty()
            && self.changes.is_empty()
            && self.senders.are_ready()
            && self.effects.is_empty()
    }

    /// Members have been told of everything below `watermark`.
    pub(crate) fn handle_notices_sent(&mut self, watermark: Seq) {
        let more = watermark < self.members_changed;
        self.state.notices_watermark = more.then_some(watermark);
        self.state_changed = true;
        self.note_unfinished();
    }

    /// Keeps the store's list of groups that another home would have to go on with.
    fn note_unfinished(&mut self) {
        let is_unfinished = is_unfinished(&self.state);
        if self.is_listed != is_unfinished {
            self.is_listed = is_unfinished;
            self.gathering.notices_due = Some(is_unfinished);
        }
    }

    /// The next append, unless one is under way or there is nothing to write.
    pub(crate) fn poll_append(&mut self) -> Option<Append> {
        if self.appending.is_some() || self.gathering.is_empty() {
            return None;
        }
        let after = self.gathering.end();
        if after.since(self.state.senders_watermark) >= self.limits.sender_checkpoint_records {
            self.checkpoint();
        }
        let mut batch = std::mem::replace(&mut self.gathering, Batch::new(after));
        let state = std::mem::take(&mut self.state_changed).then(|| self.state.clone());
        let changes = batch.changes(state);
        let expected_tail = batch.start();
        self.appending = Some(batch);
        Some(Append { group: self.group, epoch: self.epoch, expected_tail, changes })
    }

    /// The append under way is durable: acknowledge, then move the tail.
    ///
    /// # Panics
    /// Where none was under way.
    pub(crate) fn handle_appended(&mut self) {
        let batch = self.appending.take().expect("an append was under way");
        self.durable = batch.end();
        for reply in batch.replies {
            self.senders.set_durable(&reply.sender, reply.number);
            self.effects.push_back(Effect::Answer(reply.to, Answer::Outcome(reply.outcome)));
        }
        for (to, changed) in batch.changed {
            self.effects.push_back(Effect::Changed(to, Ok(changed)));
        }
        for to in batch.noticed {
            self.effects.push_back(Effect::Noticed(to, Ok(())));
        }
        if !batch.entries.is_empty() {
            self.effects.push_back(Effect::Committed(batch.entries));
        }
        if !batch.redactions.is_empty() {
            self.effects.push_back(Effect::Redacted(batch.redactions));
        }
        self.resume_references();
        self.start_changes();
    }

    /// Something to do, in order.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect<R>> {
        self.effects.pop_front()
    }

    /// Gives up: what was decided is still to be told, and what was not answered is given back.
    pub(crate) fn abandon(mut self) -> (Vec<Effect<R>>, Vec<Unanswered<R>>) {
        let (mut told, mut rejudged) = (Vec::new(), Vec::new());
        for effect in self.effects {
            match effect {
                Effect::Answer(..) | Effect::Changed(..) | Effect::Noticed(..) => told.push(effect),
                Effect::Rejudge(judged, _) => rejudged.push(judged.into()),
                Effect::LayOut(wanted) => rejudged.extend(wanted.to.map(Unanswered::Other)),
                // What only looks something up is for nobody now.
                _ => {}
            }
        }
        let batches = self.appending.take().into_iter().chain([self.gathering]);
        // In the order of each sender's numbers.
        let mut unanswered: Vec<_> = batches.flat_map(Batch::abandon).collect();
        unanswered.extend(rejudged);
        unanswered.extend(self.senders.drain_parked().into_iter().map(|parked| match parked {
            senders::Parked::Publish(judged) => judged.into(),
            senders::Parked::Notice(_, to) => Unanswered::Other(to),
        }));
        unanswered.extend(self.changes.drain().map(Unanswered::Other));
        (told, unanswered)
    }

    /// Has the group any record?
    fn is_born(&self) -> bool {
        self.gathering.end() > Seq::FIRST
    }

    /// Rows of members as they will be once the batch is durable.
    fn write_members(&mut self, rows: Vec<MemberRow>) {
        for row in &rows {
            self.recent.changed(row.user.clone(), row.changed);
        }
        self.gathering.members.extend(rows);
    }

    /// Would [`Self::checkpoint`] spare the next activation something?
    #[must_use]
    pub(crate) fn needs_checkpoint(&self) -> bool {
        self.senders.are_dirty()
    }

    /// Adds what senders have had since the last checkpoint to the batch that gathers.
    pub(crate) fn checkpoint(&mut self) {
        if self.gathering.is_checkpoint {
            return;
        }
        let watermark = self.gathering.end();
        self.gathering.senders.extend(self.senders.checkpoint());
        self.state.senders_watermark = watermark;
        self.state_changed = true;
        self.gathering.is_checkpoint = true;
    }
}

/// Would another home have something to go on with?
fn is_unfinished(state: &GroupState) -> bool {
    state.notices_watermark.is_some() || state.layout.as_deref().is_some_and(|layout| layout.plan.is_some())
}
