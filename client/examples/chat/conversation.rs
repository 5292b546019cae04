//! What the group's records add up to: lines, members, a title.

use std::collections::BTreeMap;

use shoal_client::{Message, wire};
use wire::{member_change::Kind as Change, message::Kind, record::Body};

/// Records that are kept; older ones can be fetched again.
const RECORDS_MAX: usize = 5000;

/// One thing on the screen.
pub(crate) enum Line {
    Message(Said),
    /// Somebody came, went, or changed something.
    Event {
        time_ms: u64,
        text: String,
    },
    /// From here on it is new.
    Unread(u64),
}

/// A message as it stands after edits, recalls and reactions.
pub(crate) struct Said {
    pub(crate) time_ms: u64,
    pub(crate) user: String,
    pub(crate) text: String,
    pub(crate) is_edited: bool,
    pub(crate) is_recalled: bool,
    /// Each reaction, and by how many.
    pub(crate) reactions: BTreeMap<String, usize>,
}

/// A message of one's own that has not come back in the group yet.
pub(crate) struct Pending {
    pub(crate) id: u64,
    pub(crate) text: String,
    /// Its place, or why it has none.
    pub(crate) outcome: Option<Result<u64, String>>,
}

#[derive(Default)]
pub(crate) struct Conversation {
    pub(crate) title: String,
    /// Members and their roles.
    pub(crate) members: BTreeMap<String, wire::Role>,
    pub(crate) pending: Vec<Pending>,
    /// The first record that was unread when the chat began.
    pub(crate) unread_from: Option<u64>,
    records: BTreeMap<u64, wire::Record>,
}

impl Conversation {
    /// The first record that is here.
    pub(crate) fn first(&self) -> Option<u64> {
        self.records.keys().next().copied()
    }

    /// The last message of a user that was not recalled.
    pub(crate) fn last_of(&self, user: &str) -> Option<u64> {
        let is_theirs = |record: &&wire::Record| {
            let author = record.author.as_ref();
            author.is_some_and(|author| author.user == user) && message(record, Kind::New).is_some()
        };
        self.records.values().rev().find(is_theirs).map(|record| record.seq)
    }

    /// The last message of anybody else.
    pub(crate) fn last_of_others(&self, user: &str) -> Option<u64> {
        let is_anothers = |record: &&wire::Record| {
            let author = record.author.as_ref();
            author.is_some_and(|author| author.user != user) && message(record, Kind::New).is_some()
        };
        self.records.values().rev().find(is_anothers).map(|record| record.seq)
    }

    /// Takes a record that is new.
    pub(crate) fn take(&mut self, record: wire::Record) {
        match &record.body {
            Some(Body::Settings(settings)) => self.title.clone_from(&settings.title),
            Some(Body::Members(members)) => {
                for change in &members.changes {
                    self.change_member(change);
                }
            }
            _ => {}
        }
        self.pending.retain(|pending| pending.outcome != Some(Ok(record.seq)));
        self.insert(record);
        while self.records.len() > RECORDS_MAX {
            self.records.pop_first();
        }
    }

    /// Puts in a record of the history.
    pub(crate) fn insert(&mut self, record: wire::Record) {
        self.records.insert(record.seq, record);
    }

    pub(crate) fn queued(&mut self, id: u64, message: &str) {
        self.pending.push(Pending { id, text: message.to_owned(), outcome: None });
    }

