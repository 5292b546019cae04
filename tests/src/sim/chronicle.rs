//! What happened in a run, in order, with its virtual time: what the judge reads, and what two
//! runs of one seed are compared by.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shoal_protocol::{Code, GroupId, Seq, wire};
use xxhash_rust::xxh3::Xxh3;

/// A client's app, by its number in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u32);

/// A message that an app handed to its client, by its number in the run. It is in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// What became of a message, as the app was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable at this place.
    Committed(Seq),
    /// Not in the group.
    Refused(Code),
    /// In the group or not.
    Unknown(Code),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An app starts, for the nth time.
    Life { app: AppId, life: u32 },
    /// It goes on from a save with these messages, of which so many had no number.
    Restored { app: AppId, messages: Vec<MessageId>, unnumbered: usize },
    /// Its client has a session, or has lost it.
    Online { app: AppId, is_online: bool },
    /// An app hands a message to its client.
    Sent { app: AppId, group: GroupId, message: MessageId },
    /// It is told what became of it.
    Settled { app: AppId, message: MessageId, outcome: Outcome },
    /// An app follows a group from a watermark, or from its own join.
    Followed { app: AppId, group: GroupId, from: Option<Seq> },
    /// The app is told that places up to `to` were never its user's.
    Skipped { app: AppId, group: GroupId, from: Seq, to: Seq },
    /// The app is told that the group has changed, in place of the records up to `to`.
    PassedOver { app: AppId, group: GroupId, from: Seq, to: Seq },
    /// The app is given a record.
    Delivered { app: AppId, group: GroupId, record: wire::Record },
    /// Nothing more of this group will come: the app is told why, or wanted it so.
    FollowEnded { app: AppId, group: GroupId, code: Code },
    /// An app asked for a page of a group's records.
    History { app: AppId, group: GroupId, records: Vec<wire::Record> },
    /// An app asked for all members, page by page.
    Members { app: AppId, group: GroupId, users: Vec<String> },
    /// A change was acknowledged with this place.
    Changed { app: AppId, group: GroupId, seq: Seq },
    /// A change was refused.
    ChangeRefused { app: AppId, group: GroupId, code: Code },
    /// An app has set how far its user has read, and was told so.
    ReadSet { app: AppId, group: GroupId, read: Seq },
    /// A user's cursors in a group, as an app was told.
    Cursors { app: AppId, group: GroupId, read: Option<Seq>, delivered: Option<Seq> },
    /// A group's features, as an app was told.
    Features { app: AppId, group: GroupId, features: wire::Features },
    /// The store raised a group's epoch.
    Activated { group: GroupId, epoch: u64, tail: Seq },
    /// The store took records.
    Appended { group: GroupId, epoch: u64, from: Seq, count: u64 },
    /// A client's state, or what was done to the world.
    Note { who: String, what: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note { who, what } => write!(f, "{who}: {what}"),
            Self::Delivered { app, group, record } => {
                write!(f, "{app:?} got {} of {}", Short(record), name(*group))
            }
            Self::History { app, group, records } => {
                let places: Vec<_> = records.iter().map(|record| record.seq).collect();
                write!(f, "{app:?} looked at {places:?} of {}", name(*group))
            }
            Self::Sent { app, group, message } => {
                write!(f, "{app:?} sends {message:?} to {}", name(*group))
            }
            Self::Followed { app, group, from } => {
                write!(f, "{app:?} follows {} from {from:?}", name(*group))
            }
            Self::FollowEnded { app, group, code } => {
                write!(f, "{app:?} follows {} no more: {code}", name(*group))
            }
            Self::Activated { group, epoch, tail } => {
                write!(f, "{} activated: epoch {epoch}, tail {tail}", name(*group))
            }
            Self::Appended { group, epoch, from, count } => {
                write!(f, "{} appended: {count} at {from}, epoch {epoch}", name(*group))
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// A record in a few words.
struct Short<'record>(&'record wire::Record);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire::Record { seq, author, body, .. } = self.0;
        let author = author.as_ref().map_or("the node", |author| author.user.as_str());
        match body {
            Some(wire::record::Body::Message(message)) => {
                let (kind, bytes) = (message.kind(), message.payload.len());
                write!(f, "{seq} ({author}: {kind:?} about {}, {bytes} bytes", message.refers_to)?;
                if message.recalled_by == 0 { write!(f, ")") } else { write!(f, ", recalled)") }
            }
            Some(wire::record::Body::Members(changes)) => {
                let changes = &changes.changes;
                let changes: Vec<_> =
                    changes.iter().map(|change| format!("{} {:?}", change.user, change.kind())).collect();
                write!(f, "{seq} ({author}: {})", changes.join(", "))
            }
            Some(wire::record::Body::Notice(notice)) => {
                let group = GroupId::from_wire(&notice.group).map(name).unwrap_or_default();
                write!(f, "{seq} (of {} in {group}: {:?})", notice.group_seq, notice.what)
            }
            other => write!(f, "{seq} ({author}: {other:?})"),
        }
    }
}

/// The first half of a group's id says which it is.
fn name(group: GroupId) -> String {
    group.to_string().chars().take(8).collect()
}

/// Everything that happened so far. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Chronicle(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    events: Vec<(Duration, Event)>,
    hash: Xxh3,
    prints: bool,
}

impl Chronicle {
    /// An empty one; with `prints`, each event is written to standard output as it happens.
    #[must_use]
    pub fn new(prints: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner { prints, ..Inner::default() })))
    }

    /// Takes in what happens now: to a host, or to the world since it was last told of.
    pub fn tell(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_else(|| self.last());
        self.tell_at(at, event);
    }

    /// Takes in what happens at a moment of the run.
    pub fn tell_at(&self, at: Duration, event: Event) {
        let mut inner = self.lock();
        let line = format!("{:>10.4} {event:?}\n", at.as_secs_f64());
        inner.hash.update(line.as_bytes());
        if inner.prints {
            println!("{:>10.4} {event}", at.as_secs_f64());
        }
        inner.events.push((at, event));
    }

    fn last(&self) -> Duration {
        self.lock().events.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// A line for people.
    pub fn note(&self, who: impl Into<String>, what: impl Into<String>) {
        self.tell(Event::Note { who: who.into(), what: what.into() });
    }

    /// Stands for all that happened and when.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash.digest()
    }

    /// What happened, with the time since the run began.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, Event)> {
        self.lock().events.clone()
    }

    /// How many things happened.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Has nothing happened?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Chronicle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chronicle({} events)", self.len())
    }
}
