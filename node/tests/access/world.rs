//! A node on a loopback socket, over a store in memory, with a clock that can be set.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Runtime, TokioRuntime};
use rustls::server::StoresServerSessions;
use shoal_certs::{Authority, Claims, Identity, PrivateKey, Seed, TokenSigner, TokenVerifier};
use shoal_node::{
    clock::Clock,
    config::Limits,
    node::{Node, Parts},
    ops::Metrics,
    store::memory::{MemoryDisk, MemoryStore, MemoryTiming},
};
use shoal_protocol::{DeviceId, UserId};
use tokio::time::Instant;

/// How long anything in these tests may take before it counts as hung.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The clock's first reading: 300 ms before a whole second, since tokens expire at whole ones.
pub(super) const START_MS: u64 = 1_790_000_000_700;

/// Goes on as tokio's clock does, from a time that can be moved.
#[derive(Debug)]
pub(super) struct TestClock {
    started: Instant,
    base_ms: AtomicU64,
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.base_ms.load(Ordering::Relaxed) + u64::try_from(self.started.elapsed().as_millis()).unwrap()
    }
}

/// A node, and all that it takes to be its client.
pub(super) struct World {
    pub(super) node: Option<Node>,
    pub(super) address: SocketAddr,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<TestClock>,
    pub(super) signer: TokenSigner,
    pub(super) ca_pem: String,
    identity: Identity,
    verifier: TokenVerifier,
    disk: MemoryDisk,
    limits: Limits,
    /// Where the node keeps its clients' tickets, if not as it does by default.
    pub(super) tickets: Option<Arc<dyn StoresServerSessions>>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A node with other limits.
    pub(super) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("shoal_node=debug").try_init();
        let mut limits = Limits::default();
        limits.group.member_rate_per_second = 1_000_000;
        limits.group.member_burst = 1_000_000;
        change(&mut limits);
        let seed = Seed::from_number(1);
        let authority = Authority::new(PrivateKey::derive(&seed, "ca"), START_MS);
        let token_key = PrivateKey::derive(&seed, "token");
        let mut world = Self {
            node: None,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metrics: Arc::new(Metrics::new()),
            clock: Arc::new(TestClock { started: Instant::now(), base_ms: AtomicU64::new(START_MS) }),
            signer: TokenSigner::from_pem(&token_key.to_pem()).unwrap(),
            ca_pem: authority.cert_pem().to_owned(),
            identity: authority.identity(&seed, &["127.0.0.1".to_owned()], START_MS).unwrap(),
            verifier: TokenVerifier::from_pem(&token_key.public_pem()).unwrap(),
            disk: MemoryDisk::new(1),
            limits,
            tickets: None,
        };
        world.start().await;
        world
    }

    /// Starts a node over what the disk holds, at the address of the last one.
    pub(super) async fn start(&mut self) {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let socket = UdpSocket::bind(self.address).unwrap();
        self.address = socket.local_addr().unwrap();
        let mut tls = shoal_certs::server_config(&self.identity, 64);
        if let Some(tickets) = &self.tickets {
            tls.session_storage = tickets.clone();
        }
        let parts = Parts {
            sockets: vec![runtime.wrap_udp_socket(socket).unwrap()],
            runtime,
            tls,
            tokens: self.verifier.clone(),
            store: Arc::new(MemoryStore::open(&self.disk, MemoryTiming::default())),
            clock: self.clock.clone(),
            limits: self.limits.clone(),
            metrics: self.metrics.clone(),
            seed: [7; 32],
            secret: [9; 32],
            name: "node-1".to_owned(),
            addresses: vec![self.address.to_string(), "other.example:4433".to_owned()],
            cluster: None,
            settings: None,
        };
        self.node = Some(Node::start(parts).await.unwrap());
    }

    /// Kills the node: it tells nobody.
    pub(super) fn crash(&mut self) {
        self.node = None;
        self.disk.crash();
    }

    /// A token of a user, for an hour.
    pub(super) fn token(&self, user: &str) -> String {
        self.signer.sign(&self.claims(user))
    }

    pub(super) fn claims(&self, user: &str) -> Claims {
        let now_ms = self.clock.now_ms();
        Claims::new(UserId::new(user).unwrap(), now_ms, now_ms + 3_600_000)
    }

    pub(super) fn admin_token(&self, user: &str) -> String {
        self.signer.sign(&Claims { admin: true, ..self.claims(user) })
    }

    pub(super) fn device_token(&self, user: &str, device: u64) -> String {
        self.signer.sign(&Claims { device: Some(DeviceId(device)), ..self.claims(user) })
    }
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never came: {what}"));
}
