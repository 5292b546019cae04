//! What nodes must agree on: which of them live, who looks after what, and settings.
//!
//! The data path never waits for this layer: it governs placement, never safety, which is the
//! store's. Whoever watches sees the latest state, however slow they are, and never a queue of
//! the states before.

mod placement;

pub mod drains;

mod slow;

mod candidate;

mod desired;

pub mod leader;

mod in_process;

mod etcd;

#[cfg(test)]
pub(crate) mod conformance;

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use desired::{Desired, needed};
pub use drains::Drains;
pub use etcd::{Etcd, EtcdDriver, EtcdOptions, EtcdTls};
pub use in_process::{InProcess, Writer};
pub use placement::{Move, PARTITIONS, Partition, Placement};
pub use slow::{Complaints, Slow, Verdict, slow};

use crate::store::Setting;

/// The most bytes in a setting's key.
pub const KEY_BYTES_MAX: usize = 256;
/// The most bytes in a setting's value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// A node's name, unique in the cluster, the same after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeName(pub String);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Where clients reach it.
    pub addresses: Vec<String>,
    /// Where other nodes reach it.
    #[serde(default)]
    pub peer_addresses: Vec<String>,
    /// The layers it runs.
    pub roles: Roles,
    /// Where it stands.
    pub region: String,
    /// How much it can carry, as a share of what all nodes carry together.
    pub capacity: u32,
    /// When it started, in milliseconds since 1970, by its own clock: what was found of it before that
    /// holds no more.
    #[serde(default)]
    pub started_ms: u64,
    /// How much it carries.
    pub load: Load,
}

/// The layers a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Clients connect to it.
    pub access: bool,
    /// Homes and sub-groups may be placed on it.
    pub group: bool,
    /// It may be elected to decide what is placed where.
    #[serde(default = "said_by_nobody_before")]
    pub coordination: bool,
}

impl Roles {
    /// All layers.
    pub const ALL: Self = Self { access: true, group: true, coordination: true };

    /// Does it have every role that `other` has?
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        let covers = |mine: bool, wanted: bool| mine || !wanted;
        covers(self.access, other.access)
            && covers(self.group, other.group)
            && covers(self.coordination, other.coordination)
    }

    /// The roles of either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            access: self.access || other.access,
            group: self.group || other.group,
            coordination: self.coordination || other.coordination,
        }
    }
}

/// A record that does not speak of this role is a node's that has it.
fn said_by_nobody_before() -> bool {
    true
}

/// How much a node carries, how far it is with what was decided about it, and what it finds of others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Sessions open,
    pub sessions: u64,
    /// and how many it takes.
    pub sessions_max: u64,
    /// How busy it keeps its processors, in hundredths of all that it has, of late and roughly.
    pub processor_percent: u32,
    /// Groups awake.
    pub groups: u64,
    /// Messages committed since it started.
    pub committed: u64,
    /// Records received from homes on other nodes since it started: one copy each.
    pub received: u64,
    /// The age of the oldest of these when it came, of late, in milliseconds, by two nodes' clocks.
    pub lag_ms: u64,
    /// The most records of one group that a home elsewhere has and has not sent here.
    pub lag_records: u64,
    /// Records fed to other nodes since it started: one copy for each that follows.
    pub fed: u64,
    /// The latest version of the placement that changed something for this node and by which it acts.
    pub placement: u64,
    /// It lets its sessions go and takes no new ones.
    pub is_draining: bool,
    /// Who is slow; nothing before it has looked.
    pub complaints: Option<Complaints>,
}

/// The nodes that live, by name.
pub type Nodes = BTreeMap<NodeName, NodeRecord>;

/// A placement with the version that a change must name; version 0 is that of an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// Raised by each change.
    pub version: u64,
    /// Which node looks after which partition.
    pub placement: Placement,
}

/// One node's time as the leader: what each of its decisions is conditional on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Who leads.
    pub node: NodeName,
    /// Greater than that of every leadership before.
    pub term: u64,
}

/// Why a placement was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another version stands there.
    #[error("the placement has moved on to version {}", .0.version)]
    Moved(Arc<Placed>),
    /// The leadership has ended; another node may lead.
    #[error("this leadership has ended")]
    Deposed,
}

