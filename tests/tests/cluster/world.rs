//! Nodes of one cluster in this process, over loopback: one store, one coordination.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{Runtime, TokioRuntime};
use shoal_certs::{Claims, KeyFolder, Seed};
use shoal_client::{Client, Config, Delivered, DeviceId, Follow, GroupId, UserId, wire};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::Limits,
    coordination::{
        Coordination, InProcess, Load, NodeName, NodeRecord, Partition, Registration, Roles, leader,
    },
    node::{ClusterParts, Node, Parts},
    ops::Metrics,
    peer::PeerTls,
    store::{MemoryDisk, MemoryStore, MemoryTiming, Store},
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use wire::record::Body;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What all nodes share.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    keys: KeyFolder,
    store: Arc<dyn Store>,
    pub(crate) coordination: InProcess,
    pub(crate) limits: Limits,
    pub(crate) nodes: BTreeMap<&'static str, Member>,
}

/// One node. Without it its tasks end.
pub(crate) struct Member {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Arc<Metrics>,
    registration: Arc<dyn Registration>,
    /// What it does beside serving, once it was told to.
    beside: JoinSet<()>,
}

impl Member {
    /// The node goes in good order.
    pub(crate) async fn stop(self) {
        let Self { mut node, registration, mut beside, .. } = self;
        beside.shutdown().await;
        drop(registration);
        let node = loop {
            match Arc::try_unwrap(node) {
                Ok(node) => break node,
                Err(shared) => node = shared,
            }
            sleep(Duration::from_millis(1)).await;
        };
        node.shutdown(Duration::from_secs(1)).await;
    }
}

