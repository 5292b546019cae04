//! Coordination on etcd, for several nodes.
//!
//! | key, below the cluster's name | value | under the lease of |
//! |---|---|---|
//! | `nodes/NAME` | the node's record, JSON | that node |
//! | `leader` | the leader's name; the revision of its creation is the term | that node |
//! | `placement` | the placement, JSON; its version is the key's | nobody |
//! | `settings/KEY` | the setting; its version is the key's | nobody |
//!
//! Every write is a transaction that states what it expects: a record that it is still its node's,
//! a placement its version and the leader's key, a setting its version. Where an answer is lost the
//! write may have happened; whoever tries again finds out by what it states.
//!
//! All that goes on beside requests is a task for each registration and one for each range that is
//! watched ([`EtcdDriver`] runs them). One endpoint is used at a time; when it falls silent all of
//! them go on at the next.
//!
//! **When etcd is away** nothing is decided and nothing is lost: what was read last stands, writes
//! are answered with [`CoordinationError::Unavailable`], and a lease that would have run out is
//! [`Standing::Lapsed`]. Everything goes on by itself when it is back: ranges are read again and
//! watched from there, leases are granted again, and whoever leads then gives the others one
//! lease's time to come back before it takes them for dead.
//!
//! **etcd keeps every version** until somebody compacts it, and nodes under load write theirs once
//! a second: run etcd with `--auto-compaction-retention=1h`. Shoal does not compact, for etcd may
//! have other users.
//!
//! [`Standing::Lapsed`]: super::Standing::Lapsed

mod keys;

mod api;

mod client;

mod follow;

mod views;

mod registration;

mod election;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    Coordination, CoordinationError, Leadership, NodeName, NodeRecord, Nodes, Placed, Placement, Refused,
    Registration, checked, checked_value,
};
use crate::store::Setting;
use api::{RangeRequest, RequestOp, TxnRequest, TxnResponse, created_in, delete, get, put, version_is};
use client::Client;
use election::Election;
use follow::{Follow, Range};
use keys::Keys;
use registration::{Keeper, Registered};

/// Prefixes watched at once.
const WATCHES_MAX: usize = 64;
/// Tasks on their way to the driver; further ones wait.
const TASKS_MAX: usize = 16;

/// Where etcd is, and what Shoal is called there.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// `http://host:port`, or `https://` with TLS; one at a time is used.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub cluster: String,
    /// How long a node is taken for alive that is not heard of; whole seconds.
    pub lease: Duration,
    /// For `https://`.
    pub tls: Option<EtcdTls>,
}

/// Certificates and keys, PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Of the authority that signs etcd's certificates.
    pub ca: String,
    /// This node's certificate and its key, where etcd asks for one.
    pub identity: Option<(String, String)>,
}

/// [`Coordination`] on etcd. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Etcd {
    client: Client,
    keys: Keys,
    lease: Duration,
    nodes: watch::Receiver<Arc<Nodes>>,
    leader: watch::Receiver<Option<Leadership>>,
    placement: watch::Receiver<Arc<Placed>>,
    watches: Arc<Semaphore>,
    tasks: mpsc::Sender<Task>,
}

type Task = BoxFuture<'static, ()>;
type Swapped<T> = Result<Result<u64, T>, CoordinationError>;

/// Does what goes on beside the requests of an [`Etcd`]: leases and watches. Run it in a task; it
/// ends with the last handle, registration and watch.
pub struct EtcdDriver {
    tasks: mpsc::Receiver<Task>,
}

impl Etcd {
    /// Reads what etcd has.
    ///
    /// # Errors
    /// Where no endpoint answers.
    pub async fn open(options: &EtcdOptions) -> Result<(Self, EtcdDriver), CoordinationError> {
        let (client, keys) = (Client::new(options)?, Keys::new(&options.cluster));
        client.is_there(&keys.placement()).await?;
        let (nodes_task, nodes) =
            Follow::new(&client, Range::below(keys.nodes(), ""), views::node_changed).await?;
        let (leader_task, leader) =
            Follow::new(&client, Range::one(keys.leader()), views::leader_changed).await?;
        let (placement_task, placement) =
            Follow::new(&client, Range::one(keys.placement()), views::placement_changed).await?;
        let (tasks, receiver) = mpsc::channel(TASKS_MAX);
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        let etcd = Self { client, keys, lease: options.lease, nodes, leader, placement, watches, tasks };
        etcd.spawn(nodes_task.run()).await?;
        etcd.spawn(leader_task.run()).await?;
        etcd.spawn(placement_task.run()).await?;
        Ok((etcd, EtcdDriver { tasks: receiver }))
    }

