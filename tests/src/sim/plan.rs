//! What a seed stands for: how many nodes there are, how they are set up, and what goes wrong when.

mod disturbance;

mod live;

mod networks;

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_network::Weather;
use shoal_node::{config::Limits, store::MemoryTiming};

pub use disturbance::{Disturbance, Host, remedies};
pub use networks::WeakNetwork;

use super::{
    slowing::{self, Slowing},
    strike::Strike,
};

/// Hosts that apps run on; each fails as a whole.
pub const PHONES: usize = 4;

/// Apps on each of them.
pub const APPS_PER_PHONE: usize = 5;

/// Where apps are busy for minutes, they do not do more than in a shorter run.
const PAUSE_ON_NETWORK_MIN: Duration = ms(2_000);

/// What a seed stands for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many nodes: one alone, or a cluster that shares a database.
    pub nodes: usize,
    /// How long a node's lease lasts in coordination.
    pub lease: Duration,
    /// How long apps do things and things go wrong; then all is made good.
    pub busy: Duration,
    /// How long the rest may take at most.
    pub drain_max: Duration,
    /// The shortest and the longest way of a datagram while nothing is wrong.
    pub latency: (Duration, Duration),
    /// How long the store takes.
    pub timing: MemoryTiming,
    /// How the nodes are set up.
    pub limits: Limits,
    /// The pause between two things that an app does, at most.
    pub pause_max: Duration,
    /// How each phone is connected; none where nothing is amiss with that.
    pub networks: Vec<Option<Weather>>,
    /// What goes wrong, in order.
    pub disturbances: Vec<(Duration, Disturbance)>,
    /// And a node that is hit at a step of a plan.
    pub strike: Option<Strike>,
    /// Or one that is slow.
    pub slowing: Option<Slowing>,
    /// By what an operator draws what they order, where there is one.
    pub operator: Option<u64>,
}

impl Plan {
    /// The plan of a seed; for as many nodes as the seed says, unless that is given.
    #[must_use]
    pub fn new(seed: u64, nodes: Option<usize>) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x706c_616e);
        let busy = ms(random.random_range(8_000..16_000));
        let shortest = random.random_range(1..15);
        let latency = (ms(shortest), ms(shortest + random.random_range(2..80)));
        let timing = MemoryTiming {
            commit: ms(random.random_range(0..3))..=ms(random.random_range(3..12)),
            read: ms(0)..=ms(random.random_range(0..4)),
        };
        let limits = limits(&mut random);
        let pause_max = ms(random.random_range(100..1_200));
        let nodes = nodes.unwrap_or_else(|| [1, 1, 2, 3, 3][random.random_range(0..5)]);
        let lease = ms(random.random_range(1_000..3_000));
        let mut disturbances = disturbance::draw(&mut random, nodes, busy, latency.1);
        let (networks, forgets) = networks::draw(seed, busy);
        disturbances.extend(forgets);
        disturbances.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            nodes,
            lease,
            busy,
            drain_max: Duration::from_secs(120),
            latency,
            timing,
            limits,
            pause_max,
            networks,
            disturbances,
            strike: None,
            slowing: None,
            operator: random.random_ratio(1, 3).then(|| random.random()),
        }
    }

    /// Three nodes, of which one is slow for a while; nothing else goes wrong.
    #[must_use]
    pub fn slowing(seed: u64, slowing: Slowing) -> Self {
        let disturbances = vec![(ms(2_000), Disturbance::Place(seed))];
        let plan = Self::new(seed, Some(3));
        let networks = vec![None; PHONES];
        Self { busy: slowing::BUSY, networks, disturbances, slowing: Some(slowing), operator: None, ..plan }
    }

    /// All phones on one network, while nothing else goes wrong.
    #[must_use]
    pub fn on_network(seed: u64, network: WeakNetwork) -> Self {
        let (busy, networks, plan) = (network.takes(), network.of_phones(), Self::new(seed, None));
        let pause_max = plan.pause_max.max(PAUSE_ON_NETWORK_MIN);
        Self { busy, networks, pause_max, disturbances: Vec::new(), operator: None, ..plan }
    }
}

/// Small windows, pages and rates, so that what is rare at home is common here.
fn limits(random: &mut StdRng) -> Limits {
    let mut limits = Limits::default();
    let group = &mut limits.group;
    group.window_records_max = 1 << random.random_range(2..9);
    group.idle_ms = random.random_range(500..8_000);
    group.sender_checkpoint_records = 1 << random.random_range(2..9);
    group.member_burst = random.random_range(3..50);
    group.member_rate_per_second = random.random_range(2..50);
    group.batch_records_max = 1 << random.random_range(0..9);
    group.queue_max = 1 << random.random_range(4..10);
    // Each life of an app is another sender, and none makes room for another before it has expired.
    let expires_soon = random.random_ratio(1, 3);
    (group.incarnation_ttl_seconds, group.senders_per_user_max) = if expires_soon {
        (random.random_range(2..12), random.random_range(2..12))
    } else {
        (3_600, random.random_range(10..20))
    };
    group.payload_bytes_max = 4096;
    group.window_bytes_max = 64 << 10;
    group.sub_group_max = random.random_range(1..12);
    // A plan takes as long as a node is down, or several plans do.
    group.plan_observe_ms = 40 * group.sub_group_max;
    group.plan_retry_ms = 300;
    group.rebalance_ms = 2_000;
    group.announced_members_max = [0, 3, 1_000][random.random_range(0..3)];
    let access = &mut limits.access;
    access.heartbeat_ms = random.random_range(1_000..4_000);
    access.idle_timeout_ms = random.random_range(6_000..20_000);
    access.delivery_streams_max = 1 << random.random_range(0..5);
    access.page_records_max = 1 << random.random_range(0..7);
    access.delivered_flush_ms = random.random_range(100..3_000);
    access.stream_receive_window_bytes = 1 << random.random_range(13..18);
    access.surplus_sessions = 2;
    access.offers_per_second = 3;
    access.offer_after_ms = 1_000;
    limits.cluster.well_after_ms = 5_000;
    limits
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
