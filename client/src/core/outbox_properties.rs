//! Any interleaving of sends, losses, refusals, reconnects and restarts, against a home that does
//! what a home promises: the app's order is the group's order, nothing is acknowledged that is not
//! there, nothing is there twice, nothing is forgotten.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use shoal_protocol::{Code, GroupId, Incarnation, Outcome, Refusal, SenderNumbers, Seq, Verdict, wire};

use super::{
    lane::{Failed, Place, Settled, Ticket},
    outbox::Outbox,
};

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Push,
    /// The client writes up to so many publishes.
    Send(u8),
    /// The home answers so many.
    Home(u8),
    /// The client reads so many answers.
    Receive(u8),
    /// The connection is lost: so many publishes still arrive, no answer does.
    Lose(u8),
    /// A new incarnation is there.
    Issue,
    Mood(Mood),
    /// The home forgets every incarnation issued so far.
    Expire,
    Save,
    /// The process dies and starts again from what was saved last.
    Restart,
    Wait,
}

/// What the home does with a number that is next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    Muted,
    TooFast,
    /// Refused before the home saw it.
    Busy,
    NotMember,
    /// A stranger is told so before the number is looked at.
    Stranger,
    Unfit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mood = prop_oneof![
        4 => Just(Mood::Takes),
        1 => Just(Mood::Muted),
        2 => Just(Mood::TooFast),
        1 => Just(Mood::Busy),
        1 => Just(Mood::NotMember),
        1 => Just(Mood::Stranger),
        1 => Just(Mood::Unfit),
    ];
    let step = prop_oneof![
        8 => Just(Step::Push),
        6 => (1..6_u8).prop_map(Step::Send),
        6 => (1..6_u8).prop_map(Step::Home),
        6 => (1..6_u8).prop_map(Step::Receive),
        2 => (0..6_u8).prop_map(Step::Lose),
        2 => Just(Step::Issue),
        3 => mood.prop_map(Step::Mood),
        1 => Just(Step::Expire),
        2 => Just(Step::Save),
        1 => Just(Step::Restart),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

struct World {
    outbox: Outbox,
    group: GroupId,
    now: Duration,
    mood: Mood,
    // The home.
    log: Vec<u64>,
    senders: BTreeMap<u64, SenderNumbers>,
    issued: u64,
    expired_below: u64,
    // The network.
    up: VecDeque<wire::Publish>,
    down: VecDeque<wire::Receipt>,
    // The app.
    messages: u64,
    waiting: BTreeMap<Ticket, u64>,
    outcomes: BTreeMap<u64, Result<Seq, Failed>>,
    saved: Vec<(u64, Option<Place>)>,
    must_save: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            outbox: Outbox::new(),
            group: GroupId::named("g"),
            now: Duration::from_secs(1),
            mood: Mood::Takes,
            log: Vec::new(),
            senders: BTreeMap::new(),
            issued: 0,
            expired_below: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            messages: 0,
            waiting: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            saved: Vec::new(),
            must_save: false,
        };
        world.welcome();
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push => {
                self.messages += 1;
                let ticket = self.outbox.push(self.group, message(self.messages));
                self.waiting.insert(ticket, self.messages);
            }
            Step::Send(count) => {
                for _ in 0..count {
                    self.up.extend(self.outbox.send(self.now, &mut Vec::new()));
                }
            }
            Step::Home(count) => (0..count).for_each(|_| self.home()),
            Step::Receive(count) => (0..count).for_each(|_| self.receive()),
            Step::Lose(arrive) => {
                (0..arrive).for_each(|_| self.home());
                self.lose();
                self.welcome();
            }
            Step::Issue => {
                if self.outbox.wants_incarnation() {
                    self.issued += 1;
                    self.outbox.issue(Incarnation(self.issued));
                }
            }
            Step::Mood(mood) => self.mood = mood,
            Step::Expire => {
                self.expired_below = self.issued + 1;
                self.senders.clear();
            }
            Step::Save => self.save(),
            Step::Restart => self.restart(),
            Step::Wait => self.now += Duration::from_secs(10),
        }
    }

    fn home(&mut self) {
        let Some(publish) = self.up.pop_front() else { return };
        let outcome = self.judge(&publish);
        let wire::Publish { group, incarnation, number, .. } = publish;
        self.down.push_back(wire::Receipt { group, incarnation, number, outcome: Some(outcome) });
    }

    fn judge(&mut self, publish: &wire::Publish) -> wire::receipt::Outcome {
        let stranger = self.mood == Mood::Stranger;
        if self.mood == Mood::Busy {
            return refused(Code::Busy, false);
        }
        if publish.incarnation < self.expired_below {
            return refused(Code::IncarnationExpired, false);
        }
        let known = self.senders.get(&publish.incarnation).cloned().unwrap_or_default();
        match known.judge(publish.number) {
            Verdict::Had(Outcome::Committed { seq }) => committed(seq.get()),
            Verdict::Had(Outcome::Refused(code)) => refused(code, true),
            Verdict::Forgotten => refused(Code::NumberForgotten, true),
            _ if stranger => refused(Code::NotMember, false),
            Verdict::TooHigh { expected } => {
                wire::receipt::Outcome::OutOfOrder(wire::OutOfOrder { expected })
            }
            Verdict::Next => self.next(publish),
        }
    }

    fn next(&mut self, publish: &wire::Publish) -> wire::receipt::Outcome {
        match self.mood {
            Mood::TooFast => return refused(Code::TooFast, false),
            Mood::NotMember => return refused(Code::NotMember, false),
            Mood::Unfit => return refused(Code::BadRequest, false),
            _ => {}
        }
        let sender = self.senders.entry(publish.incarnation).or_default();
        if self.mood == Mood::Muted {
            sender.record(publish.number, Outcome::Refused(Code::Muted));
            return refused(Code::Muted, true);
        }
        self.log.push(content(publish.message.as_ref().unwrap()));
        let seq = Seq::new(self.log.len() as u64).unwrap();
        sender.record(publish.number, Outcome::Committed { seq });
        committed(seq.get())
    }

    fn receive(&mut self) {
        let Some(receipt) = self.down.pop_front() else { return };
        let mut settled = Vec::new();
        self.outbox.receipt(receipt, self.now, 0.5, &mut settled).unwrap();
        for Settled { ticket, outcome } in settled {
            let message = self.waiting.remove(&ticket).expect("a message is settled once");
            if let Ok(seq) = &outcome {
                let at = usize::try_from(seq.get()).unwrap() - 1;
                assert_eq!(self.log[at], message, "a receipt names another message's place");
            }
            // The app is told to save after a failure: an older save would send it again.
            self.must_save |= outcome.is_err();
            self.outcomes.insert(message, outcome);
        }
    }

    fn lose(&mut self) {
        self.up.clear();
        self.down.clear();
        self.outbox.disconnected();
    }

    fn welcome(&mut self) {
        self.issued += 1;
        self.outbox.welcomed(Incarnation(self.issued), &wire::Limits::default());
    }

    /// What has no number yet is the one thing that a stale save may double, as its docs say.
    fn save(&mut self) {
        if !self.outbox.wants_incarnation() {
            self.must_save = false;
            self.saved = self.outbox.queued().map(|(_, place, message)| (content(message), place)).collect();
        }
    }

    fn restart(&mut self) {
        if self.must_save {
            return;
        }
        self.lose();
        self.outbox = Outbox::new();
        self.waiting.clear();
        for (number, place) in self.saved.clone() {
            let ticket = self.outbox.restore(self.group, message(number), place);
            self.waiting.insert(ticket, number);
        }
        self.welcome();
    }

    /// The network and the home are well again.
    fn settle(&mut self) {
        self.mood = Mood::Takes;
        for _ in 0..500 {
            if self.waiting.is_empty() {
                return;
            }
            self.step(Step::Issue);
            self.step(Step::Send(100));
            self.step(Step::Home(100));
            self.step(Step::Receive(100));
            self.step(Step::Wait);
        }
        panic!("never answered: {:?}", self.waiting);
    }
}

