//! Changes of membership, roles and settings: what is allowed, and what it makes of the rows.
//!
//! Pure: a [`Roster`] holds the rows that a change concerns; deciding on a change edits it and
//! gives the records to write.

mod feature;

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::{Code, Refusal, Seq, UserId, wire};
use wire::{Role, change::Body, member_change::Kind, record};

use super::Actor;
use crate::store::{GroupState, MemberRow};

/// The longest title, in bytes.
const TITLE_BYTES_MAX: usize = 256;

/// What came of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decided {
    /// The records to write, in order, the first at the sequence that was given; none where what
    /// was asked for holds already.
    pub(crate) bodies: Vec<record::Body>,
    /// The record that brought it about, now or before; none where no row tells any more.
    pub(crate) seq: Option<Seq>,
    /// How many members it changes.
    pub(crate) changed: u32,
}

/// The rows that a change concerns, as they stand.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    rows: BTreeMap<UserId, MemberRow>,
    touched: BTreeSet<UserId>,
}

impl Roster {
    /// Takes the rows of those users who have one.
    #[must_use]
    pub(crate) fn new(rows: impl IntoIterator<Item = MemberRow>) -> Self {
        Self { rows: rows.into_iter().map(|row| (row.user.clone(), row)).collect(), touched: BTreeSet::new() }
    }

    /// The rows that were changed, to be written.
    #[must_use]
    pub(crate) fn into_touched(mut self) -> Vec<MemberRow> {
        self.touched.iter().filter_map(|user| self.rows.remove(user)).collect()
    }

    fn role(&self, user: &UserId) -> Role {
        self.rows.get(user).map_or(Role::None, |row| row.role)
    }

    fn member(&self, user: &UserId) -> Option<&MemberRow> {
        self.rows.get(user).filter(|row| row.role != Role::None)
    }

    fn edit(&mut self, user: &UserId, seq: Seq) -> &mut MemberRow {
        self.touched.insert(user.clone());
        let row = self.rows.entry(user.clone()).or_insert_with(|| MemberRow {
            user: user.clone(),
            role: Role::None,
            muted_until_ms: 0,
            banned: false,
            joined: seq,
            changed: seq,
        });
        row.changed = seq;
        row
    }

    fn enter(&mut self, user: &UserId, role: Role, seq: Seq) {
        let row = self.edit(user, seq);
        (row.role, row.joined, row.muted_until_ms) = (role, seq, 0);
    }

    fn is_banned(&self, user: &UserId) -> bool {
        self.rows.get(user).is_some_and(|row| row.banned)
    }
}

/// The users whose rows a change concerns, the actor among them.
///
/// # Errors
/// `BadRequest` for a name that is none, or more of them than `users_max`.
pub(crate) fn concerned(actor: &Actor, change: &Body, users_max: usize) -> Result<Vec<UserId>, Refusal> {
    let names: Vec<&str> = match change {
        Body::Create(create) => create.members.iter().map(String::as_str).collect(),
        Body::Add(add) => add.users.iter().map(String::as_str).collect(),
        Body::Remove(remove) => remove.users.iter().map(String::as_str).collect(),
        Body::Role(role) => vec![&role.user],
        Body::Mute(mute) => vec![&mute.user],
        Body::Ban(ban) => vec![&ban.user],
        Body::Join(_)
        | Body::Leave(_)
        | Body::Settings(_)
        | Body::Close(_)
        | Body::Plan(_)
        | Body::Feature(_) => Vec::new(),
    };
    if names.len() > users_max {
        return Err(bad_request(format!("{} users in one change, {users_max} at most", names.len())));
    }
    let mut users = BTreeSet::from([actor.user.clone()]);
    for name in names {
        users.insert(UserId::new(name).map_err(|error| bad_request(error.to_string()))?);
    }
    Ok(users.into_iter().collect())
}

