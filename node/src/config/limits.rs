//! Every limit, with its unit. A limit's documentation is what `shoal config show` says of it.

use std::{num::NonZeroU32, time::Duration};

use documented::DocumentedFields;
use governor::Quota;
use serde::{Deserialize, Serialize};

use super::Hours;

/// The limits of this node.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections, sessions and streams.
    pub access: AccessLimits,
    /// Groups, members and rates.
    pub group: GroupLimits,
    /// The store's queues and caches.
    pub store: StoreLimits,
    /// History, members and lists of groups.
    pub view: ViewLimits,
    /// When a node is slow, and how many nodes there should be.
    pub cluster: ClusterLimits,
}

/// Connections, sessions and streams.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLimits {
    /// Sessions on this node.
    pub sessions_max: usize,
    /// Sessions (devices) of one user on this node.
    pub sessions_per_user_max: usize,
    /// Connections that have not said hello; above, new ones are refused.
    pub newcomers_max: usize,
    /// Connections that have not said hello; above, a new one must prove its address first.
    pub newcomers_before_retry: usize,
    /// Connections accepted in a second, lasting; more wait.
    pub accepts_per_second: u32,
    /// Connections accepted at once.
    pub accept_burst: u32,
    /// A connection must have said hello after so long, in milliseconds.
    pub hello_ms: u64,
    /// How often a client is asked to send a heartbeat, in milliseconds; with each, delivery streams
    /// that were not used since the last are finished.
    pub heartbeat_ms: u32,
    /// Heartbeats missed, after which a session is closed.
    pub heartbeats_missed_max: u32,
    /// A connection silent for so long is lost, in milliseconds.
    pub idle_timeout_ms: u32,
    /// Clients that a node which is drained tells in a second to go to another, at most: few take five
    /// seconds.
    pub leaves_per_second: u32,
    /// How long each has to do so, in milliseconds; then its session is closed.
    pub leave_ms: u64,
    /// A node with more sessions than so many in a hundred of its share of its region's offers some clients
    /// a node that has fewer; 0: it never does.
    pub surplus_percent: u32,
    /// And with so many more than its share.
    pub surplus_sessions: u64,
    /// Clients a second that another node is offered to at most, be it by load or by region.
    pub offers_per_second: u32,
    /// Whoever came, or was offered another node, less than so long ago is left alone, in milliseconds.
    pub offer_after_ms: u64,
    /// Groups that one session follows.
    pub follows_max: usize,
    /// Follows of one session on their way to their groups; further ones wait.
    pub follows_pending_max: usize,
    /// Publish streams of one session at once.
    pub publish_streams_max: usize,
    /// Unanswered messages on one publish stream; above, the stream is not read on.
    pub publishes_unanswered_max: usize,
    /// Messages a second of one session over all groups, lasting; faster streams are read slower.
    pub publish_rate_per_second: u32,
    /// Messages of one session at once.
    pub publish_burst: u32,
    /// Requests of one session at once.
    pub requests_max: usize,
    /// Requests and control frames a second of one session, lasting; more wait.
    pub request_rate_per_second: u32,
    /// Requests and control frames of one session at once.
    pub request_burst: u32,
    /// Delivery streams of one session at once; above, the one unused longest makes room.
    pub delivery_streams_max: usize,
    /// Bytes written for one group before the session's next group has its turn.
    pub delivery_turn_bytes: usize,
    /// Records in a page that is read from the store for sessions far behind.
    pub page_records_max: usize,
    /// Bytes in such a page, beyond its first record.
    pub page_bytes_max: usize,
    /// Bytes of such pages kept for others who need them.
    pub page_cache_bytes: u64,
    /// Datagrams (typing, presence) a second of one session, lasting; more are dropped.
    pub signal_rate_per_second: u32,
    /// Datagrams of one session at once.
    pub signal_burst: u32,
    /// Bytes of one datagram; larger ones are dropped.
    pub signal_bytes_max: usize,
    /// Datagrams are forwarded in groups that so many sessions follow here, and not in larger ones.
    pub signal_sessions_max: usize,
    /// How often delivered watermarks are written to the store, in milliseconds.
    pub delivered_flush_ms: u64,
    /// Delivered watermarks waiting for that; above, sessions wait too.
    pub delivered_pending_max: usize,
    /// Unacknowledged bytes on their way to one client.
    pub send_window_bytes: u32,
    /// Bytes that one client may have sent and the node has not read.
    pub receive_window_bytes: u32,
    /// The same, on one stream.
    pub stream_receive_window_bytes: u32,
}

