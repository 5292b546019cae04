//! How many sub-groups a group is to have, by the members it has and is about to have.

use std::time::Duration;

use shoal_protocol::SLOTS;

/// Growth is measured over at least so long.
const SAMPLE: Duration = Duration::from_secs(1);

/// A prediction is never more than so many times what is there.
const TIMES_MAX: u64 = 8;

/// How many sub-groups a group of so many members is to have, of which it has `now`; none where
/// these will do. Each has room for `target`; a group is cut before they are full, and grown thin
/// before it is put together, so that a member more or less changes nothing. One that is cut is cut
/// for as many as are `expected` once that is done. There are never fewer than `least`.
#[must_use]
pub(crate) fn wanted(members: u64, expected: u64, now: usize, target: u64, least: u16) -> Option<u16> {
    let target = target.max(1);
    let full = members.saturating_mul(10) > (now as u64).saturating_mul(target.saturating_mul(9));
    let most = members.max(expected);
    let thin = most.saturating_mul(10) < (now as u64).saturating_mul(target.saturating_mul(3));
    let least = least.max(1);
    if !(full || thin && now > usize::from(least)) {
        return None;
    }
    let wanted = sub_groups(if full { most } else { members }, target).max(least);
    (usize::from(wanted) != now).then_some(wanted)
}

/// With so many sub-groups, each is seven tenths full.
#[must_use]
pub(crate) fn sub_groups(members: u64, target: u64) -> u16 {
    let wanted = members.saturating_mul(10).div_ceil(target.max(1).saturating_mul(7));
    u16::try_from(wanted).unwrap_or(SLOTS).clamp(1, SLOTS)
}

/// How fast a group grows.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    since: Option<(Duration, u64)>,
    per_second: f64,
}

impl Growth {
    /// So many members now.
    pub(crate) fn observe(&mut self, members: u64, now: Duration) {
        let Some((at, before)) = self.since else {
            self.since = Some((now, members));
            return;
        };
        let elapsed = now.saturating_sub(at);
        if elapsed >= SAMPLE {
            let gained = members as f64 - before as f64;
            // What was long ago counts for little: half, or less where the last sample is old.
            let latest = gained / elapsed.as_secs_f64();
            self.per_second = if elapsed > SAMPLE * 8 { latest } else { (self.per_second + latest) / 2.0 };
            self.since = Some((now, members));
        }
    }

    /// How many there will be after a time, if it goes on like this; up to eight times as many.
    #[must_use]
    pub(crate) fn expected(&self, members: u64, ahead: Duration) -> u64 {
        let gain = self.per_second * ahead.as_secs_f64();
        // A float that is negative or too large becomes the nearest there is.
        let gain = gain as u64;
        members.saturating_add(gain).min(members.saturating_mul(TIMES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_is_cut_before_its_sub_groups_are_full() {
        let wanted = |members, now, target| wanted(members, members, now, target, 0);
        assert_eq!(wanted(900, 1, 1000), None);
        assert_eq!(wanted(901, 1, 1000), Some(2));
        assert_eq!(wanted(2_000, 1, 1000), Some(3));
        assert_eq!(wanted(1_300, 3, 1000), None);
        assert_eq!(wanted(900, 3, 1000), None);
        assert_eq!(wanted(899, 3, 1000), Some(2));
        assert_eq!(wanted(0, 2, 1000), Some(1));
        assert_eq!(wanted(u64::MAX, 3, 1000), Some(SLOTS));
    }

    #[test]
    fn one_that_grows_fast_is_cut_for_what_it_will_be() {
        assert_eq!(wanted(901, 6_000, 1, 1000, 0), Some(9));
        assert_eq!(wanted(800, 6_000, 1, 1000, 0), None, "not before it is full");
        assert_eq!(wanted(100, 6_000, 3, 1000, 0), None, "and not put together meanwhile");
    }

    #[test]
    fn one_that_is_to_have_so_many_keeps_them() {
        assert_eq!(wanted(10, 10, 5, 1000, 5), None);
        assert_eq!(wanted(10, 10, 9, 1000, 5), Some(5));
        assert_eq!(wanted(10, 10, 9, 1000, 0), Some(1));
        assert_eq!(wanted(1_000, 1_000, 1, 1000, 5), Some(5));
    }

    #[test]
    fn growth_is_what_the_last_seconds_were() {
        let second = Duration::from_secs;
        let mut growth = Growth::default();
        for at in 0..20 {
            growth.observe(1_000 + at * 100, second(at));
        }
        let near = |expected: u64, wanted: u64| expected.abs_diff(wanted) <= 2;
        assert!(near(growth.expected(2_900, second(10)), 3_900), "{growth:?}");
        assert_eq!(growth.expected(10, second(10)), 80, "up to eight times");
        for at in 20..40 {
            growth.observe(2_900 - (at - 20) * 100, second(at));
        }
        assert_eq!(growth.expected(1_000, second(10)), 1_000, "one that shrinks is not expected to grow");
        growth.observe(1_000, second(100));
        assert_eq!(growth.expected(1_000, second(10)), 1_000);
    }

    proptest! {
        /// After a cut, a tenth of the members more or less changes nothing: no flapping, whatever the
        /// members do meanwhile.
        #[test]
        fn a_group_that_was_just_cut_is_left_alone(target in 1_u64..2_000, now in 1_usize..200, members: u32) {
            let members = u64::from(members) % (target * 300);
            if let Some(then) = wanted(members, members, now, target, 0) {
                for near in [members - members / 10, members, members + members / 10] {
                    let again = wanted(near, near, then.into(), target, 0);
                    prop_assert_eq!(again, None, "{} in {}, then {} in {}", members, now, near, then);
                }
            }
        }
    }
}