/// Decides on a change whose first record would stand at `seq`; edits `roster` and `state` only
/// where it is allowed. A group may have so many features.
///
/// # Errors
/// With the code that says what is not allowed.
pub(crate) fn decide(
    actor: &Actor,
    change: &Body,
    roster: &mut Roster,
    state: &mut GroupState,
    seq: Seq,
    features_max: usize,
) -> Result<Decided, Refusal> {
    if let Body::Create(create) = change {
        return decide_create(actor, create, roster, state, seq);
    }
    if seq == Seq::FIRST {
        return Err(Refusal::new(Code::UnknownGroup, "no such group"));
    }
    if state.closed {
        return Err(Refusal::new(Code::GroupClosed, "the group is closed"));
    }
    let mut deciding = Deciding { actor, role: roster.role(&actor.user), roster, state, seq };
    match change {
        Body::Create(_) => unreachable!("decided above"),
        Body::Plan(_) => unreachable!("it changes nothing of the members, and the home decides on it"),
        Body::Join(_) => deciding.join(),
        Body::Leave(_) => deciding.leave(),
        Body::Add(add) => deciding.add(&add.users),
        Body::Remove(remove) => deciding.remove(&remove.users),
        Body::Role(role) => deciding.set_role(&user_of(&role.user)?, role.role()),
        Body::Mute(mute) => deciding.mute(&user_of(&mute.user)?, mute.until_ms),
        Body::Ban(ban) => deciding.ban(&user_of(&ban.user)?, ban.banned),
        Body::Settings(settings) => deciding.set(settings),
        Body::Close(_) => deciding.close(),
        Body::Feature(set) => deciding.set_feature(set, features_max),
    }
}

fn decide_create(
    actor: &Actor,
    create: &wire::Create,
    roster: &mut Roster,
    state: &mut GroupState,
    seq: Seq,
) -> Result<Decided, Refusal> {
    if seq != Seq::FIRST {
        let mine = roster.role(&actor.user) == Role::Owner;
        return if mine {
            Ok(Decided::nothing(Seq::FIRST))
        } else {
            Err(Refusal::new(Code::GroupExists, "a group with this id exists already"))
        };
    }
    let settings = create.settings.clone().unwrap_or_default();
    check_settings(&settings)?;
    let mut others = create.members.iter().map(|name| user_of(name)).collect::<Result<BTreeSet<_>, _>>()?;
    others.remove(&actor.user);
    let members = others.len() as u64 + 1;
    if settings.members_max != 0 && members > settings.members_max {
        return Err(Refusal::new(Code::GroupFull, "more members than the settings allow"));
    }
    let mut changes = vec![enter(&actor.user, Kind::Joined, Role::Owner)];
    roster.enter(&actor.user, Role::Owner, seq);
    for user in &others {
        roster.enter(user, Role::Member, seq);
        changes.push(enter(user, Kind::Added, Role::Member));
    }
    state.members = members;
    state.settings = settings.clone();
    let decided = Decided::members(changes, seq);
    Ok(Decided {
        bodies: decided.bodies.into_iter().chain([record::Body::Settings(settings)]).collect(),
        ..decided
    })
}

/// One change being decided on.
struct Deciding<'a> {
    actor: &'a Actor,
    role: Role,
    roster: &'a mut Roster,
    state: &'a mut GroupState,
    seq: Seq,
}

