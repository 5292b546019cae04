//! Edits, recalls and reactions: messages about another record.

use std::collections::VecDeque;

use shoal_protocol::{Code, RecordFrame, Refusal, SenderId, Seq, wire};
use wire::{message::Kind, record::Body};

use super::{Answer, Effect, Home, LoadedRecord, senders::Waits};
use crate::group::{judgement::Judged, sub_group::Now};

/// Edits and recalls that a load of their target may have missed.
#[derive(Debug, Default)]
pub(super) struct References {
    /// (the place of the edit or recall, the record it is about), ascending.
    latest: VecDeque<(Seq, Seq)>,
    /// Everything below has been let go.
    floor: Option<Seq>,
}

impl References {
    const KEPT_MAX: usize = 1024;

    fn note(&mut self, seq: Seq, target: Seq) {
        self.latest.push_back((seq, target));
        if self.latest.len() > Self::KEPT_MAX {
            self.floor = self.latest.pop_front().map(|(seq, _)| seq.next());
        }
    }

    /// Could the target have been edited or recalled at `from` or later?
    fn changed_since(&self, target: Seq, from: Seq) -> bool {
        self.floor.is_some_and(|floor| from < floor)
            || self.latest.iter().any(|(seq, about)| *about == target && *seq >= from)
    }
}

impl<R> Home<R> {
    /// Looks up what the message is about; its sender waits meanwhile.
    pub(super) fn check_reference(&mut self, judged: Judged<R>) {
        let target = Seq::new(judged.publish.message.refers_to).filter(|target| *target < self.durable);
        let Some(target) = target else {
            return self.use_up(judged, Code::UnknownRecord);
        };
        let id = judged.publish.sender.clone();
        let with_edits = judged.publish.message.kind() == Kind::Recall;
        let unsettled = self.references.changed_since(target, self.durable);
        if unsettled {
            self.senders.wait(Waits::Append(judged), id);
        } else {
            self.senders.wait(Waits::Record(judged), id.clone());
            self.effects.push_back(Effect::LoadRecord { sender: id, record: target, with_edits });
        }
    }

    /// What a message is about, as it was once everything below `as_of` was durable; or why it
    /// cannot be read.
    pub(crate) fn handle_record(
        &mut self,
        id: &SenderId,
        as_of: Seq,
        loaded: Result<LoadedRecord, Refusal>,
        now: Now,
    ) {
        let Some(judged) = self.senders.end_wait(id) else { return };
        match loaded {
            Err(why) => self.answer(judged.reply, Answer::Refused(why)),
            Ok(loaded) => {
                let target = Seq::new(judged.publish.message.refers_to);
                // Much may have been decided while the record was read.
                if let Some(at) = self.recent.stale_until(&judged.publish.sender.user, judged.opinion.as_of) {
                    self.effects.push_back(Effect::Rejudge(judged, at));
                } else if let Some(by) = self.senders.get(id).and_then(|sender| sender.succeeded_by) {
                    self.answer(judged.reply, Answer::Succeeded { by });
                } else if self.state.closed {
                    self.use_up(judged, Code::GroupClosed);
                } else if target.is_some_and(|target| self.references.changed_since(target, as_of)) {
                    self.check_reference(judged);
                } else {
                    self.decide_reference(judged, loaded, now);
                }
            }
        }
        self.drain_parked(id, now);
    }

    /// An append has ended: those who waited for it look again.
    pub(super) fn resume_references(&mut self) {
        for judged in self.senders.take_waiting_for_append() {
            self.check_reference(judged);
        }
    }

    fn decide_reference(&mut self, judged: Judged<R>, loaded: LoadedRecord, now: Now) {
        let kind = judged.publish.message.kind();
        let target = loaded.record.as_ref().and_then(|record| live_message(record).map(|_| record));
        let Some(target) = target else {
            return self.use_up(judged, Code::UnknownRecord);
        };
        let is_mine =
            target.author.as_ref().is_some_and(|author| author.user == judged.publish.sender.user.as_str());
        if kind != Kind::Reaction && !is_mine {
            return self.use_up(judged, Code::NotAllowed);
        }
        let Some(about) = Seq::new(target.seq) else { return };
        let seq = self.append(judged, now);
        match kind {
            Kind::Edit => {
                self.gathering.edits.push((about, seq));
                self.references.note(seq, about);
            }
            Kind::Recall => {
                self.references.note(seq, about);
                for record in loaded.edits.iter().chain([target]) {
                    self.redact(record, seq);
                }
            }
            Kind::Reaction | Kind::New => {}
        }
    }

    /// The payload goes; the place, the author and what it was about stay.
    fn redact(&mut self, record: &wire::Record, recalled_by: Seq) {
        let mut record = record.clone();
        let (Some(seq), Some(Body::Message(message))) = (Seq::new(record.seq), &mut record.body) else {
            return;
        };
        message.payload.clear();
        message.recalled_by = recalled_by.get();
        let frame = RecordFrame::encode(&record);
        self.gathering.redactions.push((seq, frame));
    }
}

/// The message that a record is, unless it was recalled.
fn live_message(record: &wire::Record) -> Option<&wire::Message> {
    match &record.body {
        Some(Body::Message(message)) if message.recalled_by == 0 && message.kind() != Kind::Recall => {
            Some(message)
        }
        _ => None,
    }
}
