//! One node among others: it follows the placement, reaches the others, and is reached by them. Whoever
//! starts it registers it, once it serves.

use std::{fmt, io, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, Endpoint, Runtime};
use rand::rngs::StdRng;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::AccessLimits,
    coordination::{Coordination, NodeName},
    delivery::Pages,
    group::Groups,
    ops::Metrics,
    peer::{Dialer, Links, PeerTls, Server, ServerParts, endpoint},
};

/// How often the store is asked whether another home has written to the groups that have theirs here.
const LOOK: Duration = Duration::from_secs(1);

/// What a node among others is made of, besides.
pub struct ClusterParts {
    /// A UDP socket for other nodes.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Certificates, for both ends.
    pub tls: PeerTls,
    /// Liveness, placement, settings.
    pub coordination: Arc<dyn Coordination>,
    /// The cluster's name: nodes of another are not let in.
    pub cluster: String,
}

/// A node that reaches the others and is not reached by them yet.
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

    /// Serves the other nodes.
    pub(crate) fn join(
        self,
        groups: &Groups,
        pages: &Arc<Pages>,
        limits: AccessLimits,
        metrics: Arc<Metrics>,
    ) -> Cluster {
        let Self { parts, me, endpoint, .. } = self;
        let server = ServerParts {
            me,
            cluster: parts.cluster,
            groups: groups.clone(),
            pages: Arc::clone(pages),
            limits,
            metrics,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_placement(groups.clone(), parts.coordination));
        tasks.spawn(look_for_other_homes(groups.clone()));
        Cluster { server: Server::start(server, endpoint), tasks }
    }
}

impl Cluster {
    /// Tells the other nodes.
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

impl fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterParts").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