impl Default for AccessLimits {
    fn default() -> Self {
        Self {
            sessions_max: 200_000,
            sessions_per_user_max: 16,
            newcomers_max: 2_000,
            newcomers_before_retry: 200,
            accepts_per_second: 2_000,
            accept_burst: 500,
            hello_ms: 10_000,
            heartbeat_ms: 5_000,
            heartbeats_missed_max: 12,
            idle_timeout_ms: 75_000,
            leaves_per_second: 500,
            leave_ms: 10_000,
            surplus_percent: 125,
            surplus_sessions: 100,
            offers_per_second: 50,
            offer_after_ms: 60_000,
            follows_max: 4_096,
            follows_pending_max: 32,
            publish_streams_max: 4,
            publishes_unanswered_max: 128,
            publish_rate_per_second: 1_000,
            publish_burst: 2_000,
            requests_max: 8,
            request_rate_per_second: 100,
            request_burst: 1_000,
            delivery_streams_max: 64,
            delivery_turn_bytes: 64 << 10,
            page_records_max: 128,
            page_bytes_max: 256 << 10,
            page_cache_bytes: 32 << 20,
            signal_rate_per_second: 5,
            signal_burst: 20,
            signal_bytes_max: 512,
            signal_sessions_max: 256,
            delivered_flush_ms: 2_000,
            delivered_pending_max: 65_536,
            send_window_bytes: 256 << 10,
            receive_window_bytes: 256 << 10,
            stream_receive_window_bytes: 128 << 10,
        }
    }
}

impl AccessLimits {
    /// [`Self::hello_ms`].
    #[must_use]
    pub fn hello(&self) -> Duration {
        Duration::from_millis(self.hello_ms)
    }

    /// [`Self::delivered_flush_ms`].
    #[must_use]
    pub fn delivered_flush(&self) -> Duration {
        Duration::from_millis(self.delivered_flush_ms)
    }

    /// Connections accepted.
    #[must_use]
    pub fn accept_rate(&self) -> Rate {
        Rate { per_second: self.accepts_per_second, burst: self.accept_burst }
    }

    /// Messages of one session.
    #[must_use]
    pub fn publish_rate(&self) -> Rate {
        Rate { per_second: self.publish_rate_per_second, burst: self.publish_burst }
    }

    /// Requests and control frames of one session.
    #[must_use]
    pub fn request_rate(&self) -> Rate {
        Rate { per_second: self.request_rate_per_second, burst: self.request_burst }
    }

    /// Datagrams of one session.
    #[must_use]
    pub fn signal_rate(&self) -> Rate {
        Rate { per_second: self.signal_rate_per_second, burst: self.signal_burst }
    }

    /// [`Self::leave_ms`].
    #[must_use]
    pub fn leave(&self) -> Duration {
        Duration::from_millis(self.leave_ms)
    }

    /// [`Self::offer_after_ms`].
    #[must_use]
    pub fn offer_after(&self) -> Duration {
        Duration::from_millis(self.offer_after_ms)
    }

    /// How long a session may go without a heartbeat that is sent so often.
    #[must_use]
    pub fn heartbeat_silence(&self, interval: Duration) -> Duration {
        // Half an interval more: the last heartbeat counted may be on its way.
        interval * self.heartbeats_missed_max + interval / 2
    }
}

