//! What came for one follow: the accept rule, and a buffer with a bound in bytes.
//!
//! ```text
//!      app has            buffer           wanted
//!  ───────────────┤ r │ r │ r │ r │ ·
//!                 ▲               ▲
//!            watermark         received
//! ```
//!
//! `received` is where the next record belongs and what a node is asked for after a loss;
//! `watermark` is what the app has taken, what nodes are told and what is saved.

use std::collections::VecDeque;

use shoal_protocol::{Accept, Follower, Refusal, Seq, wire};

/// What a record weighs in the buffer besides its bytes on the wire: its structure, twice, for the
/// room that a growing buffer has to spare.
const RECORD_OVERHEAD_BYTES: usize = 320;

/// One thing for the app.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// The record at the watermark.
    Record(wire::Record),
    /// The records in between were never this member's to read.
    Skipped { from: Seq, to: Seq },
    /// The records in between are silent.
    Silent { from: Seq, to: Seq },
}

/// What to ask a node for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Watermark(Seq),
    Join,
    Tail,
}

/// Where a follow stands with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has been asked for, or will be.
    Asked,
    /// The node said from where everything comes.
    Live,
    /// The app does not read: the node has been told to stop, until it does.
    Parked,
    /// The node ended it.
    Ended(Refusal),
}

/// One follow.
#[derive(Debug)]
pub(crate) struct Inbox {
    start: Start,
    follower: Option<Follower>,
    watermark: Option<Seq>,
    /// Up to where nodes were told that the app has it.
    told: Option<Seq>,
    buffer: VecDeque<(Item, usize)>,
    bytes: usize,
    bytes_max: usize,
    phase: Phase,
    /// How often a node was asked anew: what it said to an earlier question is out of date.
    turn: u32,
}