impl World {
    /// Nodes whose partitions are placed by hand: at first all over them.
    pub(crate) async fn new(names: &[&'static str]) -> Self {
        Self::with(names, Limits::default()).await
    }

    pub(crate) async fn with(names: &[&'static str], limits: Limits) -> Self {
        let mut world = Self { limits, ..Self::empty().await };
        for name in names {
            world.start(name, Roles::ALL).await;
        }
        world.place(names).await;
        world
    }

    /// Nodes that lead and report as those of the binary do, once all partitions are placed.
    pub(crate) async fn led(nodes: &[(&'static str, Roles)]) -> Self {
        let mut world = Self::empty().await;
        for (name, roles) in nodes {
            world.start(name, *roles).await;
        }
        for (name, roles) in nodes {
            world.takes_part(name, *roles);
        }
        world.settled().await;
        world
    }

    pub(crate) async fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFolder::open_or_create(
            dir.path(),
            &["127.0.0.1".into()],
            &Seed::random(),
            SystemClock.now_ms(),
        )
        .unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::new(1), MemoryTiming::default()));
        let (coordination, writer) = InProcess::open(Arc::clone(&store)).await.unwrap();
        tokio::spawn(writer.run());
        Self { dir, keys, store, coordination, limits: Limits::default(), nodes: BTreeMap::new() }
    }

    pub(crate) async fn start(&mut self, name: &'static str, roles: Roles) {
        self.start_with(name, roles, Arc::new(self.coordination.clone())).await;
    }

    /// A node that sees what this coordination shows it.
    pub(crate) async fn start_with(
        &mut self,
        name: &'static str,
        roles: Roles,
        coordination: Arc<dyn Coordination>,
    ) {
        self.start_at(name, roles, "here", coordination).await;
    }

    /// A node of this region.
    pub(crate) async fn start_in(&mut self, region: &str, name: &'static str, roles: Roles) {
        self.start_at(name, roles, region, Arc::new(self.coordination.clone())).await;
    }

    async fn start_at(
        &mut self,
        name: &'static str,
        roles: Roles,
        region: &str,
        coordination: Arc<dyn Coordination>,
    ) {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let socket = || runtime.wrap_udp_socket(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let (clients, peers) = (roles.access.then(socket), socket());
        let addresses: Vec<_> =
            clients.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
        let identity = self.keys.identity().unwrap();
        let metrics = Arc::new(Metrics::new());
        let cluster = ClusterParts {
            socket: Arc::clone(&peers),
            tls: PeerTls {
                server: shoal_certs::peer_server_config(&identity),
                client: shoal_certs::peer_client_config(&identity),
            },
            coordination,
            cluster: "test".into(),
            through: None,
        };
        let parts = Parts {
            sockets: clients.into_iter().collect(),
            runtime: Arc::clone(&runtime),
            tls: shoal_certs::server_config(&identity, 64),
            tokens: self.keys.token_verifier().unwrap(),
            store: Arc::clone(&self.store),
            clock: Arc::new(SystemClock),
            limits: self.limits.clone(),
            metrics: Arc::clone(&metrics),
            seed: rand::random(),
            secret: [7; 32],
            name: name.into(),
            addresses: addresses.clone(),
            cluster: Some(cluster),
            settings: None,
        };
        let node = Arc::new(Node::start(parts).await.unwrap());
        let record = NodeRecord {
            name: named(name),
            addresses,
            peer_addresses: vec![peers.local_addr().unwrap().to_string()],
            roles,
            region: region.into(),
            capacity: 1,
            started_ms: SystemClock.now_ms(),
            load: Load::default(),
        };
        let registration = self.coordination.register(record).await.unwrap().into();
        self.nodes.insert(name, Member { node, metrics, registration, beside: JoinSet::new() });
    }

    /// The node reports, and leads where it has the role and is elected.
    pub(crate) fn takes_part(&mut self, name: &str, roles: Roles) {
        let Member { node, registration, beside, .. } = self.nodes.get_mut(name).unwrap();
        let (reporting, registered) = (Arc::clone(node), Arc::clone(registration));
        beside.spawn(async move {
            reporting.report_to(&*registered).await;
        });
        if roles.coordination {
            let (coordination, registered) = (self.coordination.clone(), Arc::clone(registration));
            beside.spawn(async move {
                leader::run(&coordination, &*registered, Duration::from_secs(1)).await;
            });
        }
    }

    /// All partitions go to these nodes.
    pub(crate) async fn place(&self, names: &[&str]) {
        let capacities = names.iter().map(|name| (named(name), 1)).collect();
        let placed = self.coordination.placement().borrow().clone();
        let placement = placed.placement.after(&placed.placement.balance(&capacities));
        let leadership = self.nodes.values().next().unwrap().registration.lead().await;
        self.coordination.place(&leadership, placed.version, placement).await.unwrap().unwrap();
    }

    /// Waits until the leader has nothing to move any more.
    pub(crate) async fn settled(&self) {
        let mut placement = self.coordination.placement();
        let quiet = async {
            placement.wait_for(|placed| placed.version > 0).await.unwrap();
            while timeout(Duration::from_millis(1500), placement.changed()).await.is_ok() {}
        };
        timeout(3 * PATIENCE, quiet).await.expect("the placement settles");
    }

    /// How many partitions a node has.
    pub(crate) fn held(&self, name: &str) -> usize {
        self.coordination.placement().borrow().placement.held(&named(name))
    }

    /// The name of the node that the group's home is on.
    pub(crate) fn home(&self, group: GroupId) -> &'static str {
        let placed = self.coordination.placement().borrow().clone();
        let home = placed.placement.node_of(Partition::of(group)).unwrap();
        self.nodes.keys().find(|name| **name == home.0).unwrap()
    }

    pub(crate) fn address(&self, node: &str) -> String {
        self.nodes[node].node.local_addresses().unwrap()[0].to_string()
    }

    /// Where other nodes reach it.
    pub(crate) fn peer_address(&self, node: &str) -> String {
        self.coordination.nodes().borrow()[&named(node)].peer_addresses[0].clone()
    }

    /// What another node shows and asks for.
    pub(crate) fn peer_tls(&self) -> rustls::ClientConfig {
        shoal_certs::peer_client_config(&self.keys.identity().unwrap())
    }

    pub(crate) async fn client(&self, user: &str, node: &str) -> Client {
        Client::connect(self.config(user, node, false)).await.unwrap()
    }

    pub(crate) async fn admin(&self, node: &str) -> Client {
        Client::connect(self.config("admin", node, true)).await.unwrap()
    }

    pub(crate) fn config(&self, user: &str, node: &str, admin: bool) -> Config {
        let tls = shoal_client::tls_from_ca(&self.keys.ca_pem().unwrap()).unwrap();
        Config::new([self.address(node)], tls, self.token(user, admin), DeviceId(1))
    }

    pub(crate) fn token(&self, user: &str, admin: bool) -> String {
        let now_ms = SystemClock.now_ms();
        let claims = Claims { admin, ..Claims::new(user.parse().unwrap(), now_ms, now_ms + 3_600_000) };
        self.keys.token_signer().unwrap().sign(&claims)
    }
}

pub(crate) fn named(name: &str) -> NodeName {
    NodeName(name.into())
}

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// The next message: its place, and what it says.
pub(crate) async fn hear(follow: &mut Follow) -> (u64, String) {
    loop {
        let next = timeout(PATIENCE, follow.next()).await.expect("a message comes");
        let Some(Ok(delivered)) = next else { panic!("no record: {next:?}") };
        if let Delivered::Record(record) = delivered
            && let Some(Body::Message(message)) = record.body
        {
            return (record.seq, String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(3 * PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
}