    /// A receipt came for a message of one's own.
    pub(crate) fn settled(&mut self, id: u64, outcome: Result<u64, String>) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.outcome = Some(outcome);
        }
        let records = &self.records;
        let has_come =
            |pending: &Pending| matches!(pending.outcome, Some(Ok(seq)) if records.contains_key(&seq));
        self.pending.retain(|pending| !has_come(pending));
    }

    /// Everything in order, folded.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        for record in self.records.values() {
            if self.unread_from == Some(record.seq) {
                lines.push(Line::Unread(self.records.range(record.seq..).count() as u64));
            }
            if let Some(said) = message(record, Kind::New) {
                places.insert(record.seq, lines.len());
                lines.push(Line::Message(new(record, said)));
            } else if let Some(Body::Message(change)) = &record.body {
                let at = places.get(&change.refers_to).copied();
                if let Some(Line::Message(said)) = at.and_then(|at| lines.get_mut(at)) {
                    amend(said, change);
                }
            } else if let Some(text) = event(record) {
                lines.push(Line::Event { time_ms: record.time_ms, text });
            }
        }
        lines
    }

    fn change_member(&mut self, change: &wire::MemberChange) {
        match change.kind() {
            Change::Joined | Change::Added | Change::RoleChanged => {
                self.members.insert(change.user.clone(), change.role());
            }
            Change::Left | Change::Removed | Change::Banned => {
                self.members.remove(&change.user);
            }
            _ => {}
        }
    }
}

/// The record's message, if it is of this kind.
fn message(record: &wire::Record, kind: Kind) -> Option<&wire::Message> {
    match &record.body {
        Some(Body::Message(message)) if message.kind() == kind => Some(message),
        _ => None,
    }
}

fn new(record: &wire::Record, message: &wire::Message) -> Said {
    Said {
        time_ms: record.time_ms,
        user: record.author.as_ref().map(|author| author.user.clone()).unwrap_or_default(),
        text: String::from_utf8_lossy(&message.payload).into_owned(),
        is_edited: false,
        is_recalled: message.recalled_by != 0,
        reactions: BTreeMap::new(),
    }
}

fn amend(said: &mut Said, change: &wire::Message) {
    let text = String::from_utf8_lossy(&change.payload).into_owned();
    match change.kind() {
        Kind::Edit => (said.text, said.is_edited) = (text, true),
        Kind::Recall => said.is_recalled = true,
        Kind::Reaction => *said.reactions.entry(text).or_default() += 1,
        Kind::New => {}
    }
}

fn event(record: &wire::Record) -> Option<String> {
    let by = record.author.as_ref().map_or("somebody", |author| author.user.as_str());
    match record.body.as_ref()? {
        Body::Members(members) if members.changes.len() > 3 => {
            Some(format!("{by} changed {} members", members.changes.len()))
        }
        Body::Members(members) => {
            let told: Vec<_> = members.changes.iter().map(|change| told(change, by)).collect();
            Some(told.join(", "))
        }
        Body::Settings(settings) => Some(format!("{by} called it {:?}", settings.title)),
        Body::Closed(_) => Some(format!("{by} closed the group")),
        _ => None,
    }
}

fn told(change: &wire::MemberChange, by: &str) -> String {
    let user = &change.user;
    match change.kind() {
        Change::Joined => format!("{user} joined"),
        Change::Added => format!("{by} added {user}"),
        Change::Left => format!("{user} left"),
        Change::Removed => format!("{by} removed {user}"),
        Change::RoleChanged => format!("{by} made {user} {}", change.role().as_str_name().to_lowercase()),
        Change::Muted => format!("{by} muted {user}"),
        Change::Unmuted => format!("{by} unmuted {user}"),
        Change::Banned => format!("{by} banned {user}"),
        Change::Unbanned => format!("{by} lifted {user}'s ban"),
        Change::Unknown => format!("{by} changed {user}"),
    }
}

/// What the user typed, as a message: `/edit TEXT`, `/recall` and `/react TEXT` are about the last
/// message of their own, or of another.
pub(crate) fn parse(conversation: &Conversation, user: &str, typed: &str) -> Result<Message, &'static str> {
    let place = |seq: Option<u64>| seq.and_then(shoal_client::Seq::new).ok_or("there is no such message");
    let (command, text) = typed.split_once(' ').unwrap_or((typed, ""));
    match command {
        "/edit" => Ok(Message::edit(place(conversation.last_of(user))?, text.to_owned())),
        "/recall" => Ok(Message::recall(place(conversation.last_of(user))?)),
        "/react" => Ok(Message::reaction(place(conversation.last_of_others(user))?, text.to_owned())),
        _ if command.starts_with('/') => Err("/edit TEXT, /recall, /react TEXT, /quit"),
        _ => Ok(Message::new(typed.to_owned())),
    }
}
