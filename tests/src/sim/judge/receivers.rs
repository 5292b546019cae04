//! Every member gets everything from the record their join named, in order, once, the same as all
//! others; after their removal nothing; and at the end of a run nobody is still waiting.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::{Code, GroupId, Seq, UserId, wire};
use wire::record::Body;

use super::{
    Case, Findings, Holding,
    membership::{Fold, moves},
    seq_of,
};
use crate::sim::chronicle::{AppId, Event};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let mut readers: BTreeMap<(AppId, GroupId), Reader> = BTreeMap::new();
    for (_, event) in case.events {
        match event {
            Event::Life { app, .. } => readers.retain(|(of, _), _| of != app),
            Event::Online { app, .. } => {
                let mine = readers.iter_mut().filter(|((of, _), _)| of == app);
                mine.for_each(|(_, reader)| (reader.is_live, reader.is_owed) = (false, None));
            }
            Event::Followed { app, group, from } => {
                readers.insert((*app, *group), Reader { wants: *from, ..Reader::default() });
            }
            Event::FollowEnded { app, group, code } => {
                let reader = readers.remove(&(*app, *group));
                let holding = case.holdings.groups.get(group);
                if let (Some(reader), Some(holding), Code::NotMember) = (reader, holding, code) {
                    let at = At { app: *app, group: *group, user: case.user(*app), holding };
                    // Who was gone before the next node heard of them follows no more, and is told that.
                    if !case.cast.sessions_move {
                        at.end(&reader, findings);
                    }
                }
            }
            Event::Appended { group, from, count, .. } => {
                if let Some(holding) = case.holdings.groups.get(group) {
                    let mine = readers.iter_mut().filter(|((_, of), _)| of == group);
                    mine.for_each(|((app, _), reader)| {
                        reader.appended(holding, *from, *count, case.user(*app));
                    });
                }
            }
            Event::Delivered { app, group, record } => {
                let Some((reader, holding)) =
                    readers.get_mut(&(*app, *group)).zip(case.holdings.groups.get(group))
                else {
                    findings.find(|| format!("{app:?} got {} of {group}, unasked", record.seq));
                    continue;
                };
                let at = At { app: *app, group: *group, user: case.user(*app), holding };
                at.take(reader, record, case.cast.sessions_move, findings);
            }
            Event::PassedOver { app, group, from, to } => {
                let Some((reader, holding)) =
                    readers.get_mut(&(*app, *group)).zip(case.holdings.groups.get(group))
                else {
                    findings.find(|| format!("{app:?} passed over {from} of {group}, unasked"));
                    continue;
                };
                let at = At { app: *app, group: *group, user: case.user(*app), holding };
                at.pass_over(reader, (*from, *to), case.cast.sessions_move, findings);
            }
            Event::Skipped { app, group, from, to } => {
                let at = case.holdings.groups.get(group).zip(readers.get_mut(&(*app, *group)));
                if let Some((holding, reader)) = at {
                    let at = At { app: *app, group: *group, user: case.user(*app), holding };
                    at.skip(reader, *from, *to, findings);
                }
            }
            Event::History { app, group, records } => check_history(case, *app, *group, records, findings),
            Event::Members { app, group, users } => check_members(*app, *group, users, findings),
            _ => {}
        }
    }
    check_complete(case, &readers, findings);
}

#[derive(Debug, Default)]
struct Reader {
    /// The next Seq; none until the first record of one that began at its join.
    wants: Option<Seq>,
    /// Its user's departure was delivered.
    departed: Option<Seq>,
    /// Something came since the client has its session: from then on all comes.
    is_live: bool,
    /// Its user's departure, which became durable when it had all before.
    is_owed: Option<Seq>,
}

impl Reader {
    /// Who has all there is, and a session, is given their own departure too. Who is behind is
    /// not: after the departure nothing more need reach them.
    fn appended(&mut self, holding: &Holding, from: Seq, count: u64, user: &UserId) {
        let has_all = |wants: Seq| {
            // What is silent may wait, and comes with the departure.
            let mut before = (0..from.since(wants)).map(|nth| wants.advance(nth));
            before.all(|seq| holding.at(seq).is_some_and(|record| record.silent))
        };
        if !self.is_live || !self.wants.is_some_and(has_all) {
            return;
        }
        let departs = |seq: &Seq| holding.at(*seq).is_some_and(|record| moves(record, user) == Some(false));
        self.is_owed = (0..count).map(|nth| from.advance(nth)).find(departs).or(self.is_owed);
    }
}

struct At<'run> {
    app: AppId,
    group: GroupId,
    user: &'run UserId,
    holding: &'run Holding,
}

