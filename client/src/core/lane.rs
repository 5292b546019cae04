//! One group's messages on their way: a number, the wire, an answer.
//!
//! ```text
//!   answered │ in flight     │ numbered      │ unnumbered
//!  ──────────┼───┬───┬───┬───┼───┬───┬───┬───┼───┬───
//!            │ 5 │ 6 │ 7 │ 8 │ 9 │10 │11 │12 │ – │ –
//! ```
//!
//! A message gets its number when it is queued, so that a queue that was saved can be sent again
//! without doubling anything. After a refusal that leaves the number unused, nothing is sent until
//! all that is in flight has been answered; then everything goes again from the lowest. So no
//! answer to an earlier attempt is ever taken for one to a later.

use std::{collections::VecDeque, time::Duration};

use shoal_protocol::{Code, Incarnation, Refusal, Retry, Seq, wire};

use super::backoff::Backoff;

/// The first and the longest wait after refusals without a `retry_after`.
const REFUSED_FIRST: Duration = Duration::from_millis(20);
const REFUSED_CEILING: Duration = Duration::from_secs(1);

/// A message, as the shell knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// A message's number, and in which incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) incarnation: Incarnation,
    pub(crate) number: u64,
}

/// What became of a message, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Result<Seq, Failed>,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It was refused, and is not in the group.
    Refused(Refusal),
    /// It may be in the group or not: nobody can say any more.
    Unknown(Refusal),
}

/// A home's answer to one publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Durable.
    Committed(Seq),
    /// Refused, and the number is used up.
    Consumed(Refusal),
    /// Not now; the number is not used up.
    Later(Refusal),
    /// A number before it is missing.
    OutOfOrder { expected: u64 },
    /// It has an outcome that is no longer kept.
    Forgotten(Refusal),
    /// The incarnation is not known any more.
    Expired(Refusal),
    /// This user cannot send to this group; the number is not used up.
    Gone(Refusal),
    /// This message can never be sent; the number is not used up.
    Unfit(Refusal),
}

impl Answer {
    /// Reads a receipt; none where it says nothing that could be.
    pub(crate) fn from_wire(outcome: wire::receipt::Outcome) -> Option<Self> {
        let refused = match outcome {
            wire::receipt::Outcome::Committed(committed) => {
                return Seq::new(committed.seq).map(Self::Committed);
            }
            wire::receipt::Outcome::OutOfOrder(out) => {
                return Some(Self::OutOfOrder { expected: out.expected });
            }
            wire::receipt::Outcome::Refused(refused) => refused,
        };
        let why = Refusal::from(refused.why?);
        Some(match why.code {
            Code::NumberForgotten => Self::Forgotten(why),
            _ if refused.consumed => Self::Consumed(why),
            Code::IncarnationExpired => Self::Expired(why),
            Code::NotMember | Code::UnknownGroup | Code::Banned => Self::Gone(why),
            code if code.retry() == Retry::Never => Self::Unfit(why),
            _ => Self::Later(why),
        })
    }
}

/// What a node allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Publishes without an answer, from the lowest number to the highest.
    pub(crate) window: u64,
    pub(crate) payload_bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    message: wire::Message,
    place: Option<Place>,
    /// Since when it is on the wire of the live connection.
    sent: Option<Duration>,
    /// It was on the wire of a connection that was lost, or of an earlier run.
    uncertain: bool,
    /// It was refused by a node that had perhaps passed it on before: a copy may be on its way.
    adrift: bool,
}

impl Entry {
    fn new(ticket: Ticket, message: wire::Message) -> Self {
        Self { ticket, message, place: None, sent: None, uncertain: false, adrift: false }
    }
}

#[derive(Debug)]
struct Numbering {
    incarnation: Incarnation,
    next: u64,
}

/// One group's messages, in the order the app sent them.
///
/// Entries that are uncertain come before all that are not; those of one incarnation stand
/// together; and, unless it is going back, those in flight come first and are of one incarnation.
#[derive(Debug)]
pub(crate) struct Lane {
    entries: VecDeque<Entry>,
    in_flight: usize,
    numbering: Option<Numbering>,
    /// The incarnation that was given up last; it is not taken again.
    retired: Option<Incarnation>,
    going_back: bool,
    hold_until: Duration,
    backoff: Backoff,
    /// How often in a row a number was out of order without a refusal before it.
    strays: u32,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            in_flight: 0,
            numbering: None,
            retired: None,
            going_back: false,
            hold_until: Duration::ZERO,
            backoff: Backoff::new(REFUSED_FIRST, REFUSED_CEILING),
            strays: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is there a message that waits for an incarnation?
    pub(crate) fn wants_incarnation(&self) -> bool {
        self.entries.back().is_some_and(|entry| entry.place.is_none())
    }

