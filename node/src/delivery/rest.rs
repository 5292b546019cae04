//! Less chatter on long paths: what comes soon after a write goes with the next one.
//!
//! The first record never waits. Those that follow it closely leave together, in one packet with one
//! acknowledgement, which spares the radio of a phone; on a path that long nobody notices the time.

use std::time::Duration;

/// Round trips of good networks are shorter.
const LONG: Duration = Duration::from_millis(150);

/// An eighth of a round trip, and this at most.
const REST_MAX: Duration = Duration::from_millis(50);

/// How long nothing more is written after a write, on a path with this round trip.
pub(super) fn rest(round_trip: Duration) -> Option<Duration> {
    (round_trip >= LONG).then(|| (round_trip / 8).min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_paths_rest_and_never_for_long() {
        let ms = Duration::from_millis;
        assert_eq!([0, 20, 149].map(|round_trip| rest(ms(round_trip))), [None; 3]);
        assert_eq!(rest(ms(160)), Some(ms(20)));
        assert_eq!([400, 600, 60_000].map(|round_trip| rest(ms(round_trip))), [Some(REST_MAX); 3]);
    }
}
