//! Do messages wait too long to be judged? Then the group is to have more owners.

use std::time::Duration;

use shoal_protocol::SLOTS;

/// A group is lively by so many messages between two looks; owners of others are not asked.
const LIVELY: u32 = 100;

/// Looks are no closer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks that are further apart than that have nothing to do with each other.
const TOGETHER: Duration = Duration::from_secs(4);

/// So many looks in a row find it late before more owners are wanted.
const LATE_LOOKS: u32 = 3;

/// What was too slow is cut into so many times more,
const TIMES: u16 = 2;

/// and into no more than so many times what its members ask for.
const TIMES_MAX: u16 = 8;

/// It keeps them until it has not been lively for so long.
const KEPT: Duration = Duration::from_secs(600);

/// How long messages of a group wait for their owners.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Since the last look.
    messages: u32,
    look_at: Option<Duration>,
    looked: Option<Duration>,
    /// Somebody has said since the last look that messages wait too long.
    is_late: bool,
    late_looks: u32,
}

impl Backlog {
    /// A message has come.
    pub(crate) fn handle_message(&mut self, now: Duration) {
        self.messages = self.messages.saturating_add(1);
        if self.messages == LIVELY {
            self.look_at = Some(self.looked.map_or(now, |looked| now.max(looked + LOOK_EVERY)));
        }
    }

    /// When [`Self::look`] is due.
    pub(crate) fn look_at(&self) -> Option<Duration> {
        self.look_at
    }

    /// It is time to ask owners how long messages wait with them. Have they been late for too long?
    pub(crate) fn look(&mut self, now: Duration) -> bool {
        let is_apart = self.looked.is_none_or(|looked| now.saturating_sub(looked) > TOGETHER);
        self.late_looks = if self.is_late && !is_apart { self.late_looks + 1 } else { 0 };
        (self.messages, self.look_at, self.looked, self.is_late) = (0, None, Some(now), false);
        self.late_looks >= LATE_LOOKS
    }

    /// With an owner a message has waited so long.
    pub(crate) fn handle_wait(&mut self, waited: Duration, max: Duration) {
        self.is_late |= waited > max;
    }

    /// Into how many sub-groups it is to be cut, where its members ask for `by_size`; none where it has as
    /// many as may be.
    pub(crate) fn relieve(&mut self, sub_groups: usize, by_size: u16) -> Option<u16> {
        let most = by_size.saturating_mul(TIMES_MAX).min(SLOTS);
        let wanted = u16::try_from(sub_groups).unwrap_or(SLOTS).saturating_mul(TIMES).min(most);
        self.late_looks = 0;
        (usize::from(wanted) > sub_groups).then_some(wanted)
    }

    /// Until when it keeps what it got so long ago: for a while, and for a while after it was lively.
    pub(crate) fn kept_until(&self, got_ago: Duration, now: Duration) -> Option<Duration> {
        let got = KEPT.checked_sub(got_ago).map(|left| now + left);
        let lively = self.looked.map(|looked| looked + KEPT);
        got.max(lively).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(500);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// So many messages, then the look that is due, then an owner with whom one waited so long.
    fn second(backlog: &mut Backlog, at: u64, messages: u32, waited: Duration) -> Option<bool> {
        (0..messages).for_each(|_| backlog.handle_message(s(at)));
        let look_at = backlog.look_at()?;
        let found = backlog.look(look_at);
        backlog.handle_wait(waited, MAX);
        Some(found)
    }

    #[test]
    fn one_that_is_late_again_and_again_is_cut_into_more() {
        let mut backlog = Backlog::default();
        let looks: Vec<_> = (0..4).map(|at| second(&mut backlog, at, LIVELY, MAX * 2)).collect();
        assert_eq!(looks, [Some(false), Some(false), Some(false), Some(true)]);
        assert_eq!(backlog.relieve(3, 3), Some(6));
        assert_eq!(second(&mut backlog, 4, LIVELY, MAX * 2), Some(false), "it begins anew");
    }

    #[test]
    fn one_that_is_in_time_now_and_then_is_left_alone() {
        let mut backlog = Backlog::default();
        for at in 0..30 {
            let waited = if at % 3 == 0 { MAX } else { MAX * 2 };
            assert_eq!(second(&mut backlog, at, LIVELY * 3, waited), Some(false), "at {at}");
        }
    }

    #[test]
    fn owners_of_a_quiet_group_are_not_asked_and_those_of_a_lively_one_once_a_second() {
        let mut backlog = Backlog::default();
        assert_eq!(second(&mut backlog, 0, LIVELY - 1, s(9)), None);
        assert_eq!(second(&mut backlog, 0, 1, s(9)), Some(false));
        (0..LIVELY * 9).for_each(|_| backlog.handle_message(s(0)));
        assert_eq!(backlog.look_at(), Some(LOOK_EVERY));
    }

    #[test]
    fn looks_that_are_far_apart_do_not_add_up() {
        let mut backlog = Backlog::default();
        for at in 0..9 {
            assert_eq!(second(&mut backlog, at * 5, LIVELY, MAX * 2), Some(false));
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut backlog = Backlog::default();
        let mut sub_groups = 1;
        while let Some(more) = backlog.relieve(sub_groups, 2) {
            assert!(usize::from(more) > sub_groups);
            sub_groups = more.into();
        }
        assert_eq!(sub_groups, usize::from(2 * TIMES_MAX));
        assert_eq!(Backlog::default().relieve(usize::from(SLOTS), SLOTS), None);
    }

    #[test]
    fn what_it_got_is_kept_while_it_is_lively_and_for_a_while_after() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.kept_until(s(100), s(9)), Some(s(9) + KEPT - s(100)), "also with another home");
        assert_eq!(backlog.kept_until(KEPT, s(9)), None);
        second(&mut backlog, 500, LIVELY, MAX);
        assert_eq!(backlog.kept_until(KEPT * 2, s(900)), Some(s(500) + KEPT));
        assert_eq!(backlog.kept_until(KEPT * 2, s(500) + KEPT), None);
    }
}
