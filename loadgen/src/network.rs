//! Clients on a weak network: each behind a relay of its own, towards each node.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use serde::Serialize;
use shoal_client::{Resolving, Transport, UdpTransport};
use shoal_network::{Profile, Relay, RelayStats, Trouble, Weather};
use tokio::{sync::watch, time::Instant};

use crate::{
    options::NetworkOptions,
    report::{Latencies, Quantiles},
};

/// The networks of a run's clients.
#[derive(Debug)]
pub(crate) struct Networks {
    profile: &'static Profile,
    trouble: Trouble,
    is_told: bool,
    began: Instant,
    seed: u64,
    felt: Arc<Mutex<Felt>>,
    all: Mutex<Vec<Weak<Network>>>,
}

/// What clients felt of their networks.
#[derive(Debug)]
struct Felt {
    resumed: Latencies,
    /// Through the networks that are gone.
    passed: RelayStats,
}

/// What apps felt of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkReport {
    /// The profile.
    pub profile: String,
    /// Times that a client's network was there again, or at another address, and something was delivered.
    pub resumed: u64,
    /// From then until something was delivered.
    pub resume_ms: Quantiles,
    /// Times that a client's address changed.
    pub moves: u64,
    /// UDP packets, both ways.
    pub packets: u64,
    /// Those of them that were lost.
    pub lost: u64,
    /// Bytes of UDP payload that were sent, both ways, for each delivery.
    pub bytes_per_delivery: f64,
}

impl Networks {
    /// None where clients reach their nodes by the machine's own network.
    pub(crate) fn new(options: &NetworkOptions, seed: u64) -> Option<Self> {
        let profile = options.network?;
        let felt = Felt { resumed: Latencies::coarse(), passed: RelayStats::default() };
        let (felt, began) = (Arc::new(Mutex::new(felt)), Instant::now());
        let (trouble, all) = (options.trouble(), Mutex::default());
        Some(Self { profile, trouble, is_told: options.told, began, seed, felt, all })
    }

    /// The network of one client.
    pub(crate) fn network(&self, number: u64) -> Arc<Network> {
        // Spread over the profile's stages: not all are in the tunnel at once.
        let phase = self.profile.cycle().mul_f64((number as f64 * 0.618_034).fract());
        let network = Arc::new(Network {
            udp: UdpTransport::new(),
            weather: Weather::new(self.profile, self.trouble, phase),
            is_told: self.is_told,
            began: self.began,
            seed: self.seed.wrapping_add(number << 20),
            relays: Mutex::default(),
            changed: watch::Sender::new(None),
            resumed: Mutex::default(),
            felt: self.felt.clone(),
        });
        lock(&self.all).push(Arc::downgrade(&network));
        network
    }

    /// What apps felt, of so many deliveries.
    pub(crate) fn report(&self, deliveries: u64) -> NetworkReport {
        let there: Vec<_> = lock(&self.all).iter().filter_map(Weak::upgrade).collect();
        let felt = lock(&self.felt);
        let mut passed = felt.passed;
        there.iter().for_each(|network| passed += network.passed());
        let RelayStats { up, down, bytes, lost, moves } = passed;
        let report = NetworkReport {
            profile: self.profile.name.to_owned(),
            resumed: felt.resumed.count(),
            resume_ms: felt.resumed.quantiles(),
            moves,
            packets: up + down,
            lost,
            bytes_per_delivery: bytes as f64 / deliveries.max(1) as f64,
        };
        // The last of a network takes the lock itself when it goes.
        drop(felt);
        report
    }
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, resumed, resume_ms, moves, packets, lost, bytes_per_delivery } = self;
        let percent = *lost as f64 * 100.0 / (*packets).max(1) as f64;
        write!(
            f,
            "{profile}; {lost} of {packets} packets lost ({percent:.1} %), {moves} changes of address; \
             {bytes_per_delivery:.0} bytes a delivery; {resumed} times resumed after {resume_ms}"
        )
    }
}

/// One client's network: sockets of its own, and a relay for each node that it reaches.
#[derive(Debug)]
pub(crate) struct Network {
    udp: UdpTransport,
    weather: Weather,
    is_told: bool,
    began: Instant,
    seed: u64,
    relays: Mutex<BTreeMap<SocketAddr, Relay>>,
    /// When the network last changed, as the relays say.
    changed: watch::Sender<Option<Instant>>,
    /// The last change of the network that something was delivered after; none before the first delivery, for
    /// which there may have been nothing to deliver.
    resumed: Mutex<Option<Option<Instant>>>,
    felt: Arc<Mutex<Felt>>,
}

impl Network {
    /// Something was delivered: if it is the first since the network changed, that took so long.
    pub(crate) fn delivered(&self) {
        let change = *self.changed.borrow();
        let before = lock(&self.resumed).replace(change);
        if let (Some(before), Some(change)) = (before, change)
            && before < Some(change)
        {
            lock(&self.felt).resumed.record(change.elapsed());
        }
    }

    /// When the network last changed, to be waited for, where the machine tells of it.
    pub(crate) fn changes(&self) -> Option<watch::Receiver<Option<Instant>>> {
        self.is_told.then(|| self.changed.subscribe())
    }

    fn passed(&self) -> RelayStats {
        let mut passed = RelayStats::default();
        lock(&self.relays).values().for_each(|relay| passed += relay.stats());
        passed
    }

    /// Where the relay to this node is.
    fn relay(&self, node: SocketAddr) -> io::Result<SocketAddr> {
        let mut relays = lock(&self.relays);
        if let Some(relay) = relays.get(&node) {
            return Ok(relay.address());
        }
        let weather = self.weather;
        let seed = self.seed.wrapping_add(relays.len() as u64);
        let relay = Relay::start(node, seed, self.began, self.changed.clone(), move |_| weather)?;
        Ok(relays.entry(node).or_insert(relay).address())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let passed = self.passed();
        lock(&self.felt).passed += passed;
    }
}

impl Transport for Network {
    fn resolve<'a>(&'a self, node: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = self.udp.resolve(node).await?;
            found.into_iter().map(|node| self.relay(node)).collect()
        })
    }

    fn endpoint(&self, remote: SocketAddr) -> io::Result<quinn::Endpoint> {
        self.udp.endpoint(remote)
    }

    fn rebind(&self) -> io::Result<bool> {
        self.udp.rebind()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
