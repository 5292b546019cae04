//! What gathers for one append.

use bytes::Bytes;
use prost::Message as _;
use shoal_protocol::{Outcome, RecordFrame, SenderId, SenderNumbers, Seq, wire};

use super::Unanswered;
use crate::{
    group::judgement::Numbered,
    store::{Changes, GroupState, MemberRow},
};

/// A record that has its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its place.
    pub(crate) seq: Seq,
    /// Encoded once, for the store, the feeds and all sessions.
    pub(crate) frame: RecordFrame,
    /// What the nodes make of it.
    pub(crate) fold: Fold,
}

/// What a node that follows the group keeps of a record.
#[derive(Debug, Clone, Default)]
pub(crate) enum Fold {
    /// Nothing.
    #[default]
    Nothing,
    /// Owners change their member lists.
    Members(wire::MemberChanges),
    /// Other nodes are the owners from here on.
    Layout(wire::Layout),
    /// Owners go by another setting, for some of their members.
    Feature(wire::Feature),
}

impl Fold {
    pub(crate) fn of(body: Option<wire::record::Body>) -> Self {
        match body {
            Some(wire::record::Body::Members(changes)) => Self::Members(changes),
            Some(wire::record::Body::Layout(layout)) => Self::Layout(layout),
            Some(wire::record::Body::Feature(feature)) => Self::Feature(feature),
            _ => Self::Nothing,
        }
    }

    /// The changes of membership, if it is that.
    pub(crate) fn members(&self) -> Option<&wire::MemberChanges> {
        match self {
            Self::Members(changes) => Some(changes),
            _ => None,
        }
    }
}

/// An answer that waits for the commit.
#[derive(Debug)]
pub(super) struct Reply<R> {
    pub(super) sender: SenderId,
    pub(super) number: u64,
    pub(super) outcome: Outcome,
    pub(super) to: R,
}

/// What gathers for one append.
#[derive(Debug)]
pub(super) struct Batch<R> {
    start: Seq,
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: usize,
    pub(super) replies: Vec<Reply<R>>,
    pub(super) changed: Vec<(R, wire::Changed)>,
    pub(super) noticed: Vec<R>,
    pub(super) senders: Vec<(SenderId, SenderNumbers)>,
    pub(super) senders_expired: Vec<SenderId>,
    pub(super) members: Vec<MemberRow>,
    pub(super) redactions: Vec<(Seq, RecordFrame)>,
    pub(super) edits: Vec<(Seq, Seq)>,
    pub(super) notices_due: Option<bool>,
    /// Senders' numbers are written back with it: it is written although nobody waits for it.
    pub(super) is_checkpoint: bool,
}

impl<R> Batch<R> {
    pub(super) fn new(start: Seq) -> Self {
        Self {
            start,
            entries: Vec::new(),
            bytes: 0,
            replies: Vec::new(),
            changed: Vec::new(),
            noticed: Vec::new(),
            senders: Vec::new(),
            senders_expired: Vec::new(),
            members: Vec::new(),
            redactions: Vec::new(),
            edits: Vec::new(),
            notices_due: None,
            is_checkpoint: false,
        }
    }

    pub(super) fn start(&self) -> Seq {
        self.start
    }

    /// The first Seq after it.
    pub(super) fn end(&self) -> Seq {
        self.start.advance(self.entries.len() as u64)
    }

    /// Nothing that must be written soon. What only helps the next activation waits for company.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.replies.is_empty()
            && self.changed.is_empty()
            && self.noticed.is_empty()
            && !self.is_checkpoint
            && self.notices_due.is_none()
    }

    /// Gives a record its place.
    pub(super) fn push(
        &mut self,
        author: Option<wire::Author>,
        body: wire::record::Body,
        now_ms: u64,
    ) -> Seq {
        self.put(wire::Record { time_ms: now_ms, author, body: Some(body), ..wire::Record::default() })
    }

    /// The same, for one that members need not see.
    pub(super) fn push_silent(
        &mut self,
        author: Option<wire::Author>,
        body: wire::record::Body,
        now_ms: u64,
    ) -> Seq {
        self.put(wire::Record { time_ms: now_ms, author, body: Some(body), silent: true, seq: 0 })
    }

    fn put(&mut self, mut record: wire::Record) -> Seq {
        let seq = self.end();
        record.seq = seq.get();
        let frame = RecordFrame::encode(&record);
        self.bytes += frame.frame().len();
        self.entries.push(Entry { seq, frame, fold: Fold::of(record.body) });
        seq
    }

    /// What nobody has been told of it; messages as they came.
    pub(super) fn abandon(self) -> Vec<Unanswered<R>> {
        let (start, entries) = (self.start, self.entries);
        let message = |outcome| match outcome {
            Outcome::Committed { seq } if seq >= start => message_of(entries.get(seq.since(start) as usize)?),
            _ => None,
        };
        let sent =
            self.replies.into_iter().map(|Reply { sender, number, outcome, to }| match message(outcome) {
                Some(message) => Unanswered::Message(Numbered { sender, number, message }, to),
                None => Unanswered::Other(to),
            });
        let asked = self.changed.into_iter().map(|(to, _)| to).chain(self.noticed);
        sent.chain(asked.map(Unanswered::Other)).collect()
    }

    /// What the store is to write; what is needed for the answers stays.
    pub(super) fn changes(&mut self, state: Option<GroupState>) -> Changes {
        let redactions = self.redactions.iter().map(|(seq, frame)| (*seq, frame.record())).collect();
        Changes {
            records: self.entries.iter().map(|entry| entry.frame.record()).collect::<Vec<Bytes>>(),
            senders: std::mem::take(&mut self.senders),
            senders_expired: std::mem::take(&mut self.senders_expired),
            members: std::mem::take(&mut self.members),
            redactions,
            edits: std::mem::take(&mut self.edits),
            state,
            notices_due: self.notices_due,
        }
    }
}

fn message_of(entry: &Entry) -> Option<wire::Message> {
    match wire::Record::decode(entry.frame.record()).ok()?.body? {
        wire::record::Body::Message(message) => Some(message),
        _ => None,
    }
}