    /// Until when it sends nothing, where it has something to send.
    pub(crate) fn held_until(&self) -> Option<Duration> {
        (self.entries.len() > self.in_flight).then_some(self.hold_until)
    }

    /// Since when the oldest message in flight has been there.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.entries.iter().find_map(|entry| entry.sent)
    }

    /// All messages with their numbers, for saving.
    pub(crate) fn queued(&self) -> impl Iterator<Item = (Option<Place>, &wire::Message)> {
        self.entries.iter().map(|entry| (entry.place, &entry.message))
    }

    /// Puts a message at the end; `issued` is the latest incarnation there is.
    pub(crate) fn push(&mut self, ticket: Ticket, message: wire::Message, issued: Option<Incarnation>) {
        self.entries.push_back(Entry::new(ticket, message));
        self.number(issued);
    }

    /// Puts back a message of an earlier run. It may have been sent after it was saved.
    pub(crate) fn restore(&mut self, ticket: Ticket, message: wire::Message, place: Option<Place>) {
        self.entries.push_back(Entry { place, uncertain: place.is_some(), ..Entry::new(ticket, message) });
    }

    /// Numbers what has no number, once there is an incarnation.
    pub(crate) fn number(&mut self, issued: Option<Incarnation>) {
        let without = self.entries.iter().rev().take_while(|entry| entry.place.is_none()).count();
        if without == 0 {
            return;
        }
        if self.numbering.is_none() {
            let fresh = issued.filter(|issued| Some(*issued) != self.retired);
            self.numbering = fresh.map(|incarnation| Numbering { incarnation, next: 1 });
        }
        let Some(numbering) = &mut self.numbering else {
            return;
        };
        let from = self.entries.len() - without;
        for entry in self.entries.range_mut(from..) {
            entry.place = Some(Place { incarnation: numbering.incarnation, number: numbering.next });
            numbering.next += 1;
        }
    }

    /// The next message for the wire, which it is on from here on. Those above the node's limit
    /// fail here: the node would take the stream for broken.
    pub(crate) fn send(
        &mut self,
        now: Duration,
        limits: &Limits,
        issued: Option<Incarnation>,
        out: &mut Vec<Settled>,
    ) -> Option<(Place, &wire::Message)> {
        if now < self.hold_until || (self.going_back && self.in_flight > 0) {
            return None;
        }
        self.going_back = false;
        while self.entries.get(self.in_flight)?.message.payload.len() > limits.payload_bytes_max {
            // What was sent before it goes on under its numbers, and has to be answered first.
            if self.in_flight > 0 {
                return None;
            }
            let why = format!("the node takes payloads of up to {} bytes", limits.payload_bytes_max);
            self.unfit(0, &Refusal::new(Code::PayloadTooLarge, why), out);
            self.number(issued);
        }
        let place = self.entries.get(self.in_flight)?.place?;
        if self.in_flight > 0 {
            // The window counts from the lowest unanswered. Another incarnation waits for all of
            // the one before, or the order of the app's sends would be lost.
            let first = self.entries.front()?.place?;
            if first.incarnation != place.incarnation || place.number - first.number >= limits.window {
                return None;
            }
        }
        let entry = self.entries.get_mut(self.in_flight)?;
        entry.sent = Some(now);
        self.in_flight += 1;
        Some((place, &entry.message))
    }

    /// The connection is gone: what was in flight may have arrived or not.
    pub(crate) fn disconnected(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.sent.is_some()) {
            entry.sent = None;
            entry.uncertain = true;
        }
        self.in_flight = 0;
        self.going_back = false;
    }

    /// Takes an answer. `chance` in `0.0..1.0` spreads waits. An answer to what is not in flight
    /// is one to a message that has been settled already.
    pub(crate) fn answer(
        &mut self,
        place: Place,
        answer: Answer,
        now: Duration,
        chance: f64,
        out: &mut Vec<Settled>,
    ) {
        let in_flight = |entry: &Entry| entry.place == Some(place) && entry.sent.is_some();
        let Some(at) = self.entries.iter().position(in_flight) else {
            return;
        };
        match answer {
            Answer::Committed(seq) => self.settle(at, Ok(seq), out),
            Answer::Consumed(why) => self.settle(at, Err(Failed::Refused(why)), out),
            Answer::Forgotten(why) => self.settle(at, Err(Failed::Unknown(why)), out),
            Answer::Later(why) => {
                // Only whoever has judged it says that.
                self.entries[at].adrift |= why.code != Code::TooFast;
                self.go_back(at, Some(why.retry_after_ms), now, chance);
            }
            // What was expected when it was said may be had by now, and others in flight have come in time:
            // messages and answers overtake each other where owners move. Alone, it is sure.
            Answer::OutOfOrder { expected }
                if self.in_flight == 1 && expected < self.lowest(place.incarnation) =>
            {
                let why = "the node does not know the numbers before this one any more";
                self.retire(place.incarnation, &Refusal::new(Code::IncarnationExpired, why), out);
            }
            Answer::OutOfOrder { .. } => self.go_back(at, None, now, chance),
            Answer::Expired(why) => self.retire(place.incarnation, &why, out),
            Answer::Gone(why) => self.fail_from(at, place.incarnation, &why, out),
            Answer::Unfit(why) => self.unfit(at, &why, out),
        }
    }

    /// A message can never be sent and leaves its number unused.
    fn unfit(&mut self, at: usize, why: &Refusal, out: &mut Vec<Settled>) {
        let Some(entry) = self.entries.get(at) else {
            return;
        };
        let place = entry.place;
        let failed = if entry.uncertain { Failed::Unknown } else { Failed::Refused };
        self.settle(at, Err(failed(why.clone())), out);
        if let Some(place) = place {
            self.retire(place.incarnation, why, out);
        }
    }

    /// The lowest number of an incarnation that has no answer.
    fn lowest(&self, incarnation: Incarnation) -> u64 {
        let places = self.entries.iter().filter_map(|entry| entry.place);
        places.filter(|place| place.incarnation == incarnation).map(|place| place.number).next().unwrap_or(0)
    }

    fn settle(&mut self, at: usize, outcome: Result<Seq, Failed>, out: &mut Vec<Settled>) {
        if let Some(entry) = self.entries.remove(at) {
            self.in_flight -= usize::from(entry.sent.is_some());
            out.push(Settled { ticket: entry.ticket, outcome });
        }
        self.backoff.reset();
        self.strays = 0;
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
    }

    /// Sends again from the lowest, once all in flight is answered and the wait is over.
    fn go_back(&mut self, at: usize, retry_after_ms: Option<u32>, now: Duration, chance: f64) {
        if let Some(entry) = self.entries.get_mut(at)
            && entry.sent.take().is_some()
        {
            self.in_flight -= 1;
        }
        let wait = match retry_after_ms {
            Some(0) => self.backoff.failed(chance),
            Some(ms) => Duration::from_millis(u64::from(ms)).mul_f64(1.0 + chance.clamp(0.0, 1.0) / 8.0),
            // Out of order because one before it was refused, whose wait counts.
            None if self.going_back => Duration::ZERO,
            None => {
                self.strays += 1;
                if self.strays > 1 { self.backoff.failed(chance) } else { Duration::ZERO }
            }
        };
        self.going_back = true;
        self.hold_until = self.hold_until.max(now + wait);
    }

    /// Gives up an incarnation: what may have been sent under it fails as unknown, and the rest is
    /// numbered anew under the next. Where a later incarnation has given out numbers already, the
    /// rest fails too: those numbers may have been saved, and so must not move.
    fn retire(&mut self, incarnation: Incarnation, why: &Refusal, out: &mut Vec<Settled>) {
        let current = self.numbering.as_ref().is_some_and(|numbering| numbering.incarnation == incarnation);
        let of_it = |entry: &Entry| entry.place.is_some_and(|place| place.incarnation == incarnation);
        for entry in self.take_where(|entry| of_it(entry) && (entry.uncertain || !current)) {
            let failed = if entry.uncertain { Failed::Unknown } else { Failed::Refused };
            out.push(Settled { ticket: entry.ticket, outcome: Err(failed(why.clone())) });
        }
        if current {
            self.numbering = None;
            self.retired = Some(incarnation);
            for entry in self.entries.iter_mut().filter(|entry| of_it(entry)) {
                entry.place = None;
                self.in_flight -= usize::from(entry.sent.take().is_some());
            }
        }
    }

    /// This one and all behind it that were numbered with it fail: those of which no copy is on its
    /// way as refused, for a copy could arrive when the user is a member again.
    fn fail_from(&mut self, at: usize, incarnation: Incarnation, why: &Refusal, out: &mut Vec<Settled>) {
        let whole = self.numbering.as_ref().is_some_and(|numbering| numbering.incarnation == incarnation);
        if whole {
            self.numbering = None;
            self.retired = Some(incarnation);
        }
        let mut index = 0;
        let failed = self.take_where(|entry| {
            let behind = index >= at;
            index += 1;
            behind && (whole || entry.place.is_some_and(|place| place.incarnation == incarnation))
        });
        for entry in failed {
            let failed = if entry.uncertain || entry.adrift { Failed::Unknown } else { Failed::Refused };
            out.push(Settled { ticket: entry.ticket, outcome: Err(failed(why.clone())) });
        }
    }

    fn take_where(&mut self, mut which: impl FnMut(&Entry) -> bool) -> VecDeque<Entry> {
        let (taken, kept) = self.entries.drain(..).partition::<VecDeque<_>, _>(|entry| which(entry));
        self.in_flight -= taken.iter().filter(|entry| entry.sent.is_some()).count();
        self.entries = kept;
        taken
    }
}
