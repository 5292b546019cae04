//! Membership is in the sequence: the table is its fold, nothing of a stranger stands in it, and
//! every member is told in their own sequence.

use std::collections::BTreeMap;

use shoal_protocol::{GroupId, Seq, UserId, wire};
use wire::{member_change::Kind, notice::What, record::Body};

use super::{Case, Findings, Holding, seq_of};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        if group.is_own() {
            continue;
        }
        let mut fold = Fold::default();
        for record in &holding.records {
            check_author(*group, record, &fold, findings);
            fold.take(record);
        }
        check_table(*group, holding, &fold, findings);
        check_notices(case, *group, &fold, findings);
    }
}

/// Members, as the records up to some place have it.
#[derive(Debug, Default)]
pub(super) struct Fold {
    members: BTreeMap<String, Member>,
    closed: bool,
    /// The last record that brought each user in or out, or changed their role.
    told: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Member {
    joined: Seq,
    muted_until_ms: u64,
}

impl Fold {
    /// The fold of all records below a place.
    pub(super) fn below(holding: &Holding, seq: Seq) -> Self {
        let mut fold = Self::default();
        holding.records.iter().take_while(|record| seq_of(record) < seq).for_each(|record| fold.take(record));
        fold
    }

    /// Where a member joined.
    pub(super) fn joined(&self, user: &UserId) -> Option<Seq> {
        self.members.get(user.as_str()).map(|member| member.joined)
    }

    pub(super) fn take(&mut self, record: &wire::Record) {
        match &record.body {
            Some(Body::Members(changes)) => {
                changes.changes.iter().for_each(|change| self.change(change, seq_of(record)));
            }
            Some(Body::Closed(_)) => self.closed = true,
            _ => {}
        }
    }

    fn change(&mut self, change: &wire::MemberChange, seq: Seq) {
        match change.kind() {
            Kind::Joined | Kind::Added => {
                self.members.insert(change.user.clone(), Member { joined: seq, muted_until_ms: 0 });
                self.told.insert(change.user.clone(), seq.get());
            }
            Kind::Left | Kind::Removed | Kind::Banned => {
                self.members.remove(&change.user);
                self.told.insert(change.user.clone(), seq.get());
            }
            Kind::RoleChanged => drop(self.told.insert(change.user.clone(), seq.get())),
            Kind::Muted | Kind::Unmuted => {
                if let Some(member) = self.members.get_mut(&change.user) {
                    member.muted_until_ms = if change.kind() == Kind::Muted { change.until_ms } else { 0 };
                }
            }
            Kind::Unbanned | Kind::Unknown => {}
        }
    }
}

/// Who brings a user in or out, or neither.
pub(super) fn moves(record: &wire::Record, user: &UserId) -> Option<bool> {
    let Some(Body::Members(changes)) = &record.body else { return None };
    let mine = changes.changes.iter().filter(|change| change.user == user.as_str());
    mine.rev().find_map(|change| match change.kind() {
        Kind::Joined | Kind::Added => Some(true),
        Kind::Left | Kind::Removed | Kind::Banned => Some(false),
        _ => None,
    })
}

fn check_author(group: GroupId, record: &wire::Record, fold: &Fold, findings: &mut Findings) {
    let (Some(Body::Message(_)), Some(author)) = (&record.body, &record.author) else { return };
    if fold.closed {
        findings.find(|| format!("{group}: a message at {} follows the end", record.seq));
    }
    match fold.members.get(&author.user) {
        None => findings.find(|| format!("{group}: {} at {} is not a member", author.user, record.seq)),
        Some(member) if record.time_ms < member.muted_until_ms => {
            findings.find(|| format!("{group}: {} at {} is muted", author.user, record.seq));
        }
        Some(_) => {}
    }
}

fn check_table(group: GroupId, holding: &Holding, fold: &Fold, findings: &mut Findings) {
    let rows = holding.members.iter().filter(|row| row.role != wire::Role::None);
    let table: BTreeMap<_, _> = rows.map(|row| (row.user.to_string(), row.joined)).collect();
    let folded: BTreeMap<_, _> =
        fold.members.iter().map(|(user, member)| (user.clone(), member.joined)).collect();
    if table != folded {
        findings.find(|| format!("{group}: the table says {table:?}, the sequence {folded:?}"));
    }
    if holding.row.state.members != folded.len() as u64 {
        let counted = holding.row.state.members;
        findings.find(|| format!("{group}: the row counts {counted} members of {}", folded.len()));
    }
}

/// Each user's notices of one group rise, and the last change that concerned them is among them.
fn check_notices(case: &Case<'_>, group: GroupId, fold: &Fold, findings: &mut Findings) {
    for (user, last) in &fold.told {
        let Ok(user) = UserId::new(user) else { continue };
        let own = case.holdings.groups.get(&GroupId::own(&user));
        let records = own.map(|own| own.records.as_slice()).unwrap_or_default();
        let told: Vec<_> = records.iter().filter_map(|record| notice_of(record, group)).collect();
        if !told.is_sorted_by(|one, next| one < next) {
            findings.find(|| format!("{user} was told of {group} at {told:?}"));
        }
        if told.last() != Some(last) {
            findings.find(|| format!("{user} was told of {group} at {told:?}, and not at {last}"));
        }
    }
}

fn notice_of(record: &wire::Record, group: GroupId) -> Option<u64> {
    let Some(Body::Notice(notice)) = &record.body else { return None };
    let is_of_membership = matches!(notice.what, Some(What::Joined(_) | What::Left(_)));
    (is_of_membership && notice.group == group.to_wire()).then_some(notice.group_seq)
}
