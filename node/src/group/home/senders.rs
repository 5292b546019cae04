//! Senders' numbers: loaded when they are first needed, folded from the records since the last
//! checkpoint, written back at the next.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use shoal_protocol::{DeviceId, GroupId, Incarnation, Outcome, SenderId, SenderNumbers, UserId, wire};

use super::{super::judgement::Judged, LoadedSender};

/// What waits for its sender.
#[derive(Debug)]
pub(super) enum Parked<R> {
    Publish(Judged<R>),
    Notice(wire::Notice, R),
}

/// What a sender waits for itself.
#[derive(Debug)]
pub(super) enum Waits<R> {
    Nothing,
    /// Its row.
    Row,
    /// The record that this message refers to.
    Record(Judged<R>),
    /// The append under way: what this message refers to has just changed.
    Append(Judged<R>),
}

/// One sender, as the home knows it.
#[derive(Debug)]
pub(super) struct Sender<R> {
    pub(super) numbers: SenderNumbers,
    /// The last number whose outcome is durable.
    pub(super) durable: u64,
    /// There is a row or a record of it: not a stranger.
    pub(super) is_known: bool,
    /// It was told that its user is no member, and has given its numbers up: what of it is still on its
    /// way must not be taken for new once they are a member again.
    pub(super) has_given_up: bool,
    /// A later incarnation of its device has sent something: what is still on its way would stand behind
    /// what was said after it.
    pub(super) succeeded_by: Option<Incarnation>,
    /// Its user's other incarnations, as of the load, while it is new itself.
    pub(super) siblings: Vec<SenderId>,
    waits: Waits<R>,
    pub(super) parked: VecDeque<Parked<R>>,
    is_dirty: bool,
    /// Something came for it since the last checkpoint.
    is_used: bool,
}

impl<R> Sender<R> {
    fn new(numbers: SenderNumbers, waits: Waits<R>) -> Self {
        Self {
            durable: numbers.last(),
            is_known: numbers.last() > 0,
            numbers,
            has_given_up: false,
            succeeded_by: None,
            siblings: Vec::new(),
            waits,
            parked: VecDeque::new(),
            is_dirty: false,
            is_used: false,
        }
    }

    /// May its messages be decided on?
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.waits, Waits::Nothing)
    }

    /// Nothing of it is under way.
    fn is_settled(&self) -> bool {
        self.is_ready() && self.parked.is_empty() && self.durable == self.numbers.last()
    }

    /// Records an outcome that gathers.
    pub(super) fn record(&mut self, number: u64, outcome: Outcome) {
        self.numbers.record(number, outcome);
        self.is_dirty = true;
        self.is_known = true;
    }

    /// Takes note of a source's position, whose numbers have holes.
    pub(super) fn jump_to(&mut self, number: u64) {
        self.numbers = SenderNumbers::restore(number, []);
        self.is_known = true;
    }
}

/// All senders that the home has had to do with lately.
#[derive(Debug)]
pub(super) struct Senders<R> {
    known: BTreeMap<SenderId, Sender<R>>,
    /// Those that wait for something.
    waiting: BTreeSet<SenderId>,
}

impl<R> Senders<R> {
    /// With the numbers of everyone who has sent since the last checkpoint.
    pub(super) fn new(since_checkpoint: BTreeMap<SenderId, SenderNumbers>) -> Self {
        let dirty = |numbers| Sender { is_dirty: true, ..Sender::new(numbers, Waits::Nothing) };
        let ids: Vec<_> = since_checkpoint.keys().cloned().collect();
        let known = since_checkpoint.into_iter().map(|(id, numbers)| (id, dirty(numbers))).collect();
        let mut senders = Self { known, waiting: BTreeSet::new() };
        ids.iter().for_each(|id| senders.end_earlier(id));
        senders
    }

    /// This one has sent something: the earlier incarnations of its device are over.
    pub(super) fn end_earlier(&mut self, id: &SenderId) {
        let first = SenderId { incarnation: Incarnation(0), ..id.clone() };
        for (_, earlier) in self.known.range_mut(&first..id) {
            earlier.succeeded_by = Some(id.incarnation);
        }
    }

    /// The latest incarnation of its device after this one that has sent something, as far as memory has
    /// it.
    fn successor(&self, id: &SenderId) -> Option<Incarnation> {
        let last = SenderId { incarnation: Incarnation(u64::MAX), ..id.clone() };
        let later = self.known.range((Bound::Excluded(id), Bound::Included(&last)));
        later.filter(|(_, sender)| sender.is_known).map(|(id, _)| id.incarnation).last()
    }

    pub(super) fn get(&mut self, id: &SenderId) -> Option<&mut Sender<R>> {
        self.known.get_mut(id)
    }

    /// The sender, and whether its row has to be read now.
    pub(super) fn need(&mut self, id: &SenderId) -> (&mut Sender<R>, bool) {
        let load = !self.known.contains_key(id);
        if load {
            self.known.insert(id.clone(), Sender::new(SenderNumbers::new(), Waits::Row));
            self.waiting.insert(id.clone());
        }
        let sender = self.known.get_mut(id).expect("it was there or has been inserted");
        sender.is_used = true;
        (sender, load)
    }

