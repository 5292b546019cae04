//! What goes wrong, and how it is made good.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use shoal_node::store::MemoryFault;

use super::{PHONES, live, ms};
use crate::sim::node::node_name;

/// A host of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Apps run on it.
    Phone(usize),
    /// A node runs on it.
    Node(usize),
}

impl Host {
    /// Its name on the network.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Phone(number) => format!("phone{number}"),
            Self::Node(number) => node_name(number),
        }
    }
}

/// Something that goes wrong, or is made good again.
#[derive(Debug, Clone, PartialEq)]
pub enum Disturbance {
    /// So many of a thousand datagrams are lost, so many come twice.
    Weather { lost: u32, doubled: u32 },
    /// The longest way of a datagram.
    Latency(Duration),
    /// The NAT before a phone forgets it: the phone's address is another.
    Forget(usize),
    /// Nothing is amiss with a phone's network any more.
    Mend(usize),
    /// Nothing passes between two hosts.
    Partition(Host, Host),
    /// Nothing passes from the first to the second.
    Mute(Host, Host),
    /// It does again.
    Heal(Host, Host),
    /// What is sent between two hosts waits.
    Hold(Host, Host),
    /// It arrives, all at once.
    Release(Host, Host),
    /// The host's machine goes down.
    Down(Host),
    /// It comes up again.
    Up(Host),
    /// A node is asked to stop, in good order, and started again.
    Restart(usize),
    /// The store of the nodes has trouble.
    Store(MemoryFault),
    /// A node's machine stands still.
    Pause(usize),
    /// It goes on.
    Continue(usize),
    /// A node's machine becomes a hundred times as slow, or is well again.
    Slow(usize, bool),
    /// The database's machine goes down.
    DatabaseDown,
    /// It comes up again.
    DatabaseUp,
    /// A node does not reach the database, or does again.
    DatabaseCut(usize, bool),
    /// A node does not reach coordination, or does again.
    CoordinationCut(usize, bool),
    /// What is new in coordination reaches a node so much later.
    Lag(usize, Duration),
    /// A node's lease runs out before its time.
    LeaseLost(usize),
    /// An operator wants a node emptied, or not any more.
    Drain(usize, bool),
    /// Groups are placed anew, as drawn from a seed.
    Place(u64),
    /// A setting is set live for all nodes, or is no more.
    Live(&'static str, Option<u64>),
}

/// All that goes wrong while apps are busy, in order.
pub(super) fn draw(
    random: &mut StdRng,
    nodes: usize,
    busy: Duration,
    longest: Duration,
) -> Vec<(Duration, Disturbance)> {
    let mut script = Script { busy, longest, nodes, all: Vec::new() };
    let count = random.random_range(2..14);
    for _ in 0..count {
        let from = busy.mul_f64(random.random_range(0.05..0.95));
        // One node alone has no others to be at odds with.
        if nodes > 1 && random.random_ratio(2, 3) {
            script.add_of_cluster(random, from);
        } else {
            script.add(random, from);
        }
    }
    script.all.extend(live::draw(random, nodes, busy));
    let mut all = script.all;
    all.sort_by_key(|(at, _)| *at);
    all
}

/// What makes all good again.
#[must_use]
pub fn remedies(nodes: usize, longest: Duration) -> Vec<Disturbance> {
    let mut all = vec![
        Disturbance::Weather { lost: 0, doubled: 0 },
        Disturbance::Latency(longest),
        Disturbance::DatabaseUp,
    ];
    for node in 0..nodes {
        all.extend([
            Disturbance::DatabaseCut(node, false),
            Disturbance::CoordinationCut(node, false),
            Disturbance::Lag(node, Duration::ZERO),
            Disturbance::Continue(node),
            Disturbance::Slow(node, false),
            Disturbance::Drain(node, false),
            Disturbance::Up(Host::Node(node)),
        ]);
        for other in (0..node).map(Host::Node).chain((0..PHONES).map(Host::Phone)) {
            all.extend([
                Disturbance::Heal(other, Host::Node(node)),
                Disturbance::Release(other, Host::Node(node)),
            ]);
        }
    }
    all.extend((0..PHONES).flat_map(|phone| [Disturbance::Mend(phone), Disturbance::Up(Host::Phone(phone))]));
    all.extend(live::remedies());
    all
}

struct Script {
    busy: Duration,
    longest: Duration,
    nodes: usize,
    all: Vec<(Duration, Disturbance)>,
}

impl Script {
    /// Something that one node can have too.
    fn add(&mut self, random: &mut StdRng, from: Duration) {
        let phone = Host::Phone(random.random_range(0..PHONES));
        let node = random.random_range(0..self.nodes);
        let short = ms(random.random_range(50..2_000));
        let long = ms(random.random_range(100..12_000));
        let (near, far) = (phone, Host::Node(node));
        match random.random_range(0..15) {
            0 | 1 => {
                let bad = Disturbance::Weather {
                    lost: random.random_range(0..200),
                    doubled: random.random_range(0..150),
                };
                self.pair(from, long, bad, Disturbance::Weather { lost: 0, doubled: 0 });
            }
            2 => {
                let bad = Disturbance::Latency(ms(random.random_range(100..900)));
                self.pair(from, long, bad, Disturbance::Latency(self.longest));
            }
            3 => self.pair(from, long, Disturbance::Partition(near, far), Disturbance::Heal(near, far)),
            4 => self.pair(from, short, Disturbance::Mute(near, far), Disturbance::Heal(near, far)),
            5 => self.pair(from, short, Disturbance::Mute(far, near), Disturbance::Heal(near, far)),
            6 => self.pair(from, short, Disturbance::Hold(near, far), Disturbance::Release(near, far)),
            7 => self.pair(from, long, Disturbance::Down(phone), Disturbance::Up(phone)),
            8..=11 => self.pair(from, short, Disturbance::Down(far), Disturbance::Up(far)),
            12 => self.all.push((from, Disturbance::Restart(node))),
            13 => {
                let fault = match random.random_range(0..3) {
                    0 => MemoryFault::OutcomeUnknown,
                    1 => MemoryFault::Slow(short),
                    _ => MemoryFault::Read,
                };
                self.all.push((from, Disturbance::Store(fault)));
            }
            _ if self.nodes > 1 => {
                self.pair(from, short, Disturbance::DatabaseDown, Disturbance::DatabaseUp);
            }
            _ => {
                self.all.push((from, Disturbance::Store(MemoryFault::Stop)));
                self.pair(from + short, ms(300), Disturbance::Down(far), Disturbance::Up(far));
            }
        }
    }

