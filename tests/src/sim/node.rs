//! A node's host: started as often as it takes, alone on its disk or as one of a cluster.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quinn::{AsyncUdpSocket, TokioRuntime};
use shoal_node::{
    clock::Clock,
    config::{Config, Loaded},
    coordination::{Coordination, Load, NodeName, NodeRecord, Registration, Roles, leader},
    node::{ClusterParts, Node, Parts},
    ops::Metrics,
    settings::Settings,
    store::{MemoryDisk, MemoryStore, Store},
};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

use super::{
    coordination::{self, Coordinated},
    database, elsewhere,
    mutation::Mutation,
    network::SimSocket,
    scene::Scene,
    standstill::Standstill,
    store::LyingStore,
};

/// The port for clients.
const PORT: u16 = 4433;

/// The port for other nodes.
const PEER_PORT: u16 = 4434;

/// How long a node that is asked to stop gives its clients.
const GRACE: Duration = Duration::from_secs(2);

/// How long a node waits before it asks coordination again.
const RETRY: Duration = Duration::from_millis(200);

/// The nth node's name, in the cluster and on the network.
#[must_use]
pub fn node_name(number: usize) -> String {
    format!("node{number}")
}

/// Where clients reach so many nodes.
#[must_use]
pub fn client_addresses(nodes: usize) -> Vec<String> {
    (0..nodes).map(|number| format!("{}:{PORT}", node_name(number))).collect()
}

/// Where a node keeps what is durable.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// On its own disk, which goes down with it.
    Alone(MemoryDisk),
    /// In the database that it shares with others.
    Shared(database::Way),
}

/// What a node's host is made of, and what outlives its crashes.
#[derive(Debug)]
pub struct NodeHost {
    number: usize,
    scene: Arc<Scene>,
    /// What is durable.
    pub keeping: Keeping,
    /// How it knows of the others, and of what is set live.
    pub coordination: coordination::Way,
    /// Does its machine stand still?
    pub standstill: Standstill,
    starts: AtomicU32,
    restart: Notify,
    open: Mutex<Option<MemoryStore>>,
}

/// A node that serves, and what ends with it.
struct Serving {
    node: Node,
    settings: Arc<Settings>,
    coordination: Option<(Coordinated, Box<dyn Registration>)>,
    _watching: JoinSet<()>,
}

