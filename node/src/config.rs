//! Every setting and every limit, in one place, with its unit.
//!
//! One TOML file, the environment (`SHOAL_LIMITS_GROUP_RATE_PER_SECOND=…`) over it, and flags over
//! both. It is checked at start; an error names the key.

use std::time::Duration;

use serde::Deserialize;

/// The limits of this node.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections, sessions and streams.
    pub access: AccessLimits,
    /// Groups, members and rates.
    pub group: GroupLimits,
    /// The store's queues and caches.
    pub store: StoreLimits,
}

/// Connections, sessions and streams.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLimits {
    /// Sessions on this node.
    pub sessions_max: usize,
    /// Sessions (devices) of one user on this node.
    pub sessions_per_user_max: usize,
}

impl Default for AccessLimits {
    fn default() -> Self {
        Self { sessions_max: 200_000, sessions_per_user_max: 16 }
    }
}

/// Groups, members and rates.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupLimits {
    /// Bytes of a message's payload.
    pub payload_bytes_max: usize,
    /// Messages a second of one member in one group, lasting.
    pub member_rate_per_second: u32,
    /// Messages of one member in one group at once.
    pub member_burst: u32,
    /// Messages a second of one group, lasting.
    pub group_rate_per_second: u32,
    /// Messages of one group at once.
    pub group_burst: u32,
    /// Users in one request to add or remove members.
    pub change_users_max: usize,
    /// Unanswered messages and requests for one group; above, the answer is `Busy`.
    pub queue_max: usize,
    /// Records in one append.
    pub batch_records_max: usize,
    /// Bytes of records in one append.
    pub batch_bytes_max: usize,
    /// Records in a tail's window.
    pub window_records_max: usize,
    /// Bytes in a tail's window.
    pub window_bytes_max: usize,
    /// Records after which senders' numbers are written back.
    pub sender_checkpoint_records: u64,
    /// Incarnations with numbers, of one user in one group.
    pub senders_per_user_max: usize,
    /// An incarnation unused for so long is forgotten, in seconds.
    pub incarnation_ttl_seconds: u64,
    /// A group unused for so long goes to sleep, in milliseconds.
    pub idle_ms: u64,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 64 * 1024,
            member_rate_per_second: 200,
            member_burst: 400,
            group_rate_per_second: 100_000,
            group_burst: 200_000,
            change_users_max: 10_000,
            queue_max: 4096,
            batch_records_max: 2048,
            batch_bytes_max: 4 << 20,
            window_records_max: 1024,
            window_bytes_max: 1 << 20,
            sender_checkpoint_records: 8192,
            senders_per_user_max: 64,
            incarnation_ttl_seconds: 30 * 24 * 3600,
            idle_ms: 60_000,
        }
    }
}

impl GroupLimits {
    /// [`Self::idle_ms`].
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

/// The store's queues and caches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreLimits {
    /// Appends waiting for a commit, over all groups.
    pub appends_max: usize,
    /// Bytes of the engine's block cache.
    pub cache_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { appends_max: 4096, cache_bytes: 64 << 20 }
    }
}