    /// The sender waits for what this message needs.
    pub(super) fn wait(&mut self, waits: Waits<R>, id: SenderId) {
        if let Some(sender) = self.known.get_mut(&id) {
            sender.waits = waits;
            self.waiting.insert(id);
        }
    }

    /// What the sender has waited for has come: the message that needed it.
    pub(super) fn end_wait(&mut self, id: &SenderId) -> Option<Judged<R>> {
        self.waiting.remove(id);
        let sender = self.known.get_mut(id)?;
        match std::mem::replace(&mut sender.waits, Waits::Nothing) {
            Waits::Record(judged) | Waits::Append(judged) => Some(judged),
            Waits::Nothing | Waits::Row => None,
        }
    }

    /// The row has been read.
    pub(super) fn loaded(&mut self, id: &SenderId, loaded: LoadedSender) {
        self.waiting.remove(id);
        let of_device = |sibling: &&SenderId| sibling.device == id.device && sibling.user == id.user;
        let rows = loaded.siblings.iter().filter(of_device).map(|sibling| sibling.incarnation);
        let latest = rows.chain(self.successor(id)).max().filter(|latest| *latest > id.incarnation);
        if let Some(sender) = self.known.get_mut(id) {
            let parked = std::mem::take(&mut sender.parked);
            let numbers = loaded.numbers.unwrap_or_default();
            // Only one that is new may have to push one of them out.
            let siblings = if numbers.last() > 0 { Vec::new() } else { loaded.siblings };
            *sender = Sender {
                parked,
                succeeded_by: latest,
                siblings,
                is_used: true,
                ..Sender::new(numbers, Waits::Nothing)
            };
        }
    }

    /// The row could not be read: forgets the sender and gives back what waited for it.
    pub(super) fn unload(&mut self, id: &SenderId) -> VecDeque<Parked<R>> {
        self.waiting.remove(id);
        self.known.remove(id).map(|sender| sender.parked).unwrap_or_default()
    }

    /// Lets go of a sender that has expired, unless something of it is under way.
    pub(super) fn forget(&mut self, id: &SenderId) -> bool {
        let is_settled = self.known.get(id).is_none_or(Sender::is_settled);
        if is_settled {
            self.known.remove(id);
        }
        is_settled
    }

    pub(super) fn set_durable(&mut self, id: &SenderId, number: u64) {
        if let Some(sender) = self.known.get_mut(id) {
            sender.durable = sender.durable.max(number);
        }
    }

    /// Messages that have waited for the append under way.
    pub(super) fn take_waiting_for_append(&mut self) -> Vec<Judged<R>> {
        let waits_for_append = |id: &&SenderId| {
            self.known.get(*id).is_some_and(|sender| matches!(sender.waits, Waits::Append(_)))
        };
        let ids: Vec<_> = self.waiting.iter().filter(waits_for_append).cloned().collect();
        ids.iter().filter_map(|id| self.end_wait(id)).collect()
    }

    /// Nobody waits for anything.
    pub(super) fn are_ready(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn are_dirty(&self) -> bool {
        self.known.values().any(|sender| sender.is_dirty)
    }

    /// What has changed since the last checkpoint; those that have not even been used since are let
    /// go. What is written now stays until it is durable: read again before, it would be the old.
    pub(super) fn checkpoint(&mut self) -> Vec<(SenderId, SenderNumbers)> {
        let mut dirty = Vec::new();
        self.known.retain(|id, sender| {
            let keep = sender.is_dirty || sender.is_used || !sender.is_settled();
            sender.is_used = false;
            if std::mem::take(&mut sender.is_dirty) {
                dirty.push((id.clone(), sender.numbers.clone()));
            }
            keep
        });
        dirty
    }

    pub(super) fn drain_parked(&mut self) -> Vec<Parked<R>> {
        let mut parked = Vec::new();
        for sender in self.known.values_mut() {
            if let Waits::Record(judged) | Waits::Append(judged) =
                std::mem::replace(&mut sender.waits, Waits::Nothing)
            {
                parked.push(Parked::Publish(judged));
            }
            parked.extend(sender.parked.drain(..));
        }
        parked
    }
}

/// The sender that stands for a group in a user's own sequence; its number is the group's Seq.
pub(super) fn source_of(user: UserId, group: GroupId) -> SenderId {
    SenderId { user, device: DeviceId(group.stable_hash()), incarnation: Incarnation(0) }
}

/// Who sent a record, under which number; none where it carries none.
#[must_use]
pub(crate) fn sender_of(record: &wire::Record) -> Option<(SenderId, u64)> {
    let author = record.author.as_ref().filter(|author| author.number != 0)?;
    let user = UserId::new(&author.user).ok()?;
    let id = SenderId { user, device: DeviceId(author.device), incarnation: Incarnation(author.incarnation) };
    Some((id, author.number))
}
