//! The judge of one group: what was sent, acknowledged and delivered goes in, a verdict comes out.
//!
//! ```text
//!  sent(sender, number) ──────────────┐
//!  acknowledged(sender, number, seq) ─┼─► one shared order by Seq ─► verdict
//!  delivered(receiver, seq, content) ─┤   one cursor a receiver
//!  passed(receiver, seq) ─────────────┘
//! ```
//!
//! Every delivery of every receiver is judged. A place in the order is kept from the first receipt
//! or delivery that names it until all receivers have had it, so memory is what is under way:
//! about a hundred bytes for each message that some receiver still lacks, whatever the number of
//! receivers.

use std::{collections::BTreeMap, fmt};

use cursor::{Cursor, Step};
use fates::{Fates, Placed};

mod cursor;

mod fates;

/// How many findings are told in words.
const FINDINGS_MAX: usize = 20;

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

/// What is wrong with a group's deliveries, and how much of it there was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Given to a client for sending.
    pub published: u64,
    /// Receipts that say "durable".
    pub acknowledged: u64,
    /// Refused for good.
    pub refused: u64,
    /// Deliveries, over all receivers.
    pub deliveries: u64,
    /// Deliveries that were owed and never came.
    pub lost: u64,
    /// Deliveries of what was had before, and messages with two places.
    pub duplicated: u64,
    /// Deliveries out of order, places at which two receivers got different messages, and messages
    /// that overtook an earlier one of their sender.
    pub reordered: u64,
    /// Deliveries whose bytes are not what was sent.
    pub corrupted: u64,
    /// Deliveries of what was refused or never sent.
    pub phantoms: u64,
    /// Places that a receiver passed over and never got, whether or not anybody knows what is there.
    pub holes: u64,
    /// The first of these, in words.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Is nothing wrong?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupted + self.phantoms + self.holes == 0
    }

    /// Adds another group's.
    pub fn add(&mut self, other: Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.deliveries += other.deliveries;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.phantoms += other.phantoms;
        self.holes += other.holes;
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }

    fn find(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }
}

/// What stands at one place of the order.
#[derive(Debug, Default)]
struct Place {
    message: Option<MessageId>,
    checksum: Option<u64>,
    seen: u32,
}

/// The judge of one group, whose members all send and all receive.
#[derive(Debug)]
pub struct GroupChecker {
    name: String,
    receivers: Vec<Cursor>,
    senders: Vec<Fates>,
    order: BTreeMap<u64, Place>,
    owed: u64,
    unanswered: u64,
    verdict: Verdict,
}

impl GroupChecker {
    /// A judge for a group of `members`, called `name` in what it finds.
    #[must_use]
    pub fn new(name: impl Into<String>, members: u32) -> Self {
        Self {
            name: name.into(),
            receivers: (0..members).map(|_| Cursor::new()).collect(),
            senders: (0..members).map(|_| Fates::default()).collect(),
            order: BTreeMap::new(),
            owed: 0,
            unanswered: 0,
            verdict: Verdict::default(),
        }
    }

    /// The message is about to be given to its sender's client.
    pub fn sent(&mut self, message: MessageId) {
        self.verdict.published += 1;
        self.unanswered += 1;
        self.senders[message.sender as usize].sent(message.number);
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
        if !self.step(receiver, seq) {
            return;
        }
        match content {
            Content::Whole { message, checksum } => self.check_sent(receiver, seq, message, checksum),
            Content::Corrupt => {
                self.verdict.corrupted += 1;
                let name = &self.name;
                self.verdict.find(|| format!("{name}: member {receiver} got bytes nobody sent at {seq}"));
                self.place(seq);
            }
        }
        self.owed -= 1;
        self.place(seq).seen += 1;
        self.settle_front();
    }

    /// A receiver's app got the record at `seq`, which is no message.
    pub fn passed(&mut self, receiver: u32, seq: u64) {
        self.step(receiver, seq);
    }

    /// What is still to come: deliveries owed, and messages without receipt or refusal.
    #[must_use]
    pub fn outstanding(&self) -> (u64, u64) {
        (self.owed, self.unanswered)
    }

    /// How many places a receiver is behind the one that is furthest.
    #[must_use]
    pub fn behind(&self, receiver: u32) -> u64 {
        let furthest = self.receivers.iter().map(Cursor::next).max().unwrap_or(0);
        furthest - self.receivers[receiver as usize].next()
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
        let receivers = self.receivers.len() as u64;
        for (seq, place) in std::mem::take(&mut self.order) {
            let missing = receivers - u64::from(place.seen);
            if place.seen == 0 {
                // Known from its receipt alone, so counted with the receipts.
                continue;
            }
            if missing > 0 {
                self.verdict.lost += missing;
                let what = place.message.map_or("corrupt".into(), |message| message.to_string());
                let name = &self.name;
                self.verdict.find(|| {
                    format!("{name}: {missing} of {receivers} never got the record at {seq} ({what})")
                });
            }
            self.settle(seq, place.message);
        }
    }

    /// Who passed over what?
    fn judge_holes(&mut self) {
        for (receiver, cursor) in self.receivers.iter().enumerate() {
            let holes = cursor.holes();
            if holes > 0 {
                self.verdict.holes += holes;
                let name = &self.name;
                self.verdict.find(|| format!("{name}: member {receiver} passed over {holes} places"));
            }
        }
    }

    /// What was acknowledged at a place where it is not?
    fn judge_receipts(&mut self) {
        for (sender, fates) in (0..).zip(&self.senders) {
            for (number, seq) in fates.unconfirmed() {
                self.verdict.lost += self.receivers.len() as u64;
                let (name, message) = (&self.name, MessageId { sender, number });
                self.verdict.find(|| format!("{name}: nobody got {message} at {seq}, as acknowledged"));
            }
        }
    }

    /// Moves a receiver; false where it had this place before.
    fn step(&mut self, receiver: u32, seq: u64) -> bool {
        let cursor = &mut self.receivers[receiver as usize];
        let next = cursor.next();
        let step = cursor.step(seq);
        let name = &self.name;
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
        }
        step != Step::Again
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
        self.place(seq);
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

    /// The place at `seq`; a new one is owed to every receiver.
    fn place(&mut self, seq: u64) -> &mut Place {
        let receivers = self.receivers.len() as u64;
        self.order.entry(seq).or_insert_with(|| {
            self.owed += receivers;
            Place::default()
        })
    }

    /// Lets go of the lowest places that all receivers have had.
    fn settle_front(&mut self) {
        while let Some(first) = self.order.first_entry() {
            if (first.get().seen as usize) < self.receivers.len() {
                return;
            }
            let (seq, place) = first.remove_entry();
            self.settle(seq, place.message);
        }
    }

    /// The order up to `seq` is settled: does it keep the sender's?
    fn settle(&mut self, seq: u64, message: Option<MessageId>) {
        let Some(message) = message else { return };
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
