//! One node among others: it is registered, follows the placement, and reaches the others.

use std::{fmt, io, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, Endpoint, Runtime};
use rand::rngs::StdRng;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    config::AccessLimits,
    coordination::{Coordination, Load, NodeName, NodeRecord, Roles},
    delivery::Pages,
    group::Groups,
    ops::Metrics,
    peer::{Dialer, Links, PeerTls, Server, ServerParts, endpoint},
};

/// How often the store is asked whether another home has written to the groups that have theirs here.
const LOOK: Duration = Duration::from_secs(1);

/// Between two attempts to be registered.
const RETRY: Duration = Duration::from_millis(500);

/// What a node among others is made of, besides.
pub struct ClusterParts {
    /// A UDP socket for other nodes.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Certificates, for both ends.
    pub tls: PeerTls,
    /// Where other nodes reach that socket.
    pub peer_addresses: Vec<String>,
    /// Liveness, placement, settings.
    pub coordination: Arc<dyn Coordination>,
    /// The cluster's name: nodes of another are not let in.
    pub cluster: String,
    /// Where it stands.
    pub region: String,
    /// Its share of the partitions, beside the others'.
    pub capacity: u32,
}

/// A node that reaches the others and is not known to them yet.
pub(crate) struct Joining {
    parts: ClusterParts,
    me: NodeName,
    endpoint: Endpoint,
    links: Arc<Links>,
}

/// A node among others. Dropping it is a crash.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: Server,
    tasks: JoinSet<()>,
}

impl ClusterParts {
    pub(crate) fn reach(
        self,
        name: &str,
        runtime: Arc<dyn Runtime>,
        random: &mut StdRng,
    ) -> io::Result<Joining> {
        let me = NodeName(name.to_owned());
        let (endpoint, tls) = endpoint(self.tls.clone(), Arc::clone(&self.socket), runtime, random)?;
        let dialer = Dialer {
            me: me.clone(),
            cluster: self.cluster.clone(),
            endpoint: endpoint.clone(),
            tls,
            nodes: self.coordination.nodes(),
        };
        let links = Arc::new(Links::new(Arc::new(dialer), self.coordination.placement()));
        Ok(Joining { parts: self, me, endpoint, links })
    }
}

impl Joining {
    pub(crate) fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    /// Serves the other nodes, and is registered.
    pub(crate) fn join(
        self,
        groups: &Groups,
        pages: &Arc<Pages>,
        limits: AccessLimits,
        metrics: Arc<Metrics>,
        addresses: &[String],
    ) -> Cluster {
        let Self { parts, me, endpoint, .. } = self;
        let record = NodeRecord {
            name: me.clone(),
            addresses: addresses.to_vec(),
            peer_addresses: parts.peer_addresses,
            roles: Roles { access: true, group: true },
            region: parts.region,
            capacity: parts.capacity,
            load: Load::default(),
        };
        let server = ServerParts {
            me,
            cluster: parts.cluster,
            groups: groups.clone(),
            pages: Arc::clone(pages),
            limits,
            metrics,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_placement(groups.clone(), Arc::clone(&parts.coordination)));
        tasks.spawn(look_for_other_homes(groups.clone()));
        tasks.spawn(stay_registered(parts.coordination, record));
        Cluster { server: Server::start(server, endpoint), tasks }
    }
}

impl Cluster {
    /// Is registered no more, and tells the other nodes.
    pub(crate) async fn leave(mut self) {
        self.tasks.shutdown().await;
        self.server.shut_down().await;
    }
}

/// Looks at every group again when its home may have moved, and takes up what a home that died
/// has left half told.
async fn follow_placement(groups: Groups, coordination: Arc<dyn Coordination>) {
    let mut placement = coordination.placement();
    while placement.changed().await.is_ok() {
        placement.mark_unchanged();
        groups.look_again();
        if let Err(error) = groups.finish_notices().await {
            tracing::warn!(%error, "notices wait for the next change of placement");
        }
    }
}

async fn look_for_other_homes(groups: Groups) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        groups.look_for_other_homes().await;
    }
}

async fn stay_registered(coordination: Arc<dyn Coordination>, record: NodeRecord) {
    loop {
        match coordination.register(record.clone()).await {
            Ok(registration) => registration.lost().await,
            Err(error) => tracing::warn!(%error, "this node is not registered"),
        }
        sleep(RETRY).await;
    }
}

impl fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterParts").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