/// So many a second, lasting, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second, lasting.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl Rate {
    /// So many in a hundred of it.
    #[must_use]
    pub fn percent(self, percent: u32) -> Self {
        // A share of what fits does, while there are no more than a hundred.
        let share = |number: u32| (u64::from(number) * u64::from(percent.min(100)) / 100) as u32;
        Self { per_second: share(self.per_second), burst: share(self.burst) }
    }

    /// No more of either.
    #[must_use]
    pub fn at_most(self, most: Self) -> Self {
        Self { per_second: self.per_second.min(most.per_second), burst: self.burst.min(most.burst) }
    }

    /// At least one of each.
    #[must_use]
    pub fn quota(self) -> Quota {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Quota::per_second(at_least_one(self.per_second)).allow_burst(at_least_one(self.burst))
    }
}

/// Groups, members and rates.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct GroupLimits {
    /// Bytes of a message's payload.
    pub payload_bytes_max: usize,
    /// Messages a second of one member in one group, lasting.
    pub member_rate_per_second: u32,
    /// Messages of one member in one group at once.
    pub member_burst: u32,
    /// Messages a second of one sub-group, lasting.
    pub group_rate_per_second: u32,
    /// Messages of one sub-group at once.
    pub group_burst: u32,
    /// Users in one request to add or remove members.
    pub change_users_max: usize,
    /// Features of one group.
    pub features_max: usize,
    /// Members of a sub-group: a target, at nine tenths of which the group is cut into more, and
    /// never a reason to refuse anybody.
    pub sub_group_max: u64,
    /// Members of a group who are each told of everybody who comes or goes; where they are more, they
    /// hear every few seconds that members have changed, and ask. 0: in every group.
    pub announced_members_max: u64,
    /// Unanswered messages and requests for one group; above, the answer is `Busy`.
    pub queue_max: usize,
    /// Groups awake on this node.
    pub awake_max: usize,
    /// Records in one append.
    pub batch_records_max: usize,
    /// Bytes of records in one append.
    pub batch_bytes_max: usize,
    /// Records in a tail's window.
    pub window_records_max: usize,
    /// Bytes in a tail's window.
    pub window_bytes_max: usize,
    /// Bytes in the windows of all tails on this node; above, each keeps only a few.
    pub windows_bytes_max: usize,
    /// Records after which senders' numbers are written back.
    pub sender_checkpoint_records: u64,
    /// Incarnations with numbers, of one user in one group.
    pub senders_per_user_max: usize,
    /// A device's incarnation may be used in a group for the first time up to this age, in
    /// seconds; afterwards the device is given a new one.
    pub incarnation_ttl_seconds: u64,
    /// A group unused for so long goes to sleep, in milliseconds.
    pub idle_ms: u64,
    /// Each step of a plan (a tenth of the members that move, three tenths, all) is watched for so long, in
    /// milliseconds, before the next; an eighth of that where the members outgrow the sub-groups.
    pub plan_observe_ms: u64,
    /// An owner that takes longer to judge a message, or is further behind, makes a plan roll back, in
    /// milliseconds; it may always take twice as long as before the plan. Where none is under way, and
    /// messages wait longer again and again, the group is cut into more sub-groups.
    pub plan_delay_max_ms: u64,
    /// After a plan was rolled back none begins by itself for so long, in milliseconds.
    pub plan_retry_ms: u64,
    /// Plans under way at once, of the groups whose homes are on this node; 0: none begins.
    pub plans_max: usize,
    /// The hours, in UTC, in which plans begin by themselves (`22:00-05:30`); empty: all.
    pub plan_hours: Hours,
    /// While a plan is under way, members may send so many in a hundred of what they may otherwise.
    pub plan_rate_percent: u32,
    /// How often it is looked whether a group's sub-groups are spread evenly over the nodes, in milliseconds.
    pub rebalance_ms: u64,
    /// Members a second that this node fetches for the sub-groups it is to own.
    pub migration_rows_per_second: u32,
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
            features_max: 32,
            sub_group_max: 1_000,
            announced_members_max: 1_000,
            queue_max: 4096,
            awake_max: 100_000,
            batch_records_max: 2048,
            batch_bytes_max: 4 << 20,
            window_records_max: 1024,
            window_bytes_max: 1 << 20,
            windows_bytes_max: 256 << 20,
            sender_checkpoint_records: 8192,
            senders_per_user_max: 64,
            incarnation_ttl_seconds: 24 * 3600,
            idle_ms: 60_000,
            plan_observe_ms: 30_000,
            plan_delay_max_ms: 1_000,
            plan_retry_ms: 60_000,
            plans_max: 16,
            plan_hours: Hours::default(),
            plan_rate_percent: 100,
            rebalance_ms: 300_000,
            migration_rows_per_second: 100_000,
        }
    }
}

