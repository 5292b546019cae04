//! Is the node still there? Heartbeats at an interval, probes where something is overdue, and the
//! moment at which silence means that the connection is dead.

use std::time::Duration;

/// How long a heartbeat waits for its answer, besides some round trips: two intervals, and no more than
/// this.
const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// How long a probe waits, when something is overdue already.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// Round trips that any answer may take: time for QUIC to send what was lost twice again. One that a
/// node had stood still for says nothing of the network, so there is a bound.
const ROUND_TRIPS: u32 = 8;
const ROUND_TRIPS_MAX: Duration = Duration::from_secs(4);

/// The shortest and the longest heartbeat a node may ask for. The longest lies well below the
/// idle timeout, since nothing else keeps a quiet connection open.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(25);
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(20);

/// One connection's heartbeats.
#[derive(Debug)]
pub(crate) struct Liveness {
    heartbeat: Duration,
    last_ack: Duration,
    next_beat: Duration,
    /// The token of the last heartbeat, and when it left.
    token: u64,
    beat_at: Duration,
    /// When the first heartbeat left that has no answer.
    unanswered: Option<Duration>,
    /// A probe's token, and when it left.
    probe: Option<(u64, Duration)>,
    /// As the last heartbeat or the connection saw it.
    round_trip: Duration,
}

impl Liveness {
    /// A connection that was welcomed at `now`; `heartbeat_ms` as the node said, 0 for its silence.
    pub(crate) fn new(heartbeat_ms: u32, now: Duration) -> Self {
        let heartbeat = match heartbeat_ms {
            0 => HEARTBEAT_DEFAULT,
            ms => Duration::from_millis(u64::from(ms)).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX),
        };
        Self {
            heartbeat,
            last_ack: now,
            next_beat: now + heartbeat,
            token: 0,
            beat_at: now,
            unanswered: None,
            probe: None,
            round_trip: Duration::ZERO,
        }
    }

    /// When the next heartbeat is due.
    pub(crate) fn next_beat(&self) -> Duration {
        self.next_beat
    }

    /// When the connection is dead, unless an answer comes before.
    pub(crate) fn dead_at(&self) -> Duration {
        let wait = (self.heartbeat * 2).min(ANSWER_WAIT);
        let answered = self.unanswered.unwrap_or(self.last_ack + self.heartbeat) + wait;
        let probed = self.probe.map(|(_, sent)| sent + PROBE_WAIT);
        let round_trips = (self.round_trip * ROUND_TRIPS).min(ROUND_TRIPS_MAX);
        probed.map_or(answered, |probed| probed.min(answered)) + round_trips
    }

    /// A heartbeat leaves; its token.
    pub(crate) fn beat(&mut self, now: Duration) -> u64 {
        self.token += 1;
        self.beat_at = now;
        self.unanswered.get_or_insert(now);
        self.next_beat = now + self.heartbeat;
        self.token
    }

    /// Something is overdue: the next heartbeat is due at once, and its answer soon after. A probe
    /// that is under way already goes on. `round_trip` is what the connection takes for one.
    pub(crate) fn probe(&mut self, now: Duration, round_trip: Duration) {
        if self.probe.is_none() {
            self.round_trip = self.round_trip.max(round_trip);
            self.next_beat = now;
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

    #[test]
    fn a_connection_is_dead_two_intervals_after_a_heartbeat_that_was_not_answered() {
        let mut liveness = Liveness::new(1000, at(0));
        assert_eq!(liveness.next_beat(), at(1000));
        let token = liveness.beat(at(1000));
        liveness.ack(token, at(1040));
        liveness.beat(at(2000));
        liveness.beat(at(3000));
        assert_eq!(liveness.dead_at(), at(2000 + 2000 + 8 * 40));
    }

    #[test]
    fn a_probe_is_due_at_once_and_shortens_the_wait_until_it_is_answered() {
        let mut liveness = Liveness::new(20_000, at(0));
        liveness.probe(at(500), at(100));
        assert_eq!(liveness.next_beat(), at(500));
        assert_eq!(liveness.dead_at(), at(500 + 1000 + 8 * 100));
        let token = liveness.beat(at(500));
        liveness.probe(at(900), at(100));
        assert_eq!(liveness.dead_at(), at(2300), "a second probe does not give the first more time");
        liveness.ack(token, at(1000));
        assert_eq!(liveness.dead_at(), at(1000 + 20_000 + 4_000 + 8 * 500));
    }

    #[test]
    fn an_answer_to_an_older_heartbeat_is_no_answer_to_the_probe() {
        let mut liveness = Liveness::new(20_000, at(0));
        let old = liveness.beat(at(100));
        liveness.probe(at(200), at(20));
        liveness.beat(at(200));
        liveness.ack(old, at(300));
        assert_eq!(liveness.dead_at(), at(200 + 1000 + 8 * 20));
    }

    #[test]
    fn a_node_cannot_ask_for_heartbeats_beyond_the_idle_timeout() {
        assert_eq!(Liveness::new(3_600_000, at(0)).next_beat(), HEARTBEAT_MAX);
        assert_eq!(Liveness::new(0, at(0)).next_beat(), HEARTBEAT_DEFAULT);
        assert_eq!(Liveness::new(1, at(0)).next_beat(), HEARTBEAT_MIN);
    }
}
