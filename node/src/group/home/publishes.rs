//! Messages: the number first, then the owner's opinion, then what it refers to.

use shoal_protocol::{Code, Incarnation, Outcome, PUBLISH_WINDOW, Refusal, SenderId, Seq, Verdict, wire};
use wire::{message::Kind, record::Body};

use super::{Answer, Effect, Home, LoadedSender, batch::Reply, senders::Parked};
use crate::group::{
    judgement::{Judged, uses_up_number},
    sub_group::Now,
};

/// How far a node's clock may be behind that of the node which issued an incarnation.
const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

impl<R> Home<R> {
    /// A message, as its owner judged it.
    pub(crate) fn handle_publish(&mut self, judged: Judged<R>, now: Now) {
        self.note_message(now);
        let id = judged.publish.sender.clone();
        let (sender, load) = self.senders.need(&id);
        if sender.is_ready() {
            return self.decide(judged, now);
        }
        if sender.parked.len() < PUBLISH_WINDOW {
            sender.parked.push_back(Parked::Publish(judged));
        } else {
            let busy = Refusal::new(Code::Busy, "too many messages wait for this sender's numbers");
            self.effects.push_back(Effect::Answer(judged.reply, Answer::Refused(busy)));
        }
        if load {
            self.effects.push_back(Effect::LoadSender(id));
        }
    }

    /// A sender's row, or why it cannot be read.
    pub(crate) fn handle_sender(&mut self, id: &SenderId, loaded: Result<LoadedSender, Refusal>, now: Now) {
        match loaded {
            Ok(loaded) => {
                self.senders.loaded(id, loaded);
                self.drain_parked(id, now);
            }
            Err(why) => {
                for parked in self.senders.unload(id) {
                    self.effects.push_back(match parked {
                        Parked::Publish(judged) => Effect::Answer(judged.reply, Answer::Refused(why.clone())),
                        Parked::Notice(_, to) => Effect::Noticed(to, Err(why.clone())),
                    });
                }
            }
        }
    }

    /// Goes on with what waited for the sender, until it has to wait again.
    pub(super) fn drain_parked(&mut self, id: &SenderId, now: Now) {
        while let Some(sender) = self.senders.get(id).filter(|sender| sender.is_ready()) {
            match sender.parked.pop_front() {
                Some(Parked::Publish(judged)) => self.decide(judged, now),
                Some(Parked::Notice(notice, to)) => self.decide_notice(id, notice, to, now),
                None => break,
            }
        }
    }

    /// Decides on a message of a sender that is ready.
    pub(super) fn decide(&mut self, judged: Judged<R>, now: Now) {
        let number = judged.publish.number;
        let sender =
            self.senders.get(&judged.publish.sender).expect("a sender is loaded before it is decided on");
        if !sender.is_known && !may_begin(judged.publish.sender.incarnation, now, &self.limits) {
            return self.refuse(judged, Code::IncarnationExpired, "ask for a new incarnation");
        }
        let (durable, succeeded_by) = (sender.durable, sender.succeeded_by);
        match sender.numbers.judge(number) {
            Verdict::Next if sender.has_given_up => {
                self.refuse(judged, Code::IncarnationExpired, "ask for a new incarnation");
            }
            Verdict::Next => match succeeded_by {
                Some(by) => self.answer(judged.reply, Answer::Succeeded { by }),
                None => self.decide_next(judged, now),
            },
            Verdict::Had(outcome) if number > durable => self.answer_once_durable(judged, outcome),
            Verdict::Had(outcome) => self.answer(judged.reply, Answer::Outcome(outcome)),
            Verdict::TooHigh { expected } => self.answer(judged.reply, Answer::OutOfOrder { expected }),
            Verdict::Forgotten => self.refuse(judged, Code::NumberForgotten, "its outcome is no longer kept"),
        }
    }

