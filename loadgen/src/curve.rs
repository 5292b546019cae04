//! A curve: how many members a group has, and how much they say, at each moment of a run.
//!
//! Pure. It is a line through points. What everybody gets of it is bounded: the more members there are,
//! the fewer messages a second, for each goes to all of them; and the fewer changes of membership, as
//! long as these do.

use std::time::Duration;

/// Members and messages at the beginning of each hour of a day, in percent of its peak: few at night,
/// more at noon, most in the evening.
pub const DAY_MEMBERS: [f64; HOURS] = [
    22.0, 15.0, 11.0, 9.0, 9.0, 12.0, 20.0, 34.0, 48.0, 56.0, 60.0, 63.0, //
    70.0, 66.0, 62.0, 61.0, 64.0, 70.0, 78.0, 88.0, 97.0, 100.0, 80.0, 45.0,
];
/// The same of messages, which swing more widely than those who write them.
pub const DAY_MESSAGES: [f64; HOURS] = [
    18.0, 10.0, 7.0, 5.0, 5.0, 8.0, 18.0, 38.0, 55.0, 62.0, 64.0, 66.0, //
    80.0, 68.0, 60.0, 60.0, 64.0, 74.0, 82.0, 92.0, 100.0, 95.0, 65.0, 36.0,
];
/// Of a day.
pub const HOURS: usize = 24;

/// How exactly messages are due at their moment.
const GRAIN: Duration = Duration::from_millis(5);
/// Records that a change of membership makes at most: one joins by itself and others are added, one
/// leaves and others are removed.
const RECORDS_PER_CHANGE: f64 = 4.0;
/// Members of a group who are each told of every change, as nodes have it by themselves; where they are
/// more, none is.
const ANNOUNCED_MEMBERS_MAX: f64 = 1_000.0;
/// The shortest time between two changes.
const CHANGE_EVERY_MIN: Duration = Duration::from_millis(500);

/// How many are there and how much they say.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// In order of time, the first at zero.
    points: Vec<Point>,
    deliveries_per_second_max: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    at: Duration,
    members: f64,
    messages_per_second: f64,
}

impl Curve {
    /// From some members to others over a time, so many for a while, and back again over a time (or not),
    /// with as long a while to see what becomes of it.
    #[must_use]
    pub fn grow(from: u32, to: u32, over: Duration, hold: Duration, back_over: Option<Duration>) -> Self {
        let mut points = vec![];
        let mut at = Duration::ZERO;
        let mut pass = |time: Duration, members: u32| {
            at += time;
            points.push(Point { at, members: members.into(), messages_per_second: f64::INFINITY });
        };
        pass(Duration::ZERO, from);
        pass(over, to);
        pass(hold, to);
        if let Some(back_over) = back_over {
            pass(back_over, from);
            pass(hold, from);
        }
        Self { points, deliveries_per_second_max: f64::INFINITY }
    }

    /// A day, compressed into `over`: percents of `members` and of `messages_per_second` at each hour.
    #[must_use]
    pub fn day(
        members: u32,
        messages_per_second: f64,
        over: Duration,
        member_percents: &[f64; HOURS],
        message_percents: &[f64; HOURS],
    ) -> Self {
        let point = |hour: usize| Point {
            at: over * hour as u32 / HOURS as u32,
            members: (f64::from(members) * member_percents[hour % HOURS] / 100.0).max(1.0),
            messages_per_second: messages_per_second * message_percents[hour % HOURS] / 100.0,
        };
        Self { points: (0..=HOURS).map(point).collect(), deliveries_per_second_max: f64::INFINITY }
    }

    /// With so many messages a second at most, and so many deliveries of them.
    #[must_use]
    pub fn at_most(mut self, messages_per_second: f64, deliveries_per_second: f64) -> Self {
        for point in &mut self.points {
            point.messages_per_second = point.messages_per_second.min(messages_per_second);
        }
        self.deliveries_per_second_max = deliveries_per_second;
        self
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.points.last().map_or(Duration::ZERO, |last| last.at)
    }

    /// How many members there are to be.
    #[must_use]
    pub fn members(&self, at: Duration) -> u32 {
        self.between(at, |point| point.members).round() as u32
    }

    /// The most members there are to be.
    #[must_use]
    pub fn members_max(&self) -> u32 {
        self.points.iter().map(|point| point.members.round() as u32).max().unwrap_or(0)
    }

    /// How many messages a second.
    #[must_use]
    pub fn messages_per_second(&self, at: Duration) -> f64 {
        let most = self.deliveries_per_second_max / self.between(at, |point| point.members).max(1.0);
        self.between(at, |point| point.messages_per_second).min(most)
    }

    /// How long to gather those who come and go before the next change of membership.
    #[must_use]
    pub fn change_every(&self, at: Duration) -> Duration {
        let told = self.between(at, |point| point.members).min(ANNOUNCED_MEMBERS_MAX);
        let deliveries = RECORDS_PER_CHANGE * told;
        Duration::from_secs_f64(deliveries / self.deliveries_per_second_max).max(CHANGE_EVERY_MIN)
    }