/// What became of a node's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It is held: the others see the node.
    #[default]
    Held,
    /// It ran out while coordination was away, or this node stood still: the others may have taken
    /// the node for dead. What is watched here may be old. The node is registered again by itself
    /// as soon as coordination answers.
    Lapsed,
    /// Another registration has taken the node's name: this one has ended for good.
    Lost,
}

/// Why the coordination layer did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    /// It cannot be reached, or its store does not serve.
    #[error("coordination is away: {0}")]
    Unavailable(String),
    /// A key or a value above its limit.
    #[error("a setting's key has up to {KEY_BYTES_MAX} bytes, its value up to {VALUE_BYTES_MAX}")]
    TooLarge,
    /// More prefixes watched at once than are allowed.
    #[error("more than {0} prefixes are watched")]
    TooManyWatches(usize),
    /// What is stored is not what was written.
    #[error("coordination is damaged: {0}")]
    Corrupt(String),
}

/// Liveness, placement and settings.
#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// Announces this node under a lease that is kept for as long as the registration is. A node
    /// of the same name that is registered already is replaced: it is this one, before a restart.
    async fn register(&self, node: NodeRecord) -> Result<Box<dyn Registration>, CoordinationError>;

    /// The nodes that live.
    fn nodes(&self) -> watch::Receiver<Arc<Nodes>>;

    /// How much longer each node's lease lasts if it is not prolonged; of no node where leases do not
    /// run out.
    async fn leases(&self) -> Result<BTreeMap<NodeName, Duration>, CoordinationError> {
        Ok(BTreeMap::new())
    }

    /// Who looks after what.
    fn placement(&self) -> watch::Receiver<Arc<Placed>>;

    /// Who leads; nobody between a leader's end and the next one's election.
    fn leader(&self) -> watch::Receiver<Option<Leadership>>;

    /// Replaces the placement if its version is still `expected` and the leadership lasts; the new
    /// version, or why not. After an error it may have been written.
    async fn place(
        &self,
        leadership: &Leadership,
        expected: u64,
        placement: Placement,
    ) -> Result<Result<u64, Refused>, CoordinationError>;

    /// Ends a leadership, whoever's it is, unless it has ended already: nothing is placed by it any more,
    /// and whoever waits to lead may. After an error it may have ended.
    async fn depose(&self, leadership: &Leadership) -> Result<(), CoordinationError>;

    /// A setting with its version, which starts at 1.
    async fn setting(&self, key: &str) -> Result<Option<Setting>, CoordinationError>;

    /// Writes a setting (none: takes it away) if its version is still `expected` (0: there is
    /// none); the new version, or what stands there instead. After an error it may have been
    /// written.
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, CoordinationError>;

    /// The settings whose keys begin with `prefix`, as they are now and whenever they change.
    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<watch::Receiver<Arc<BTreeMap<String, Setting>>>, CoordinationError>;
}

/// A node's place among the living. Dropping it gives the lease back, and the leadership with it.
#[async_trait]
pub trait Registration: Send + Sync {
    /// Whose it is.
    fn node(&self) -> &NodeName;

    /// Says how much the node carries now.
    fn report(&self, load: Load);

    /// What becomes of the lease.
    fn standing(&self) -> watch::Receiver<Standing>;

    /// Waits until this node leads: at once where it does already. Cancellation safe.
    async fn lead(&self) -> Leadership;

    /// Waits until the registration has ended for good because another has taken the node's name.
    /// A lease that ran out while coordination was away is no such end: see [`Standing::Lapsed`].
    /// Cancellation safe.
    async fn lost(&self) {
        let mut standing = self.standing();
        if standing.wait_for(|standing| *standing == Standing::Lost).await.is_err() {
            // Nobody is left to say it: the process ends.
            pending().await
        }
    }
}

fn checked(key: &str) -> Result<String, CoordinationError> {
    if key.len() <= KEY_BYTES_MAX { Ok(key.to_owned()) } else { Err(CoordinationError::TooLarge) }
}

fn checked_value(value: Option<&Bytes>) -> Result<(), CoordinationError> {
    let is_too_large = value.is_some_and(|value| value.len() > VALUE_BYTES_MAX);
    if is_too_large { Err(CoordinationError::TooLarge) } else { Ok(()) }
}