    fn decide_next(&mut self, judged: Judged<R>, now: Now) {
        if let Some(at) = self.recent.stale_until(&judged.publish.sender.user, judged.opinion.as_of) {
            return self.effects.push_back(Effect::Rejudge(judged, at));
        }
        if !self.is_born() {
            return self.refuse(judged, Code::UnknownGroup, "no such group");
        }
        if let Some(objection) = &judged.opinion.objection {
            let objection = objection.clone();
            if objection.code == Code::NotMember
                && let Some(sender) = self.senders.get(&judged.publish.sender)
            {
                sender.has_given_up = true;
            }
            return if uses_up_number(objection.code) {
                self.use_up(judged, objection.code)
            } else {
                self.answer(judged.reply, Answer::Refused(objection))
            };
        }
        if self.state.closed {
            return self.use_up(judged, Code::GroupClosed);
        }
        if !self.make_room_for(&judged.publish.sender, now) {
            return self.refuse(
                judged,
                Code::TooMany,
                "too many incarnations of this user are new to the group",
            );
        }
        if judged.publish.message.kind() == Kind::New {
            self.append(judged, now);
        } else {
            self.check_reference(judged);
        }
    }

    /// Gives the message the next place.
    pub(super) fn append(&mut self, judged: Judged<R>, now: Now) -> Seq {
        let Judged { publish, reply, .. } = judged;
        let author = wire::Author {
            user: publish.sender.user.to_string(),
            device: publish.sender.device.0,
            incarnation: publish.sender.incarnation.0,
            number: publish.number,
        };
        let seq = self.gathering.push(Some(author), Body::Message(publish.message), now.wall_ms);
        self.settle(publish.sender, publish.number, Outcome::Committed { seq }, reply);
        seq
    }

    /// Refuses the message for good; its number has had its outcome then.
    pub(super) fn use_up(&mut self, judged: Judged<R>, code: Code) {
        let Judged { publish, reply, .. } = judged;
        self.settle(publish.sender.clone(), publish.number, Outcome::Refused(code), reply);
        // No record says so: the row has to.
        if let Some(sender) = self.senders.get(&publish.sender) {
            self.gathering.senders.push((publish.sender, sender.numbers.clone()));
        }
    }

    fn settle(&mut self, id: SenderId, number: u64, outcome: Outcome, to: R) {
        if let Some(sender) = self.senders.get(&id) {
            let begins = !sender.is_known;
            sender.record(number, outcome);
            if begins {
                self.senders.end_earlier(&id);
            }
        }
        self.gathering.replies.push(Reply { sender: id, number, outcome, to });
    }

    /// The same number again while its outcome is on its way to the store.
    fn answer_once_durable(&mut self, judged: Judged<R>, outcome: Outcome) {
        let Judged { publish, reply: to, .. } = judged;
        let same = |reply: &Reply<R>| reply.number == publish.number && reply.sender == publish.sender;
        let batch = match &mut self.appending {
            Some(batch) if batch.replies.iter().any(same) => batch,
            _ => &mut self.gathering,
        };
        batch.replies.push(Reply { sender: publish.sender, number: publish.number, outcome, to });
    }

    /// A user's senders in a group are bounded: a new one pushes out the one issued first, unless
    /// that could begin again.
    fn make_room_for(&mut self, id: &SenderId, now: Now) -> bool {
        let most = self.limits.senders_per_user_max;
        let Some(sender) = self.senders.get(id) else { return true };
        if sender.is_known || sender.siblings.len() < most {
            return true;
        }
        let mut siblings = std::mem::take(&mut sender.siblings);
        siblings.retain(|sibling| !may_begin(sibling.incarnation, now, &self.limits));
        siblings.sort_by_key(|sibling| sibling.incarnation);
        let Some(oldest) = siblings.into_iter().find(|sibling| self.senders.forget(sibling)) else {
            return false;
        };
        self.gathering.senders.retain(|(sender, _)| *sender != oldest);
        self.gathering.senders_expired.push(oldest);
        true
    }

    pub(super) fn answer(&mut self, to: R, answer: Answer) {
        self.effects.push_back(Effect::Answer(to, answer));
    }

    fn refuse(&mut self, judged: Judged<R>, code: Code, reason: &str) {
        self.answer(judged.reply, Answer::Refused(Refusal::new(code, reason)));
    }
}

/// May a sender that nobody knows begin under this incarnation? One that was issued long ago may
/// have been known once and been forgotten: were it let in, what it said then could come twice.
fn may_begin(incarnation: Incarnation, now: Now, limits: &crate::config::GroupLimits) -> bool {
    let issued_ms = incarnation.issued_ms();
    let age_max_ms = limits.incarnation_ttl_seconds.saturating_mul(1000);
    issued_ms <= now.wall_ms.saturating_add(CLOCK_SKEW_MS)
        && issued_ms.saturating_add(age_max_ms) >= now.wall_ms
}
