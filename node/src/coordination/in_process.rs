//! Coordination for one node: liveness in memory, placement and settings in its store.
//!
//! All writes go through one [`Writer`], so that whoever watches sees them in the order in which
//! they became durable.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::{
    Coordination, CoordinationError, Leadership, Load, NodeName, NodeRecord, Nodes, Placed, Placement,
    Refused, Registration, Standing, checked, checked_value,
};
use crate::store::{Setting, Store, StoreError};

const PLACEMENT: &str = "coordination/placement";
const SETTINGS: &str = "setting/";
/// Writes waiting for the writer; further ones wait to be queued.
const COMMANDS_MAX: usize = 64;
/// Prefixes watched at once.
const WATCHES_MAX: usize = 64;

type Settings = BTreeMap<String, Setting>;
type Swapped<T> = Result<Result<u64, T>, CoordinationError>;

/// [`Coordination`] for one node, kept in its store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InProcess {
    living: Arc<Mutex<Living>>,
    nodes: watch::Receiver<Arc<Nodes>>,
    leader: watch::Receiver<Option<Leadership>>,
    placement: watch::Receiver<Arc<Placed>>,
    commands: mpsc::Sender<Command>,
}

/// Who is registered, and who leads.
#[derive(Debug, Default)]
struct Living {
    standings: BTreeMap<NodeName, watch::Sender<Standing>>,
    terms: u64,
    nodes: watch::Sender<Arc<Nodes>>,
    leader: watch::Sender<Option<Leadership>>,
}

/// Carries out the writes of an [`InProcess`]. Run it in a task; it ends with the last handle.
pub struct Writer {
    store: Arc<dyn Store>,
    commands: mpsc::Receiver<Command>,
    leader: watch::Receiver<Option<Leadership>>,
    placement: watch::Sender<Arc<Placed>>,
    watches: Vec<(String, watch::Sender<Arc<Settings>>)>,
}

#[derive(Debug)]
enum Command {
    Place {
        leadership: Leadership,
        expected: u64,
        placement: Placement,
        answer: oneshot::Sender<Swapped<Refused>>,
    },
    Read {
        key: String,
        answer: oneshot::Sender<Result<Option<Setting>, CoordinationError>>,
    },
    Swap {
        key: String,
        expected: u64,
        value: Option<Bytes>,
        answer: oneshot::Sender<Swapped<Option<Setting>>>,
    },
    Watch {
        prefix: String,
        answer: oneshot::Sender<Result<watch::Receiver<Arc<Settings>>, CoordinationError>>,
    },
}

