//! Who is there, on all nodes, and who may hear of what may be lost. Nothing of it is stored, and
//! nothing is kept up to date: it is asked for when somebody wants to know, and shared for a second.
//!
//! ```text
//!  node 2, 3 ── who follows it everywhere? ──► the home ── who follows it at yours? ──► nodes that follow
//!            ◄── so many, or all their names ──         ◄── so many, or all their names ──
//! ```
//!
//! So a group of which nobody asks costs nothing, and one of which everybody asks two messages a second
//! for each node that follows it; a node that has died is not asked any more, once its link is lost.

mod attendance;

mod looks;

mod signals;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use shoal_protocol::{Code, GroupId, Refusal, UserId, wire};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    config::{AccessLimits, Current},
    coordination::NodeName,
    group::{Groups, Place},
};
pub(crate) use attendance::Attendance;
use looks::Looks;
pub(crate) use signals::{Audience, pass_on, read};

/// Users in one question who is there.
pub(crate) const NAMED_MAX: usize = 100;

/// How long another node may take to say who is there; then nobody is.
const NODE_MAX: Duration = Duration::from_millis(500);
/// How long the home may, which asks the others.
const HOME_MAX: Duration = Duration::from_millis(1_000);

/// Questions to other nodes at once about users by name, in groups too large to name all; more wait.
const NAMED_QUESTIONS_MAX: usize = 16;

/// The sessions of this node, by user.
pub(crate) trait Sessions: Send + Sync + 'static {
    /// Does one of the user's sessions follow the group?
    fn follows(&self, user: &UserId, group: GroupId) -> bool;
}

/// Knows who is there. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Presence(Arc<Shared>);

struct Shared {
    groups: Groups,
    sessions: Arc<dyn Sessions>,
    limits: Current<AccessLimits>,
    looks: Looks,
    asking: Semaphore,
}

impl Presence {
    /// In groups that up to `signal_sessions_max` sessions follow, all their users are known by name.
    pub(crate) fn new(groups: Groups, sessions: Arc<dyn Sessions>, limits: Current<AccessLimits>) -> Self {
        let (looks, asking) = (Looks::default(), Semaphore::new(NAMED_QUESTIONS_MAX));
        Self(Arc::new(Shared { groups, sessions, limits, looks, asking }))
    }

    /// Who follows the group on all nodes: everybody, or, where they are too many, those named who do.
    pub(crate) async fn of(&self, group: GroupId, named: &[UserId]) -> Attendance {
        if self.0.groups.is_alone() {
            return self.here(group, named);
        }
        let mut all = (*self.everywhere(group).await).clone();
        if !all.is_complete && !named.is_empty() {
            let _turn = self.0.asking.acquire().await;
            all = self.look(group, named).await;
        }
        // What others say of this node may be old.
        all.or(self.here(group, named), self.few())
    }

    /// How many sessions follow the group on all nodes, and who, if they are few.
    async fn everywhere(&self, group: GroupId) -> Arc<Attendance> {
        self.0.looks.get(group, self.look(group, &[])).await
    }

    /// May it be told to everybody, what somebody here has to say that may be lost?
    pub(crate) async fn is_small(&self, group: GroupId) -> bool {
        let few = self.few() as u64;
        let here = self.0.groups.tail(group).map_or(0, |tail| tail.sessions() as u64);
        if here > few || self.0.groups.is_alone() {
            return here <= few;
        }
        self.everywhere(group).await.sessions <= few
    }

    /// Answers another node.
    ///
    /// # Errors
    /// `NotHome` where all nodes are asked for and the group's home is another; `BadRequest`, `TooMany`.
    pub(crate) async fn answer(&self, asked: wire::GetAttendance) -> Result<wire::Attendance, Refusal> {
        let bad = |reason: String| Refusal::new(Code::BadRequest, reason);
        let group = GroupId::from_wire(&asked.group).map_err(|error| bad(error.to_string()))?;
        if asked.named.len() > NAMED_MAX {
            return Err(Refusal::new(Code::TooMany, format!("at most {NAMED_MAX} users in one question")));
        }
        let named: Result<Vec<_>, _> = asked.named.into_iter().map(UserId::new).collect();
        let named = named.map_err(|error| bad(error.to_string()))?;
        if !asked.everywhere {
            return Ok(self.here(group, &named).to_wire());
        }
        if !self.0.groups.is_home(group) {
            return Err(Refusal::new(Code::NotHome, "the group's home is not here"));
        }
        if named.is_empty() {
            return Ok(self.0.looks.get(group, self.gather(group, &named)).await.to_wire());
        }
        Ok(self.gather(group, &named).await.to_wire())
    }

    /// Up to so many sessions are few.
    fn few(&self) -> usize {
        self.0.limits.load().signal_sessions_max
    }

    /// Who follows it on this node.
    fn here(&self, group: GroupId, named: &[UserId]) -> Attendance {
        let Some(tail) = self.0.groups.tail(group) else { return Attendance::default() };
        let sessions = tail.sessions();
        if sessions > self.few() {
            let follows = |user: &&UserId| self.0.sessions.follows(user, group);
            return Attendance::large(sessions as u64, named.iter().filter(follows).cloned());
        }
        let mut users = Vec::with_capacity(sessions);
        tail.for_each_attached(|signal| users.extend(signal.user().cloned()));
        Attendance::small(sessions as u64, users)
    }

    /// As the home says; where it does not, those here are all that is known of.
    async fn look(&self, group: GroupId, named: &[UserId]) -> Attendance {
        match self.0.groups.home(group) {
            Place::Here => self.gather(group, named).await,
            Place::There(home) => {
                let all = self.ask(&home, group, named, true);
                all.await.unwrap_or_else(|| self.here(group, named))
            }
            Place::Nowhere => self.here(group, named),
        }
    }

    /// The home's: those here, and what each node says that follows it.
    async fn gather(&self, group: GroupId, named: &[UserId]) -> Attendance {
        let mut nodes = Vec::new();
        if let Some(tail) = self.0.groups.tail(group) {
            tail.for_each_attached(|signal| nodes.extend(signal.node().cloned()));
        }
        // One whose link has just been renewed is there twice.
        nodes.sort_unstable();
        nodes.dedup();
        let answers = join_all(nodes.iter().map(|node| self.ask(node, group, named, false))).await;
        let here = self.here(group, named);
        answers.into_iter().flatten().fold(here, |all, there| all.and(there, self.few()))
    }

    async fn ask(
        &self,
        node: &NodeName,
        group: GroupId,
        named: &[UserId],
        everywhere: bool,
    ) -> Option<Attendance> {
        let named = named.iter().map(ToString::to_string).collect();
        let asked = wire::GetAttendance { group: group.to_wire(), everywhere, named };
        let patience = if everywhere { HOME_MAX } else { NODE_MAX };
        let answer = timeout(patience, self.0.groups.elsewhere().attendance(node, asked)).await;
        Attendance::from_wire(answer.ok()?.ok()?)
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}