impl GroupLimits {
    /// Messages of one member in one group.
    #[must_use]
    pub fn member_rate(&self) -> Rate {
        Rate { per_second: self.member_rate_per_second, burst: self.member_burst }
    }

    /// Messages of one sub-group.
    #[must_use]
    pub fn group_rate(&self) -> Rate {
        Rate { per_second: self.group_rate_per_second, burst: self.group_burst }
    }

    /// [`Self::idle_ms`].
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

/// The store's queues and caches.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct StoreLimits {
    /// Appends waiting for a commit, over all groups.
    pub appends_max: usize,
    /// Embedded: bytes of the engine's block cache.
    pub cache_bytes: u64,
    /// Embedded: bytes written before the engine sorts them into a table; it may hold four times as many in
    /// memory. Counts when the store is made.
    pub memtable_bytes: u64,
    /// Embedded: groups whose epoch and tail are kept in memory; the rows of others are read when they are
    /// appended to.
    pub active_groups_max: usize,
    /// PostgreSQL: connections to each database that write, each with its own transaction and its own
    /// share of the groups.
    pub write_connections: usize,
    /// PostgreSQL: connections to each database that read.
    pub read_connections: usize,
    /// PostgreSQL: a connection stands after so long, or is tried again, in milliseconds; requests
    /// wait as long for one before they are told that the database is away.
    pub connect_ms: u64,
    /// PostgreSQL: a statement ends after so long, in milliseconds.
    pub statement_ms: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            appends_max: 4096,
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            active_groups_max: 65_536,
            write_connections: 2,
            read_connections: 4,
            connect_ms: 2_000,
            statement_ms: 5_000,
        }
    }
}

/// History, members and lists of groups: how much one answer holds.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct ViewLimits {
    /// Records in one answer.
    pub history_records_max: usize,
    /// Bytes of records in one answer, beyond the first.
    pub history_bytes_max: usize,
    /// Members in one answer.
    pub members_max: usize,
    /// Groups in one answer.
    pub groups_max: usize,
}

impl Default for ViewLimits {
    fn default() -> Self {
        Self { history_records_max: 512, history_bytes_max: 512 << 10, members_max: 1_000, groups_max: 200 }
    }
}

/// When a node is slow, and how many nodes there should be.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterLimits {
    /// A node is late that takes longer to answer another, whose timers fire so much later, or to which
    /// the store takes so long, in milliseconds: far more than a way round the world, and less than
    /// clients put up with.
    pub slow_ms: u64,
    /// Late every time for so long, in milliseconds, a node is slow: it is emptied.
    pub slow_after_ms: u64,
    /// In time every time for so long, in milliseconds, a node that was slow takes part again.
    pub well_after_ms: u64,
    /// How much of the nodes' sessions and processors is to stay free, in hundredths, by
    /// `shoal_nodes_desired`.
    pub headroom_percent: u32,
    /// The latest events that a node keeps, for whoever follows them.
    pub events_max: usize,
}

impl Default for ClusterLimits {
    fn default() -> Self {
        Self {
            slow_ms: 500,
            slow_after_ms: 3_000,
            well_after_ms: 30_000,
            headroom_percent: 30,
            events_max: 1_000,
        }
    }
}
