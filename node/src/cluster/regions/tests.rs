use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::*;
use crate::{
    cluster::{
        steering,
        surplus::{Region, Tolerance},
    },
    coordination::{Load, NodeName, conformance},
};

fn node(name: &str, region: &str, sessions: u64, sessions_max: u64) -> NodeRecord {
    let load = Load { sessions, sessions_max, ..Load::default() };
    NodeRecord { region: region.into(), capacity: 1, load, ..conformance::node(name) }
}

#[test]
fn a_home_is_another_region_in_which_a_node_has_room() {
    let nodes = [
        node("a", "here", 0, 1_000),
        node("b", "there", 850, 1_000),
        node("c", "there", 0, 1_000),
        node("d", "full", 900, 1_000),
    ];
    let homes = Homes::new("here", nodes.iter());
    assert_eq!(homes.names().collect::<Vec<_>>(), ["there"]);
    assert!(homes.have("there"));
    for nobodys in ["here", "full", "nowhere", ""] {
        assert!(!homes.have(nobodys), "{nobodys:?}");
    }
    let names = |region| at_home("here", region, nodes.iter()).map(|node| node.name.0.as_str());
    assert_eq!(names("there").collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(["here", "full", ""].map(|region| names(region).count()), [0, 0, 0]);
}

#[test]
fn no_more_are_sent_home_than_there_is_room() {
    let nodes = [node("a", "there", 898, 1_000), node("b", "there", 2_000, 1_000)];
    let mut homes = Homes::new("here", nodes.iter());
    assert_eq!([(); 3].map(|()| homes.take("there")), [true, true, false]);
    assert!(!homes.have("there") && !homes.take("nowhere"));
}

const REGIONS: [&str; 3] = ["north", "south", "west"];
const TOLERANCE: Tolerance = Tolerance { percent: 125, sessions: 20 };

/// One client, and where it has been.
struct Client {
    states: Option<&'static str>,
    on: usize,
    been_on: BTreeSet<usize>,
    rested_at: u32,
}

/// Nodes of several regions that see each other late, send guests home and even out what they carry.
struct World {
    nodes: Vec<NodeRecord>,
    clients: Vec<Client>,
    /// What the nodes' records said, second by second.
    records: VecDeque<Vec<u64>>,
    /// When each node looks again.
    looks_at: Vec<u32>,
    now: u32,
    random: StdRng,
    moved: u64,
}

impl World {
    const STALE: usize = 3;
    const SETTLE: u32 = 5;
    const WAVE: usize = 20;
    const REST: u32 = 30;

    fn new(nodes: &[(usize, u64)], clients: &[(usize, usize)], seed: u64) -> Self {
        let node = |(number, (region, max)): (usize, &(usize, u64))| {
            node(&number.to_string(), REGIONS[*region], 0, *max)
        };
        let client = |(on, states): &(usize, usize)| {
            let on = on % nodes.len();
            Client { states: REGIONS.get(*states).copied(), on, been_on: [on].into(), rested_at: 0 }
        };
        let mut world = Self {
            nodes: nodes.iter().enumerate().map(node).collect(),
            clients: clients.iter().map(client).collect(),
            records: VecDeque::new(),
            looks_at: vec![0; nodes.len()],
            now: 0,
            random: StdRng::seed_from_u64(seed),
            moved: 0,
        };
        world.records = std::iter::repeat_n(world.carried(), Self::STALE).collect();
        world
    }

    fn carried(&self) -> Vec<u64> {
        let on = |node| self.clients.iter().filter(|client| client.on == node).count() as u64;
        (0..self.nodes.len()).map(on).collect()
    }

    fn pass_a_second(&mut self) -> Result<(), TestCaseError> {
        let seen = self.records.pop_front().expect("there is one for each second");
        let mut nodes = self.nodes.clone();
        for (node, sessions) in nodes.iter_mut().zip(seen) {
            node.load.sessions = sessions;
        }
        for me in 0..nodes.len() {
            if self.looks_at[me] > self.now {
                continue;
            }
            let offered = self.send_home(&nodes, me)? + self.even_out(&nodes, me)?;
            if offered > 0 {
                self.looks_at[me] = self.now + Self::SETTLE;
            }
        }
        self.records.push_back(self.carried());
        self.now += 1;
        Ok(())
    }

    fn send_home(&mut self, nodes: &[NodeRecord], me: usize) -> Result<usize, TestCaseError> {
        let here = &nodes[me].region;
        let mut homes = Homes::new(here, others(nodes, me));
        let mut guests =
            self.draw(me, Self::WAVE, |client| client.states.is_some_and(|home| homes.have(home)));
        guests.retain(|guest| self.clients[*guest].states.is_some_and(|home| homes.take(home)));
        for guest in &guests {
            let home = self.clients[*guest].states.expect("it states one");
            let at_home = at_home(here, home, others(nodes, me));
            let to = steering::order(at_home, &[], || self.random.random()).first().copied();
            prop_assert!(to.is_none_or(|to| to.region == home));
            prop_assert_ne!(here, home, "whoever is at home stays there");
            self.go(*guest, to)?;
        }
        Ok(guests.len())
    }

    fn even_out(&mut self, nodes: &[NodeRecord], me: usize) -> Result<usize, TestCaseError> {
        let homes = Homes::new(&nodes[me].region, others(nodes, me));
        let is_guest = |client: &Client| client.states.is_some_and(|home| homes.have(home));
        let own = self.clients.iter().filter(|client| client.on == me && !is_guest(client)).count();
        let region = Region::new(&nodes[me], own as u64, others(nodes, me));
        let wave = (region.surplus(TOLERANCE) as usize).min(Self::WAVE);
        let leaving = self.draw(me, wave, |client| !is_guest(client));
        for client in &leaving {
            let to = steering::order_by_lots(region.lacking(), || self.random.random()).first().copied();
            self.go(*client, to)?;
        }
        Ok(leaving.len())
    }

    fn draw(&mut self, me: usize, most: usize, may: impl Fn(&Client) -> bool) -> Vec<usize> {
        let may = |client: &Client| client.on == me && client.rested_at <= self.now && may(client);
        let clients = self.clients.iter().enumerate().filter(|(_, client)| may(client));
        clients.map(|(number, _)| number).sample(&mut self.random, most)
    }

    /// A client takes an offer, unless the node is full.
    fn go(&mut self, client: usize, to: Option<&NodeRecord>) -> Result<(), TestCaseError> {
        self.clients[client].rested_at = self.now + Self::REST;
        let to = to.and_then(|to| self.nodes.iter().position(|node| node.name == to.name));
        let Some(to) = to else { return Ok(()) };
        if self.carried()[to] < self.nodes[to].load.sessions_max {
            let client = &mut self.clients[client];
            prop_assert!(client.been_on.insert(to), "{:?}, {:?}", client.been_on, client.states);
            client.on = to;
            self.moved += 1;
        }
        Ok(())
    }

    /// Those who could go home, as all stands now.
    fn abroad(&self) -> usize {
        let mut nodes = self.nodes.clone();
        for (node, sessions) in nodes.iter_mut().zip(self.carried()) {
            node.load.sessions = sessions;
        }
        let is_abroad = |client: &&Client| {
            let homes = Homes::new(&nodes[client.on].region, nodes.iter());
            client.states.is_some_and(|home| homes.have(home))
        };
        self.clients.iter().filter(is_abroad).count()
    }
}

fn others(nodes: &[NodeRecord], me: usize) -> impl Iterator<Item = &NodeRecord> {
    let name: &NodeName = &nodes[me].name;
    nodes.iter().filter(move |node| node.name != *name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However old the figures, and however guests and load mix: nobody is sent where it has been, all who
    /// can come home do, and then nothing moves.
    #[test]
    fn all_come_home_and_nobody_is_moved_back_and_forth(
        nodes in prop::collection::vec((0_usize..3, 20_u64..400), 1..6),
        clients in prop::collection::vec((0_usize..6, 0_usize..5), 0..400),
        seed: u64,
    ) {
        let mut world = World::new(&nodes, &clients, seed);
        for _ in 0..300 {
            world.pass_a_second()?;
        }
        prop_assert_eq!(world.abroad(), 0);
        let moved = world.moved;
        for _ in 0..60 {
            world.pass_a_second()?;
        }
        prop_assert_eq!(world.moved, moved, "it is at rest");
    }
}
