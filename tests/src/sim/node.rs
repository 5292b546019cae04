//! The node's host: started from its disk, as often as it takes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quinn::{AsyncUdpSocket, TokioRuntime};
use shoal_node::{
    node::{Node, Parts},
    ops::Metrics,
    store::{MemoryDisk, MemoryStore, Store},
};
use tokio::sync::Notify;

use super::{
    chronicle::Chronicle,
    keys::{Keys, SimClock},
    mutation::Mutation,
    network::{SimSocket, Weather},
    plan::Plan,
    store::{Tails, WatchedStore},
};

/// The node's name on the network.
pub const NODE: &str = "node";

/// The node's port.
pub const PORT: u16 = 4433;

/// How long a node that is asked to stop gives its clients.
const GRACE: Duration = Duration::from_secs(2);

/// What the node's host is made of, and what outlives its crashes.
#[derive(Debug)]
pub struct NodeHost {
    /// The plan of the run.
    pub plan: Plan,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// What happens is told to it.
    pub chronicle: Chronicle,
    /// The disk.
    pub disk: MemoryDisk,
    /// How far the store got.
    pub tails: Tails,
    /// The keys of the world.
    pub keys: Arc<Keys>,
    /// Its wall clock.
    pub clock: SimClock,
    /// What becomes of its datagrams.
    pub weather: Weather,
    starts: AtomicU32,
    restart: Notify,
    open: Mutex<Option<MemoryStore>>,
}

impl NodeHost {
    /// A node that has not started.
    #[must_use]
    pub fn new(
        plan: Plan,
        mutation: Option<Mutation>,
        chronicle: Chronicle,
        keys: Arc<Keys>,
        clock: SimClock,
        weather: Weather,
    ) -> Self {
        let disk = MemoryDisk::new(plan.seed ^ 0x6469_736b);
        Self {
            plan,
            mutation,
            chronicle,
            disk,
            tails: Tails::default(),
            keys,
            clock,
            weather,
            starts: AtomicU32::new(0),
            restart: Notify::new(),
            open: Mutex::default(),
        }
    }

    /// Serves until the host goes down.
    ///
    /// # Errors
    /// Where the node does not start.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        loop {
            let start = self.starts.fetch_add(1, Ordering::Relaxed);
            let node = self.start(start).await?;
            self.chronicle.note(NODE, format!("start {start}"));
            self.restart.notified().await;
            self.chronicle.note(NODE, "stops in good order");
            node.shutdown(GRACE).await;
        }
    }

    /// Asks it to stop and start again.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Has the store stopped writing?
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|store| store.health().is_err())
    }

    async fn start(&self, start: u32) -> Result<Node, Box<dyn std::error::Error>> {
        let socket = self.bind(start).await;
        let store = MemoryStore::open(&self.disk, self.plan.timing.clone());
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
        let store = WatchedStore::new(store, self.chronicle.clone(), self.tails.clone(), self.mutation);
        let parts = Parts {
            sockets: vec![socket],
            runtime: Arc::new(TokioRuntime),
            tls: self.keys.server_tls(),
            tokens: self.keys.verifier(),
            store: Arc::new(store),
            clock: Arc::new(self.clock.clone()),
            limits: self.plan.limits.clone(),
            metrics: Arc::new(Metrics::new()),
            seed: seed32(self.plan.seed, u64::from(start)),
            secret: seed32(self.plan.seed, u64::MAX),
            name: NODE.into(),
            addresses: vec![format!("{NODE}:{PORT}")],
            cluster: None,
        };
        Ok(Node::start(parts).await?)
    }

    /// The port is free once the last endpoint has said its goodbyes.
    async fn bind(&self, start: u32) -> Arc<dyn AsyncUdpSocket> {
        loop {
            let seed = self.plan.seed.wrapping_add(u64::from(start) << 32);
            match SimSocket::bind(PORT, self.weather.clone(), seed).await {
                Ok(socket) => return Arc::new(socket),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
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
