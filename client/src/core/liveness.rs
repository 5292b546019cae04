//! Is the node still there? Heartbeats at an interval, and oftener while one has no answer; the moment from
//! which that is doubtful, and the one from which another session is opened beside a silent one.

use std::time::Duration;

use crate::Activity;

/// Where a heartbeat has no answer, the next one leaves after this and two round trips: data that is new
/// goes out at once, while QUIC sends what was lost again after pauses that double.
const REPEAT: Duration = Duration::from_secs(1);
const REPEAT_ROUND_TRIPS: u32 = 2;

/// A heartbeat that is without an answer for this and some round trips makes the node doubtful.
const DOUBT: Duration = Duration::from_secs(1);
const DOUBT_ROUND_TRIPS: u32 = 4;

/// After this, and some round trips more, the node is silent.
const SILENCE: Duration = Duration::from_secs(2);

/// The same for a probe, when something is overdue already.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// Round trips that any answer may take: time for QUIC to send what was lost twice again. One that a
/// node had stood still for says nothing of the network, so there is a bound.
const ROUND_TRIPS: u32 = 8;
const ROUND_TRIPS_MAX: Duration = Duration::from_secs(4);

/// The shortest and the longest heartbeat a node may ask for. The longest lies well below the
/// idle timeout, since nothing else keeps a quiet connection open, and below the 30 s after which many
/// NATs forget a UDP mapping (RFC 4787 asks for two minutes; RFC 9308, section 3.2, tells how it is).
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(25);
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(20);

/// One connection's heartbeats.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// What the node asked for.
    heartbeat: Duration,
    activity: Activity,
    last_ack: Duration,
    /// The token of the last heartbeat, and when it left.
    token: u64,
    beat_at: Duration,
    /// When the first heartbeat left that has no answer.
    unanswered: Option<Duration>,
    /// A probe's token, and when it was asked for.
    probe: Option<(u64, Duration)>,
    /// As the last heartbeat or the connection saw it.
    round_trip: Duration,
}

