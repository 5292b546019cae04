//! Clients on a weak network: each behind a relay of its own, towards each node.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use shoal_client::{Resolving, Transport, UdpTransport};
use shoal_network::{Profile, Relay, Trouble, Weather};
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
    all: Mutex<Vec<Arc<Network>>>,
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
        let (all, began) = (Mutex::default(), Instant::now());
        Some(Self { profile, trouble: options.trouble(), is_told: options.told, began, seed, all })
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
            resumed: Mutex::new(Latencies::coarse()),
            felt: Mutex::default(),
        });
        lock(&self.all).push(network.clone());
        network
    }

    /// What apps felt, of so many deliveries.
    pub(crate) fn report(&self, deliveries: u64) -> NetworkReport {
        let mut resumed = Latencies::coarse();
        let (mut moves, mut packets, mut lost, mut bytes) = (0, 0, 0, 0);
        for network in &*lock(&self.all) {
            resumed.add(&lock(&network.resumed));
            for relay in lock(&network.relays).values() {
                let stats = relay.stats();
                moves += stats.moves;
                packets += stats.up + stats.down;
                lost += stats.lost;
                bytes += stats.bytes;
            }
        }
        NetworkReport {
            profile: self.profile.name.to_owned(),
            resumed: resumed.count(),
            resume_ms: resumed.quantiles(),
            moves,
            packets,
            lost,
            bytes_per_delivery: bytes as f64 / deliveries.max(1) as f64,
        }
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
    resumed: Mutex<Latencies>,
    /// The last change of the network that something was delivered after.
    felt: Mutex<Option<Instant>>,
}

impl Network {
    /// Something was delivered: if it is the first since the network changed, that took so long.
    pub(crate) fn delivered(&self) {
        let Some(change) = lock(&self.relays).values().filter_map(Relay::last_change).max() else { return };
        let mut felt = lock(&self.felt);
        if *felt < Some(change) {
            *felt = Some(change);
            lock(&self.resumed).record(change.elapsed());
        }
    }

    /// Waits until the machine would tell of another network; never, where nobody is told. Cancellation
    /// safe: whoever asks again hears of what came meanwhile.
    pub(crate) async fn changed(&self, seen: &mut Option<watch::Receiver<Option<Instant>>>) {
        if !self.is_told {
            return std::future::pending().await;
        }
        let first = || lock(&self.relays).values().next().map(Relay::changes);
        let Some(changes) = seen else {
            *seen = first();
            return match seen {
                Some(_) => {}
                None => std::future::pending().await,
            };
        };
        loop {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if changes.borrow_and_update().is_some() {
                return;
            }
        }
    }

    /// Where the relay to this node is.
    fn relay(&self, node: SocketAddr) -> io::Result<SocketAddr> {
        let mut relays = lock(&self.relays);
        if let Some(relay) = relays.get(&node) {
            return Ok(relay.address());
        }
        let weather = self.weather;
        let relay =
            Relay::start(node, self.seed.wrapping_add(relays.len() as u64), self.began, move |_| weather)?;
        Ok(relays.entry(node).or_insert(relay).address())
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

/// How long after the beginning of one blackout the next one begins, besides its own length.
pub(crate) const BLACKOUT_PAUSE: Duration = Duration::from_secs(30);
