//! Which settings change while nodes run. Every setting is in one of two lists.

/// Set for all nodes at once (`shoal config set`), and gone by from then on.
///
/// A setting belongs here only if a running node goes by it: at the next message, request, session or
/// look that it concerns. What a client is told in its welcome counts for it from its next session.
const LIVE: [&str; 64] = [
    "log",
    "drain_grace_ms",
    "drain_max_ms",
    "limits.access.sessions_max",
    "limits.access.sessions_per_user_max",
    "limits.access.newcomers_before_retry",
    "limits.access.accepts_per_second",
    "limits.access.accept_burst",
    "limits.access.hello_ms",
    "limits.access.heartbeat_ms",
    "limits.access.heartbeats_missed_max",
    "limits.access.leaves_per_second",
    "limits.access.leave_ms",
    "limits.access.surplus_percent",
    "limits.access.surplus_sessions",
    "limits.access.offers_per_second",
    "limits.access.offer_after_ms",
    "limits.access.follows_max",
    "limits.access.follows_pending_max",
    "limits.access.publish_rate_per_second",
    "limits.access.publish_burst",
    "limits.access.request_rate_per_second",
    "limits.access.request_burst",
    "limits.access.delivery_streams_max",
    "limits.access.delivery_turn_bytes",
    "limits.access.signal_rate_per_second",
    "limits.access.signal_burst",
    "limits.access.signal_bytes_max",
    "limits.access.signal_sessions_max",
    "limits.access.delivered_flush_ms",
    "limits.access.delivered_pending_max",
    "limits.group.payload_bytes_max",
    "limits.group.member_rate_per_second",
    "limits.group.member_burst",
    "limits.group.group_rate_per_second",
    "limits.group.group_burst",
    "limits.group.change_users_max",
    "limits.group.features_max",
    "limits.group.sub_group_max",
    "limits.group.announced_members_max",
    "limits.group.awake_max",
    "limits.group.batch_records_max",
    "limits.group.batch_bytes_max",
    "limits.group.windows_bytes_max",
    "limits.group.sender_checkpoint_records",
    "limits.group.senders_per_user_max",
    "limits.group.idle_ms",
    "limits.group.plan_observe_ms",
    "limits.group.plan_delay_max_ms",
    "limits.group.plan_retry_ms",
    "limits.group.plans_max",
    "limits.group.plan_hours",
    "limits.group.plan_rate_percent",
    "limits.group.rebalance_ms",
    "limits.group.migration_rows_per_second",
    "limits.view.history_records_max",
    "limits.view.history_bytes_max",
    "limits.view.members_max",
    "limits.view.groups_max",
    "limits.cluster.slow_ms",
    "limits.cluster.slow_after_ms",
    "limits.cluster.well_after_ms",
    "limits.cluster.headroom_percent",
    "limits.cluster.events_max",
];

/// Read when a node starts: who it is, where it is reached, its engines, the sizes of what is made once
/// or lives long, and the age of incarnations, whose forgetting must not be taken back.
const AT_START: [&str; 43] = [
    "data",
    "listen",
    "advertise",
    "name",
    "region",
    "roles",
    "peer_listen",
    "peer_advertise",
    "ops",
    "log_format",
    "socket_buffer_bytes",
    "worker_threads",
    "coordination.etcd",
    "coordination.cluster",
    "coordination.lease_ms",
    "coordination.etcd_ca",
    "coordination.etcd_certificate",
    "coordination.etcd_key",
    "store.postgres",
    "store.postgres_ca",
    "limits.access.newcomers_max",
    "limits.access.idle_timeout_ms",
    "limits.access.publish_streams_max",
    "limits.access.publishes_unanswered_max",
    "limits.access.requests_max",
    "limits.access.page_records_max",
    "limits.access.page_bytes_max",
    "limits.access.page_cache_bytes",
    "limits.access.send_window_bytes",
    "limits.access.receive_window_bytes",
    "limits.access.stream_receive_window_bytes",
    "limits.group.queue_max",
    "limits.group.window_records_max",
    "limits.group.window_bytes_max",
    "limits.group.incarnation_ttl_seconds",
    "limits.store.appends_max",
    "limits.store.cache_bytes",
    "limits.store.memtable_bytes",
    "limits.store.active_groups_max",
    "limits.store.write_connections",
    "limits.store.read_connections",
    "limits.store.connect_ms",
    "limits.store.statement_ms",
];

/// May it be set live?
#[must_use]
pub fn is_live(key: &str) -> bool {
    LIVE.contains(&key)
}

/// Is it a setting that a node reads when it starts, and never again?
pub(super) fn is_at_start(key: &str) -> bool {
    AT_START.contains(&key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, load::entries};

    /// A new setting stands in neither list: it is to be said whether a running node goes by it.
    #[test]
    fn every_setting_is_either_live_or_read_at_the_start() {
        let listed: Vec<&str> = LIVE.into_iter().chain(AT_START).collect();
        let once: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(once.len(), listed.len(), "one is listed twice");
        let settings = entries(&Config::default());
        let settings: BTreeSet<&str> = settings.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(once, settings);
    }
}
