//! Writes that go together: what waits, as the columns of each statement. Pure.

use std::collections::BTreeMap;

use shoal_protocol::{GroupId, SenderId, Seq, Slot, UserId};
use tokio::sync::oneshot;

use super::rows::to_column;
use crate::store::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, StoreError, codec,
};

pub(super) type Answer<T, E = StoreError> = oneshot::Sender<Result<T, E>>;

/// A write that waits for its transaction.
#[derive(Debug)]
pub(super) enum Request {
    Append { append: Box<Append>, answer: Answer<(), AppendError> },
    Activate { group: GroupId, create: Option<Create>, answer: Answer<Option<GroupRow>> },
    RaiseCursors { raises: Vec<CursorRaise>, answer: Answer<()> },
}

impl Request {
    /// The group whose row it changes. A transaction has one request for each, so that requests of
    /// one group follow each other.
    pub(super) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Append { append, .. } => Some(append.group),
            Self::Activate { group, .. } => Some(*group),
            Self::RaiseCursors { .. } => None,
        }
    }

    /// About how much it adds to a transaction.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => {
                let changes = &append.changes;
                let bodies = changes.records.iter().chain(changes.redactions.iter().map(|(_, body)| body));
                let rows = changes.members.len() + changes.senders.len() + changes.senders_expired.len();
                bodies.map(|body| body.len() + ROW_BYTES).sum::<usize>() + rows * ROW_BYTES
            }
            Self::Activate { .. } => ROW_BYTES,
            Self::RaiseCursors { raises, .. } => raises.len() * ROW_BYTES,
        }
    }
}

/// A row's keys and numbers, roughly.
const ROW_BYTES: usize = 64;

/// What the statements of one transaction are given.
#[derive(Debug, Default)]
pub(super) struct Columns<'r> {
    pub(super) created: Created<'r>,
    /// Of appends and activations.
    pub(super) locked: Vec<&'r [u8]>,
    pub(super) activated: Vec<&'r [u8]>,
    pub(super) passing: Passing<'r>,
    pub(super) states: States<'r>,
    pub(super) notices: (Vec<&'r [u8]>, Vec<bool>),
    pub(super) records: Records<'r>,
    pub(super) redactions: Records<'r>,
    pub(super) edits: Edits<'r>,
    pub(super) members: Members<'r>,
    pub(super) members_removed: MemberKeys<'r>,
    pub(super) senders: SenderKeys<'r>,
    pub(super) numbers: Vec<Vec<u8>>,
    pub(super) senders_removed: SenderKeys<'r>,
    pub(super) cursors: Raised<'r>,
}

#[derive(Debug, Default)]
pub(super) struct Created<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) incarnations: Vec<i64>,
    pub(super) created_ms: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Passing<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) epochs: Vec<i64>,
    pub(super) tails: Vec<i64>,
    pub(super) tails_after: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct States<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) settings: Vec<Vec<u8>>,
    pub(super) created_ms: Vec<i64>,
    pub(super) closed: Vec<bool>,
    pub(super) members: Vec<i64>,
    pub(super) senders_watermarks: Vec<i64>,
    pub(super) notices_watermarks: Vec<Option<i64>>,
    pub(super) layouts: Vec<Option<Vec<u8>>>,
    pub(super) features: Vec<Option<Vec<u8>>>,
}

#[derive(Debug, Default)]
pub(super) struct Records<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) seqs: Vec<i64>,
    pub(super) bodies: Vec<&'r [u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Edits<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) records: Vec<i64>,
    pub(super) edits: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct MemberKeys<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) slots: Vec<i32>,
    pub(super) users: Vec<&'r [u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Members<'r> {
    pub(super) keys: MemberKeys<'r>,
    pub(super) roles: Vec<i32>,
    pub(super) muted_until_ms: Vec<i64>,
    pub(super) banned: Vec<bool>,
    pub(super) joined: Vec<i64>,
    pub(super) changed: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct SenderKeys<'r> {
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) users: Vec<&'r [u8]>,
    pub(super) devices: Vec<i64>,
    pub(super) incarnations: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Raised<'r> {
    pub(super) users: Vec<&'r [u8]>,
    pub(super) groups: Vec<&'r [u8]>,
    pub(super) read: Vec<Option<i64>>,
    pub(super) delivered: Vec<Option<i64>>,
}

impl<'r> Columns<'r> {
    pub(super) fn of(requests: &'r [Request]) -> Self {
        let mut columns = Self::default();
        let mut raised = BTreeMap::new();
        for request in requests {
            match request {
                Request::Append { append, .. } => columns.append(append),
                Request::Activate { group, create, .. } => columns.activate(group, *create),
                Request::RaiseCursors { raises, .. } => raise(raises, &mut raised),
            }
        }
        raised.into_iter().for_each(|(of, cursors)| columns.cursors.push(of, cursors));
        columns
    }

    fn activate(&mut self, group: &'r GroupId, create: Option<Create>) {
        self.locked.push(group.as_bytes());
        self.activated.push(group.as_bytes());
        if let Some(create) = create {
            self.created.groups.push(group.as_bytes());
            self.created.incarnations.push(to_column(create.incarnation));
            self.created.created_ms.push(to_column(create.created_ms));
        }
    }

