//! Packets that are lost in bursts: the model of Gilbert (1960), refined by Elliott (1963).
//!
//! A path is in one of two states: in the good one all packets pass, in the bad one none. How often it
//! turns bad, and how long that lasts, follow from how many packets are lost in all, and how many in a row.

use rand::{RngExt, rngs::StdRng};

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Of all packets so many are lost: `0.0..1.0`.
    pub rate: f64,
    /// So many in a row, on average: at least 1, where each is lost for itself.
    pub burst: f64,
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self { rate: 0.0, burst: 1.0 };

    /// Each packet for itself.
    #[must_use]
    pub const fn random(rate: f64) -> Self {
        // So long are bursts by chance alone.
        Self { rate, burst: 1.0 / (1.0 - rate) }
    }

    /// The chance that a packet after one that passed is lost.
    fn turns_bad(self) -> f64 {
        self.turns_good() * self.rate / (1.0 - self.rate).max(f64::MIN_POSITIVE)
    }

    /// The chance that a packet after one that was lost passes.
    fn turns_good(self) -> f64 {
        1.0 / self.burst.max(1.0)
    }
}

/// The state that a path is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Losing {
    is_bad: bool,
}

impl Losing {
    /// Is the next packet lost?
    pub fn next(&mut self, loss: Loss, random: &mut StdRng) -> bool {
        let chance = if self.is_bad { 1.0 - loss.turns_good() } else { loss.turns_bad() };
        self.is_bad = loss.rate > 0.0 && random.random_bool(chance.clamp(0.0, 1.0));
        self.is_bad
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const PACKETS: usize = 200_000;

    /// What share of the packets is lost, and how many in a row.
    fn measured(loss: Loss, seed: u64) -> (f64, f64) {
        let (mut losing, mut random) = (Losing::default(), StdRng::seed_from_u64(seed));
        let lost: Vec<bool> = (0..PACKETS).map(|_| losing.next(loss, &mut random)).collect();
        let count = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        (count / PACKETS as f64, count / bursts.max(1.0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn as_many_are_lost_as_is_said_and_as_many_in_a_row(rate in 0.01..0.4_f64, more in 0.0..8.0_f64, seed: u64) {
            let loss = Loss { rate, burst: Loss::random(rate).burst + more };
            let (lost, burst) = measured(loss, seed);
            prop_assert!((lost / rate - 1.0).abs() < 0.3, "{lost} of {rate}");
            prop_assert!((burst / loss.burst - 1.0).abs() < 0.2, "{burst} of {}", loss.burst);
        }
    }

    #[test]
    fn nothing_is_lost_where_nothing_is_to_be() {
        assert_eq!(measured(Loss::NONE, 1), (0.0, 0.0));
    }
}
