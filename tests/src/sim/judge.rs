//! The rules that never bend, held against what happened and what the store holds at the end.
//!
//! Pure: a [`Chronicle`](super::chronicle::Chronicle)'s events and a [`Holdings`] go in, what is
//! wrong comes out, in words. `sequence` looks at what is durable, `messages` at what was sent
//! and acknowledged, `receivers` at what came to the apps, `positions` at what must not go
//! back.

mod features;

mod layouts;

mod membership;

mod messages;

mod positions;

mod receivers;

mod sequence;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use shoal_node::store::{GroupRow, MemberRow};
use shoal_protocol::{GroupId, Seq, UserId, wire};

use super::chronicle::{AppId, Event, MessageId};

/// How many findings are told.
const FINDINGS_MAX: usize = 20;

/// What the store holds at the end of a run.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Every group and every user's own sequence.
    pub groups: BTreeMap<GroupId, Holding>,
}

/// What the store holds of one group.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Its row.
    pub row: GroupRow,
    /// All its records.
    pub records: Vec<wire::Record>,
    /// All its members' rows.
    pub members: Vec<MemberRow>,
}

/// Who the apps are, and how to read a message's number out of its payload.
#[derive(Debug, Clone)]
pub struct Cast {
    /// Each app's user.
    pub users: BTreeMap<AppId, UserId>,
    /// Sessions move from node to node, and no app is told.
    pub sessions_move: bool,
    /// Reads what an app wrote.
    pub read: fn(&[u8]) -> Option<MessageId>,
}

/// What happened, and how it ended.
#[derive(Debug)]
pub struct Case<'run> {
    /// The apps.
    pub cast: &'run Cast,
    /// What happened.
    pub events: &'run [(Duration, Event)],
    /// What is left.
    pub holdings: &'run Holdings,
}

/// What is wrong, in words; the first of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    told: Vec<String>,
    count: usize,
}

impl Findings {
    /// Adds one.
    pub fn find(&mut self, finding: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < FINDINGS_MAX {
            self.told.push(finding());
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first of them.
    #[must_use]
    pub fn told(&self) -> &[String] {
        &self.told
    }
}

/// Holds a run against the rules.
#[must_use]
pub fn judge(case: &Case<'_>) -> Findings {
    let mut findings = Findings::default();
    sequence::check(case, &mut findings);
    layouts::check(case, &mut findings);
    features::check(case, &mut findings);
    membership::check(case, &mut findings);
    messages::check(case, &mut findings);
    receivers::check(case, &mut findings);
    positions::check(case, &mut findings);
    findings
}

impl Holding {
    /// The record at a place.
    fn at(&self, seq: Seq) -> Option<&wire::Record> {
        let index = usize::try_from(seq.since(Seq::FIRST)).ok()?;
        self.records.get(index)
    }

    /// The first Seq not written.
    fn tail(&self) -> Seq {
        Seq::FIRST.advance(self.records.len() as u64)
    }
}

impl Case<'_> {
    fn user(&self, app: AppId) -> &UserId {
        self.cast.users.get(&app).expect("every app of a run is in its cast")
    }

    /// The number of the message in a record, unless it was recalled.
    fn message_in(&self, record: &wire::Record) -> Option<MessageId> {
        let Some(wire::record::Body::Message(message)) = &record.body else { return None };
        (self.cast.read)(&message.payload)
    }
}

fn seq_of(record: &wire::Record) -> Seq {
    Seq::new(record.seq).unwrap_or(Seq::MAX)
}