impl Deciding<'_> {
    fn join(&mut self) -> Result<Decided, Refusal> {
        let user = &self.actor.user;
        if let Some(row) = self.roster.member(user) {
            return Ok(Decided::nothing(row.joined));
        }
        if self.roster.is_banned(user) {
            return Err(Refusal::new(Code::Banned, "you are banned from this group"));
        }
        if !self.state.settings.open && !self.actor.admin {
            return Err(not_allowed("the group is not open: a member must add you"));
        }
        self.check_room(1)?;
        self.roster.enter(user, Role::Member, self.seq);
        self.state.members += 1;
        Ok(Decided::members(vec![enter(user, Kind::Joined, Role::Member)], self.seq))
    }

    fn leave(&mut self) -> Result<Decided, Refusal> {
        let user = &self.actor.user;
        if self.roster.member(user).is_none() {
            return Err(Refusal::new(Code::NotMember, "you are not a member of this group"));
        }
        if self.role == Role::Owner && self.state.members > 1 {
            return Err(not_allowed("make another member the owner before you leave"));
        }
        self.roster.edit(user, self.seq).role = Role::None;
        self.state.members -= 1;
        Ok(Decided::members(vec![plain(user, Kind::Left)], self.seq))
    }

    fn add(&mut self, names: &[String]) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins add members")?;
        let users = names.iter().map(|name| user_of(name)).collect::<Result<BTreeSet<_>, _>>()?;
        let is_new = |user: &&UserId| self.roster.member(user).is_none() && !self.roster.is_banned(user);
        let new: Vec<_> = users.iter().filter(is_new).collect();
        if new.is_empty() {
            let members = users.iter().filter_map(|user| self.roster.member(user));
            return Ok(Decided::nothing(members.map(|row| row.joined).max()));
        }
        self.check_room(new.len() as u64)?;
        for user in &new {
            self.roster.enter(user, Role::Member, self.seq);
        }
        self.state.members += new.len() as u64;
        Ok(Decided::members(
            new.into_iter().map(|user| enter(user, Kind::Added, Role::Member)).collect(),
            self.seq,
        ))
    }

    fn remove(&mut self, names: &[String]) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins remove members")?;
        let users = names.iter().map(|name| user_of(name)).collect::<Result<BTreeSet<_>, _>>()?;
        let gone: Vec<_> = users.iter().filter(|user| self.roster.member(user).is_some()).collect();
        if gone.is_empty() {
            // Most of them have no row any more.
            return Ok(Decided::nothing(None));
        }
        for user in &gone {
            self.must_outrank(user)?;
        }
        for user in &gone {
            self.roster.edit(user, self.seq).role = Role::None;
        }
        self.state.members -= gone.len() as u64;
        Ok(Decided::members(gone.into_iter().map(|user| plain(user, Kind::Removed)).collect(), self.seq))
    }

    fn set_role(&mut self, user: &UserId, role: Role) -> Result<Decided, Refusal> {
        self.must_be(Role::Owner, "only the owner sets roles")?;
        if role == Role::None {
            return Err(bad_request("a role of none is no role: remove the member".into()));
        }
        let held = self.member(user)?.role;
        if held == role {
            return Ok(self.nothing(user));
        }
        if held == Role::Owner {
            return Err(not_allowed("make another member the owner instead"));
        }
        let mut changes = vec![role_changed(user, role)];
        self.roster.edit(user, self.seq).role = role;
        if role == Role::Owner && self.role == Role::Owner {
            // A group has one owner: the one who hands it over stays an admin.
            self.roster.edit(&self.actor.user, self.seq).role = Role::Admin;
            changes.push(role_changed(&self.actor.user, Role::Admin));
        }
        Ok(Decided::members(changes, self.seq))
    }

    fn mute(&mut self, user: &UserId, until_ms: u64) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins mute members")?;
        let held = self.member(user)?.muted_until_ms;
        self.must_outrank(user)?;
        if held == until_ms {
            return Ok(self.nothing(user));
        }
        self.roster.edit(user, self.seq).muted_until_ms = until_ms;
        let kind = if until_ms == 0 { Kind::Unmuted } else { Kind::Muted };
        Ok(Decided::members(vec![wire::MemberChange { until_ms, ..plain(user, kind) }], self.seq))
    }

    fn ban(&mut self, user: &UserId, banned: bool) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins ban users")?;
        self.must_outrank(user)?;
        if self.roster.is_banned(user) == banned {
            return Ok(self.nothing(user));
        }
        if self.roster.member(user).is_some() {
            self.state.members -= 1;
        }
        let row = self.roster.edit(user, self.seq);
        (row.banned, row.role) = (banned, Role::None);
        let kind = if banned { Kind::Banned } else { Kind::Unbanned };
        Ok(Decided::members(vec![plain(user, kind)], self.seq))
    }

    fn set(&mut self, settings: &wire::Settings) -> Result<Decided, Refusal> {
        self.must_be(Role::Admin, "only admins change settings")?;
        check_settings(settings)?;
        self.state.settings = settings.clone();
        Ok(Decided::record(record::Body::Settings(settings.clone()), self.seq))
    }

    fn close(&mut self) -> Result<Decided, Refusal> {
        self.must_be(Role::Owner, "only the owner closes the group")?;
        self.state.closed = true;
        Ok(Decided::record(record::Body::Closed(wire::Closed {}), self.seq))
    }

    fn must_be(&self, least: Role, otherwise: &str) -> Result<(), Refusal> {
        if self.actor.admin || self.role >= least {
            return Ok(());
        }
        if self.role == Role::None {
            return Err(Refusal::new(Code::NotMember, "you are not a member of this group"));
        }
        Err(not_allowed(otherwise))
    }

    fn must_outrank(&self, user: &UserId) -> Result<(), Refusal> {
        if self.actor.admin || self.role > self.roster.role(user) {
            return Ok(());
        }
        Err(not_allowed("their role is not below yours"))
    }

    fn member(&self, user: &UserId) -> Result<&MemberRow, Refusal> {
        self.roster
            .member(user)
            .ok_or_else(|| Refusal::new(Code::NotMember, format!("{user} is not a member of this group")))
    }

    fn check_room(&self, more: u64) -> Result<(), Refusal> {
        let most = self.state.settings.members_max;
        if most != 0 && self.state.members + more > most {
            return Err(Refusal::new(Code::GroupFull, format!("the group has {most} members at most")));
        }
        Ok(())
    }

    /// What was asked for holds already, since the user's row was last changed.
    fn nothing(&self, user: &UserId) -> Decided {
        Decided::nothing(self.roster.rows.get(user).map(|row| row.changed))
    }
}