    async fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), CoordinationError> {
        let gone = |_| CoordinationError::Unavailable("the node is stopping".into());
        self.tasks.send(Box::pin(task)).await.map_err(gone)
    }

    /// Carries out `success` if everything compared is so, else reads these keys.
    async fn swap(
        &self,
        compare: Vec<api::Compare>,
        success: RequestOp,
        otherwise: &[&str],
    ) -> Result<TxnResponse, CoordinationError> {
        let failure = otherwise.iter().map(|key| get(key)).collect();
        Ok(self.client.txn(TxnRequest { compare, success: vec![success], failure }).await?)
    }
}

#[async_trait]
impl Coordination for Etcd {
    async fn register(&self, node: NodeRecord) -> Result<Box<dyn Registration>, CoordinationError> {
        let (load, reported) = watch::channel(node.load.clone());
        let (name, key) = (node.name.clone(), self.keys.node(&node.name));
        let keeper = Keeper::register(&self.client, key, node, self.lease, reported).await?;
        let election = Election {
            client: self.client.clone(),
            key: self.keys.leader(),
            node: name,
            lease: keeper.lease(),
            leader: self.leader.clone(),
        };
        let registered = Registered::new(load, keeper.standing(), election);
        self.spawn(keeper.run()).await?;
        Ok(Box::new(registered))
    }

    fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.clone()
    }

    fn placement(&self) -> watch::Receiver<Arc<Placed>> {
        self.placement.clone()
    }

    fn leader(&self) -> watch::Receiver<Option<Leadership>> {
        self.leader.clone()
    }

    async fn place(&self, leadership: &Leadership, expected: u64, placement: Placement) -> Swapped<Refused> {
        let (key, leader) = (self.keys.placement(), self.keys.leader());
        let value = serde_json::to_vec(&placement).expect("a placement is JSON");
        let term = signed(leadership.term);
        let compare = vec![version_is(&key, signed(expected)), created_in(&leader, term)];
        let answer = self.swap(compare, put(&key, value.into(), 0), &[&key, &leader]).await?;
        if answer.succeeded {
            return Ok(Ok(expected + 1));
        }
        if answer.read(1).is_none_or(|leader| leader.create_revision != term) {
            return Ok(Err(Refused::Deposed));
        }
        let placed = answer.read(0).map(views::placed).transpose()?.unwrap_or_default();
        Ok(Err(Refused::Moved(Arc::new(placed))))
    }

    async fn leases(&self) -> Result<BTreeMap<NodeName, Duration>, CoordinationError> {
        let prefix = self.keys.nodes();
        let range_end = keys::end_of(&prefix).into();
        let range = RangeRequest { key: prefix.clone().into(), range_end, ..RangeRequest::default() };
        let nodes = self.client.range(range).await?.kvs;
        let left = try_join_all(nodes.iter().map(|node| self.client.time_to_live(node.lease))).await?;
        let name = |key: &[u8]| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let named =
            nodes.iter().zip(left).filter_map(|(node, left)| Some((NodeName(name(&node.key)), left?)));
        Ok(named.collect())
    }

    async fn depose(&self, leadership: &Leadership) -> Result<(), CoordinationError> {
        let leader = self.keys.leader();
        let is_still = vec![created_in(&leader, signed(leadership.term))];
        self.swap(is_still, delete(&leader), &[]).await.map(drop)
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, CoordinationError> {
        let key = self.keys.setting(&checked(key)?);
        let range = RangeRequest { key: key.into(), ..RangeRequest::default() };
        Ok(self.client.range(range).await?.kvs.first().map(views::setting))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Swapped<Option<Setting>> {
        let key = self.keys.setting(&checked(key)?);
        checked_value(value.as_ref())?;
        let version = if value.is_some() { expected + 1 } else { 0 };
        let write = value.map_or_else(|| delete(&key), |value| put(&key, value, 0));
        let answer = self.swap(vec![version_is(&key, signed(expected))], write, &[&key]).await?;
        if answer.succeeded { Ok(Ok(version)) } else { Ok(Err(answer.read(0).map(views::setting))) }
    }

    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<watch::Receiver<Arc<BTreeMap<String, Setting>>>, CoordinationError> {
        let range = Range::below(self.keys.settings(), &checked(prefix)?);
        let watches = Arc::clone(&self.watches);
        let permit = watches.try_acquire_owned();
        let permit = permit.map_err(|_| CoordinationError::TooManyWatches(WATCHES_MAX))?;
        let (follow, settings) = Follow::new(&self.client, range, views::setting_changed).await?;
        self.spawn(async move {
            follow.run().await;
            drop(permit);
        })
        .await?;
        Ok(settings)
    }
}

impl EtcdDriver {
    /// Works until nobody is left to work for.
    ///
    /// # Panics
    /// Where one of its tasks does.
    pub async fn run(mut self) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(task) = self.tasks.recv() => drop(running.spawn(task)),
                Some(ended) = running.join_next() => ended.expect("coordination's tasks do not panic"),
                else => return,
            }
        }
    }
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}

/// etcd counts with a sign.
fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
