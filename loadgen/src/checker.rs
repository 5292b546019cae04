//! The judge of one group: what was sent, acknowledged and delivered goes in, a verdict comes out.
//!
//! ```text
//!  joined(member, seq), left(…) ──────┐
//!  sent(sender, number) ──────────────┤
//!  acknowledged(sender, number, seq) ─┼─► one shared order by Seq ─► verdict
//!  delivered(receiver, seq, content) ─┤   one cursor a member
//!  passed(receiver, places) ──────────┘
//! ```
//!
//! Every delivery of every receiver is judged: all from the record of its join on, and nothing that is
//! above the record of its leave. A place in the order is kept from the first receipt or delivery that
//! names it until all whose own it is have had it, so memory is what is under way: about a hundred bytes
//! for each message that some receiver still lacks, whatever the number of receivers, and as much for
//! each member.

use std::{collections::BTreeMap, fmt, ops::Range};

use cursor::Step;
use fates::{Fates, Placed};
use members::Members;
use ranges::Ranges;

pub use verdict::Verdict;

mod verdict;

mod members;

mod cursor;

mod watermarks;

mod ranges;

mod fates;

/// Which message: the sender's number in the group, and the message's among theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    /// The sender.
    pub sender: u32,
    /// 1, 2, 3, …
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of member {}", self.number, self.sender)
    }
}

/// What a receiver got, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A whole message; the checksum stands for all its bytes.
    Whole {
        /// Which.
        message: MessageId,
        /// Over all its bytes.
        checksum: u64,
    },
    /// Bytes that nobody sent.
    Corrupt,
}

/// What stands at one place of the order.
#[derive(Debug, Default)]
struct Place {
    message: Option<MessageId>,
    checksum: Option<u64>,
    /// Somebody got it; else it is known from its receipt alone.
    seen: bool,
}

/// The judge of one group, whose members all send and all receive.
#[derive(Debug, Default)]
pub struct GroupChecker {
    name: String,
    members: Members,
    /// By member.
    senders: Vec<Fates>,
    order: BTreeMap<u64, Place>,
    /// Where somebody was told that there is no message.
    passed: Ranges,
    /// The lowest place above all that are known of.
    tail: u64,
    unanswered: u64,
    verdict: Verdict,
}