impl NodeHost {
    /// A node that has not started.
    #[must_use]
    pub fn new(
        number: usize,
        scene: Arc<Scene>,
        keeping: Keeping,
        coordination: coordination::Way,
        standstill: Standstill,
    ) -> Self {
        Self {
            number,
            scene,
            keeping,
            coordination,
            standstill,
            starts: AtomicU32::new(0),
            restart: Notify::new(),
            open: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        node_name(self.number)
    }

    /// Serves until the host goes down.
    ///
    /// # Errors
    /// Where the node does not start, or another has taken its name.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        loop {
            let start = self.starts.fetch_add(1, Ordering::Relaxed);
            let Serving { node, settings, coordination, _watching } = self.start(start).await?;
            self.scene.chronicle.note(self.name(), format!("start {start}"));
            let grace = self.scene.plan.lease;
            let following = settings.follow(|config: &Config| node.set_limits(&config.limits));
            match &coordination {
                None => tokio::select! {
                    biased;
                    () = self.restart.notified() => {}
                    never = following => match never {},
                },
                Some((coordination, registration)) => tokio::select! {
                    biased;
                    () = self.restart.notified() => {}
                    () = registration.lost() => return Err("another has taken its name".into()),
                    never = following => match never {},
                    never = node.report_to(&**registration) => match never {},
                    never = leader::run(coordination, &**registration, grace) => match never {},
                },
            }
            self.scene.chronicle.note(self.name(), "stops in good order");
            drop(coordination);
            node.shutdown(GRACE).await;
        }
    }

    /// Asks it to stop and start again.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Has its own store stopped writing?
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|store| store.health().is_err())
    }

    async fn start(&self, start: u32) -> Result<Serving, Box<dyn std::error::Error>> {
        let socket = self.bind(PORT, start).await;
        let mut watching = JoinSet::new();
        let coordinated = Coordinated::new(self.coordination.clone());
        watching.spawn_local(coordinated.clone().watch_all());
        let settings = Arc::new(self.settings(&coordinated).await);
        let cluster = match &self.keeping {
            Keeping::Alone(_) => None,
            Keeping::Shared(_) => Some(self.cluster(start, &coordinated).await),
        };
        let plan = &self.scene.plan;
        let seed = plan.seed.wrapping_add(self.number as u64);
        let parts = Parts {
            sockets: vec![socket],
            runtime: Arc::new(TokioRuntime),
            tls: self.scene.keys.server_tls(),
            tokens: self.scene.keys.verifier(),
            store: Arc::new(LyingStore::new(self.store(), self.scene.ledger.clone(), self.scene.mutation)),
            clock: Arc::new(self.scene.clock.clone()),
            limits: settings.config().limits,
            metrics: Arc::new(Metrics::new()),
            seed: seed32(seed, u64::from(start)),
            secret: seed32(seed, u64::MAX),
            name: self.name(),
            addresses: client_addresses(plan.nodes),
            cluster,
            settings: Some(Arc::clone(&settings)),
        };
        let node = Node::start(parts).await?;
        let coordination = match &self.keeping {
            Keeping::Alone(_) => None,
            Keeping::Shared(_) => {
                let registration = self.register(&coordinated).await;
                Some((coordinated, registration))
            }
        };
        Ok(Serving { node, settings, coordination, _watching: watching })
    }

    fn store(&self) -> Arc<dyn Store> {
        match &self.keeping {
            Keeping::Alone(disk) => {
                let store = MemoryStore::open(disk, self.scene.plan.timing.clone());
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
                Arc::new(store)
            }
            Keeping::Shared(way) => Arc::new(way.clone()),
        }
    }

    async fn cluster(&self, start: u32, coordinated: &Coordinated) -> ClusterParts {
        ClusterParts {
            socket: self.bind(PEER_PORT, start).await,
            tls: self.scene.keys.peer_tls(),
            coordination: Arc::new(coordinated.clone()),
            cluster: "sim".into(),
            through: self.scene.breaks(Mutation::FedAsItComes).then(|| Box::new(elsewhere::as_it_comes) as _),
        }
    }

    /// The settings it goes by, as soon as coordination says which are live.
    async fn settings(&self, coordinated: &Coordinated) -> Settings {
        let config = Config { limits: self.scene.plan.limits.clone(), ..Config::default() };
        let own = Loaded { config, origins: BTreeMap::new(), warnings: Vec::new() };
        loop {
            match Settings::begin(own.clone(), Arc::new(coordinated.clone())).await {
                Ok(settings) => return settings,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Registers it, as soon as coordination answers.
    async fn register(&self, coordinated: &Coordinated) -> Box<dyn Registration> {
        let record = NodeRecord {
            name: NodeName(self.name()),
            addresses: vec![format!("{}:{PORT}", self.name())],
            peer_addresses: vec![format!("{}:{PEER_PORT}", turmoil::lookup(self.name()))],
            roles: Roles::ALL,
            region: "here".into(),
            capacity: 1,
            started_ms: self.scene.clock.now_ms(),
            load: Load::default(),
        };
        loop {
            match coordinated.register(record.clone()).await {
                Ok(registration) => return registration,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// The port is free once the last endpoint has said its goodbyes.
    async fn bind(&self, port: u16, start: u32) -> Arc<dyn AsyncUdpSocket> {
        let seed = self.scene.plan.seed.wrapping_add(u64::from(start) << 32) ^ u64::from(port);
        let seed = seed.wrapping_add((self.number as u64) << 48);
        loop {
            match SimSocket::bind(port, self.scene.weather.clone(), seed).await {
                Ok(socket) => return Arc::new(socket.on(self.standstill.clone())),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn seed32(seed: u64, purpose: u64) -> [u8; 32] {
    let mut all = [0; 32];
    all[..8].copy_from_slice(&seed.to_le_bytes());
    all[8..16].copy_from_slice(&purpose.to_le_bytes());
    all
}