impl At<'_> {
    fn take(&self, reader: &mut Reader, record: &wire::Record, sessions_move: bool, findings: &mut Findings) {
        let Self { app, group, .. } = self;
        let seq = seq_of(record);
        self.step(reader, seq, sessions_move, findings);
        match self.holding.at(seq) {
            None => findings.find(|| format!("{app:?} got {seq} of {group}, which is not durable")),
            Some(held) if held.silent => {
                findings.find(|| format!("{app:?} got {seq} of {group}, which is silent"));
            }
            Some(held) if !is_same(held, record) => {
                findings.find(|| format!("{app:?} got {record:?} of {group}, others {held:?}"));
            }
            Some(_) => {}
        }
        if moves(record, self.user) == Some(false) {
            reader.departed = Some(seq);
        }
    }

    /// What is silent is had by its place.
    fn pass_over(
        &self,
        reader: &mut Reader,
        (from, to): (Seq, Seq),
        sessions_move: bool,
        findings: &mut Findings,
    ) {
        let Self { app, group, .. } = self;
        for seq in (0..to.since(from)).map(|nth| from.advance(nth)) {
            self.step(reader, seq, sessions_move, findings);
            let Some(held) = self.holding.at(seq) else {
                return findings
                    .find(|| format!("{app:?} passed over {seq} of {group}, which is not durable"));
            };
            if !held.silent {
                findings.find(|| format!("{app:?} passed over {seq} of {group}, which is not silent"));
            }
            if moves(held, self.user) == Some(false) {
                reader.departed = Some(seq);
            }
        }
    }

    /// The reader comes to the record at `seq`, which is to be the next, and of a time when its user is a
    /// member.
    fn step(&self, reader: &mut Reader, seq: Seq, sessions_move: bool, findings: &mut Findings) {
        let Self { app, group, .. } = self;
        match reader.wants {
            Some(wanted) if wanted != seq => {
                findings.find(|| format!("{app:?} got {seq} of {group}, and wanted {wanted}"));
            }
            None if !self.is_own_join(seq) => {
                findings.find(|| format!("{app:?} got {seq} of {group} first, which is not its join"));
            }
            _ => {}
        }
        if sessions_move && self.is_own_join(seq) {
            // The next node knows them as the member that they are again.
            reader.departed = None;
        }
        if let Some(departed) = reader.departed {
            findings.find(|| format!("{app:?} got {seq} of {group}, but left it at {departed}"));
        }
        (reader.wants, reader.is_live) = (Some(seq.next()), true);
    }

    fn end(&self, reader: &Reader, findings: &mut Findings) {
        let Self { app, group, .. } = self;
        if let Some(owed) = reader.is_owed.filter(|_| reader.departed.is_none()) {
            let wants = reader.wants;
            findings.find(|| format!("{app:?} was at {wants:?} of {group} when it ended at {owed}"));
        }
    }

    /// Only what came before a new join of the user is skipped.
    fn skip(&self, reader: &mut Reader, from: Seq, to: Seq, findings: &mut Findings) {
        let Self { app, group, .. } = self;
        if reader.wants != Some(from) || to <= from || !self.is_own_join(to) {
            findings.find(|| format!("{app:?} skipped {from} to {to} of {group}"));
        }
        *reader = Reader { wants: Some(to), departed: None, is_owed: None, ..*reader };
    }

    fn is_own_join(&self, seq: Seq) -> bool {
        self.group == GroupId::own(self.user)
            || self.holding.at(seq).is_some_and(|record| moves(record, self.user) == Some(true))
    }
}

/// The same, or recalled since.
fn is_same(held: &wire::Record, got: &wire::Record) -> bool {
    if held == got {
        return true;
    }
    let (Some(Body::Message(mine)), Some(Body::Message(theirs))) = (&held.body, &got.body) else {
        return false;
    };
    mine.recalled_by != 0
        && mine.payload.is_empty()
        && (held.seq, held.time_ms, &held.author) == (got.seq, got.time_ms, &got.author)
        && (mine.kind, mine.refers_to) == (theirs.kind, theirs.refers_to)
}

/// A page of history is a piece of the sequence.
fn check_history(
    case: &Case<'_>,
    app: AppId,
    group: GroupId,
    records: &[wire::Record],
    findings: &mut Findings,
) {
    let Some(holding) = case.holdings.groups.get(&group) else { return };
    if !records.is_sorted_by(|one, next| one.seq + 1 == next.seq) {
        let places: Vec<_> = records.iter().map(|record| record.seq).collect();
        findings.find(|| format!("{app:?} asked for history of {group} and got {places:?}"));
    }
    for record in records {
        if !holding.at(seq_of(record)).is_some_and(|held| is_same(held, record)) {
            findings.find(|| format!("{app:?} found another {} in {group} than there is", record.seq));
        }
    }
}

/// Whoever is asked for page by page is there once.
fn check_members(app: AppId, group: GroupId, users: &[String], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for user in users {
        if !seen.insert(user) {
            findings.find(|| format!("{app:?} was told twice that {user} is in {group}"));
        }
    }
}

/// Who is in a group at the end follows it, and has all of it.
fn check_complete(case: &Case<'_>, readers: &BTreeMap<(AppId, GroupId), Reader>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        let tail = holding.tail();
        let fold = Fold::below(holding, tail);
        for (app, user) in &case.cast.users {
            let reader = readers.get(&(*app, *group));
            let wants = reader.and_then(|reader| reader.wants);
            let is_in = *group == GroupId::own(user) || fold.joined(user).is_some();
            // A sequence that begins only now: nobody was to be told anything.
            let is_idle = tail == Seq::FIRST;
            if is_in && wants != Some(tail) && !is_idle {
                let how = if reader.is_some() { "waits for" } else { "does not follow:" };
                findings.find(|| format!("{app:?} {how} {wants:?} of {group}, whose tail is {tail}"));
            }
        }
    }
}