impl InProcess {
    /// Reads what the store keeps.
    ///
    /// # Errors
    /// Where the store cannot be read, or holds a placement that is none.
    pub async fn open(store: Arc<dyn Store>) -> Result<(Self, Writer), CoordinationError> {
        let placed = match store.setting(PLACEMENT).await? {
            Some(setting) => decode(&setting)?,
            None => Placed::default(),
        };
        let (sender, placement) = watch::channel(Arc::new(placed));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let living = Living::default();
        let (nodes, leader) = (living.nodes.subscribe(), living.leader.subscribe());
        let writer = Writer {
            store,
            commands: receiver,
            leader: leader.clone(),
            placement: sender,
            watches: Vec::new(),
        };
        let handle = Self { living: Arc::new(Mutex::new(living)), nodes, leader, placement, commands };
        Ok((handle, writer))
    }

    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, CoordinationError>>) -> Command,
    ) -> Result<T, CoordinationError> {
        let gone = || CoordinationError::Unavailable("the node is stopping".into());
        let (answer, receiver) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Coordination for InProcess {
    async fn register(&self, node: NodeRecord) -> Result<Box<dyn Registration>, CoordinationError> {
        let name = node.name.clone();
        let standing = self.living().join(node);
        Ok(Box::new(Lease { name, standing, of: self.clone() }))
    }

    fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.clone()
    }

    fn leader(&self) -> watch::Receiver<Option<Leadership>> {
        self.leader.clone()
    }

    fn placement(&self) -> watch::Receiver<Arc<Placed>> {
        self.placement.clone()
    }

    async fn place(&self, leadership: &Leadership, expected: u64, placement: Placement) -> Swapped<Refused> {
        let leadership = leadership.clone();
        self.ask(|answer| Command::Place { leadership, expected, placement, answer }).await
    }

    async fn depose(&self, leadership: &Leadership) -> Result<(), CoordinationError> {
        self.living().depose(|leader| leader == leadership);
        Ok(())
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, CoordinationError> {
        let key = checked(key)?;
        self.ask(|answer| Command::Read { key, answer }).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Swapped<Option<Setting>> {
        let key = checked(key)?;
        checked_value(value.as_ref())?;
        self.ask(|answer| Command::Swap { key, expected, value, answer }).await
    }

    async fn watch(&self, prefix: &str) -> Result<watch::Receiver<Arc<Settings>>, CoordinationError> {
        let prefix = checked(prefix)?;
        self.ask(|answer| Command::Watch { prefix, answer }).await
    }
}

impl Living {
    fn join(&mut self, node: NodeRecord) -> watch::Sender<Standing> {
        let standing = watch::Sender::default();
        if let Some(before) = self.standings.insert(node.name.clone(), standing.clone()) {
            before.send_replace(Standing::Lost);
            self.depose(|leader| leader.node == node.name);
        }
        self.nodes.send_modify(|nodes| drop(Arc::make_mut(nodes).insert(node.name.clone(), node)));
        standing
    }

    fn leave(&mut self, name: &NodeName) {
        self.standings.remove(name);
        self.depose(|leader| leader.node == *name);
        self.nodes.send_modify(|nodes| drop(Arc::make_mut(nodes).remove(name)));
    }

    fn elect(&mut self, node: &NodeName) -> Option<Leadership> {
        if self.leader.borrow().is_none() {
            self.terms += 1;
            self.leader.send_replace(Some(Leadership { node: node.clone(), term: self.terms }));
        }
        self.leader.borrow().clone().filter(|leader| leader.node == *node)
    }

    fn depose(&self, is_over: impl Fn(&Leadership) -> bool) {
        self.leader.send_if_modified(|leader| leader.take_if(|leader| is_over(leader)).is_some());
    }
}

/// One registration of a node.
#[derive(Debug)]
struct Lease {
    name: NodeName,
    standing: watch::Sender<Standing>,
    of: InProcess,
}

impl Lease {
    /// What is done under it is done while it is held.
    fn while_held<T>(&self, act: impl FnOnce(&mut Living) -> T) -> Option<T> {
        let mut living = self.of.living();
        let is_held = *self.standing.borrow() == Standing::Held;
        is_held.then(|| act(&mut living))
    }
}

#[async_trait]
impl Registration for Lease {
    fn node(&self) -> &NodeName {
        &self.name
    }

    fn report(&self, load: Load) {
        self.while_held(|living| {
            living.nodes.send_modify(|nodes| {
                if let Some(node) = Arc::make_mut(nodes).get_mut(&self.name) {
                    node.load = load;
                }
            });
        });
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    async fn lead(&self) -> Leadership {
        let mut leader = self.of.leader.clone();
        loop {
            leader.mark_unchanged();
            if let Some(leadership) = self.while_held(|living| living.elect(&self.name)).flatten() {
                return leadership;
            }
            if leader.changed().await.is_err() {
                pending().await
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.while_held(|living| living.leave(&self.name));
    }
}

impl Writer {
    /// Carries out writes until the last handle is gone.
    pub async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            // Whoever asked may have gone: what was asked for is done nevertheless.
            match command {
                Command::Place { leadership, expected, placement, answer } => {
                    let refused = (*self.leader.borrow() != Some(leadership)).then_some(Refused::Deposed);
                    let placed = match refused {
                        Some(refused) => Ok(Err(refused)),
                        None => self.place(expected, placement).await,
                    };
                    drop(answer.send(placed));
                }
                Command::Read { key, answer } => {
                    drop(answer.send(self.store.setting(&stored(&key)).await.map_err(Into::into)));
                }
                Command::Swap { key, expected, value, answer } => {
                    drop(answer.send(self.swap(&key, expected, value).await));
                }
                Command::Watch { prefix, answer } => drop(answer.send(self.watch(prefix).await)),
            }
        }
    }

    async fn place(&mut self, expected: u64, placement: Placement) -> Swapped<Refused> {
        let value = serde_json::to_vec(&placement).expect("a placement is JSON");
        match self.store.compare_and_swap(PLACEMENT, expected, Some(value.into())).await? {
            Ok(version) => {
                self.placement.send_replace(Arc::new(Placed { version, placement }));
                Ok(Ok(version))
            }
            Err(current) => {
                let placed = Arc::new(current.as_ref().map(decode).transpose()?.unwrap_or_default());
                self.placement.send_replace(Arc::clone(&placed));
                Ok(Err(Refused::Moved(placed)))
            }
        }
    }

    async fn swap(&mut self, key: &str, expected: u64, value: Option<Bytes>) -> Swapped<Option<Setting>> {
        let swapped = self.store.compare_and_swap(&stored(key), expected, value.clone()).await;
        match &swapped {
            Ok(Ok(version)) => {
                let setting = value.map(|value| Setting { version: *version, value });
                self.tell(key, setting.as_ref());
            }
            Ok(Err(_)) => {}
            // It may have been written: whoever watches is to see what there is.
            Err(_) => self.read_again().await,
        }
        Ok(swapped?)
    }

    async fn watch(&mut self, prefix: String) -> Result<watch::Receiver<Arc<Settings>>, CoordinationError> {
        self.watches.retain(|(_, watch)| !watch.is_closed());
        if let Some((_, watch)) = self.watches.iter().find(|(watched, _)| *watched == prefix) {
            return Ok(watch.subscribe());
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err(CoordinationError::TooManyWatches(WATCHES_MAX));
        }
        let (sender, receiver) = watch::channel(Arc::new(self.read(&prefix).await?));
        self.watches.push((prefix, sender));
        Ok(receiver)
    }

    fn tell(&self, key: &str, setting: Option<&Setting>) {
        for (_, watch) in self.watches.iter().filter(|(prefix, _)| key.starts_with(prefix)) {
            watch.send_modify(|settings| {
                let settings = Arc::make_mut(settings);
                match setting {
                    Some(setting) => drop(settings.insert(key.to_owned(), setting.clone())),
                    None => drop(settings.remove(key)),
                }
            });
        }
    }

    async fn read_again(&self) {
        for (prefix, watch) in &self.watches {
            match self.read(prefix).await {
                Ok(settings) => drop(watch.send_replace(Arc::new(settings))),
                Err(error) => warn!(%error, prefix, "watched settings could not be read again"),
            }
        }
    }

    async fn read(&self, prefix: &str) -> Result<Settings, CoordinationError> {
        let found = self.store.settings(&stored(prefix)).await?;
        let own = |(key, setting): (String, Setting)| Some((key.strip_prefix(SETTINGS)?.to_owned(), setting));
        Ok(found.into_iter().filter_map(own).collect())
    }
}

impl From<StoreError> for CoordinationError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

fn decode(setting: &Setting) -> Result<Placed, CoordinationError> {
    let placement = serde_json::from_slice(&setting.value)
        .map_err(|error| CoordinationError::Corrupt(format!("{PLACEMENT}: {error}")))?;
    Ok(Placed { version: setting.version, placement })
}

fn stored(key: &str) -> String {
    format!("{SETTINGS}{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordination::conformance::{self, node},
        store::MemoryStore,
    };

    async fn open(store: &MemoryStore) -> InProcess {
        let (coordination, writer) = InProcess::open(Arc::new(store.clone())).await.unwrap();
        tokio::spawn(writer.run());
        coordination
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        conformance::all(|| async { open(&MemoryStore::new(1)).await }).await;
    }

    #[tokio::test]
    async fn placement_and_settings_are_there_after_a_restart_and_nodes_are_not() {
        let store = MemoryStore::new(1);
        let before = open(&store).await;
        let lease = before.register(node("a")).await.unwrap();
        let leadership = lease.lead().await;
        let capacities = BTreeMap::from([(NodeName("a".into()), 1)]);
        let placement = Placement::default().after(&Placement::default().balance(&capacities));
        assert_eq!(before.place(&leadership, 0, placement.clone()).await.unwrap(), Ok(1));
        assert_eq!(before.compare_and_swap("k", 0, Some("v".into())).await.unwrap(), Ok(1));
        drop((before, lease));

        let after = open(&store).await;
        assert_eq!(**after.placement().borrow(), Placed { version: 1, placement });
        let setting = Some(Setting { version: 1, value: "v".into() });
        assert_eq!(after.setting("k").await.unwrap(), setting);
        assert!(after.nodes().borrow().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_does_not_write_is_an_error_and_what_is_watched_stays_true() {
        let store = MemoryStore::new(1);
        let coordination = open(&store).await;
        let watched = coordination.watch("").await.unwrap();
        store.disk().inject(crate::store::MemoryFault::Stop);
        let refused = coordination.compare_and_swap("k", 0, Some("v".into())).await;
        assert!(matches!(refused, Err(CoordinationError::Unavailable(_))), "{refused:?}");
        assert!(watched.borrow().is_empty());
    }

    #[tokio::test]
    async fn prefixes_are_watched_up_to_a_limit_and_those_given_up_make_room() {
        let coordination = open(&MemoryStore::new(1)).await;
        let mut held = Vec::new();
        for number in 0..WATCHES_MAX {
            held.push(coordination.watch(&format!("{number:03}")).await.unwrap());
        }
        let refused = coordination.watch("more").await;
        assert!(matches!(refused, Err(CoordinationError::TooManyWatches(_))));
        held.pop();
        assert!(coordination.watch("more").await.is_ok());
    }
}
