//! What a run does and when, from a seed: how large the groups are, who sends at which moment, who
//! stops reading, who leaves and comes back.
//!
//! The schedule is open loop: message `i` is due at `i / rate` whatever became of those before it.

use std::{fmt, ops::Range, str::FromStr, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// So many groups of so many members: `10x300`; `1x200/2000` where 200 of 2,000 are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many groups.
    pub groups: u32,
    /// Members of each who are connected.
    pub members: u32,
    /// Members of each who are not.
    pub offline: u32,
}

impl Shape {
    /// Groups whose members are all connected.
    #[must_use]
    pub const fn new(groups: u32, members: u32) -> Self {
        Self { groups, members, offline: 0 }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = text.split_once('x').and_then(|(groups, members)| {
            let (members, all) = members.split_once('/').unwrap_or((members, members));
            let (members, all): (u32, u32) = (members.parse().ok()?, all.parse().ok()?);
            Some(Self { groups: groups.parse().ok()?, members, offline: all.checked_sub(members)? })
        });
        shape.filter(|shape| shape.groups > 0 && shape.members > 0).ok_or_else(|| {
            format!("a shape is GROUPSxMEMBERS, as in 3x300, or GROUPSxCONNECTED/MEMBERS, not {text:?}")
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.groups, self.members)?;
        if self.offline > 0 {
            write!(f, "/{}", u64::from(self.members) + u64::from(self.offline))?;
        }
        Ok(())
    }
}

/// A member of a group, both by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberId {
    /// The group's number in the run.
    pub group: u32,
    /// The member's number in the group.
    pub member: u32,
}

/// What a member does besides sending and receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Steady,
    /// Stops reading for a while, again and again.
    Slow,
    /// Leaves and comes back, again and again.
    Churns,
}

/// One message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When, since the run's beginning.
    pub at: Duration,
    /// By whom.
    pub sender: MemberId,
    /// The sender's 1st, 2nd, 3rd, …
    pub number: u64,
}

/// The groups of a run, and what happens in them.
#[derive(Debug, Clone)]
pub struct Plan {
    groups: Vec<u32>,
    offline: Vec<u32>,
    habits: Vec<Habit>,
    seed: u64,
    duration: Duration,
}

impl Plan {
    /// The plan for these shapes, with `slow_percent` and `churn_percent` of all members slow and
    /// churning: the same seed gives the same plan.
    #[must_use]
    pub fn new(
        shapes: &[Shape],
        duration: Duration,
        slow_percent: f64,
        churn_percent: f64,
        seed: u64,
    ) -> Self {
        let all = || shapes.iter().flat_map(|shape| (0..shape.groups).map(|_| *shape));
        let groups: Vec<_> = all().map(|shape| shape.members).collect();
        let offline = all().map(|shape| shape.offline).collect();
        let members = groups.iter().map(|&members| members as usize).sum::<usize>();
        let share = |percent: f64| (members as f64 * percent / 100.0).round() as usize;
        let slow = share(slow_percent).min(members);
        let churning = share(churn_percent).min(members - slow);
        let mut habits = vec![Habit::Steady; members];
        habits[..slow].fill(Habit::Slow);
        habits[slow..slow + churning].fill(Habit::Churns);
        habits.shuffle(&mut StdRng::seed_from_u64(seed));
        Self { groups, offline, habits, seed, duration }
    }

    /// The connected members of each group.
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// All members of each group, those who are not connected among them.
    pub fn listed(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.iter().zip(&self.offline).map(|(connected, offline)| connected.saturating_add(*offline))
    }

