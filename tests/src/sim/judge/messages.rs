//! Acknowledged means durable, once, at the place that was named; a sender's messages keep their
//! order; what was refused is not there.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::{GroupId, Seq};

use super::{Case, Findings};
use crate::sim::chronicle::{AppId, Event, MessageId, Outcome};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let mut sent = sent(case);
    // A client that goes on from a save says that it sends these twice.
    let unnumbered = unnumbered(case);
    sent.retain(|message, _| !unnumbered.contains(message));
    let places = Places::gather(case, &unnumbered, findings);
    for (message, (app, group)) in &sent {
        let Some(&(stood, seq)) = places.of.get(message) else { continue };
        if stood != *group {
            findings.find(|| format!("{message:?} of {app:?} for {group} stands in {stood} at {seq}"));
        }
    }
    for message in places.of.keys().filter(|message| !sent.contains_key(message)) {
        findings.find(|| format!("{message:?} is there, and nobody sent it"));
    }
    check_authors(case, &sent, findings);
    check_outcomes(case, &sent, &unnumbered, &places, findings);
    check_order(&sent, &places, findings);
}

type Sent = BTreeMap<MessageId, (AppId, GroupId)>;

fn sent(case: &Case<'_>) -> Sent {
    let sent = case.events.iter().filter_map(|(_, event)| match event {
        Event::Sent { app, group, message } => Some((*message, (*app, *group))),
        _ => None,
    });
    sent.collect()
}

fn unnumbered(case: &Case<'_>) -> BTreeSet<MessageId> {
    let restored = case.events.iter().filter_map(|(_, event)| match event {
        Event::Restored { messages, unnumbered, .. } if *unnumbered > 0 => Some(messages),
        _ => None,
    });
    restored.flatten().copied().collect()
}

/// Which message stands where: from the store, from what was delivered (a recalled payload is gone
/// from the store) and from receipts.
struct Places {
    of: BTreeMap<MessageId, (GroupId, Seq)>,
    at: BTreeMap<(GroupId, Seq), MessageId>,
}

impl Places {
    fn gather(case: &Case<'_>, except: &BTreeSet<MessageId>, findings: &mut Findings) -> Self {
        let mut places = Self { of: BTreeMap::new(), at: BTreeMap::new() };
        let message_in = |record| case.message_in(record).filter(|message| !except.contains(message));
        for (group, holding) in &case.holdings.groups {
            for record in &holding.records {
                if let (Some(message), Some(seq)) = (message_in(record), Seq::new(record.seq)) {
                    places.put(message, *group, seq, "the store has", findings);
                }
            }
        }
        for (_, event) in case.events {
            if let Event::Delivered { app, group, record } = event
                && let (Some(message), Some(seq)) = (message_in(record), Seq::new(record.seq))
            {
                places.put(message, *group, seq, &format!("{app:?} got"), findings);
            }
        }
        places
    }

    fn put(&mut self, message: MessageId, group: GroupId, seq: Seq, who: &str, findings: &mut Findings) {
        let place = *self.of.entry(message).or_insert((group, seq));
        let there = *self.at.entry((group, seq)).or_insert(message);
        if place != (group, seq) {
            findings.find(|| format!("{who} {message:?} in {group} at {seq}, and it is at {place:?} too"));
        }
        if there != message {
            findings.find(|| format!("{who} {message:?} in {group} at {seq}, where {there:?} is"));
        }
    }
}

/// A message is its sender's, and nobody else's.
fn check_authors(case: &Case<'_>, sent: &Sent, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        for record in &holding.records {
            let Some((app, _)) = case.message_in(record).and_then(|message| sent.get(&message)) else {
                continue;
            };
            let author = record.author.as_ref().map_or("", |author| author.user.as_str());
            if author != case.user(*app).as_str() {
                findings.find(|| format!("{group}: {app:?} sent what {author} stands for at {}", record.seq));
            }
        }
    }
}

fn check_outcomes(
    case: &Case<'_>,
    sent: &Sent,
    except: &BTreeSet<MessageId>,
    places: &Places,
    findings: &mut Findings,
) {
    for (_, event) in case.events {
        let Event::Settled { app, message, outcome } = event else { continue };
        if except.contains(message) {
            continue;
        }
        let Some((_, group)) = sent.get(message) else {
            findings.find(|| format!("{app:?} was told of {message:?}, which it had not sent"));
            continue;
        };
        match outcome {
            Outcome::Committed(seq) => check_committed(case, *group, *message, *seq, places, findings),
            Outcome::Refused(code) => {
                if let Some((group, seq)) = places.of.get(message) {
                    findings.find(|| format!("{message:?} was refused ({code}), and is in {group} at {seq}"));
                }
            }
            Outcome::Unknown(_) => {}
        }
    }
}

fn check_committed(
    case: &Case<'_>,
    group: GroupId,
    message: MessageId,
    seq: Seq,
    places: &Places,
    findings: &mut Findings,
) {
    let record = case.holdings.groups.get(&group).and_then(|holding| holding.at(seq));
    let Some(record) = record else {
        return findings.find(|| format!("{message:?} was acknowledged in {group} at {seq}: not there"));
    };
    let recalled = matches!(
        &record.body,
        Some(shoal_protocol::wire::record::Body::Message(held)) if held.recalled_by != 0
    );
    let stands = places.of.get(&message);
    if stands.is_some_and(|place| *place != (group, seq)) || (stands.is_none() && !recalled) {
        findings.find(|| format!("{message:?} was acknowledged in {group} at {seq}, where it is not"));
    }
}

/// What one app sent to one group stands in the order in which it was sent.
fn check_order(sent: &Sent, places: &Places, findings: &mut Findings) {
    let mut last: BTreeMap<(AppId, GroupId), (MessageId, Seq)> = BTreeMap::new();
    for (message, (app, group)) in sent {
        let Some(&(_, seq)) = places.of.get(message) else { continue };
        let before = last.insert((*app, *group), (*message, seq));
        if let Some((earlier, at)) = before.filter(|(_, at)| *at >= seq) {
            findings.find(|| format!("{app:?} in {group}: {earlier:?} at {at}, then {message:?} at {seq}"));
        }
    }
}
