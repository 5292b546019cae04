//! What etcd is to a cluster, in memory: leases that run out on the simulated clock, an elected
//! leader, conditional writes; and for each node a way there that can be cut, and watches that lag.

mod model;

mod registration;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_node::{
    coordination::{
        Coordination, CoordinationError, Leadership, NodeName, NodeRecord, Nodes, Placed, Placement, Refused,
        Registration, drains,
    },
    settings,
    store::Setting,
};
use tokio::{sync::watch, time::sleep};

use super::{keys::SimClock, standstill::Standstill};
use model::Model;

/// How long a question and its answer take.
const ROUND_TRIP: Duration = Duration::from_millis(4);

/// How often a node sees what is new, while nothing is wrong.
const WATCH: Duration = Duration::from_millis(20);

type Settings = BTreeMap<String, Setting>;
type Watches = Vec<(String, watch::Sender<Arc<Settings>>)>;

/// The service itself. Cheap to clone; all clones are the same service.
#[derive(Debug, Clone)]
pub struct Service {
    model: Arc<Mutex<Model>>,
    clock: SimClock,
}

impl Service {
    /// Leases last so long.
    #[must_use]
    pub fn new(lease: Duration, clock: SimClock) -> Self {
        Self { model: Arc::new(Mutex::new(Model::new(lease))), clock }
    }

    /// The nodes that live.
    #[must_use]
    pub fn living(&self) -> Vec<NodeName> {
        self.model().nodes().keys().cloned().collect()
    }

    /// Which node has what.
    #[must_use]
    pub fn placed(&self) -> Arc<Placed> {
        self.model().placed()
    }

    /// Who decides that.
    #[must_use]
    pub fn leader(&self) -> Option<NodeName> {
        self.model().leader().map(|leader| leader.node)
    }

    /// A node's lease runs out before its time.
    pub fn expire(&self, node: &NodeName) {
        self.model().expire(node);
    }

    /// An operator wants a node emptied, or not any more.
    pub fn drain(&self, node: &NodeName, is_wished: bool) {
        self.model().set(&drains::key(node), is_wished.then(Bytes::new));
    }

    /// A setting is set live for all nodes, or is no more.
    pub fn set_live(&self, key: &str, value: Option<u64>) {
        self.model().set(&settings::recorded_at(key), value.map(|value| value.to_string().into()));
    }

    /// Partitions are moved by an operator, whoever leads.
    pub fn move_to(&self, change: impl FnOnce(&Placement) -> Placement) {
        self.model().force(change);
    }

    /// The model, as it is now.
    fn model(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.pass_to(self.clock.elapsed());
        model
    }
}

/// A node's way to the service; it outlives the node's starts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Way {
    service: Service,
    standstill: Standstill,
    is_cut: Arc<AtomicBool>,
    lag_ms: Arc<AtomicU64>,
}

impl Way {
    /// The way of a node.
    #[must_use]
    pub fn new(service: Service, standstill: Standstill) -> Self {
        Self { service, standstill, is_cut: Arc::default(), lag_ms: Arc::default() }
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// From now on the node sees what is new so much later.
    pub fn lag(&self, lag: Duration) {
        self.lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        !self.standstill.holds() && !self.is_cut.load(Ordering::Relaxed)
    }

    /// The model, after a round trip.
    async fn reach(&self) -> Result<MutexGuard<'_, Model>, CoordinationError> {
        sleep(ROUND_TRIP).await;
        self.standstill.over().await;
        if self.is_open() {
            return Ok(self.service.model());
        }
        Err(CoordinationError::Unavailable("it does not answer".into()))
    }
}

/// [`Coordination`] as one start of a node sees it. Cheap to clone.
///
/// Each of its watches has one task that waits for it: a watch of tokio's wakes several in an order
/// of its own drawing, and a seed would not replay.
#[derive(Debug, Clone)]
pub struct Coordinated {
    way: Way,
    nodes: watch::Sender<Arc<Nodes>>,
    placement: watch::Sender<Arc<Placed>>,
    leader: watch::Sender<Option<Leadership>>,
    watches: Arc<Mutex<Watches>>,
}

impl Coordinated {
    /// A node that starts, and has seen nothing.
    #[must_use]
    pub fn new(way: Way) -> Self {
        Self {
            way,
            nodes: watch::Sender::default(),
            placement: watch::Sender::default(),
            leader: watch::Sender::default(),
            watches: Arc::default(),
        }
    }

    /// Sees what is new, again and again.
    pub async fn watch_all(self) {
        loop {
            sleep(WATCH + Duration::from_millis(self.way.lag_ms.load(Ordering::Relaxed))).await;
            if self.way.is_open() {
                self.see();
            }
        }
    }

    fn see(&self) {
        let model = self.way.service.model();
        show(&self.nodes, model.nodes());
        show(&self.placement, model.placed());
        show(&self.leader, model.leader());
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, watch) in watches.iter() {
            show(watch, Arc::new(model.settings(prefix)));
        }
    }
}

fn show<T: PartialEq>(watch: &watch::Sender<T>, now: T) {
    watch.send_if_modified(|seen| {
        let is_new = *seen != now;
        *seen = now;
        is_new
    });
}

#[async_trait]
impl Coordination for Coordinated {
    async fn register(&self, node: NodeRecord) -> Result<Box<dyn Registration>, CoordinationError> {
        Ok(Box::new(registration::Lease::take(&self.way, node).await?))
    }

    fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.subscribe()
    }

    fn placement(&self) -> watch::Receiver<Arc<Placed>> {
        self.placement.subscribe()
    }

    fn leader(&self) -> watch::Receiver<Option<Leadership>> {
        self.leader.subscribe()
    }

    async fn place(
        &self,
        leadership: &Leadership,
        expected: u64,
        placement: Placement,
    ) -> Result<Result<u64, Refused>, CoordinationError> {
        let placed = self.way.reach().await?.place(leadership, expected, placement);
        Ok(placed)
    }

    async fn depose(&self, leadership: &Leadership) -> Result<(), CoordinationError> {
        self.way.reach().await?.depose(leadership);
        Ok(())
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, CoordinationError> {
        let setting = self.way.reach().await?.settings(key).remove(key);
        Ok(setting)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, CoordinationError> {
        let swapped = self.way.reach().await?.swap(key, expected, value);
        Ok(swapped)
    }

    async fn watch(&self, prefix: &str) -> Result<watch::Receiver<Arc<Settings>>, CoordinationError> {
        let settings = self.way.reach().await?.settings(prefix);
        let (sender, receiver) = watch::channel(Arc::new(settings));
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push((prefix.to_owned(), sender));
        Ok(receiver)
    }
}
