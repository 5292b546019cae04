//! What a network does over time. Pure: a moment goes in, how the network is then comes out.

use std::time::Duration;

use crate::{
    path::Conditions,
    profile::{Profile, Stage},
};

/// What happens besides what the network does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    Steady,
    /// Another address, again and again: a NAT that forgets, or a client that moves.
    Moves {
        /// How often.
        every: Duration,
    },
    /// Nothing passes for a while, again and again.
    Blackouts {
        /// From the beginning to the first, and from one beginning to the next.
        every: Duration,
        /// How long.
        lasts: Duration,
    },
}

/// A network as one client has it.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    profile: &'static Profile,
    trouble: Trouble,
    /// Where in the profile's stages it begins.
    phase: Duration,
}

/// How it is at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sky {
    /// From the client.
    pub up: Conditions,
    /// To the client.
    pub down: Conditions,
    /// Nothing passes.
    pub is_dark: bool,
    /// So often the address has changed since the beginning.
    pub moves: u64,
}

impl Weather {
    /// A network that begins so far into its stages: two clients of one network need not be in the same
    /// elevator.
    #[must_use]
    pub fn new(profile: &'static Profile, trouble: Trouble, phase: Duration) -> Self {
        Self { profile, trouble, phase }
    }

    /// May the address ever change, or anything be cut off?
    #[must_use]
    pub fn may_change(&self) -> bool {
        let Self { profile, trouble, .. } = self;
        *trouble != Trouble::Steady || profile.stages.iter().any(|stage| stage.moves || stage.is_dark)
    }

    /// How it is then, since the beginning.
    #[must_use]
    pub fn at(&self, now: Duration) -> Sky {
        let (stage, entered) = self.stage(now + self.phase);
        let (_, before) = self.stage(self.phase);
        let (cut, moved) = match self.trouble {
            Trouble::Steady => (false, 0),
            Trouble::Moves { every } => (false, times(now, every)),
            Trouble::Blackouts { every, lasts } => {
                let count = times(now, every);
                let since = now.saturating_sub(every * u32::try_from(count).unwrap_or(u32::MAX));
                (count > 0 && since < lasts, 0)
            }
        };
        Sky { up: stage.up, down: stage.down, is_dark: stage.is_dark || cut, moves: entered - before + moved }
    }

    /// The stage at this moment of the profile, and how often the address has changed until then.
    fn stage(&self, at: Duration) -> (&'static Stage, u64) {
        let stages = self.profile.stages;
        let cycles = times(at, self.profile.cycle());
        let each = stages.iter().filter(|stage| stage.moves).count() as u64;
        let mut left = at - self.profile.cycle() * u32::try_from(cycles).unwrap_or(u32::MAX);
        let mut entered = cycles * each;
        for stage in stages {
            entered += u64::from(stage.moves);
            match left.checked_sub(stage.lasts) {
                Some(after) => left = after,
                None => return (stage, entered),
            }
        }
        (stages.last().expect("a profile has stages"), entered)
    }
}

/// How often `every` has passed.
fn times(now: Duration, every: Duration) -> u64 {
    u64::try_from(now.as_nanos() / every.as_nanos().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::PROFILES;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sky(name: &str, trouble: Trouble, at_ms: u64) -> Sky {
        Weather::new(Profile::named(name).unwrap(), trouble, Duration::ZERO).at(ms(at_ms))
    }

    #[test]
    fn an_elevator_takes_its_time() {
        let dark: Vec<_> = (0..60).filter(|s| sky("elevator", Trouble::Steady, s * 1000).is_dark).collect();
        assert_eq!(dark, (23..41).collect::<Vec<_>>());
        assert_eq!(sky("elevator", Trouble::Steady, 400_000).moves, 0);
    }

    #[test]
    fn wifi_gives_way_to_4g_and_4g_to_wifi() {
        let moves = |at| sky("wifi-to-4g", Trouble::Steady, at).moves;
        assert_eq!([0, 23_299, 23_300, 43_299, 43_300, 43_301, 66_700].map(moves), [0, 0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn trouble_comes_on_top() {
        let moves = Trouble::Moves { every: ms(5_000) };
        assert_eq!([4_999, 5_000, 31_000].map(|at| sky("3g", moves, at).moves), [0, 1, 6]);
        let blackouts = Trouble::Blackouts { every: ms(10_000), lasts: ms(3_000) };
        let dark = [0, 9_999, 10_000, 12_999, 13_000, 22_999].map(|at| sky("3g", blackouts, at).is_dark);
        assert_eq!(dark, [false, false, true, true, false, true]);
    }

    proptest! {
        /// However it begins, as many moves come as the stages say; never one back.
        #[test]
        fn moves_only_grow_and_begin_at_none(which in 0..PROFILES.len(), phase in 0_u64..200_000, step in 1_u64..5_000) {
            let weather = Weather::new(&PROFILES[which], Trouble::Steady, ms(phase));
            prop_assert_eq!(weather.at(Duration::ZERO).moves, 0);
            let moves: Vec<_> = (0..200).map(|at| weather.at(ms(at * step)).moves).collect();
            prop_assert!(moves.is_sorted());
        }
    }
}
