//! Every setting and every limit, in one place, with its unit.
//!
//! One TOML file (`--config FILE`, or `SHOAL_CONFIG`); the environment over it, with `SHOAL_`
//! before a key and `__` between its parts (`SHOAL_LIMITS__GROUP__QUEUE_MAX=8192`; lists are
//! separated by commas); flags over both (`--set limits.group.queue_max=8192`). It is checked at
//! start, and an error names the key and where it was set. `shoal config show` prints what holds.
//! Above all of these stands what is set live, for all nodes at once ([`is_live`]).

mod check;

mod current;

mod hours;

mod limits;

mod live;

mod load;

mod overlay;

mod show;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::coordination::Roles;

pub use check::Problem;
pub use current::Current;
pub use hours::{Hours, NoHours};
pub use limits::{AccessLimits, ClusterLimits, GroupLimits, Limits, Rate, StoreLimits, ViewLimits};
pub use live::is_live;
pub use load::{ConfigError, Loaded, Origin, Override, entries, load};
pub use overlay::{Effective, Live, NotChanged, change_live, lay_live_over};
pub use show::to_toml;

/// The whole configuration of a node.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the keys and of the embedded store.
    pub data: PathBuf,
    /// UDP addresses for clients; IPv4 and IPv6 apart.
    pub listen: Vec<SocketAddr>,
    /// Names and addresses (`host:port`) under which clients reach this node, and which its
    /// certificate names; none: the addresses it listens on.
    pub advertise: Vec<String>,
    /// The node's name; empty: one that is made at the first start and kept in the data folder.
    pub name: String,
    /// The region the node is in.
    pub region: String,
    /// What the node does: `access` (clients connect to it), `group` (groups have their homes on it),
    /// `coordination` (it may be elected to decide which node has which groups). A node alone does all.
    pub roles: Vec<Role>,
    /// The UDP address for other nodes, where there are some (`coordination.etcd`).
    pub peer_listen: SocketAddr,
    /// Addresses (`host:port`) under which other nodes reach this one; none: the one it listens on.
    pub peer_advertise: Vec<String>,
    /// TCP addresses of `/metrics`, `/healthz` and `/readyz`, which ask for no token; none: off.
    pub ops: Vec<SocketAddr>,
    /// What is logged, as tracing's filter: `info`, `shoal_node=debug,info`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How long clients have to leave when the node stops, in milliseconds.
    pub drain_grace_ms: u64,
    /// How long a node among others takes at most, when it is told to stop, to hand over to them what it
    /// does before, in milliseconds; 0: it does not.
    pub drain_max_ms: u64,
    /// The system's send and receive buffer of each UDP socket, in bytes; the system may give less.
    pub socket_buffer_bytes: usize,
    /// Threads that carry the node's tasks; 0: one for each processor.
    pub worker_threads: usize,
    /// What keeps placement and settings, and knows which nodes live: the process, for one node, or
    /// etcd, for any number.
    pub coordination: CoordinationConfig,
    /// What keeps records: the data folder, for one node, or PostgreSQL, for any number.
    pub store: StoreConfig,
    /// Every limit.
    pub limits: Limits,
}

/// What keeps records.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// PostgreSQL databases, as `postgres://user:password@host:port/database`; none: the store is
    /// embedded, in the data folder. Groups are divided among them, so the list is fixed at the first
    /// start, in its order. Passwords in it are shown with it; `SHOAL_STORE__POSTGRES` keeps them out
    /// of the file.
    pub postgres: Vec<String>,
    /// A PEM file with the authorities that certificates of these databases must come from; with it
    /// every connection is encrypted. `sslmode=require` in a URL needs it.
    pub postgres_ca: PathBuf,
}

/// What keeps placement and settings, and knows which nodes live.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinationConfig {
    /// etcd's endpoints, as `http://host:port` or `https://host:port`; one that answers is used. None:
    /// coordination is in the process, kept in its store. Let etcd compact its history
    /// (`--auto-compaction-retention=1h`): nodes write their load once a second.
    pub etcd: Vec<String>,
    /// What all keys in etcd begin with: the same for all nodes of a cluster, and for no others.
    pub cluster: String,
    /// A node that etcd has not heard of for so long counts as dead, in milliseconds; etcd counts in
    /// whole seconds, two at least.
    pub lease_ms: u64,
    /// A PEM file with the authorities that etcd's certificates must come from, for `https://`.
    pub etcd_ca: PathBuf,
    /// A PEM file with this node's certificate, where etcd asks for one.
    pub etcd_certificate: PathBuf,
    /// A PEM file with its key.
    pub etcd_key: PathBuf,
}

impl CoordinationConfig {
    /// [`Self::lease_ms`].
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

impl Default for CoordinationConfig {
    fn default() -> Self {
        Self {
            etcd: Vec::new(),
            cluster: "shoal".into(),
            lease_ms: 3_000,
            etcd_ca: PathBuf::new(),
            etcd_certificate: PathBuf::new(),
            etcd_key: PathBuf::new(),
        }
    }
}

/// One of the layers that a node may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Clients connect to it.
    Access,
    /// Groups have their homes on it.
    Group,
    /// It may be elected to decide which node has which groups.
    Coordination,
}

impl Config {
    /// [`Self::roles`].
    #[must_use]
    pub fn roles(&self) -> Roles {
        let has = |role| self.roles.contains(&role);
        Roles { access: has(Role::Access), group: has(Role::Group), coordination: has(Role::Coordination) }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "shoal-data".into(),
            listen: vec![
                SocketAddr::from(([127, 0, 0, 1], 4433)),
                SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 4433)),
            ],
            advertise: Vec::new(),
            name: String::new(),
            region: "default".into(),
            roles: vec![Role::Access, Role::Group, Role::Coordination],
            peer_listen: SocketAddr::from(([127, 0, 0, 1], 4434)),
            peer_advertise: Vec::new(),
            ops: vec![SocketAddr::from(([127, 0, 0, 1], 9464))],
            log: "info".into(),
            log_format: LogFormat::Human,
            drain_grace_ms: 10_000,
            drain_max_ms: 20_000,
            socket_buffer_bytes: 4 << 20,
            worker_threads: 0,
            coordination: CoordinationConfig::default(),
            store: StoreConfig::default(),
            limits: Limits::default(),
        }
    }
}
