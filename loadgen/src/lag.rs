//! How far behind the first to know of a message each member of a group is: what an outage elsewhere
//! must not change.

use std::{collections::BTreeMap, time::Duration};

/// Messages of which is known when they were there first; one that is older counts from the oldest.
const KNOWN_MAX: usize = 65_536;

/// The lags of one group. Moments are since the run began.
#[derive(Debug, Default)]
pub struct Lags {
    first: BTreeMap<u64, Duration>,
    worst: Vec<Duration>,
}

impl Lags {
    /// The message at `seq` is there: its receipt came, or somebody got it.
    pub fn known(&mut self, seq: u64, now: Duration) {
        self.first.entry(seq).or_insert(now);
        if self.first.len() > KNOWN_MAX {
            self.first.pop_first();
        }
    }

    /// A member has it: how long after it was there.
    pub fn had(&mut self, member: u32, seq: u64, now: Duration) -> Duration {
        self.known(seq, now);
        let first = self.first.range(..=seq).next_back().or_else(|| self.first.first_key_value());
        let lag = first.map_or(Duration::ZERO, |(_, first)| now.saturating_sub(*first));
        let at = member as usize;
        self.worst.resize(self.worst.len().max(at + 1), Duration::ZERO);
        self.worst[at] = lag.max(self.worst[at]);
        lag
    }

    /// Since when the first message from `seq` on is there.
    #[must_use]
    pub fn known_since(&self, seq: u64) -> Option<Duration> {
        self.first.range(seq..).next().map(|(_, first)| *first)
    }

    /// A member's worst.
    #[must_use]
    pub fn worst(&self, member: u32) -> Duration {
        self.worst.get(member as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_counts_from_the_first_who_has_it() {
        let ms = Duration::from_millis;
        let mut lags = Lags::default();
        lags.known(1, ms(10));
        assert_eq!(lags.had(0, 1, ms(12)), ms(2));
        lags.had(1, 1, ms(40));
        lags.had(2, 2, ms(50));
        lags.had(0, 2, ms(53));
        assert_eq!([0, 1, 2].map(|member| lags.worst(member)), [ms(3), ms(30), ms(0)]);
        assert_eq!([1, 2, 3].map(|seq| lags.known_since(seq)), [Some(ms(10)), Some(ms(50)), None]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut lags = Lags::default();
        for seq in 0..KNOWN_MAX as u64 + 10 {
            lags.known(seq, Duration::from_secs(seq));
        }
        assert_eq!(lags.first.len(), KNOWN_MAX);
        lags.had(0, 3, Duration::from_secs(100));
        assert_eq!(lags.worst(0), Duration::from_secs(90), "from the oldest that is known");
    }
}