    /// Something between nodes, or between them and what they share.
    fn add_of_cluster(&mut self, random: &mut StdRng, from: Duration) {
        let node = random.random_range(0..self.nodes);
        let (one, other) = (Host::Node(node), Host::Node((node + 1) % self.nodes));
        let short = ms(random.random_range(50..2_500));
        let long = ms(random.random_range(100..9_000));
        match random.random_range(0..18) {
            0 => self.pair(from, long, Disturbance::Partition(one, other), Disturbance::Heal(one, other)),
            1 => self.pair(from, short, Disturbance::Mute(one, other), Disturbance::Heal(one, other)),
            2 => self.pair(from, short, Disturbance::Hold(one, other), Disturbance::Release(one, other)),
            3 => self.isolate(from, long, node),
            4 | 5 => self.pair(from, long, Disturbance::Pause(node), Disturbance::Continue(node)),
            6 => {
                let (bad, good) =
                    (Disturbance::DatabaseCut(node, true), Disturbance::DatabaseCut(node, false));
                self.pair(from, short, bad, good);
            }
            7 | 8 => self.cut_coordination(from, long, node..node + 1),
            9 => self.cut_coordination(from, long, 0..self.nodes),
            10 => {
                let lag = ms(random.random_range(100..3_000));
                self.pair(from, long, Disturbance::Lag(node, lag), Disturbance::Lag(node, Duration::ZERO));
            }
            11 => self.all.push((from, Disturbance::LeaseLost(node))),
            12 => self.all.push((from, Disturbance::Store(MemoryFault::OutcomeUnknown))),
            13 | 14 => {
                self.pair(from, long, Disturbance::Drain(node, true), Disturbance::Drain(node, false));
            }
            15 => self.pair(from, long, Disturbance::Slow(node, true), Disturbance::Slow(node, false)),
            _ => self.move_to_and_fro(random, from, long),
        }
    }

    /// A node reaches neither phones nor other nodes.
    fn isolate(&mut self, from: Duration, lasts: Duration, node: usize) {
        let others = (0..self.nodes).filter(|other| *other != node).map(Host::Node);
        let others: Vec<_> = others.chain((0..PHONES).map(Host::Phone)).collect();
        for other in others {
            let (bad, good) =
                (Disturbance::Partition(other, Host::Node(node)), Disturbance::Heal(other, Host::Node(node)));
            self.pair(from, lasts, bad, good);
        }
    }

    fn cut_coordination(&mut self, from: Duration, lasts: Duration, nodes: std::ops::Range<usize>) {
        for node in nodes {
            let (bad, good) =
                (Disturbance::CoordinationCut(node, true), Disturbance::CoordinationCut(node, false));
            self.pair(from, lasts, bad, good);
        }
    }

    /// Several times in a row.
    fn move_to_and_fro(&mut self, random: &mut StdRng, from: Duration, lasts: Duration) {
        for nth in 0..random.random_range(1..6) {
            let at = (from + lasts.mul_f64(f64::from(nth) / 6.0)).min(self.busy);
            self.all.push((at, Disturbance::Place(random.random())));
        }
    }

    fn pair(&mut self, from: Duration, lasts: Duration, bad: Disturbance, good: Disturbance) {
        let until = (from + lasts).min(self.busy);
        self.all.extend([(from.min(self.busy), bad), (until, good)]);
    }
}
