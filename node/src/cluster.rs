//! One node among others: it follows the placement, reaches the others, and is reached by them. Whoever
//! starts it registers it, once it serves.

mod findings;

mod lookout;

mod news;

mod others;

mod regions;

mod steering;

mod surplus;

mod verdicts;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, Endpoint, Runtime};
use rand::rngs::StdRng;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::Clock,
    config::{AccessLimits, ClusterLimits, Current},
    coordination::{Complaints, Coordination, Move, NodeName, Partition, Placed},
    delivery::Pages,
    group::{Elsewhere, Groups},
    node::StartError,
    ops::{Events, Metrics},
    peer::{Dialer, Links, PeerTls, Server, ServerParts, endpoint},
    presence::Presence,
    store::Store,
};

use lookout::Lookout;
pub(crate) use news::News;
pub(crate) use others::{Others, describe};
pub(crate) use regions::Homes;
pub(crate) use surplus::Tolerance;

/// How often the store is asked whether another home has written to the groups that have theirs here,
/// and whether it has left members untold.
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
    /// Through what its groups see the others. None, but in a simulation.
    pub through: Option<Through>,
}

/// Puts something before the links to the other nodes.
pub type Through = Box<dyn FnOnce(Arc<dyn Elsewhere>) -> Arc<dyn Elsewhere> + Send>;

/// A node that reaches the others and is not reached by them yet.
pub(crate) struct Joining {
    parts: ClusterParts,
    me: NodeName,
    endpoint: Endpoint,
    links: Arc<Links>,
    elsewhere: Arc<dyn Elsewhere>,
    others: Arc<Others>,
}

/// A node among others. Dropping it is a crash.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: Server,
    tasks: JoinSet<()>,
    acts_by: watch::Receiver<u64>,
    complaints: watch::Sender<Option<Complaints>>,
    links: Arc<Links>,
    others: Arc<Others>,
}

impl ClusterParts {
    pub(crate) async fn reach(
        mut self,
        name: &str,
        runtime: Arc<dyn Runtime>,
        limits: &Current<AccessLimits>,
        metrics: &Arc<Metrics>,
        random: &mut StdRng,
    ) -> Result<Joining, StartError> {
        let me = NodeName(name.to_owned());
        let others = Others::begin(me.clone(), Arc::clone(&self.coordination)).await;
        let (endpoint, tls) = endpoint(self.tls.clone(), Arc::clone(&self.socket), runtime, random)?;
        let dialer = Dialer {
            me: me.clone(),
            cluster: self.cluster.clone(),
            endpoint: endpoint.clone(),
            tls,
            nodes: self.coordination.nodes(),
            limits: limits.clone(),
            metrics: Arc::clone(metrics),
        };
        let links = Arc::new(Links::new(Arc::new(dialer), self.coordination.placement()));
        let mut elsewhere: Arc<dyn Elsewhere> = Arc::clone(&links) as _;
        if let Some(through) = self.through.take() {
            elsewhere = through(elsewhere);
        }
        Ok(Joining { parts: self, me, endpoint, links, elsewhere, others: Arc::new(others) })
    }
}

impl Joining {
    /// The others, as the groups here see them.
    pub(crate) fn elsewhere(&self) -> Arc<dyn Elsewhere> {
        Arc::clone(&self.elsewhere)
    }

    pub(crate) fn others(&self) -> Arc<Others> {
        Arc::clone(&self.others)
    }

    pub(crate) fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    /// Serves the other nodes.
    pub(crate) fn join(
        self,
        groups: &Groups,
        presence: &Presence,
        pages: &Arc<Pages>,
        limits: Current<AccessLimits>,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
    ) -> Cluster {
        let Self { parts, me, endpoint, links, others, .. } = self;
        let (acting, acts_by) = watch::channel(0);
        let placement = FollowPlacement { me: me.clone(), groups: groups.clone(), acting };
        let server = ServerParts {
            me,
            cluster: parts.cluster,
            groups: groups.clone(),
            presence: presence.clone(),
            pages: Arc::clone(pages),
            limits,
            metrics,
            events,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(placement.run(parts.coordination.placement()));
        tasks.spawn(look_for_other_homes(groups.clone()));
        let complaints = watch::Sender::default();
        Cluster { server: Server::start(server, endpoint), tasks, acts_by, complaints, links, others }
    }
}

impl Cluster {
    /// Begins to look for nodes that are slow.
    pub(crate) fn look_out(
        &mut self,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        limits: Current<ClusterLimits>,
        metrics: Arc<Metrics>,
        events: Arc<Events>,
    ) {
        let (others, links) = (Arc::clone(&self.others), Arc::clone(&self.links));
        let (store, clock) = (Arc::clone(store), Arc::clone(clock));
        let lookout = Lookout { others, links, store, clock, limits, metrics, events };
        self.tasks.spawn(lookout.run(self.complaints.clone()));
    }

    /// Who is slow, as this node has found; nothing before it has looked.
    pub(crate) fn complaints(&self) -> Option<Complaints> {
        self.complaints.borrow().clone()
    }

    /// The other nodes, as coordination knows them.
    pub(crate) fn others(&self) -> &Others {
        &self.others
    }

    /// The version of the placement that changed something for this node last and by which it acts.
    pub(crate) fn acts_by(&self) -> watch::Receiver<u64> {
        self.acts_by.clone()
    }

    /// The most records of one group that its home elsewhere has and has not sent here.
    pub(crate) fn behind(&self) -> u64 {
        self.links.behind()
    }

    /// Has the other nodes take over, `sessions` and all, unless nobody could.
    pub(crate) async fn hand_over(&self, sessions: impl Future<Output = ()>) {
        self.others.hand_over(sessions).await;
    }

    /// Tells the other nodes.
    pub(crate) async fn leave(mut self) {
        self.tasks.shutdown().await;
        self.server.shut_down().await;
        self.others.go().await;
    }
}

/// Looks at the groups whose home has moved, and says so once it has.
struct FollowPlacement {
    me: NodeName,
    groups: Groups,
    acting: watch::Sender<u64>,
}

impl FollowPlacement {
    async fn run(self, mut placement: watch::Receiver<Arc<Placed>>) {
        let mut before = Arc::clone(&placement.borrow_and_update());
        self.acting.send_replace(before.version);
        while placement.changed().await.is_ok() {
            let now = Arc::clone(&placement.borrow_and_update());
            self.act(&before, &now);
            before = now;
        }
    }

    fn act(&self, before: &Placed, now: &Placed) {
        let moves = before.placement.moves_to(&now.placement);
        let moved: BTreeSet<_> = moves.iter().map(|step| step.partition).collect();
        // Of a placement that went by unseen, a group may have taken what neither of these shows.
        let saw_all = now.version == before.version + 1;
        self.groups.look_again(|group| !saw_all || moved.contains(&Partition::of(group)));
        let is_mine = |step: &Move| step.to == self.me || step.from.as_ref() == Some(&self.me);
        if moves.iter().any(is_mine) {
            self.acting.send_replace(now.version);
        }
    }
}

async fn look_for_other_homes(groups: Groups) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        groups.look_for_other_homes().await;
        if let Err(error) = groups.finish_notices().await {
            tracing::debug!(%error, "notices wait for the next look");
        }
    }
}

impl fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterParts").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