fn content(message: &wire::Message) -> u64 {
    u64::from_be_bytes(message.payload.as_ref().try_into().unwrap())
}

fn message(number: u64) -> wire::Message {
    wire::Message { payload: Bytes::copy_from_slice(&number.to_be_bytes()), ..Default::default() }
}

fn committed(seq: u64) -> wire::receipt::Outcome {
    wire::receipt::Outcome::Committed(wire::Committed { seq })
}

fn refused(code: Code, consumed: bool) -> wire::receipt::Outcome {
    let why = Some(Refusal::new(code, "so").into());
    wire::receipt::Outcome::Refused(wire::Refused { why, consumed, succeeded_by: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_order_of_ones_own_sends_holds_whatever_happens(steps in steps()) {
        let mut world = World::new();
        let final_while_lost = |mood| matches!(mood, Mood::Unfit | Mood::NotMember | Mood::Stranger);
        let uncertain_may_be = steps
            .iter()
            .any(|step| matches!(step, Step::Expire) || matches!(step, Step::Mood(mood) if final_while_lost(*mood)));
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.log.windows(2).all(|pair| pair[0] < pair[1]), "order or double: {:?}", world.log);
        for (message, outcome) in &world.outcomes {
            match outcome {
                Ok(_) => prop_assert!(world.log.contains(message)),
                Err(Failed::Refused(_)) => prop_assert!(!world.log.contains(message), "{message} was sent"),
                Err(Failed::Unknown(_)) => prop_assert!(uncertain_may_be, "{message} is unknown"),
            }
        }
    }
}