impl Inbox {
    /// A follow that is still to be asked for, with a buffer of `bytes_max`.
    pub(crate) fn new(start: Start, bytes_max: usize) -> Self {
        let known = match start {
            Start::Watermark(seq) => Some(seq),
            Start::Join | Start::Tail => None,
        };
        Self {
            start,
            follower: known.map(Follower::new),
            watermark: known,
            told: None,
            buffer: VecDeque::new(),
            bytes: 0,
            bytes_max,
            phase: Phase::Asked,
            turn: 0,
        }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The next Seq the app wants; none before a node said where it begins.
    pub(crate) fn watermark(&self) -> Option<Seq> {
        self.watermark
    }

    /// The next Seq that is wanted from a node.
    pub(crate) fn received(&self) -> Option<Seq> {
        self.follower.map(|follower| follower.watermark())
    }

    /// What to ask a node for; none for a follow that is parked or has ended.
    pub(crate) fn request(&self) -> Option<Start> {
        match self.phase {
            Phase::Asked | Phase::Live => Some(self.received().map_or(self.start, Start::Watermark)),
            Phase::Parked | Phase::Ended(_) => None,
        }
    }

    /// May more come? The last record that is taken may lie above the bound.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// A node is asked (again): what it says next counts.
    pub(crate) fn asked(&mut self) {
        if self.phase == Phase::Live {
            self.ask();
        }
        self.told = None;
    }

    /// The node said that everything comes from `from` on. Whether the app is to be told of places
    /// that it will never get.
    pub(crate) fn followed(&mut self, from: Seq) {
        if self.phase != Phase::Asked {
            return;
        }
        self.phase = Phase::Live;
        match &mut self.follower {
            Some(follower) if follower.watermark() < from => {
                let skipped = Item::Skipped { from: follower.watermark(), to: from };
                follower.skip_to(from);
                self.buffer.push_back((skipped, 0));
            }
            Some(_) => {}
            None => {
                self.follower = Some(Follower::new(from));
                self.watermark = Some(from);
            }
        }
    }

    /// A record came that weighs `bytes` on the wire. It is kept if it is the one that is wanted.
    pub(crate) fn offer(&mut self, seq: Seq, record: wire::Record, bytes: usize) -> Accept {
        let Some(follower) = &mut self.follower else {
            return Accept::Drop;
        };
        let accept = follower.accept(seq);
        if accept == Accept::Take {
            let weight = bytes + RECORD_OVERHEAD_BYTES;
            self.bytes += weight;
            self.buffer.push_back((Item::Record(record), weight));
        }
        accept
    }

    /// In place of the records from `from` up to `to` came that they are silent. What comes so one after
    /// the other is one thing to the app.
    pub(crate) fn pass_over(&mut self, from: Seq, to: Seq) -> Accept {
        let Some(follower) = &mut self.follower else {
            return Accept::Drop;
        };
        let wanted = follower.watermark();
        let accept = follower.accept_run(from, to);
        if accept == Accept::Take {
            if let Some((Item::Silent { to: end, .. }, _)) = self.buffer.back_mut() {
                *end = to;
            } else {
                self.bytes += RECORD_OVERHEAD_BYTES;
                self.buffer.push_back((Item::Silent { from: wanted, to }, RECORD_OVERHEAD_BYTES));
            }
        }
        accept
    }

    /// The next thing for the app, which has it from here on.
    pub(crate) fn take(&mut self) -> Option<Item> {
        let (item, weight) = self.buffer.pop_front()?;
        self.bytes -= weight;
        if self.buffer.is_empty() && self.buffer.capacity() > 16 {
            // A session of hundreds of groups does not keep the memory of their busiest minute.
            self.buffer.shrink_to(4);
        }
        match &item {
            Item::Record(record) => self.watermark = Seq::new(record.seq).map(Seq::next),
            Item::Skipped { to, .. } | Item::Silent { to, .. } => self.watermark = Some(*to),
        }
        Some(item)
    }

    /// The watermark, if it has moved since it was last told.
    pub(crate) fn tell(&mut self) -> Option<Seq> {
        let moved = self.watermark != self.told;
        self.told = self.watermark;
        self.watermark.filter(|_| moved)
    }

    /// The app does not read: let the node stop. Where it has begun to read meanwhile, the node is
    /// asked again at once, since nothing else would.
    pub(crate) fn park(&mut self) {
        if matches!(self.phase, Phase::Asked | Phase::Live) {
            self.phase = Phase::Parked;
            self.unpark();
        }
    }

    /// Goes on if it is parked and the app has read half of the buffer; whether it does.
    pub(crate) fn unpark(&mut self) -> bool {
        let due = self.phase == Phase::Parked && self.bytes <= self.bytes_max / 2;
        if due {
            self.ask();
        }
        due
    }

    fn ask(&mut self) {
        self.phase = Phase::Asked;
        self.turn = self.turn.wrapping_add(1);
    }

    /// Which question to a node is the latest.
    pub(crate) fn turn(&self) -> u32 {
        self.turn
    }

    /// What the node said to the question `turn` was that it ends; it counts unless a later one
    /// was asked.
    pub(crate) fn end_of(&mut self, turn: u32, why: Refusal) {
        if turn == self.turn {
            self.end(why);
        }
    }

    /// The node ended it. What is in the buffer is still the app's.
    pub(crate) fn end(&mut self, why: Refusal) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_protocol::Code;

    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn offer(inbox: &mut Inbox, number: u64) -> Accept {
        inbox.offer(seq(number), wire::Record { seq: number, ..Default::default() }, 100)
    }

    fn live(from: u64) -> Inbox {
        let mut inbox = Inbox::new(Start::Watermark(seq(from)), 1500);
        inbox.followed(seq(from));
        inbox
    }

    fn taken(inbox: &mut Inbox) -> Vec<u64> {
        std::iter::from_fn(|| inbox.take())
            .map(|item| match item {
                Item::Record(record) => record.seq,
                Item::Skipped { .. } | Item::Silent { .. } => 0,
            })
            .collect()
    }

    #[test]
    fn the_app_gets_each_record_once_and_in_order() {
        let mut inbox = live(3);
        let verdicts: Vec<_> = [2, 3, 3, 4, 6, 5].map(|number| offer(&mut inbox, number)).to_vec();
        let gap = Accept::Gap { wanted: seq(5) };
        assert_eq!(verdicts, [Accept::Drop, Accept::Take, Accept::Drop, Accept::Take, gap, Accept::Take]);
        assert_eq!(taken(&mut inbox), [3, 4, 5]);
    }

    #[test]
    fn a_resume_asks_for_what_was_not_received_and_tells_what_the_app_took() {
        let mut inbox = live(1);
        for number in 1..=4 {
            offer(&mut inbox, number);
        }
        inbox.take();
        assert_eq!(inbox.request(), Some(Start::Watermark(seq(5))));
        assert_eq!(inbox.tell(), Some(seq(2)));
        assert_eq!(inbox.tell(), None, "it has not moved since");
    }

    #[test]
    fn a_join_is_asked_for_again_until_a_node_said_where_it_begins() {
        let mut inbox = Inbox::new(Start::Join, 1000);
        assert_eq!(offer(&mut inbox, 7), Accept::Drop);
        inbox.asked();
        assert_eq!(inbox.request(), Some(Start::Join));
        inbox.followed(seq(7));
        assert_eq!(inbox.request(), Some(Start::Watermark(seq(7))));
        assert_eq!(inbox.watermark(), Some(seq(7)));
    }

    #[test]
    fn who_left_and_joined_again_is_told_what_was_not_theirs() {
        let mut inbox = live(5);
        offer(&mut inbox, 5);
        inbox.asked();
        inbox.followed(seq(9));
        offer(&mut inbox, 9);
        inbox.take();
        assert_eq!(inbox.take(), Some(Item::Skipped { from: seq(6), to: seq(9) }));
        assert_eq!(taken(&mut inbox), [9]);
        assert_eq!(inbox.watermark(), Some(seq(10)));
    }

    #[test]
    fn silent_records_are_had_in_their_place_and_told_of_together() {
        let mut inbox = live(3);
        offer(&mut inbox, 3);
        let runs = [(5, 6), (4, 6), (4, 6), (6, 9)].map(|(from, to)| inbox.pass_over(seq(from), seq(to)));
        assert_eq!(runs, [Accept::Gap { wanted: seq(4) }, Accept::Take, Accept::Drop, Accept::Take]);
        offer(&mut inbox, 9);
        inbox.take();
        assert_eq!(inbox.take(), Some(Item::Silent { from: seq(4), to: seq(9) }));
        assert_eq!(inbox.watermark(), Some(seq(9)));
        assert_eq!(taken(&mut inbox), [9]);
    }

    #[test]
    fn a_node_that_answers_below_the_watermark_changes_nothing() {
        let mut inbox = live(5);
        inbox.asked();
        inbox.followed(seq(2));
        assert_eq!(inbox.received(), Some(seq(5)));
    }

    #[test]
    fn a_full_buffer_has_no_room_until_the_app_takes() {
        let mut inbox = live(1);
        let mut number = 1;
        while inbox.has_room() {
            offer(&mut inbox, number);
            number += 1;
        }
        assert_eq!(
            number - 1,
            4,
            "1500 bytes hold four records of 100 with their overhead, and what is over"
        );
        inbox.take();
        assert!(inbox.has_room());
    }

    #[test]
    fn a_parked_follow_asks_for_nothing_until_half_of_it_is_read() {
        let mut inbox = live(1);
        for number in 1..=4 {
            offer(&mut inbox, number);
        }
        inbox.park();
        assert_eq!(inbox.request(), None);
        inbox.take();
        assert!(!inbox.unpark(), "three of four are left");
        inbox.take();
        inbox.take();
        assert!(inbox.unpark());
        assert_eq!(inbox.request(), Some(Start::Watermark(seq(5))));
    }

    #[test]
    fn an_app_that_reads_just_when_it_is_given_up_is_not_forgotten() {
        let mut inbox = live(1);
        offer(&mut inbox, 1);
        inbox.take();
        inbox.park();
        assert_eq!(inbox.request(), Some(Start::Watermark(seq(2))));
    }

    #[test]
    fn an_end_that_a_later_question_has_overtaken_ends_nothing() {
        let mut inbox = live(1);
        for number in 1..=4 {
            offer(&mut inbox, number);
        }
        inbox.park();
        let turn = inbox.turn();
        taken(&mut inbox);
        assert!(inbox.unpark());
        inbox.followed(seq(9));
        inbox.end_of(turn, Refusal::new(Code::NotMember, "removed, and in again since"));
        assert_eq!(*inbox.phase(), Phase::Live);
        inbox.end_of(inbox.turn(), Refusal::new(Code::NotMember, "removed again"));
        assert!(matches!(inbox.phase(), Phase::Ended(_)));
    }

    #[test]
    fn what_came_before_the_end_is_still_read() {
        let mut inbox = live(1);
        offer(&mut inbox, 1);
        inbox.end(Refusal::new(Code::NotMember, "removed"));
        inbox.asked();
        inbox.park();
        assert_eq!(inbox.request(), None);
        assert_eq!(taken(&mut inbox), [1]);
        assert!(matches!(inbox.phase(), Phase::Ended(_)));
    }
}