    /// The moments at which messages are due, in order, whatever becomes of those before.
    pub fn messages(&self) -> impl Iterator<Item = Duration> + use<> {
        let (curve, length) = (self.clone(), self.length());
        let (mut at, mut due) = (Duration::ZERO, 0.0);
        std::iter::from_fn(move || {
            while due < 1.0 {
                if at >= length {
                    return None;
                }
                due += curve.messages_per_second(at) * GRAIN.as_secs_f64();
                at += GRAIN;
            }
            due -= 1.0;
            Some(at)
        })
    }

    /// On the line through the points around a moment.
    fn between(&self, at: Duration, value: impl Fn(&Point) -> f64) -> f64 {
        let after = self.points.partition_point(|point| point.at <= at);
        let (Some(from), to) = (self.points[..after].last(), self.points.get(after)) else {
            return 0.0;
        };
        let Some(to) = to else { return value(from) };
        let share = (at - from.at).as_secs_f64() / (to.at - from.at).as_secs_f64();
        let (from, to) = (value(from), value(to));
        // Of two that have no bound there is no difference.
        if from == to { from } else { from + (to - from) * share }
    }
}

/// How many of those `present` are to leave, where there are to be `wanted` and so many are `coming`, and
/// `turnover` are to be replaced by others. One at least stays, so that somebody can talk.
#[must_use]
pub fn leavers(wanted: u32, present: u32, coming: u32, turnover: u32) -> u32 {
    let too_many = present.saturating_add(coming).saturating_sub(wanted);
    too_many.saturating_add(turnover).min(present.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_group_grows_holds_and_shrinks() {
        let curve = Curve::grow(10, 110, s(100), s(10), Some(s(50)));
        assert_eq!((curve.length(), curve.members_max()), (s(170), 110));
        let members = [0, 50, 100, 105, 110, 135, 160, 165, 1000].map(|at| curve.members(s(at)));
        assert_eq!(members, [10, 60, 110, 110, 110, 60, 10, 10, 10]);
        let stays = Curve::grow(10, 110, s(100), s(10), None);
        assert_eq!((stays.length(), stays.members(s(200))), (s(110), 110));
    }

    #[test]
    fn a_step_is_a_curve_too() {
        let curve = Curve::grow(10, 110, s(0), s(10), Some(s(0)));
        assert_eq!([0, 9, 10, 20].map(|at| curve.members(s(at))), [110, 110, 10, 10]);
    }

    #[test]
    fn a_day_ends_as_it_began_and_has_its_peaks_where_they_are_said_to_be() {
        let curve = Curve::day(1000, 50.0, s(240), &DAY_MEMBERS, &DAY_MESSAGES);
        assert_eq!((curve.length(), curve.members_max()), (s(240), 1000));
        assert_eq!([0, 30, 35, 210, 240].map(|at| curve.members(s(at))), [220, 90, 90, 1000, 220]);
        assert_eq!(curve.messages_per_second(s(200)), 50.0);
        assert_eq!(curve.messages_per_second(s(205)), 48.75);
    }

    #[test]
    fn the_more_members_the_fewer_messages_and_changes() {
        let curve = Curve::grow(10, 20_000, s(100), s(10), None).at_most(50.0, 20_000.0);
        assert_eq!([0, 100].map(|at| curve.messages_per_second(s(at))), [50.0, 1.0]);
        let curve = curve.at_most(50.0, 2_000.0);
        assert_eq!([0, 5, 100].map(|at| curve.change_every(s(at))), [CHANGE_EVERY_MIN, s(2), s(2)]);
    }

    #[test]
    fn who_is_too_many_leaves_and_who_is_replaced() {
        assert_eq!(leavers(10, 4, 3, 0), 0);
        assert_eq!(leavers(10, 10, 0, 2), 2);
        assert_eq!(leavers(10, 15, 1, 2), 8);
        assert_eq!(leavers(0, 5, 0, 9), 4, "one stays");
        assert_eq!(leavers(1, 0, 0, 3), 0);
    }

    proptest! {
        /// As many messages come as the rate adds up to, in order, none after the end.
        #[test]
        fn messages_are_due_at_the_rate(
            from in 1_u32..3_000, to in 1_u32..3_000, over in 1_u64..60, hold in 0_u64..20, rate in 0.1..200.0_f64,
        ) {
            let curve = Curve::grow(from, to, s(over), s(hold), Some(s(over))).at_most(rate, 20_000.0);
            let due: Vec<_> = curve.messages().collect();
            prop_assert!(due.is_sorted() && due.last().is_none_or(|last| *last <= curve.length()));
            let steps = curve.length().as_millis() / 5;
            let sum: f64 = (0..steps as u32)
                .map(|step| curve.messages_per_second(Duration::from_millis(5) * step) * 0.005)
                .sum();
            prop_assert!((due.len() as f64 - sum).abs() <= 1.001, "{} of {sum}", due.len());
        }

        #[test]
        fn a_curve_stays_within_its_bounds(
            from in 1_u32..30_000, to in 1_u32..30_000, at in 0_u64..200_000, deliveries in 1_000.0..90_000.0_f64,
        ) {
            let curve = Curve::grow(from, to, s(60), s(10), Some(s(30))).at_most(30.0, deliveries);
            let at = Duration::from_millis(at);
            let members = curve.members(at);
            prop_assert!((from.min(to)..=from.max(to)).contains(&members));
            let rate = curve.messages_per_second(at);
            prop_assert!(rate <= 30.0 && rate * (f64::from(members) - 0.5) <= deliveries + 0.001);
        }
    }
}
