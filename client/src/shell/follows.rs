//! The follows of a client, and what a node is still to be told about them.
//!
//! At most one `Follow` frame for a group is without an answer, so an answer is never taken for
//! one to another question.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use shoal_protocol::{Code, GroupId, Refusal, Seq, wire};
use tokio::sync::Notify;

use super::{following::Following, lock};
use crate::{FollowError, core::inbox::Start};

/// How many follows a node surely takes with a hello.
const ASKED_FIRST_MAX: usize = 64;

/// The most follows in any hello, of some 35 bytes each: with a token of 4 KiB they stay within what
/// a node reads from whoever connects. The rest is asked for on the session.
const HELLO_FOLLOWS_MAX: usize = 1600;

/// How many watermarks of ended follows are kept for a later one.
const RESUMABLE_MAX: usize = 10_000;

/// All follows of a client.
#[derive(Debug)]
pub(crate) struct Follows {
    inner: Mutex<All>,
    /// For the session's control stream: a node is to be told something.
    pub(crate) wake: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct All {
    following: BTreeMap<GroupId, Arc<Following>>,
    serial: u64,
    /// Groups of which the node is to be told what is wanted; and whether it is to stop first.
    due: BTreeMap<GroupId, bool>,
    /// What the node was asked and has not answered: by which follow.
    asked: BTreeMap<GroupId, u64>,
    /// Watermarks of follows that are over, and of an earlier run.
    resumable: BTreeMap<GroupId, Seq>,
    /// The most follows that the node allows; known from the first session on.
    follows_max: Option<usize>,
    closed: bool,
}

/// What a session was asked for in its hello, and by which follow.
#[derive(Debug)]
pub(crate) struct Asked {
    serial: u64,
    pub(crate) follow: wire::Follow,
}

impl Follows {
    pub(crate) fn new(resumable: BTreeMap<GroupId, Seq>, bytes_max: usize) -> Self {
        let inner = All { resumable, ..All::default() };
        Self { inner: Mutex::new(inner), wake: Notify::new(), bytes_max }
    }

    /// Begins to follow.
    pub(crate) fn open(&self, group: GroupId, start: Start) -> Result<Arc<Following>, FollowError> {
        let mut all = lock(&self.inner);
        if all.following.contains_key(&group) {
            return Err(FollowError::AlreadyFollowed);
        }
        if all.follows_max.is_some_and(|max| all.following.len() >= max) {
            return Err(FollowError::Refused(too_many()));
        }
        all.serial += 1;
        let following = Arc::new(Following::new(group, all.serial, start, self.bytes_max));
        if all.closed {
            following.close();
        }
        all.following.insert(group, following.clone());
        all.due.entry(group).or_insert(false);
        drop(all);
        self.wake.notify_one();
        Ok(following)
    }

