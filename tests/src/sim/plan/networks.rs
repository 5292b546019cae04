//! How phones are connected, and NATs that forget them.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shoal_network::{Profile, Trouble, Weather, profile::PROFILES};

use super::{Disturbance, PHONES, ms};

/// Apps are busy for so long at least.
const BUSY_MIN: Duration = Duration::from_secs(30);

/// A network that all phones are on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeakNetwork {
    profile: &'static Profile,
    trouble: Trouble,
}

impl WeakNetwork {
    /// Every profile × every trouble.
    pub fn all() -> impl Iterator<Item = Self> {
        let blackouts = |pause, lasts| Trouble::Blackouts { every: ms(pause + lasts), lasts: ms(lasts) };
        let troubles = [
            Trouble::Steady,
            Trouble::Moves { every: ms(5_000) },
            blackouts(7_000, 3_000),
            blackouts(10_000, 90_000),
        ];
        PROFILES.iter().flat_map(move |profile| troubles.map(|trouble| Self { profile, trouble }))
    }

    /// Until it has shown all it has, and the longest blackout is over.
    pub(super) fn takes(self) -> Duration {
        let trouble = match self.trouble {
            Trouble::Blackouts { every, lasts } => (every + lasts).mul_f64(1.1),
            Trouble::Steady | Trouble::Moves { .. } => Duration::ZERO,
        };
        self.profile.cycle().max(trouble).max(BUSY_MIN)
    }

    /// Each phone is at another point of it.
    pub(super) fn of_phones(self) -> Vec<Option<Weather>> {
        let Self { profile, trouble } = self;
        let phase = |phone: u32| profile.cycle() * phone / u32::try_from(PHONES).unwrap_or(1);
        (0..).take(PHONES).map(|phone| Some(Weather::new(profile, trouble, phase(phone)))).collect()
    }
}

/// In two runs of five some phones are on a weak network, and in as many a NAT forgets some.
pub(super) fn draw(seed: u64, busy: Duration) -> (Vec<Option<Weather>>, Vec<(Duration, Disturbance)>) {
    let random = &mut StdRng::seed_from_u64(seed ^ 0x7068_6f6e_6573);
    let mut networks = vec![None; PHONES];
    if random.random_ratio(2, 5) {
        networks.fill_with(|| random.random::<bool>().then(|| weather(random)));
    }
    let times = if random.random_ratio(2, 5) { random.random_range(1..8) } else { 0 };
    let forget = |_| {
        let at = busy.mul_f64(random.random_range(0.05..0.95));
        (at, Disturbance::Forget(random.random_range(0..PHONES)))
    };
    (networks, (0..times).map(forget).collect())
}

fn weather(random: &mut StdRng) -> Weather {
    let profile = PROFILES.choose(random).expect("there are profiles");
    let trouble = match random.random_range(0..3) {
        0 => Trouble::Steady,
        1 => Trouble::Moves { every: ms(random.random_range(700..6_000)) },
        _ => {
            let lasts = ms(random.random_range(300..5_000));
            Trouble::Blackouts { every: lasts + ms(random.random_range(500..5_000)), lasts }
        }
    };
    Weather::new(profile, trouble, profile.cycle().mul_f64(random.random()))
}
