//! A whole node, put together: whoever starts it gives it sockets, a runtime, a store and a clock.

mod report;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, Runtime};
use rand::{Rng, SeedableRng, rngs::StdRng};
use shoal_certs::TokenVerifier;
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    access::{Access, AccessParts, Sessions, Transport},
    clock::Clock,
    cluster::{Cluster, Joining},
    config::{AccessLimits, ClusterLimits, Current, Limits, ViewLimits},
    delivery::Pages,
    group::{Groups, Views},
    ops::{Event, Events, Kind, Metrics},
    presence::Presence,
    settings::Settings,
    store::Store,
};

pub use crate::cluster::{ClusterParts, Through};

/// What a node is made of. The binary takes the machine's; a simulation takes its own.
pub struct Parts {
    /// UDP sockets, one endpoint each. IPv4 and IPv6 apart: on a dual-stack socket an IPv4 client
    /// that changes its address loses its congestion state.
    pub sockets: Vec<Arc<dyn AsyncUdpSocket>>,
    /// What tasks and timers of the connections run on.
    pub runtime: Arc<dyn Runtime>,
    /// Certificates and ALPN.
    pub tls: rustls::ServerConfig,
    /// Checks clients' tokens.
    pub tokens: TokenVerifier,
    /// What is durable.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Every limit.
    pub limits: Limits,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
    /// From which everything random is drawn.
    pub seed: [u8; 32],
    /// Secret, and the same after a restart: with it clients of the last run are told that their
    /// connections are gone, and address tokens stay good.
    pub secret: [u8; 32],
    /// The node's name, for its status.
    pub name: String,
    /// Addresses of this and other nodes, as clients reach them.
    pub addresses: Vec<String>,
    /// The other nodes, where there are some.
    pub cluster: Option<ClusterParts>,
    /// What administrators see and change live; whoever follows it calls [`Node::set_limits`].
    pub settings: Option<Arc<Settings>>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TLS configuration does not allow QUIC.
    #[error("TLS configuration: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A socket could not be used.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

/// A running node. Dropping it is a crash: nobody is told, nothing is written back.
#[derive(Debug)]
pub struct Node {
    access: Access,
    groups: Groups,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    clock: Arc<dyn Clock>,
    limits: Limited,
    cluster: Option<Cluster>,
    /// Finishes what a crash before this start interrupted.
    recovery: AbortOnDrop,
}

/// The limits that are read where they count.
#[derive(Debug)]
struct Limited {
    access: Current<AccessLimits>,
    view: Current<ViewLimits>,
    cluster: Current<ClusterLimits>,
}

impl Node {
    /// Starts to serve.
    ///
    /// # Errors
    /// [`StartError`]: TLS or a socket.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let mut random = StdRng::from_seed(parts.seed);
        let transport =
            Transport::new(parts.tls, &parts.secret, Arc::clone(&parts.clock), &parts.limits.access)?;
        let mut endpoints = Vec::with_capacity(parts.sockets.len());
        for socket in parts.sockets {
            endpoints.push(transport.endpoint(socket, Arc::clone(&parts.runtime), &mut random)?);
        }
        let (store, clock, limits) = (parts.store, parts.clock, parts.limits);
        let pages = Arc::new(Pages::new(Arc::clone(&store), &limits.access, Arc::clone(&parts.metrics)));
        let limited = Limited {
            access: limits.access.into(),
            view: limits.view.into(),
            cluster: limits.cluster.into(),
        };
        let events = Events::new(parts.name.clone(), Arc::clone(&clock), limited.cluster.clone());
        let events = Arc::new(events);
        let groups = Groups::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&parts.metrics),
            limits.group,
            random.next_u64(),
        );
        let mut groups = groups.telling(Arc::clone(&events));
        let (access, view) = (limited.access.clone(), limited.view.clone());
        let mut joining = None;
        if let Some(cluster) = parts.cluster {
            let reaching = cluster.reach(&parts.name, parts.runtime, &access, &parts.metrics, &mut random);
            let reached = reaching.await?;
            groups = groups.among(reached.elsewhere());
            joining = Some(reached);
        }
        let sessions = Arc::new(Sessions::new(access.clone()));
        let here = Arc::clone(&sessions);
        let presence = Presence::new(groups.clone(), here, access.clone());
        let others = joining.as_ref().map(Joining::others);
        let links = joining.as_ref().map(Joining::links);
        let cluster = joining.map(|joining| {
            let (metrics, events) = (|| Arc::clone(&parts.metrics), || Arc::clone(&events));
            let mut cluster = joining.join(&groups, &presence, &pages, access.clone(), metrics(), events());
            cluster.look_out(&store, &clock, limited.cluster.clone(), metrics(), events());
            cluster
        });
        let recovery = AbortOnDrop(tokio::spawn(finish_notices(groups.clone())));
        let parts = AccessParts {
            views: Views::new(groups.clone(), view),
            groups: groups.clone(),
            store,
            pages,
            tokens: parts.tokens,
            clock: Arc::clone(&clock),
            limits: access,
            metrics: Arc::clone(&parts.metrics),
            events: Arc::clone(&events),
            name: parts.name,
            addresses: parts.addresses,
            others,
            links,
            settings: parts.settings,
            sessions,
            presence,
            random,
        };
        let metrics = Arc::clone(&parts.metrics);
        let access = Access::start(parts, endpoints);
        events.tell(Event::new(
            Kind::Started,
            concat!("this node serves, version ", env!("CARGO_PKG_VERSION")),
        ));
        Ok(Self { access, groups, metrics, events, clock, limits: limited, cluster, recovery })
    }

    /// Where it serves, in the order of the sockets it was given.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.access.local_addresses()
    }

    /// From now on these limits hold, but for the sizes of what is made already.
    pub fn set_limits(&self, limits: &Limits) {
        self.groups.set_limits(limits.group.clone());
        self.limits.access.set(limits.access.clone());
        self.limits.view.set(limits.view.clone());
        self.limits.cluster.set(limits.cluster.clone());
    }

    /// How many sessions it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.access.sessions()
    }

    /// Has the other nodes take over what this one does, as `shoal drain` would: completes once it has
    /// neither partitions nor sessions. At once where it is alone, or where the others could not.
    pub async fn hand_over(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.hand_over(self.access.emptied()).await;
        }
    }

    /// Tells the clients to leave, waits up to `grace` until they have, closes the connections of
    /// those who stayed, and writes back what is in memory. One among others is to have given back its
    /// registration before.
    pub async fn shutdown(self, grace: Duration) {
        self.access.shut_down(grace).await;
        drop(self.recovery);
        self.groups.shut_down().await;
        if let Some(cluster) = self.cluster {
            cluster.leave().await;
        }
    }
}

async fn finish_notices(groups: Groups) {
    loop {
        match groups.finish_notices().await {
            Ok(true) => return,
            Ok(false) => tracing::debug!("notices that a crash interrupted wait for room"),
            Err(error) => tracing::error!(%error, "notices that a crash interrupted wait"),
        }
        sleep(NOTICES_AGAIN).await;
    }
}

/// Between two attempts to finish what a crash interrupted.
const NOTICES_AGAIN: Duration = Duration::from_secs(1);

/// A task that ends with whoever holds this.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
