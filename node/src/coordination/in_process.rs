//! Coordination for one node: liveness in memory, placement and settings in its store.
//!
//! All writes go through one [`Writer`], so that whoever watches sees them in the order in which
//! they became durable.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::{
    Coordination, CoordinationError, KEY_BYTES_MAX, Load, NodeName, NodeRecord, Nodes, Placed, Placement,
    Registration, VALUE_BYTES_MAX,
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
    nodes: Arc<watch::Sender<Arc<Nodes>>>,
    registrations: Arc<watch::Sender<BTreeMap<NodeName, u64>>>,
    placement: watch::Receiver<Arc<Placed>>,
    commands: mpsc::Sender<Command>,
}

/// Carries out the writes of an [`InProcess`]. Run it in a task; it ends with the last handle.
pub struct Writer {
    store: Arc<dyn Store>,
    commands: mpsc::Receiver<Command>,
    placement: watch::Sender<Arc<Placed>>,
    watches: Vec<(String, watch::Sender<Arc<Settings>>)>,
}

#[derive(Debug)]
enum Command {
    Place {
        expected: u64,
        placement: Placement,
        answer: oneshot::Sender<Swapped<Arc<Placed>>>,
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
        let handle = Self {
            nodes: Arc::new(watch::Sender::default()),
            registrations: Arc::new(watch::Sender::default()),
            placement,
            commands,
        };
        Ok((handle, Writer { store, commands: receiver, placement: sender, watches: Vec::new() }))
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
        let mut number = 0;
        self.registrations.send_modify(|registrations| {
            number = registrations.get(&name).map_or(1, |last| last + 1);
            registrations.insert(name.clone(), number);
        });
        let lease = Lease { name: name.clone(), number, of: self.clone() };
        self.nodes.send_modify(|nodes| drop(Arc::make_mut(nodes).insert(name, node)));
        Ok(Box::new(lease))
    }

    fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.subscribe()
    }

    fn placement(&self) -> watch::Receiver<Arc<Placed>> {
        self.placement.clone()
    }

    async fn place(&self, expected: u64, placement: Placement) -> Swapped<Arc<Placed>> {
        self.ask(|answer| Command::Place { expected, placement, answer }).await
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
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(CoordinationError::TooLarge);
        }
        self.ask(|answer| Command::Swap { key, expected, value, answer }).await
    }

    async fn watch(&self, prefix: &str) -> Result<watch::Receiver<Arc<Settings>>, CoordinationError> {
        let prefix = checked(prefix)?;
        self.ask(|answer| Command::Watch { prefix, answer }).await
    }
}

/// One registration of a node. The name's number says whether it is still the one that counts.
#[derive(Debug)]
struct Lease {
    name: NodeName,
    number: u64,
    of: InProcess,
}

impl Lease {
    fn is_held(&self) -> bool {
        self.of.registrations.borrow().get(&self.name) == Some(&self.number)
    }
}

#[async_trait]
impl Registration for Lease {
    fn report(&self, load: Load) {
        if self.is_held() {
            self.of.nodes.send_modify(|nodes| {
                if let Some(node) = Arc::make_mut(nodes).get_mut(&self.name) {
                    node.load = load;
                }
            });
        }
    }

    async fn lost(&self) {
        let mut registrations = self.of.registrations.subscribe();
        let replaced =
            |registrations: &BTreeMap<NodeName, u64>| registrations.get(&self.name) != Some(&self.number);
        // The sender lives as long as the lease does.
        drop(registrations.wait_for(replaced).await);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_held() {
            self.of.nodes.send_modify(|nodes| drop(Arc::make_mut(nodes).remove(&self.name)));
        }
    }
}

impl Writer {
    /// Carries out writes until the last handle is gone.
    pub async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            // Whoever asked may have gone: what was asked for is done nevertheless.
            match command {
                Command::Place { expected, placement, answer } => {
                    drop(answer.send(self.place(expected, placement).await));
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

    async fn place(&mut self, expected: u64, placement: Placement) -> Swapped<Arc<Placed>> {
        let value = serde_json::to_vec(&placement).expect("a placement is JSON");
        match self.store.compare_and_swap(PLACEMENT, expected, Some(value.into())).await? {
            Ok(version) => {
                self.placement.send_replace(Arc::new(Placed { version, placement }));
                Ok(Ok(version))
            }
            Err(current) => {
                let placed = Arc::new(current.as_ref().map(decode).transpose()?.unwrap_or_default());
                self.placement.send_replace(Arc::clone(&placed));
                Ok(Err(placed))
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

fn checked(key: &str) -> Result<String, CoordinationError> {
    if key.len() <= KEY_BYTES_MAX { Ok(key.to_owned()) } else { Err(CoordinationError::TooLarge) }
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
        let capacities = BTreeMap::from([(NodeName("a".into()), 1)]);
        let placement = Placement::default().after(&Placement::default().balance(&capacities));
        assert_eq!(before.place(0, placement.clone()).await.unwrap(), Ok(1));
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
