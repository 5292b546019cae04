//! What users ask about: history, members, their groups, what they have read. Each answer is
//! bounded and comes from the store, so that no home need be awake for it.

mod history;

mod layouts;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use shoal_protocol::{Code, GroupId, Refusal, SLOTS, Seq, Slot, UserId, wire};
use wire::{request::Body as Asked, response::Body as Answer};

use super::{Actor, Groups, activation::refusal, bad_request};
use crate::{
    config::{Current, ViewLimits},
    store::{CursorRaise, Cursors, GroupRow, MemberRow, Store},
};

/// Pages of members fetched for one answer, where those who are banned are left out of it.
const MEMBER_FETCHES_MAX: usize = 8;

/// Answers requests that are about what is stored. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Views {
    groups: Groups,
    limits: Current<ViewLimits>,
}

impl Views {
    /// Views of the groups of this node.
    #[must_use]
    pub fn new(groups: Groups, limits: impl Into<Current<ViewLimits>>) -> Self {
        Self { groups, limits: limits.into() }
    }

    /// Answers a request of this user; a refusal is an answer too. Dropping the future leaves it
    /// open whether a change is carried out.
    pub async fn answer(&self, actor: &Actor, request: wire::Request) -> wire::Response {
        let answered = match request.body {
            Some(Asked::History(get)) => self.history(actor, get).await.map(Answer::History),
            Some(Asked::Members(get)) => self.members(actor, get).await.map(Answer::Members),
            Some(Asked::Groups(get)) => self.groups(actor, get).await.map(Answer::Groups),
            Some(Asked::Group(get)) => self.group(actor, get).await.map(Answer::Group),
            Some(Asked::Read(set)) => self.set_read(actor, set).await.map(Answer::Done),
            Some(Asked::Change(change)) => {
                self.groups.change(actor.clone(), change).await.map(Answer::Changed)
            }
            Some(
                Asked::Incarnation(_)
                | Asked::Presence(_)
                | Asked::Status(_)
                | Asked::Cluster(_)
                | Asked::Drain(_)
                | Asked::Config(_)
                | Asked::SetConfig(_)
                | Asked::Layout(_)
                | Asked::Plans(_)
                | Asked::Events(_),
            ) => Err(bad_request("a session answers this itself")),
            None => Err(bad_request("a request asks for something")),
        };
        let body = answered.unwrap_or_else(|refusal| Answer::Failure(refusal.into()));
        wire::Response { body: Some(body) }
    }

    async fn group(&self, actor: &Actor, get: wire::GetGroup) -> Result<wire::Group, Refusal> {
        let group = id(&get.group)?;
        let me = self.groups.authorize(actor, group).await?;
        let mut row = self.row(group).await?;
        let features = row.state.features.take().map(|features| *features);
        let cursors = self.store().cursors(&actor.user, &[group]).await.map_err(refusal)?;
        let seen = seen_by(group, row, me, cursors.first().copied().unwrap_or_default());
        Ok(wire::Group { features: Some(features.unwrap_or_default()), ..seen })
    }

    /// The groups of a user: their own, or anybody's for an administrator of the service.
    async fn groups(&self, actor: &Actor, get: wire::GetGroups) -> Result<wire::Groups, Refusal> {
        let user = match get.user.as_str() {
            "" => actor.user.clone(),
            name => UserId::new(name).map_err(bad_request)?,
        };
        if user != actor.user && !actor.admin {
            return Err(Refusal::new(Code::NotAllowed, "these are another user's groups"));
        }
        let after = if get.after.is_empty() { None } else { Some(id(&get.after)?) };
        let limit = bounded(get.limit, self.limits.load().groups_max);
        let mut ids = self.store().groups_of(&user, after, limit.saturating_add(1)).await.map_err(refusal)?;
        let is_last = ids.len() <= limit;
        ids.truncate(limit);
        let next = ids.last().filter(|_| !is_last).map(|id| id.to_wire()).unwrap_or_default();
        let cursors = self.store().cursors(&user, &ids).await.map_err(refusal)?;
        let mut groups = Vec::with_capacity(ids.len());
        for (group, cursors) in ids.into_iter().zip(cursors) {
            let rows = self.store().members(group, std::slice::from_ref(&user)).await.map_err(refusal)?;
            let me = rows.into_iter().flatten().find(|row| row.role != wire::Role::None);
            // A user who has just left is no member any more.
            if let Some(me) = me {
                groups.push(seen_by(group, self.row(group).await?, me, cursors));
            }
        }
        Ok(wire::Groups { groups, next })
    }