    /// The app wants no more of it.
    pub(crate) fn close(&self, following: &Following) {
        let mut all = lock(&self.inner);
        let group = following.group;
        if all.following.get(&group).is_none_or(|current| current.serial() != following.serial()) {
            return;
        }
        all.following.remove(&group);
        all.due.insert(group, true);
        all.resumable.remove(&group);
        if let Some(watermark) = following.watermark()
            && !following.has_ended()
            && all.resumable.len() < RESUMABLE_MAX
        {
            all.resumable.insert(group, watermark);
        }
        drop(all);
        // What is still being read for it is let go.
        following.close();
        self.wake.notify_one();
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<Arc<Following>> {
        lock(&self.inner).following.get(&group).cloned()
    }

    /// Where an earlier follow of this group ended.
    pub(crate) fn resumable(&self, group: GroupId) -> Option<Seq> {
        lock(&self.inner).resumable.get(&group).copied()
    }

    /// What a new session is asked for: a part, where it is much.
    pub(crate) fn wanted(&self) -> Vec<Asked> {
        let all = lock(&self.inner);
        let asked = |following: &Arc<Following>| {
            Some(Asked { serial: following.serial(), follow: following.request()? })
        };
        let asked_max = all.follows_max.map_or(ASKED_FIRST_MAX, |most| most.min(HELLO_FOLLOWS_MAX));
        all.following.values().filter_map(asked).take(asked_max).collect()
    }

    /// A session begins that was asked for these, and allows so many (0: as many as there are):
    /// everything else is still to be told.
    pub(crate) fn adopted(&self, asked: &[Asked], follows_max: u32) {
        let mut all = lock(&self.inner);
        all.follows_max = (follows_max != 0).then_some(follows_max as usize);
        let beyond = all.following.values().skip(all.follows_max.unwrap_or(usize::MAX));
        beyond.for_each(|following| following.end(too_many()));
        let asked = asked.iter().filter_map(|asked| {
            let group = GroupId::from_wire(&asked.follow.group).ok()?;
            Some((group, asked.serial))
        });
        all.asked = asked.collect();
        let mut due: BTreeMap<GroupId, bool> = all.asked.keys().map(|group| (*group, true)).collect();
        for (group, following) in &all.following {
            following.asked();
            if following.is_asked() && all.asked.get(group) == Some(&following.serial()) {
                due.remove(group);
            } else {
                due.entry(*group).or_insert(false);
            }
        }
        all.due = due;
        drop(all);
        self.wake.notify_one();
    }

    /// Takes what the node is to be told now.
    pub(crate) fn take_due(&self) -> Vec<wire::to_node::Body> {
        let mut all = lock(&self.inner);
        let (waiting, due): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut all.due).into_iter().partition(|(group, _)| all.asked.contains_key(group));
        all.due = waiting;
        let mut frames = Vec::new();
        for (group, stop_first) in due {
            if stop_first {
                frames.push(wire::to_node::Body::Unfollow(wire::Unfollow { group: group.to_wire() }));
            }
            let Some(following) = all.following.get(&group).cloned() else {
                continue;
            };
            if let Some(follow) = following.request() {
                all.asked.insert(group, following.serial());
                frames.push(wire::to_node::Body::Follow(follow));
            }
        }
        frames
    }

    /// The node answered, or ended a follow unasked: the follow that this is about, unless it is
    /// over.
    pub(crate) fn answered(&self, group: GroupId) -> Option<Arc<Following>> {
        let mut all = lock(&self.inner);
        let asked = all.asked.remove(&group);
        if all.due.contains_key(&group) {
            self.wake.notify_one();
        }
        let following = all.following.get(&group).cloned()?;
        asked.is_none_or(|serial| serial == following.serial()).then_some(following)
    }

    /// Asks the node again, from where records are wanted, unless the follow is over.
    pub(crate) fn ask_again(&self, following: &Following) {
        if self.is_current(following) {
            following.asked();
            self.tell(following.group, false);
        }
    }

    /// The app does not read: the node is to stop.
    pub(crate) fn park(&self, following: &Following) {
        if self.is_current(following) {
            following.park();
            self.tell(following.group, true);
        }
    }

    fn is_current(&self, following: &Following) -> bool {
        self.get(following.group).is_some_and(|current| current.serial() == following.serial())
    }

    /// What is wanted of this group has changed; whether the node is to stop first.
    pub(crate) fn tell(&self, group: GroupId, stop_first: bool) {
        *lock(&self.inner).due.entry(group).or_insert(false) |= stop_first;
        self.wake.notify_one();
    }

    /// Watermarks that moved since they were last told.
    pub(crate) fn moved(&self) -> Vec<wire::Watermark> {
        let all = lock(&self.inner);
        let moved = |(group, following): (&GroupId, &Arc<Following>)| {
            Some(wire::Watermark { group: group.to_wire(), watermark: following.tell()?.get() })
        };
        all.following.iter().filter_map(moved).collect()
    }

    /// Every watermark, of live follows and of those before.
    pub(crate) fn watermarks(&self) -> BTreeMap<GroupId, Seq> {
        let all = lock(&self.inner);
        let mut watermarks = all.resumable.clone();
        for (group, following) in &all.following {
            watermarks.extend(following.watermark().map(|watermark| (*group, watermark)));
        }
        watermarks
    }

    /// The client is closed: whoever waits is told.
    pub(crate) fn shut(&self) {
        let mut all = lock(&self.inner);
        all.closed = true;
        let following: Vec<_> = all.following.values().cloned().collect();
        drop(all);
        following.iter().for_each(|following| following.close());
    }
}

fn too_many() -> Refusal {
    Refusal::new(Code::TooMany, "more follows than the node allows a session")
}