    /// Every member with its habit, group by group.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, Habit)> + '_ {
        let all = self.groups.iter().enumerate().flat_map(|(group, &members)| {
            // A run has fewer groups than 2^32.
            (0..members).map(move |member| MemberId { group: group as u32, member })
        });
        all.zip(self.habits.iter().copied())
    }

    /// How long messages are sent.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Each message with its moment, in order: `rate` a second, each in a group drawn at random
    /// and by a member of it drawn at random.
    pub fn messages(&self, rate: f64) -> impl Iterator<Item = Due> + use<> {
        let groups = self.groups.clone();
        let mut numbers: Vec<Vec<u64>> = groups.iter().map(|&members| vec![0; members as usize]).collect();
        let mut random = StdRng::seed_from_u64(self.seed ^ 0x6d65_7373_6167_6573);
        let count = (self.duration.as_secs_f64() * rate).floor() as u64;
        (0..count).map(move |i| {
            let group = random.random_range(0..groups.len());
            let member = random.random_range(0..groups[group]);
            let number = &mut numbers[group][member as usize];
            *number += 1;
            let sender = MemberId { group: group as u32, member };
            Due { at: Duration::from_secs_f64(i as f64 / rate), sender, number: *number }
        })
    }

    /// When a member is slow or away, in order, each from a moment to a moment before the end of
    /// the sending. Pauses are a tenth to a fifth of the run, absences shorter; both have a floor
    /// and a ceiling, so that they fit a run of seconds and one of hours.
    pub fn interruptions(
        &self,
        member: MemberId,
        habit: Habit,
    ) -> impl Iterator<Item = Range<Duration>> + use<> {
        let cycle_seconds = match habit {
            Habit::Steady => 0.0,
            Habit::Slow => (self.duration.as_secs_f64() / 5.0).clamp(0.5, 30.0),
            Habit::Churns => (self.duration.as_secs_f64() / 10.0).clamp(0.3, 10.0),
        };
        let of_member = u64::from(member.group) << 32 | u64::from(member.member);
        let mut random = StdRng::seed_from_u64(self.seed ^ of_member.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut now = random.random_range(0.0..1.0) * cycle_seconds;
        let end = self.duration.as_secs_f64();
        std::iter::from_fn(move || {
            let from = now + random.random_range(0.1..0.5) * cycle_seconds;
            let until = from + random.random_range(0.5..1.0) * cycle_seconds;
            now = until;
            let happens = cycle_seconds > 0.0 && until < end;
            happens.then(|| Duration::from_secs_f64(from)..Duration::from_secs_f64(until))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: [Shape; 2] = [Shape::new(10, 10), Shape::new(3, 300)];
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_shape_is_groups_by_members() {
        assert_eq!("3x300".parse(), Ok(Shape::new(3, 300)));
        let large = Shape { groups: 1, members: 200, offline: 1800 };
        assert_eq!("1x200/2000".parse(), Ok(large));
        assert_eq!(large.to_string(), "1x200/2000");
        let plan = Plan::new(&[Shape::new(2, 3), large], MINUTE, 0.0, 0.0, 1);
        assert_eq!((plan.groups(), plan.listed().collect::<Vec<_>>()), (&[3, 3, 200][..], vec![3, 3, 2000]));
        for wrong in ["", "3", "x", "0x3", "3x0", "-1x3", "3x300x2", "3x300/", "3x300/299"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| Plan::new(&MIXED, MINUTE, 10.0, 5.0, seed);
        let messages = |seed| plan(seed).messages(50.0).collect::<Vec<_>>();
        let members = |seed| plan(seed).members().collect::<Vec<_>>();
        assert_eq!(messages(1), messages(1));
        assert_ne!(messages(1), messages(2));
        assert_eq!(members(1), members(1));
        assert_ne!(members(1), members(2));
    }

    #[test]
    fn messages_are_due_at_the_rate_whatever_else() {
        let messages: Vec<_> = Plan::new(&MIXED, MINUTE, 0.0, 0.0, 7).messages(50.0).collect();
        assert_eq!(messages.len(), 3000);
        assert_eq!(messages[100].at, Duration::from_secs(2));
        assert!(messages.is_sorted_by_key(|due| due.at));
    }

    #[test]
    fn each_senders_messages_are_numbered_without_a_hole() {
        let mut last = std::collections::BTreeMap::new();
        for due in Plan::new(&MIXED, MINUTE, 0.0, 0.0, 7).messages(500.0) {
            let last = last.entry((due.sender.group, due.sender.member)).or_insert(0);
            *last += 1;
            assert_eq!(due.number, *last);
        }
    }

    #[test]
    fn so_many_percent_are_slow_and_churn() {
        let plan = Plan::new(&MIXED, MINUTE, 10.0, 5.0, 3);
        let count = |wanted| plan.members().filter(|(_, habit)| *habit == wanted).count();
        assert_eq!([Habit::Steady, Habit::Slow, Habit::Churns].map(count), [850, 100, 50]);
        let all = Plan::new(&MIXED, MINUTE, 100.0, 100.0, 3);
        assert!(all.members().all(|(_, habit)| habit == Habit::Slow));
    }

    #[test]
    fn interruptions_come_again_and_again_and_end_before_the_sending() {
        for seconds in [5, 60, 3600] {
            let duration = Duration::from_secs(seconds);
            let plan = Plan::new(&MIXED, duration, 10.0, 5.0, 3);
            for (member, habit) in plan.members() {
                let interruptions: Vec<_> = plan.interruptions(member, habit).collect();
                assert!(interruptions.is_sorted_by(|one, next| one.end < next.start));
                assert!(interruptions.iter().all(|one| one.start < one.end && one.end < duration));
                assert_eq!(interruptions.is_empty(), habit == Habit::Steady, "{habit:?} in {seconds} s");
            }
        }
    }
}