    /// Members by page; those banned are shown to those who may lift it.
    async fn members(&self, actor: &Actor, get: wire::GetMembers) -> Result<wire::Members, Refusal> {
        let group = id(&get.group)?;
        let me = self.groups.authorize(actor, group).await?;
        let shows_banned = actor.admin || matches!(me.role, wire::Role::Admin | wire::Role::Owner);
        let limit = bounded(get.limit, self.limits.load().members_max);
        let mut after = get.after.map(position).transpose()?;
        let mut members = Vec::new();
        for _ in 0..MEMBER_FETCHES_MAX {
            let wanted = limit - members.len();
            let page =
                self.store().members_page(group, 0..SLOTS, after.clone(), wanted).await.map_err(refusal)?;
            let is_last = page.len() < wanted;
            after = page.last().map(|row| (Slot::of(&row.user), row.user.clone())).or(after);
            let shown = page.into_iter().filter(|row| shows_banned || row.role != wire::Role::None);
            members.extend(shown.map(member));
            if is_last {
                return Ok(wire::Members { members, next: None });
            }
            if members.len() >= limit {
                break;
            }
        }
        let next = after
            .map(|(slot, user)| wire::MemberPosition { slot: slot.number().into(), user: user.to_string() });
        Ok(wire::Members { members, next })
    }

    /// Raises the user's read position and tells their other devices.
    ///
    /// They are told first: where that fails nothing has changed, and the client's next attempt
    /// does all of it. Told twice does no harm, since a position only rises.
    async fn set_read(&self, actor: &Actor, set: wire::SetRead) -> Result<wire::Done, Refusal> {
        let group = id(&set.group)?;
        let watermark = Seq::new(set.watermark).ok_or_else(|| bad_request("positions begin at 1"))?;
        let me = self.groups.authorize(actor, group).await?;
        if me.role == wire::Role::None {
            return Err(Refusal::new(Code::NotMember, "only members have a read position"));
        }
        let tail = self.row(group).await?.tail;
        if watermark > tail {
            let reason = format!("nothing stands at {watermark} yet: the tail is {tail}");
            return Err(Refusal::new(Code::WatermarkAhead, reason));
        }
        let cursors = self.store().cursors(&actor.user, &[group]).await.map_err(refusal)?;
        if cursors.first().and_then(|cursors| cursors.read).is_some_and(|read| read >= watermark) {
            return Ok(wire::Done {});
        }
        // A notice about a user's own sequence would itself have to be read.
        if !group.is_own() {
            let what = wire::notice::What::Read(wire::notice::Read { watermark: watermark.get() });
            let notice = wire::Notice { group: group.to_wire(), what: Some(what), group_seq: 0 };
            self.groups.notify(&actor.user, notice).await?;
        }
        let cursors = Cursors { read: Some(watermark), delivered: None };
        let raise = CursorRaise { user: actor.user.clone(), group, cursors };
        self.store().raise_cursors(vec![raise]).await.map_err(refusal)?;
        Ok(wire::Done {})
    }

    /// The group's row; that of an empty sequence where a user has not been told anything yet.
    async fn row(&self, group: GroupId) -> Result<GroupRow, Refusal> {
        match self.store().group(group).await.map_err(refusal)? {
            Some(row) => Ok(row),
            None if group.is_own() => Ok(GroupRow {
                epoch: crate::store::Epoch::default(),
                tail: Seq::FIRST,
                incarnation: 0,
                state: crate::store::GroupState::new(0),
            }),
            None => Err(Refusal::new(Code::UnknownGroup, "no such group")),
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.groups.store()
    }
}

/// A group as its member `me` sees it. Nothing before their join was theirs to read.
fn seen_by(group: GroupId, row: GroupRow, me: MemberRow, cursors: Cursors) -> wire::Group {
    let read = cursors.read.map_or(me.joined, |read| read.max(me.joined));
    let layout = row.state.layout.as_deref();
    wire::Group {
        group: group.to_wire(),
        sub_groups: layout.map_or(1, |layout| u32::try_from(layout.partitions.len()).unwrap_or(u32::MAX)),
        layout_version: layout.map_or(0, |layout| layout.version),
        settings: Some(row.state.settings),
        tail: row.tail.get(),
        members: row.state.members,
        closed: row.state.closed,
        read: read.get(),
        delivered: cursors.delivered.map_or(0, Seq::get),
        unread: if me.role == wire::Role::None { 0 } else { row.tail.since(read) },
        created_ms: row.state.created_ms,
        me: Some(member(me)),
        features: None,
    }
}

fn member(row: MemberRow) -> wire::Member {
    wire::Member {
        user: row.user.to_string(),
        role: row.role.into(),
        muted_until_ms: row.muted_until_ms,
        joined_seq: row.joined.get(),
        changed_seq: row.changed.get(),
        banned: row.banned,
    }
}

fn position(position: wire::MemberPosition) -> Result<(Slot, UserId), Refusal> {
    let slot = u16::try_from(position.slot).ok().and_then(Slot::new);
    let slot = slot.ok_or_else(|| bad_request("there is no such slot"))?;
    Ok((slot, UserId::new(position.user).map_err(bad_request)?))
}

fn id(bytes: &[u8]) -> Result<GroupId, Refusal> {
    GroupId::from_wire(bytes).map_err(bad_request)
}

/// As many as asked for; 0 asks for as many as there may be.
fn bounded(asked: u32, max: usize) -> usize {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => max,
        asked => asked.min(max),
    }
}