    fn append(&mut self, append: &'r Append) {
        let group = append.group.as_bytes();
        self.locked.push(group);
        self.passing.groups.push(group);
        self.passing.epochs.push(to_column(append.epoch.0));
        self.passing.tails.push(place(append.expected_tail));
        self.passing.tails_after.push(place(append.tail_after()));
        self.records(append);
        for (record, edit) in &append.changes.edits {
            self.edits.groups.push(group);
            self.edits.records.push(place(*record));
            self.edits.edits.push(place(*edit));
        }
        self.members(append);
        self.senders(append);
        self.state(append);
    }

    /// A redaction of a record that the same append brings is that record.
    fn records(&mut self, append: &'r Append) {
        let (group, first) = (append.group.as_bytes(), self.records.bodies.len());
        let mut seq = append.expected_tail;
        for body in &append.changes.records {
            self.records.push(group, seq, body);
            seq = seq.next();
        }
        for (seq, body) in &append.changes.redactions {
            if *seq < append.expected_tail {
                self.redactions.push(group, *seq, body);
            } else {
                let at = usize::try_from(seq.since(append.expected_tail))
                    .expect("an append has fewer records than a usize counts");
                self.records.bodies[first + at] = body;
            }
        }
    }

    /// Of several rows of one member the last holds: a statement may change a row once.
    fn members(&mut self, append: &'r Append) {
        let last: BTreeMap<&UserId, &MemberRow> =
            append.changes.members.iter().map(|row| (&row.user, row)).collect();
        for row in last.into_values() {
            if row.is_kept() {
                self.members.push(&append.group, row);
            } else {
                self.members_removed.push(&append.group, &row.user);
            }
        }
    }

    fn senders(&mut self, append: &'r Append) {
        let changes = &append.changes;
        let mut last: BTreeMap<&SenderId, Option<_>> =
            changes.senders.iter().map(|(sender, numbers)| (sender, Some(numbers))).collect();
        last.extend(changes.senders_expired.iter().map(|sender| (sender, None)));
        for (sender, numbers) in last {
            if let Some(numbers) = numbers {
                self.senders.push(&append.group, sender);
                self.numbers.push(codec::encode_sender(numbers));
            } else {
                self.senders_removed.push(&append.group, sender);
            }
        }
    }

    fn state(&mut self, append: &'r Append) {
        let group = append.group.as_bytes();
        if let Some(state) = &append.changes.state {
            let states = &mut self.states;
            states.groups.push(group);
            states.settings.push(prost::Message::encode_to_vec(&state.settings));
            states.created_ms.push(to_column(state.created_ms));
            states.closed.push(state.closed);
            states.members.push(to_column(state.members));
            states.senders_watermarks.push(place(state.senders_watermark));
            states.notices_watermarks.push(state.notices_watermark.map(place));
            states.layouts.push(state.layout.as_deref().map(prost::Message::encode_to_vec));
            states.features.push(state.features.as_deref().map(prost::Message::encode_to_vec));
        }
        if let Some(due) = append.changes.notices_due {
            self.notices.0.push(group);
            self.notices.1.push(due);
        }
    }
}

impl<'r> Records<'r> {
    fn push(&mut self, group: &'r [u8], seq: Seq, body: &'r [u8]) {
        self.groups.push(group);
        self.seqs.push(place(seq));
        self.bodies.push(body);
    }
}

impl<'r> MemberKeys<'r> {
    fn push(&mut self, group: &'r GroupId, user: &'r UserId) {
        self.groups.push(group.as_bytes());
        self.slots.push(Slot::of(user).number().into());
        self.users.push(user.as_str().as_bytes());
    }
}

impl<'r> Members<'r> {
    fn push(&mut self, group: &'r GroupId, row: &'r MemberRow) {
        self.keys.push(group, &row.user);
        self.roles.push(row.role.into());
        self.muted_until_ms.push(to_column(row.muted_until_ms));
        self.banned.push(row.banned);
        self.joined.push(place(row.joined));
        self.changed.push(place(row.changed));
    }
}

impl<'r> SenderKeys<'r> {
    fn push(&mut self, group: &'r GroupId, sender: &'r SenderId) {
        self.groups.push(group.as_bytes());
        self.users.push(sender.user.as_str().as_bytes());
        self.devices.push(to_column(sender.device.0));
        self.incarnations.push(to_column(sender.incarnation.0));
    }
}

impl<'r> Raised<'r> {
    fn push(&mut self, (user, group): (&'r UserId, &'r GroupId), cursors: Cursors) {
        self.users.push(user.as_str().as_bytes());
        self.groups.push(group.as_bytes());
        self.read.push(cursors.read.map(place));
        self.delivered.push(cursors.delivered.map(place));
    }
}

fn raise<'r>(raises: &'r [CursorRaise], raised: &mut BTreeMap<(&'r UserId, &'r GroupId), Cursors>) {
    for raise in raises {
        let cursors = raised.entry((&raise.user, &raise.group)).or_default();
        *cursors = cursors.raised(raise.cursors);
    }
}

/// No place is above what a signed column holds: [`Seq::MAX`].
fn place(seq: Seq) -> i64 {
    to_column(seq.get())
}
