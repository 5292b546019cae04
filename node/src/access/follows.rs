//! Follows of one session on their way to their groups: a few at once, the rest in a row.

use std::collections::{BTreeMap, VecDeque};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use shoal_protocol::{Code, GroupId, IdError, Refusal, Seq, wire};

use super::{Shared, session::Session};
use crate::group::{Follow, Followed, From};

/// What became of one: the group, and where it begins or why not.
pub(super) type Outcome = (GroupId, Result<Followed, Refusal>);

struct Answer {
    group: GroupId,
    cursor: u32,
    followed: Result<Followed, Refusal>,
}

/// See the module. Boxed by the session, which has it only as long as there are any.
#[derive(Default)]
pub(super) struct Follows {
    waiting: VecDeque<(GroupId, From)>,
    /// The cursor that is being attached in each group. An answer for another has been taken back.
    pending: BTreeMap<GroupId, u32>,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
}

impl Follows {
    /// How many are not answered.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.pending.len()
    }

    /// Nothing is on its way, taken back or not.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Sends one on its way; one before it in the same group is taken back.
    pub(super) fn add(&mut self, group: GroupId, from: From, shared: &Shared, session: &Session) {
        self.cancel(group);
        self.waiting.push_back((group, from));
        self.fill(shared, session);
    }

    /// Takes back what is on its way in a group.
    pub(super) fn cancel(&mut self, group: GroupId) {
        self.waiting.retain(|(other, _)| *other != group);
        self.pending.remove(&group);
    }

    /// The next that is answered and was not taken back; its cursor is in the session's
    /// deliveries. Never ready where nothing is on its way. Cancellation safe.
    pub(super) async fn next(&mut self, shared: &Shared, session: &Session) -> Option<Outcome> {
        let Some(answer) = self.running.next().await else { std::future::pending().await };
        self.fill(shared, session);
        let Answer { group, cursor, followed } = answer;
        let is_wanted = self.pending.get(&group) == Some(&cursor);
        if is_wanted {
            self.pending.remove(&group);
        }
        match &followed {
            Ok(Followed { tail, attachment, from, .. }) if is_wanted => {
                session.deliveries().put(cursor, tail.clone(), *attachment, *from);
            }
            Ok(Followed { tail, attachment, .. }) => {
                tail.detach(*attachment);
                session.deliveries().release(cursor);
            }
            Err(_) => session.deliveries().release(cursor),
        }
        is_wanted.then_some((group, followed))
    }

    fn fill(&mut self, shared: &Shared, session: &Session) {
        while self.running.len() < shared.limits.load().follows_pending_max.max(1) {
            let Some((group, from)) = self.waiting.pop_front() else { return };
            let cursor = session.deliveries().reserve();
            self.pending.insert(group, cursor);
            let follow = Follow { group, signal: session.signal().clone(), cursor, from };
            let groups = shared.groups.clone();
            let answer = async move { Answer { group, cursor, followed: groups.follow(follow).await } };
            self.running.push(answer.boxed());
        }
    }
}

/// Reads a follow of the wire.
pub(super) fn parse(follow: &wire::Follow) -> Result<(GroupId, From), Refusal> {
    let group = GroupId::from_wire(&follow.group).map_err(bad_id)?;
    let from = match follow.from {
        Some(wire::follow::From::Watermark(number)) => Seq::new(number).map(From::Watermark),
        Some(wire::follow::From::Join(_)) => Some(From::Join),
        Some(wire::follow::From::Tail(_)) => Some(From::Tail),
        None => None,
    };
    let from = from.ok_or_else(|| Refusal::new(Code::BadRequest, "a follow says from where; no Seq is 0"))?;
    Ok((group, from))
}

/// An id that breaks its rules.
pub(super) fn bad_id(error: IdError) -> Refusal {
    Refusal::new(Code::BadRequest, error.to_string())
}
