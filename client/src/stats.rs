//! What the client has counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a client has counted since it started; see [`Client::stats`](crate::Client::stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records that came for the app.
    pub records: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Times a delivery left something out, which was then asked for again. The app never saw it.
    pub gaps_refilled: u64,
    /// Records that came a second time and were dropped.
    pub duplicates_dropped: u64,
    /// Sessions after the first one.
    pub reconnects: u64,
    /// Those among them that began on another node before the one before had ended, since the node
    /// asked for it: the app stayed online.
    pub moves: u64,
    /// Sessions that were asked for in early data (0-RTT), a round trip before the handshake was done.
    pub early_sessions: u64,
    /// Times the connection went on over a new socket after
    /// [`network_changed`](crate::Client::network_changed).
    pub migrations: u64,
    /// Times a follow was stopped because the app did not read it, and went on later.
    pub parked: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// The round trip to the node in microseconds, as the connection sees it; 0 without one.
    pub round_trip_us: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) gaps_refilled: AtomicU64,
    pub(crate) duplicates_dropped: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) early_sessions: AtomicU64,
    pub(crate) migrations: AtomicU64,
    pub(crate) parked: AtomicU64,
    /// Of connections that are gone.
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self, live: Option<&quinn::Connection>) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (round_trip, sent, received) = live.map_or_else(Default::default, |connection| {
            let stats = connection.stats();
            (stats.path.rtt, stats.udp_tx.bytes, stats.udp_rx.bytes)
        });
        Stats {
            records: get(&self.records),
            acknowledged: get(&self.acknowledged),
            gaps_refilled: get(&self.gaps_refilled),
            duplicates_dropped: get(&self.duplicates_dropped),
            reconnects: get(&self.sessions).saturating_sub(1),
            moves: get(&self.moves),
            early_sessions: get(&self.early_sessions),
            migrations: get(&self.migrations),
            parked: get(&self.parked),
            bytes_sent: get(&self.bytes_sent) + sent,
            bytes_received: get(&self.bytes_received) + received,
            round_trip_us: u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// A connection is gone.
    pub(crate) fn gone(&self, stats: quinn::ConnectionStats) {
        count(&self.bytes_sent, stats.udp_tx.bytes);
        count(&self.bytes_received, stats.udp_rx.bytes);
    }
}
