//! Who follows a group, and what several nodes' answers come to.

use std::collections::BTreeSet;

use shoal_protocol::{UserId, wire};

/// Who follows a group, on a node or on several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attendance {
    /// How many sessions.
    pub(crate) sessions: u64,
    /// Whose they are; where they are too many, only those who were asked for by name, and perhaps more.
    pub(crate) users: BTreeSet<UserId>,
    /// Everybody is among the users.
    pub(crate) is_complete: bool,
}

impl Default for Attendance {
    /// Nobody.
    fn default() -> Self {
        Self::small(0, [])
    }
}

impl Attendance {
    /// All by name.
    pub(super) fn small(sessions: u64, users: impl IntoIterator<Item = UserId>) -> Self {
        Self { sessions, users: users.into_iter().collect(), is_complete: true }
    }

    /// So many, and some by name.
    pub(super) fn large(sessions: u64, users: impl IntoIterator<Item = UserId>) -> Self {
        Self { sessions, users: users.into_iter().collect(), is_complete: false }
    }

    /// How many are there: users, or sessions where these are too many.
    pub(crate) fn online(&self) -> u64 {
        if self.is_complete { self.users.len() as u64 } else { self.sessions }
    }

    /// These, and those on another node.
    pub(super) fn and(mut self, other: Self, sessions_max: usize) -> Self {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.join(other, sessions_max)
    }

    /// These, among whom the others may be already.
    pub(super) fn or(mut self, other: Self, sessions_max: usize) -> Self {
        self.sessions = self.sessions.max(other.sessions);
        self.join(other, sessions_max)
    }

    fn join(mut self, other: Self, sessions_max: usize) -> Self {
        self.users.extend(other.users);
        self.is_complete &= other.is_complete && self.sessions <= sessions_max as u64;
        self
    }

    pub(super) fn to_wire(&self) -> wire::Attendance {
        let users = self.users.iter().map(ToString::to_string).collect();
        wire::Attendance { sessions: self.sessions, users, complete: self.is_complete }
    }

    /// None where it makes no sense.
    pub(super) fn from_wire(wire: wire::Attendance) -> Option<Self> {
        let users = wire.users.into_iter().map(UserId::new).collect::<Result<_, _>>().ok()?;
        Some(Self { sessions: wire.sessions, users, is_complete: wire.complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> BTreeSet<UserId> {
        names.iter().map(|name| UserId::new(*name).unwrap()).collect()
    }

    #[test]
    fn a_user_who_is_on_two_nodes_is_online_once() {
        let all = Attendance::small(2, users(&["ann", "bob"])).and(Attendance::small(1, users(&["ann"])), 3);
        assert_eq!((all.sessions, all.online(), all.is_complete), (3, 2, true));
    }

    #[test]
    fn three_small_nodes_may_make_a_large_group() {
        let few = || Attendance::small(2, users(&["ann", "bob"]));
        let all = few().and(few(), 5).and(few(), 5);
        assert_eq!((all.sessions, all.online(), all.is_complete), (6, 6, false));
        let large = Attendance::large(9, users(&["eve"]));
        let all = few().and(large, 20);
        assert_eq!((all.online(), all.is_complete), (11, false), "one of them does not name all");
        assert!(all.users.is_superset(&users(&["eve"])));
    }

    #[test]
    fn those_who_have_just_come_here_are_not_counted_twice() {
        let everywhere = Attendance::small(2, users(&["ann", "bob"]));
        let all = everywhere.or(Attendance::small(1, users(&["eve"])), 9);
        assert_eq!((all.sessions, all.online()), (2, 3));
    }

    #[test]
    fn an_answer_comes_through_the_wire_and_nonsense_does_not() {
        let large = Attendance::large(9, users(&["eve"]));
        assert_eq!(Attendance::from_wire(large.to_wire()), Some(large));
        let nonsense = wire::Attendance { users: vec!["Not A Name".into()], ..wire::Attendance::default() };
        assert_eq!(Attendance::from_wire(nonsense), None);
    }
}