impl GroupChecker {
    /// A judge for a group without members yet, called `name` in what it finds.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), tail: 1, ..Self::default() }
    }

    /// So many are about to ask to join: what comes from here on may be theirs, and is kept until it is
    /// known. The answer is for [`joined`](Self::joined) or [`not_joined`](Self::not_joined), once for
    /// each.
    pub fn joining(&mut self, count: u32) -> u64 {
        self.members.joining(self.tail, count);
        self.tail
    }

    /// One of those who began to join at `asked` did not.
    pub fn not_joined(&mut self, asked: u64) {
        self.members.answered(asked);
        self.settle_front();
    }

    /// One of those who began to join at `asked` is a member from the record at `seq` on.
    pub fn joined(&mut self, member: u32, asked: u64, seq: u64) {
        self.members.answered(asked);
        if seq < asked {
            self.verdict.reordered += 1;
            let name = &self.name;
            self.verdict
                .find(|| format!("{name}: member {member} asked to join at {asked}, and did at {seq}"));
        }
        // What is below may have been settled.
        self.members.joined(member, seq.max(asked));
        self.known(seq);
        self.settle_front();
    }

    /// A member left with the record at `seq`, the last that is theirs; none where nobody can say: it reads
    /// no more then.
    pub fn left(&mut self, member: u32, seq: Option<u64>) {
        let after = self.members.left(member, seq);
        if after > 0 {
            self.verdict.strays += after;
            let name = &self.name;
            self.verdict.find(|| format!("{name}: member {member} got {after} records after it had left"));
        }
        self.settle_front();
    }

    /// The message is about to be given to its sender's client.
    pub fn sent(&mut self, message: MessageId) {
        self.verdict.published += 1;
        self.unanswered += 1;
        let at = message.sender as usize;
        self.senders.resize_with(self.senders.len().max(at + 1), Fates::default);
        self.senders[at].sent(message.number);
    }

    /// Its receipt came: durable at `seq`. A second receipt for the same message changes nothing.
    pub fn acknowledged(&mut self, message: MessageId, seq: u64) {
        let fates = &mut self.senders[message.sender as usize];
        if !fates.awaits_answer(message.number) {
            return;
        }
        self.verdict.acknowledged += 1;
        self.unanswered -= 1;
        if fates.acknowledge(message.number, seq) {
            self.expect(seq, message, None);
        }
    }

    /// Nobody will ever say what became of it.
    pub fn unknown(&mut self, message: MessageId) {
        if self.senders[message.sender as usize].give_up(message.number) {
            self.unanswered -= 1;
        }
    }

    /// It was refused for good, or never left its client.
    pub fn refused(&mut self, message: MessageId) {
        let fates = &mut self.senders[message.sender as usize];
        if !fates.awaits_answer(message.number) {
            return;
        }
        self.verdict.refused += 1;
        self.unanswered -= 1;
        if !fates.refuse(message.number) {
            self.verdict.phantoms += 1;
            let name = &self.name;
            self.verdict.find(|| format!("{name}: {message} was refused, yet delivered"));
        }
    }

    /// A receiver's app got the message at `seq`.
    pub fn delivered(&mut self, receiver: u32, seq: u64, content: Content) {
        self.verdict.deliveries += 1;
        if !self.step(receiver, seq..seq.saturating_add(1)) {
            return;
        }
        match content {
            Content::Whole { message, checksum } => self.check_sent(receiver, seq, message, checksum),
            Content::Corrupt => {
                self.verdict.corrupted += 1;
                let name = &self.name;
                self.verdict.find(|| format!("{name}: member {receiver} got bytes nobody sent at {seq}"));
            }
        }
        self.place(seq).seen = true;
        self.settle_front();
    }

    /// A receiver's app got the records at these places, or what stands for all of them: none is a message.
    pub fn passed(&mut self, receiver: u32, places: Range<u64>) {
        if self.step(receiver, places.clone()) {
            self.passed.insert(places);
        }
        self.settle_front();
    }

    /// What is still to come: deliveries owed, and messages without receipt or refusal.
    #[must_use]
    pub fn outstanding(&self) -> (u64, u64) {
        (self.members.lacking_below(self.tail), self.unanswered)
    }

    /// How many places a receiver is behind the last that is known of.
    #[must_use]
    pub fn behind(&self, receiver: u32) -> u64 {
        self.members.next(receiver).map_or(0, |next| self.tail.saturating_sub(next))
    }

    /// The lowest place that some member lacks, and the lowest that nobody knows of.
    #[must_use]
    pub fn furthest_behind(&self) -> (u64, u64) {
        (self.members.furthest_behind().unwrap_or(self.tail).min(self.tail), self.tail)
    }

    /// What has been counted and found so far; what is lost shows at the end.
    #[must_use]
    pub fn so_far(&self) -> &Verdict {
        &self.verdict
    }

    /// The verdict, once nothing more will come.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        self.judge_places();
        self.judge_holes();
        self.judge_receipts();
        self.verdict
    }

    /// Who lacks what some have had?
    fn judge_places(&mut self) {
        for (seq, place) in std::mem::take(&mut self.order) {
            if !place.seen {
                // Known from its receipt alone, so counted with the receipts.
                continue;
            }
            let missing = self.members.lacking_at(seq);
            if missing > 0 {
                self.verdict.lost += missing;
                let what = place.message.map_or("corrupt".into(), |message| message.to_string());
                let (name, members) = (&self.name, self.members.owning(seq));
                self.verdict.find(|| {
                    format!("{name}: {missing} of {members} never got the record at {seq} ({what})")
                });
            }
            self.settle(seq, &place);
        }
    }

    /// Who passed over what?
    fn judge_holes(&mut self) {
        for (receiver, holes) in self.members.holes() {
            self.verdict.holes += holes;
            let name = &self.name;
            self.verdict.find(|| format!("{name}: member {receiver} passed over {holes} places"));
        }
    }

    /// What was acknowledged at a place where it is not?
    fn judge_receipts(&mut self) {
        for (sender, fates) in (0..).zip(&self.senders) {
            for (number, seq) in fates.unconfirmed() {
                self.verdict.lost += self.members.owning(seq).max(1);
                let (name, message) = (&self.name, MessageId { sender, number });
                self.verdict.find(|| format!("{name}: nobody got {message} at {seq}, as acknowledged"));
            }
        }
    }

    /// There is a record at `seq`.
    fn known(&mut self, seq: u64) {
        self.tail = self.tail.max(seq.saturating_add(1));
    }

    /// Moves a receiver; false where these places are none that it lacked.
    fn step(&mut self, receiver: u32, places: Range<u64>) -> bool {
        let next = self.members.next(receiver).unwrap_or(1);
        let step = self.members.step(receiver, places.clone());
        let (name, seq) = (&self.name, places.start);
        match step {
            Step::Forward => {}
            Step::Late => {
                self.verdict.reordered += 1;
                self.verdict.find(|| format!("{name}: member {receiver} got {seq} after {}", next - 1));
            }
            Step::Again => {
                self.verdict.duplicated += 1;
                self.verdict.find(|| format!("{name}: member {receiver} got {seq} again"));
            }
            Step::Astray => {
                self.verdict.strays += 1;
                self.verdict.find(|| format!("{name}: member {receiver} got {seq}, when it was no member"));
            }
        }
        self.tail = self.tail.max(places.end);
        matches!(step, Step::Forward | Step::Late)
    }

    /// A whole message: was it ever sent, and is it the one that others got at this place?
    fn check_sent(&mut self, receiver: u32, seq: u64, message: MessageId, checksum: u64) {
        let sent =
            self.senders.get(message.sender as usize).is_some_and(|fates| fates.was_sent(message.number));
        if sent {
            self.expect(seq, message, Some(checksum));
            return;
        }
        self.verdict.phantoms += 1;
        let name = &self.name;
        self.verdict.find(|| format!("{name}: member {receiver} got {message} at {seq}, never sent"));
    }

    /// `message` stands at `seq`, says a receipt or a delivery: do all say so?
    fn expect(&mut self, seq: u64, message: MessageId, checksum: Option<u64>) {
        let place = self.place(seq);
        let other = place.message.is_some_and(|known| known != message);
        let altered =
            !other && matches!((place.checksum, checksum), (Some(known), Some(new)) if known != new);
        if !other {
            place.message = Some(message);
            place.checksum = place.checksum.or(checksum);
        }
        let name = &self.name;
        if other {
            self.verdict.reordered += 1;
            self.verdict.find(|| format!("{name}: {message} at {seq}, where others have another"));
        }
        if altered {
            self.verdict.corrupted += 1;
            self.verdict.find(|| format!("{name}: {message} at {seq} with other bytes than others got"));
        }
    }

    fn place(&mut self, seq: u64) -> &mut Place {
        self.known(seq);
        self.order.entry(seq).or_default()
    }

    /// Lets go of the lowest places that everybody has had whose own they are, and who joins will not
    /// need.
    fn settle_front(&mut self) {
        let needed = self.members.needed();
        while let Some(first) = self.order.first_entry() {
            if needed.is_some_and(|needed| needed <= *first.key()) {
                break;
            }
            let (seq, place) = first.remove_entry();
            self.settle(seq, &place);
        }
        if let Some(needed) = needed {
            self.passed.forget_below(needed);
        }
    }

    /// The order up to `seq` is settled: does it keep the sender's?
    fn settle(&mut self, seq: u64, place: &Place) {
        if place.seen && self.passed.contains(seq) {
            self.verdict.reordered += 1;
            let name = &self.name;
            self.verdict.find(|| format!("{name}: a message to some at {seq}, none to others"));
        }
        // What nobody got stays open with its sender.
        let Some(message) = place.message.filter(|_| place.seen) else { return };
        let placed = self.senders[message.sender as usize].place(message.number, seq);
        let name = &self.name;
        let (count, what) = match placed {
            Placed::InOrder => return,
            Placed::Overtaken => (&mut self.verdict.reordered, "was overtaken by a later one of its sender"),
            Placed::Twice => (&mut self.verdict.duplicated, "has two places"),
            Placed::Phantom => (&mut self.verdict.phantoms, "was refused"),
        };
        *count += 1;
        self.verdict.find(|| format!("{name}: {message} at {seq} {what}"));
    }
}

#[cfg(test)]
mod tests;
