//! Whom the home has changed of late, so that an owner's opinion from before does not count.

use std::collections::{BTreeMap, VecDeque};

use shoal_protocol::{Seq, UserId};

/// Users who are remembered by name: more than one record changes.
const USERS_MAX: usize = 16_384;

/// The users whom the latest records have changed. Of the records before these nothing is known: an
/// opinion from before one of them may be of somebody whom it changed.
#[derive(Debug)]
pub(super) struct Recent {
    users: BTreeMap<UserId, Seq>,
    changes: VecDeque<(Seq, UserId)>,
    /// Every opinion from before here is out of date.
    floor: Seq,
}

impl Recent {
    /// Knows nothing of the records below `tail`.
    pub(super) fn new(tail: Seq) -> Self {
        Self { users: BTreeMap::new(), changes: VecDeque::new(), floor: tail }
    }

    /// The record at `seq` changes a user. Records come in order.
    pub(super) fn changed(&mut self, user: UserId, seq: Seq) {
        self.users.insert(user.clone(), seq);
        self.changes.push_back((seq, user));
        while self.changes.len() > USERS_MAX
            && let Some((seq, user)) = self.changes.pop_front()
        {
            self.floor = self.floor.max(seq.next());
            if self.users.get(&user) == Some(&seq) {
                self.users.remove(&user);
            }
        }
    }

    /// Where the owner is to have got before its opinion of this user counts; none where the one
    /// it had `as_of` some place does.
    pub(super) fn stale_until(&self, user: &UserId, as_of: Seq) -> Option<Seq> {
        let changed = self.users.get(user).map(|changed| changed.next());
        changed.max(Some(self.floor)).filter(|needed| *needed > as_of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(number: u16) -> UserId {
        UserId::new(format!("u{number}")).unwrap()
    }

    #[test]
    fn an_opinion_counts_if_it_is_of_after_the_last_change_of_its_user() {
        let seq = |number| Seq::new(number).unwrap();
        let mut recent = Recent::new(seq(10));
        assert_eq!(recent.stale_until(&user(1), seq(9)), Some(seq(10)), "from before this home");
        assert_eq!(recent.stale_until(&user(1), seq(10)), None);
        recent.changed(user(1), seq(12));
        assert_eq!(recent.stale_until(&user(1), seq(12)), Some(seq(13)));
        assert_eq!(recent.stale_until(&user(1), seq(13)), None);
        assert_eq!(recent.stale_until(&user(2), seq(10)), None, "another is none of its business");
    }

    proptest! {
        /// However many are forgotten, no opinion from before its user's last change counts.
        #[test]
        fn what_is_forgotten_is_taken_for_a_change(users in prop::collection::vec(0_u16..24_000, 1..36_000)) {
            let mut recent = Recent::new(Seq::FIRST);
            let mut last = BTreeMap::new();
            let at = |index: usize| Seq::FIRST.advance(index as u64 / 100);
            for (index, number) in users.iter().enumerate() {
                recent.changed(user(*number), at(index));
                last.insert(*number, at(index));
            }
            for (number, seq) in last {
                prop_assert!(recent.stale_until(&user(number), seq).is_some_and(|needed| needed > seq));
                prop_assert_eq!(recent.stale_until(&user(number), at(users.len()).next()), None);
            }
            prop_assert!(recent.changes.len() <= USERS_MAX && recent.users.len() <= USERS_MAX);
        }
    }
}