impl Liveness {
    /// A connection that was welcomed at `now`; `heartbeat_ms` as the node said, 0 for its silence.
    pub(crate) fn new(heartbeat_ms: u32, activity: Activity, now: Duration) -> Self {
        let heartbeat = match heartbeat_ms {
            0 => HEARTBEAT_DEFAULT,
            ms => Duration::from_millis(u64::from(ms)).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX),
        };
        Self {
            heartbeat,
            activity,
            last_ack: now,
            token: 0,
            beat_at: now,
            unanswered: None,
            probe: None,
            round_trip: Duration::ZERO,
        }
    }

    /// What the app does from here on.
    pub(crate) fn set_activity(&mut self, activity: Activity, now: Duration) {
        if self.activity == Activity::Suspended {
            // What was not said meanwhile was nobody's silence.
            self.last_ack = now;
        }
        if activity == Activity::Suspended {
            (self.unanswered, self.probe) = (None, None);
        }
        self.activity = activity;
    }

    /// Between heartbeats; none while the app is suspended.
    fn interval(&self) -> Option<Duration> {
        match self.activity {
            Activity::Foreground => Some(self.heartbeat),
            Activity::Background => Some(HEARTBEAT_MAX),
            Activity::Suspended => None,
        }
    }

    /// When the next heartbeat is due.
    pub(crate) fn next_beat(&self) -> Option<Duration> {
        let interval = self.interval()?;
        match (self.probe, self.unanswered) {
            (Some((token, asked)), _) if token > self.token => Some(asked),
            (_, Some(_)) => {
                let repeat = REPEAT + self.round_trips(REPEAT_ROUND_TRIPS);
                Some(self.beat_at + repeat.min(interval))
            }
            _ => Some(self.beat_at + interval),
        }
    }

    /// From when on it is doubtful that the node is there, unless an answer comes before.
    pub(crate) fn doubtful_at(&self) -> Option<Duration> {
        let since = match self.probe {
            Some((_, asked)) => asked,
            None => self.unanswered_from()?,
        };
        Some(since + DOUBT + self.round_trips(DOUBT_ROUND_TRIPS))
    }

    /// From when on the node is silent, unless an answer comes before.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        let wait = self.round_trips(ROUND_TRIPS);
        let beaten = self.unanswered_from()? + SILENCE + wait;
        let probed = self.probe.map(|(_, asked)| asked + PROBE_WAIT + wait);
        Some(probed.map_or(beaten, |probed| probed.min(beaten)))
    }

    /// When the first heartbeat left, or is to leave, that has no answer: where nothing is taken from us any
    /// more, none can.
    fn unanswered_from(&self) -> Option<Duration> {
        Some(self.unanswered.unwrap_or(self.last_ack + self.interval()?))
    }

    fn round_trips(&self, count: u32) -> Duration {
        (self.round_trip * count).min(ROUND_TRIPS_MAX)
    }

    /// A heartbeat leaves; its token.
    pub(crate) fn beat(&mut self, now: Duration) -> u64 {
        self.token += 1;
        self.beat_at = now;
        self.unanswered.get_or_insert(now);
        self.token
    }

    /// Something is overdue: the next heartbeat is due at once, and its answer soon after. A probe
    /// that is under way already goes on. `round_trip` is what the connection takes for one.
    pub(crate) fn probe(&mut self, now: Duration, round_trip: Duration) {
        if self.probe.is_none() && self.activity != Activity::Suspended {
            self.round_trip = self.round_trip.max(round_trip);
            self.probe = Some((self.token + 1, now));
        }
    }

    /// An answer came.
    pub(crate) fn ack(&mut self, token: u64, now: Duration) {
        if self.probe.is_some_and(|(probe, _)| token >= probe) {
            self.probe = None;
        }
        self.last_ack = now;
        self.unanswered = None;
        if token == self.token {
            self.round_trip = now.saturating_sub(self.beat_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn liveness(heartbeat_ms: u32) -> Liveness {
        Liveness::new(heartbeat_ms, Activity::Foreground, at(0))
    }

    #[test]
    fn a_heartbeat_without_an_answer_is_repeated_then_doubted_then_silence() {
        let mut liveness = liveness(20_000);
        assert_eq!((liveness.next_beat(), liveness.doubtful_at()), (Some(at(20_000)), Some(at(21_000))));
        let token = liveness.beat(at(20_000));
        liveness.ack(token, at(20_040));
        assert_eq!(liveness.next_beat(), Some(at(40_000)));
        liveness.beat(at(40_000));
        assert_eq!(liveness.next_beat(), Some(at(41_080)));
        liveness.beat(at(41_080));
        assert_eq!(liveness.next_beat(), Some(at(42_160)));
        assert_eq!(liveness.doubtful_at(), Some(at(40_000 + 1_000 + 4 * 40)), "since the first of them");
        assert_eq!(liveness.silent_at(), Some(at(40_000 + 2_000 + 8 * 40)));
        liveness.ack(2, at(42_500));
        assert_eq!(liveness.doubtful_at(), Some(at(62_500 + 1_000 + 4 * 40)));
        assert_eq!(liveness.silent_at(), Some(at(62_500 + 2_000 + 8 * 40)));
    }

    #[test]
    fn a_short_interval_is_not_made_longer_by_repeating() {
        let mut liveness = liveness(200);
        liveness.beat(at(200));
        assert_eq!(liveness.next_beat(), Some(at(400)));
    }

    #[test]
    fn a_probe_is_due_at_once_and_shortens_the_wait_until_it_is_answered() {
        let mut liveness = liveness(20_000);
        liveness.probe(at(500), at(100));
        assert_eq!(liveness.next_beat(), Some(at(500)));
        assert_eq!(liveness.silent_at(), Some(at(500 + 1000 + 8 * 100)));
        let token = liveness.beat(at(500));
        liveness.probe(at(900), at(100));
        assert_eq!(liveness.silent_at(), Some(at(2300)), "a second probe does not give the first more time");
        liveness.ack(token, at(1000));
        assert_eq!(liveness.silent_at(), Some(at(1000 + 20_000 + 2_000 + 4_000)));
    }

    #[test]
    fn an_answer_to_an_older_heartbeat_is_no_answer_to_the_probe() {
        let mut liveness = liveness(20_000);
        let old = liveness.beat(at(100));
        liveness.probe(at(200), at(20));
        liveness.beat(at(200));
        liveness.ack(old, at(300));
        assert_eq!(liveness.silent_at(), Some(at(200 + 1000 + 8 * 20)));
    }

    #[test]
    fn a_node_cannot_ask_for_heartbeats_beyond_the_idle_timeout() {
        let first = |heartbeat_ms| liveness(heartbeat_ms).next_beat().unwrap();
        assert_eq!(first(3_600_000), HEARTBEAT_MAX);
        assert_eq!(first(0), HEARTBEAT_DEFAULT);
        assert_eq!(first(1), HEARTBEAT_MIN);
    }

    #[test]
    fn an_app_in_the_background_says_little_and_a_suspended_one_nothing() {
        let mut liveness = liveness(5_000);
        liveness.set_activity(Activity::Background, at(100));
        assert_eq!(liveness.next_beat(), Some(HEARTBEAT_MAX));
        liveness.beat(at(25_000));
        liveness.set_activity(Activity::Suspended, at(25_100));
        liveness.probe(at(25_200), at(20));
        let never = (liveness.next_beat(), liveness.doubtful_at(), liveness.silent_at());
        assert_eq!(never, (None, None, None));
        liveness.set_activity(Activity::Foreground, at(9_000_000));
        assert_eq!(liveness.silent_at(), Some(at(9_000_000 + 5_000 + 2_000)), "its silence was its own");
        liveness.probe(at(9_000_000), at(20));
        assert_eq!(liveness.next_beat(), Some(at(9_000_000)));
    }
}
