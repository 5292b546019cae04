//! Questions and changes: one request each.

use shoal_protocol::{GroupId, Refusal, Seq, UserId, wire};

use crate::{Client, Lost, shell::request::request};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node refused; the code says why. Nothing was done.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The session was lost after the request had been sent: it may have been carried out. Only
    /// for changes that cannot be repeated without harm; the others are asked again.
    #[error("the session was lost before the answer: {0}")]
    Unanswered(Lost),
    /// No answer within [`request_timeout`](crate::Config::request_timeout). A change may have
    /// been carried out.
    #[error("no answer in time")]
    TimedOut,
    /// The node's answer made no sense.
    #[error("the node broke the protocol: {0}")]
    Broken(String),
    /// The client is closed; [`Client::state`](crate::Client::state) says why.
    #[error("the client is closed (its state says why)")]
    Closed,
}

/// # Questions and changes
///
/// Each is one request, which waits for a session, is answered or refused, and waits at most
/// [`request_timeout`](crate::Config::request_timeout). Refusals that pass (busy, too fast) are
/// tried again meanwhile; the last of them is the error where no time is left. After a loss of the
/// session, questions are asked again, and so are the changes that may be repeated without harm: create,
/// join, the read position. For the others the error is [`RequestError::Unanswered`]. Up to four requests
/// of a client are under way at once; further ones wait. Dropping the future gives up the answer, not the
/// change.
impl Client {
    /// Carries out any change.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn change(&self, change: wire::Change) -> Result<wire::Changed, RequestError> {
        use wire::change::Body;
        let repeatable = matches!(change.body, Some(Body::Create(_) | Body::Join(_)));
        match request(self.shared(), wire::request::Body::Change(change), repeatable).await? {
            wire::response::Body::Changed(changed) => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Creates a group with the caller as its owner, and with `members`. The answer names the
    /// group's first record. Creating a group that one owns already is answered likewise.
    ///
    /// # Errors
    /// [`GroupExists`](crate::Code::GroupExists) where it is another's.
    pub async fn create(
        &self,
        group: GroupId,
        settings: wire::Settings,
        members: &[UserId],
    ) -> Result<wire::Changed, RequestError> {
        let create = wire::Create { settings: Some(settings), members: names(members) };
        self.change_by(group, wire::change::Body::Create(create)).await
    }

    /// Joins an open group. Everything from the answer's record on will be delivered.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) where the group is not open,
    /// [`GroupFull`](crate::Code::GroupFull), [`Banned`](crate::Code::Banned),
    /// [`UnknownGroup`](crate::Code::UnknownGroup).
    pub async fn join(&self, group: GroupId) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Join(wire::Join {})).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`NotMember`](crate::Code::NotMember).
    pub async fn leave(&self, group: GroupId) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Leave(wire::Leave {})).await
    }

    /// Adds members, up to 10,000 in one record. Where all of them are members already, the answer names
    /// the record with which the last of them became one.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for those who are neither admin nor owner.
    pub async fn add(&self, group: GroupId, users: &[UserId]) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Add(wire::Add { users: names(users) })).await
    }

    /// Removes members, up to 10,000 in one record. After it nothing of theirs follows and nothing
    /// more reaches them. Where none of them is a member, the answer's record is 0: nothing is kept of
    /// who has gone.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed).
    pub async fn remove(&self, group: GroupId, users: &[UserId]) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Remove(wire::Remove { users: names(users) })).await
    }

    /// Changes a member's role.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed), [`NotMember`](crate::Code::NotMember).
    pub async fn set_role(
        &self,
        group: GroupId,
        user: &UserId,
        role: wire::Role,
    ) -> Result<wire::Changed, RequestError> {
        let change = wire::SetRole { user: user.to_string(), role: role.into() };
        self.change_by(group, wire::change::Body::Role(change)).await
    }

    /// Mutes a member until `until_ms` (milliseconds since 1970); 0 unmutes.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed), [`NotMember`](crate::Code::NotMember).
    pub async fn mute(
        &self,
        group: GroupId,
        user: &UserId,
        until_ms: u64,
    ) -> Result<wire::Changed, RequestError> {
        let change = wire::Mute { user: user.to_string(), until_ms };
        self.change_by(group, wire::change::Body::Mute(change)).await
    }

    /// Bans a user, member or not, or lifts a ban.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed).
    pub async fn ban(
        &self,
        group: GroupId,
        user: &UserId,
        banned: bool,
    ) -> Result<wire::Changed, RequestError> {
        let change = wire::Ban { user: user.to_string(), banned };
        self.change_by(group, wire::change::Body::Ban(change)).await
    }

    /// Replaces the group's settings, all of them.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed).
    pub async fn set_settings(
        &self,
        group: GroupId,
        settings: wire::Settings,
    ) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Settings(settings)).await
    }

    /// Gives a feature a value for some members of the group, or for all; without a value, takes it from all.
    /// Members who are in no share of it keep what all had before. A name has 1 to 64 characters out of
    /// `a-z 0-9 . _ -`, a value at most 256 bytes. Names that begin with `shoal.` are settings that the nodes
    /// go by: `shoal.messages_per_second` and `shoal.payload_max_bytes`.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for those who are neither admin nor owner;
    /// [`BadRequest`](crate::Code::BadRequest) for a name, a value or a share that does not do.
    pub async fn set_feature(
        &self,
        group: GroupId,
        feature: wire::SetFeature,
    ) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Feature(feature)).await
    }

    /// Closes a group for good: nothing more is written to it.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for all but the owner.
    pub async fn close_group(&self, group: GroupId) -> Result<wire::Changed, RequestError> {
        self.change_by(group, wire::change::Body::Close(wire::Closed {})).await
    }

    /// A page of the group's records, in ascending order: from `from` on, or backwards those below
    /// it. Without `from`: the first, or backwards the latest. The node may give fewer than
    /// `limit`; the answer's `tail` says where the group ends.
    ///
    /// # Errors
    /// [`NotMember`](crate::Code::NotMember), [`UnknownGroup`](crate::Code::UnknownGroup).
    pub async fn history(
        &self,
        group: GroupId,
        from: Option<Seq>,
        limit: u32,
        backwards: bool,
    ) -> Result<wire::History, RequestError> {
        let first = if backwards { 0 } else { Seq::FIRST.get() };
        let from = from.map_or(first, Seq::get);
        let question = wire::GetHistory { group: group.to_wire(), from, limit, backwards };
        match self.ask(wire::request::Body::History(question)).await? {
            wire::response::Body::History(history) => Ok(history),
            other => Err(unexpected(&other)),
        }
    }

    /// A page of the group's members after a position; begin without one, and go on with the
    /// answer's `next` until there is none. A lasting member appears exactly once.
    ///
    /// # Errors
    /// [`NotMember`](crate::Code::NotMember), [`UnknownGroup`](crate::Code::UnknownGroup).
    pub async fn members(
        &self,
        group: GroupId,
        after: Option<wire::MemberPosition>,
        limit: u32,
    ) -> Result<wire::Members, RequestError> {
        let question = wire::GetMembers { group: group.to_wire(), after, limit };
        match self.ask(wire::request::Body::Members(question)).await? {
            wire::response::Body::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// A page of the caller's groups, with tail, read position and unread count; go on with the
    /// answer's `next` until it is empty.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn groups(&self, after: Option<GroupId>, limit: u32) -> Result<wire::Groups, RequestError> {
        self.groups_named(after, limit, String::new()).await
    }

    /// The same of another user, for administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: u32,
    ) -> Result<wire::Groups, RequestError> {
        self.groups_named(after, limit, user.to_string()).await
    }

    /// One group: its settings, its size, and the caller's own place in it.
    ///
    /// # Errors
    /// [`UnknownGroup`](crate::Code::UnknownGroup), [`NotMember`](crate::Code::NotMember).
    pub async fn group(&self, group: GroupId) -> Result<wire::Group, RequestError> {
        match self.ask(wire::request::Body::Group(wire::GetGroup { group: group.to_wire() })).await? {
            wire::response::Body::Group(group) => Ok(group),
            other => Err(unexpected(&other)),
        }
    }

    /// Moves the user's read position to the next record they will read. It never goes back. The
    /// user's other devices are told.
    ///
    /// # Errors
    /// [`NotMember`](crate::Code::NotMember).
    pub async fn set_read(&self, group: GroupId, watermark: Seq) -> Result<(), RequestError> {
        let read = wire::SetRead { group: group.to_wire(), watermark: watermark.get() };
        match self.ask(wire::request::Body::Read(read)).await? {
            wire::response::Body::Done(wire::Done {}) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// How many of a group are online, and which of `users` are.
    ///
    /// # Errors
    /// [`NotMember`](crate::Code::NotMember).
    pub async fn presence(&self, group: GroupId, users: &[UserId]) -> Result<wire::Presence, RequestError> {
        let question = wire::GetPresence { group: group.to_wire(), users: names(users) };
        match self.ask(wire::request::Body::Presence(question)).await? {
            wire::response::Body::Presence(presence) => Ok(presence),
            other => Err(unexpected(&other)),
        }
    }

    /// The node that this client is on.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn status(&self) -> Result<wire::Status, RequestError> {
        match self.ask(wire::request::Body::Status(wire::GetStatus {})).await? {
            wire::response::Body::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// All nodes of the cluster, as the one that this client is on knows them. For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn cluster(&self) -> Result<wire::Cluster, RequestError> {
        match self.ask(wire::request::Body::Cluster(wire::GetCluster {})).await? {
            wire::response::Body::Cluster(cluster) => Ok(cluster),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a node emptied, so that it can be removed, or takes that back. It is done when
    /// [`cluster`](Self::cluster) says so. For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else;
    /// [`BadRequest`](crate::Code::BadRequest) where there is no such node, or no other could take over.
    pub async fn drain_node(&self, node: &str, cancel: bool) -> Result<(), RequestError> {
        let drain = wire::DrainNode { node: node.to_owned(), cancel };
        match self.ask(wire::request::Body::Drain(drain)).await? {
            wire::response::Body::Done(wire::Done {}) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// How a group is cut into sub-groups, how their owners do, and how far a plan has got that changes it.
    /// For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn layout(&self, group: GroupId) -> Result<wire::GroupLayout, RequestError> {
        match self.ask(wire::request::Body::Layout(wire::GetLayout { group: group.to_wire() })).await? {
            wire::response::Body::Layout(layout) => Ok(layout),
            other => Err(unexpected(&other)),
        }
    }

    /// Some of the groups whose layout is being changed: those behind `after`, or the first; at most
    /// `limit`, or as many as there may be where it is 0. For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn plans(&self, after: Option<GroupId>, limit: u32) -> Result<wire::Plans, RequestError> {
        let after = after.map(|after| after.to_wire()).unwrap_or_default();
        match self.ask(wire::request::Body::Plans(wire::GetPlans { after, limit })).await? {
            wire::response::Body::Plans(plans) => Ok(plans),
            other => Err(unexpected(&other)),
        }
    }

    /// The settings by which the node goes that this client is on: at once where `unless` is 0, else once
    /// what is set live is not what this [`live`](wire::Config::live) stands for, or after a few seconds.
    /// For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn config(&self, unless: u64) -> Result<wire::Config, RequestError> {
        match self.ask(wire::request::Body::Config(wire::GetConfig { unless })).await? {
            wire::response::Body::Config(config) => Ok(config),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets a value (as text) for all nodes while they run, or takes it away. For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else;
    /// [`BadRequest`](crate::Code::BadRequest) where nodes could not go by it;
    /// [`Busy`](crate::Code::Busy) where it could not be recorded, though it may have been.
    pub async fn set_config(&self, key: &str, value: Option<&str>) -> Result<(), RequestError> {
        let set = wire::SetConfig { key: key.to_owned(), value: value.map(str::to_owned) };
        match self.ask(wire::request::Body::SetConfig(set)).await? {
            wire::response::Body::Done(wire::Done {}) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What has happened on all nodes, as operators are told: of the nodes in `from` what comes after, of all
    /// others the latest; of each at most `limit`, or as many as there may be where it is 0. Where it is to
    /// `wait`, it is answered once there is something new, or after a few seconds. For administrators.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::Code::NotAllowed) for everybody else.
    pub async fn events(
        &self,
        from: Vec<wire::EventWatermark>,
        limit: u32,
        wait: bool,
    ) -> Result<wire::Events, RequestError> {
        match self.ask(wire::request::Body::Events(wire::GetEvents { from, limit, wait })).await? {
            wire::response::Body::Events(events) => Ok(events),
            other => Err(unexpected(&other)),
        }
    }

    async fn groups_named(
        &self,
        after: Option<GroupId>,
        limit: u32,
        user: String,
    ) -> Result<wire::Groups, RequestError> {
        let after = after.map(GroupId::to_wire).unwrap_or_default();
        match self.ask(wire::request::Body::Groups(wire::GetGroups { after, limit, user })).await? {
            wire::response::Body::Groups(groups) => Ok(groups),
            other => Err(unexpected(&other)),
        }
    }

    async fn change_by(
        &self,
        group: GroupId,
        body: wire::change::Body,
    ) -> Result<wire::Changed, RequestError> {
        self.change(wire::Change { group: group.to_wire(), body: Some(body) }).await
    }

    async fn ask(&self, body: wire::request::Body) -> Result<wire::response::Body, RequestError> {
        request(self.shared(), body, true).await
    }
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}

fn unexpected(answer: &wire::response::Body) -> RequestError {
    let text = format!("{answer:?}");
    RequestError::Broken(format!(
        "another answer than was asked for: {}",
        text.chars().take(80).collect::<String>()
    ))
}