impl Decided {
    /// What was asked for holds already, since the record at `seq`.
    fn nothing(seq: impl Into<Option<Seq>>) -> Self {
        Self { bodies: Vec::new(), seq: seq.into(), changed: 0 }
    }

    /// One record, at `seq`, that changes no member.
    fn record(body: record::Body, seq: Seq) -> Self {
        Self { bodies: vec![body], seq: Some(seq), changed: 0 }
    }

    fn members(changes: Vec<wire::MemberChange>, seq: Seq) -> Self {
        let changed = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        Self { changed, ..Self::record(record::Body::Members(wire::MemberChanges { changes }), seq) }
    }
}

fn check_settings(settings: &wire::Settings) -> Result<(), Refusal> {
    if settings.title.len() > TITLE_BYTES_MAX {
        return Err(bad_request(format!("a title has {TITLE_BYTES_MAX} bytes at most")));
    }
    Ok(())
}

fn user_of(name: &str) -> Result<UserId, Refusal> {
    UserId::new(name).map_err(|error| bad_request(error.to_string()))
}

fn plain(user: &UserId, kind: Kind) -> wire::MemberChange {
    wire::MemberChange { user: user.to_string(), kind: kind.into(), ..wire::MemberChange::default() }
}

fn enter(user: &UserId, kind: Kind, role: Role) -> wire::MemberChange {
    wire::MemberChange { role: role.into(), ..plain(user, kind) }
}

fn role_changed(user: &UserId, role: Role) -> wire::MemberChange {
    enter(user, Kind::RoleChanged, role)
}

fn bad_request(reason: String) -> Refusal {
    Refusal::new(Code::BadRequest, reason)
}

fn not_allowed(reason: &str) -> Refusal {
    Refusal::new(Code::NotAllowed, reason)
}
