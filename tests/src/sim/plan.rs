//! What a seed stands for: who the apps are, how the node is set up, and what goes wrong when.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_node::{
    config::Limits,
    store::{MemoryFault, MemoryTiming},
};

/// Hosts that apps run on; each fails as a whole.
pub const PHONES: usize = 4;

/// Apps on each of them.
pub const APPS_PER_PHONE: usize = 5;

/// Something that goes wrong, or is made good again.
#[derive(Debug, Clone, PartialEq)]
pub enum Disturbance {
    /// So many of a thousand datagrams are lost, so many come twice.
    Weather { lost: u32, doubled: u32 },
    /// The longest way of a datagram.
    Latency(Duration),
    /// Nothing passes between a phone and the node.
    Partition(usize),
    /// Nothing passes from a phone to the node.
    Mute(usize),
    /// Nothing passes from the node to a phone.
    Deafen(usize),
    /// It does again.
    Heal(usize),
    /// What is sent between a phone and the node waits.
    Hold(usize),
    /// It arrives, all at once.
    Release(usize),
    /// The node's machine goes down, and its unsynced writes with it.
    NodeDown,
    /// It comes up again.
    NodeUp,
    /// The node is asked to stop, in good order, and started again.
    NodeRestart,
    /// A phone goes down with all its apps.
    PhoneDown(usize),
    /// It comes up again.
    PhoneUp(usize),
    /// The store has trouble.
    Store(MemoryFault),
}

/// What a seed stands for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How long apps do things and things go wrong; then all is made good.
    pub busy: Duration,
    /// How long the rest may take at most.
    pub drain_max: Duration,
    /// The shortest and the longest way of a datagram while nothing is wrong.
    pub latency: (Duration, Duration),
    /// How long the store takes.
    pub timing: MemoryTiming,
    /// How the node is set up.
    pub limits: Limits,
    /// The pause between two things that an app does, at most.
    pub pause_max: Duration,
    /// What goes wrong, in order.
    pub disturbances: Vec<(Duration, Disturbance)>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
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
        let disturbances = disturbances(&mut random, busy, latency.1);
        Self {
            seed,
            busy,
            drain_max: Duration::from_secs(120),
            latency,
            timing,
            limits,
            pause_max,
            disturbances,
        }
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
    group.senders_per_user_max = random.random_range(2..12);
    group.incarnation_ttl_seconds =
        if random.random_ratio(1, 3) { random.random_range(2..12) } else { 3_600 };
    group.payload_bytes_max = 4096;
    group.sub_group_max = random.random_range(1..12);
    let access = &mut limits.access;
    access.heartbeat_ms = random.random_range(1_000..4_000);
    access.idle_timeout_ms = random.random_range(6_000..20_000);
    access.delivery_streams_max = 1 << random.random_range(0..5);
    access.page_records_max = 1 << random.random_range(0..7);
    access.delivered_flush_ms = random.random_range(100..3_000);
    access.stream_receive_window_bytes = 1 << random.random_range(13..18);
    limits
}

fn disturbances(random: &mut StdRng, busy: Duration, longest: Duration) -> Vec<(Duration, Disturbance)> {
    let mut all = Vec::new();
    let count = random.random_range(2..14);
    for _ in 0..count {
        let from = busy.mul_f64(random.random_range(0.05..0.95));
        add_one(random, from, busy, longest, &mut all);
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

/// One thing that goes wrong from `from` on, and how it is made good.
fn add_one(
    random: &mut StdRng,
    from: Duration,
    busy: Duration,
    longest: Duration,
    all: &mut Vec<(Duration, Disturbance)>,
) {
    let phone = random.random_range(0..PHONES);
    let short = ms(random.random_range(50..2_000));
    let long = ms(random.random_range(100..12_000));
    let mut pair = |lasts: Duration, bad, good| {
        all.extend([(from, bad), ((from + lasts).min(busy), good)]);
    };
    match random.random_range(0..15) {
        0 | 1 => {
            let bad = Disturbance::Weather {
                lost: random.random_range(0..200),
                doubled: random.random_range(0..150),
            };
            pair(long, bad, Disturbance::Weather { lost: 0, doubled: 0 });
        }
        2 => {
            let bad = Disturbance::Latency(ms(random.random_range(100..900)));
            pair(long, bad, Disturbance::Latency(longest));
        }
        3 => pair(long, Disturbance::Partition(phone), Disturbance::Heal(phone)),
        4 => pair(short, Disturbance::Mute(phone), Disturbance::Heal(phone)),
        5 => pair(short, Disturbance::Deafen(phone), Disturbance::Heal(phone)),
        6 => pair(short, Disturbance::Hold(phone), Disturbance::Release(phone)),
        7 => pair(long, Disturbance::PhoneDown(phone), Disturbance::PhoneUp(phone)),
        8..=11 => pair(short, Disturbance::NodeDown, Disturbance::NodeUp),
        12 => all.push((from, Disturbance::NodeRestart)),
        13 => {
            let fault = match random.random_range(0..3) {
                0 => MemoryFault::OutcomeUnknown,
                1 => MemoryFault::Slow(short),
                _ => MemoryFault::Read,
            };
            all.push((from, Disturbance::Store(fault)));
        }
        _ => {
            all.push((from, Disturbance::Store(MemoryFault::Stop)));
            all.push(((from + short).min(busy), Disturbance::NodeDown));
            all.push(((from + short + ms(300)).min(busy), Disturbance::NodeUp));
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
