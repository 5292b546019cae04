//! Real nodes over stores in memory, and clients of them, on one network in memory.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use quinn::{AsyncUdpSocket, TokioRuntime};
use shoal_certs::{Authority, Claims, Identity, PrivateKey, Seed, TokenSigner, TokenVerifier};
use shoal_client::{Client, Config, Delivered, DeviceId, Follow, GroupId, State, UserId, wire};
use shoal_node::{
    clock::Clock,
    config::Limits,
    node::{Node, Parts},
    ops::Metrics,
    store::memory::{MemoryDisk, MemoryStore, MemoryTiming},
};
use tokio::time::Instant;

use crate::net::{MemoryTransport, Net};

/// Virtual time after which something counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) const START_MS: u64 = 1_790_000_000_000;

/// Where the node is.
pub(crate) const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4433);

#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now_ms(&self) -> u64 {
        START_MS + u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

/// Keys that a node and its clients share.
pub(crate) struct Keys {
    pub(crate) signer: Arc<TokenSigner>,
    pub(crate) verifier: TokenVerifier,
    pub(crate) identity: Identity,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let seed = Seed::from_number(1);
        let authority = Authority::new(PrivateKey::derive(&seed, "ca"), START_MS);
        let token_key = PrivateKey::derive(&seed, "token");
        Self {
            signer: Arc::new(TokenSigner::from_pem(&token_key.to_pem()).unwrap()),
            verifier: TokenVerifier::from_pem(&token_key.public_pem()).unwrap(),
            identity: authority.identity(&seed, &["10.0.0.1".to_owned()], START_MS).unwrap(),
            tls: Arc::new(shoal_client::tls_from_ca(authority.cert_pem()).unwrap()),
        }
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.signer.sign(&Claims::new(user.parse().unwrap(), START_MS, START_MS + 86_400_000))
    }
}

/// A node and all that its clients need.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) keys: Keys,
    pub(crate) node: Option<Node>,
    clock: Arc<VirtualClock>,
    disk: MemoryDisk,
    limits: Limits,
    hosts: AtomicU8,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let mut world = Self {
            net: Net::default(),
            keys: Keys::new(),
            node: None,
            clock: Arc::new(VirtualClock(Instant::now())),
            disk: MemoryDisk::new(1),
            limits,
            hosts: AtomicU8::new(0),
        };
        world.start().await;
        world
    }

    /// Starts the node over what the disk holds.
    pub(crate) async fn start(&mut self) {
        self.start_on(self.net.bind(NODE)).await;
    }

    /// The same, on any socket.
    pub(crate) async fn start_on(&mut self, socket: Arc<dyn AsyncUdpSocket>) {
        let parts = Parts {
            sockets: vec![socket],
            runtime: Arc::new(TokioRuntime),
            tls: shoal_certs::server_config(&self.keys.identity, 64),
            tokens: self.keys.verifier.clone(),
            store: Arc::new(MemoryStore::open(&self.disk, MemoryTiming::default())),
            clock: self.clock.clone(),
            limits: self.limits.clone(),
            metrics: Arc::new(Metrics::new()),
            seed: [7; 32],
            secret: [9; 32],
            name: "node-1".to_owned(),
            addresses: vec![NODE.to_string()],
            cluster: None,
            settings: None,
        };
        self.node = Some(Node::start(parts).await.unwrap());
    }

    /// Kills the node: it tells nobody.
    pub(crate) fn crash(&mut self) {
        self.node = None;
        self.disk.crash();
    }

    /// A host of its own for a client.
    pub(crate) fn host(&self) -> IpAddr {
        IpAddr::from([10, 0, 1, self.hosts.fetch_add(1, Ordering::Relaxed) + 1])
    }

    pub(crate) fn config(&self, user: &str, device: u64) -> Config {
        self.config_at(user, device, self.host())
    }

    pub(crate) fn config_at(&self, user: &str, device: u64, host: IpAddr) -> Config {
        Config::new([NODE.to_string()], self.keys.tls.clone(), self.keys.token(user), DeviceId(device))
            .transport(Arc::new(MemoryTransport::new(&self.net, host)))
            .seed(device)
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        Client::connect(self.config(user, 1)).await.unwrap()
    }
}

pub(crate) fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) fn open_group() -> wire::Settings {
    wire::Settings { title: "test".to_owned(), open: true, ..Default::default() }
}

/// The next message of a follow, records of other kinds left out: its place and its text.
pub(crate) async fn message(follow: &mut Follow) -> (u64, String) {
    loop {
        let next = tokio::time::timeout(PATIENCE, follow.next()).await.expect("a message comes");
        let Some(Ok(Delivered::Record(record))) = next else { panic!("no record: {next:?}") };
        if let Some(wire::record::Body::Message(message)) = record.body {
            return (record.seq, String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
}

pub(crate) async fn texts(follow: &mut Follow, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(message(follow).await.1);
    }
    texts
}

pub(crate) async fn state(client: &Client, wanted: impl Fn(&State) -> bool) -> State {
    let mut states = client.state();
    let state = tokio::time::timeout(PATIENCE, states.wait_for(wanted)).await.expect("the state comes");
    state.unwrap().clone()
}

/// A group of ada's that bob has joined, and both of them.
pub(crate) async fn ada_and_bob(world: &World) -> (GroupId, Client, Client) {
    let group = GroupId::named("test");
    let (ada, bob) = (world.client("ada").await, world.client("bob").await);
    ada.create(group, open_group(), &[]).await.unwrap();
    bob.join(group).await.unwrap();
    (group, ada, bob)
}
