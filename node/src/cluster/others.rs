//! What a node knows of the others: where they take clients, what administrators are shown of them, and
//! whether one may go.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use shoal_protocol::{Code, Refusal, wire};
use tokio::time::{sleep, timeout};

use super::{
    news::{Drain, Seen},
    regions::{self, Homes},
    steering,
    surplus::{Region, Tolerance},
    verdicts::Verdicts,
};
use crate::{
    clock::milliseconds,
    coordination::{
        Coordination, CoordinationError, Drains, NodeName, NodeRecord, Nodes, PARTITIONS, Roles, Slow,
        Verdict, drains,
    },
};

/// Other nodes that a client is told of,
const NODES_MAX: usize = 8;
/// and the most addresses of each.
const ADDRESSES_MAX: usize = 4;

/// How long to wait after coordination did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// How long coordination may take to say what leases there are; then it is not told.
const LEASES_MAX: Duration = Duration::from_secs(1);

/// How often a node looks whether its clients are to leave, and whether others take them.
const LOOK: Duration = Duration::from_millis(250);

/// How long a node that goes waits until the others have seen it.
const GONE_MAX: Duration = Duration::from_secs(3);

/// The other nodes, as coordination knows them.
pub(crate) struct Others {
    me: NodeName,
    coordination: Arc<dyn Coordination>,
    drains: Drains,
    verdicts: Verdicts,
}

impl Others {
    /// A wish to empty this node was for its life before: it takes part again. Waits until coordination
    /// answers.
    pub(crate) async fn begin(me: NodeName, coordination: Arc<dyn Coordination>) -> Self {
        loop {
            let ended = drains::end(&*coordination, &me).await;
            match ended.and(Drains::watch(&*coordination).await) {
                Ok(drains) => return Self { me, coordination, drains, verdicts: Verdicts::default() },
                Err(error) => tracing::warn!(%error, "this node waits until it may begin"),
            }
            sleep(RETRY).await;
        }
    }

    /// Where other nodes take clients, the one to try first at the front: those of the client's `region`,
    /// then those of this node's, then the rest, each drawn by lot (`chance` in `0.0..1.0`) by how much
    /// room it has.
    pub(crate) fn addresses(&self, region: &str, chance: impl FnMut() -> f64) -> Vec<String> {
        let (nodes, slow) = (self.nodes(), self.slow());
        let here = nodes.get(&self.me).map(|node| node.region.as_str()).unwrap_or_default();
        let take_clients = nodes.values().filter(|node| self.takes_clients(node, &slow));
        addresses_of(steering::order(take_clients, &[region, here], chance))
    }

    /// The other regions that clients can be sent home to.
    pub(crate) fn homes(&self) -> Homes {
        self.while_taking_clients(|me, others| Homes::new(&me.region, others.iter().copied()))
            .unwrap_or_default()
    }

    /// Where clients of another `region` are at home, drawn by lot; nowhere while it has no room.
    pub(crate) fn at_home(&self, region: &str, chance: impl FnMut() -> f64) -> Vec<String> {
        self.while_taking_clients(|me, others| {
            let at_home = regions::at_home(&me.region, region, others.iter().copied());
            addresses_of(steering::order(at_home, &[], chance))
        })
        .unwrap_or_default()
    }

    /// So many of this node's `own` sessions are to be offered another node.
    pub(crate) fn surplus(&self, own: u64, tolerance: Tolerance) -> u64 {
        self.in_region(own, |region| region.surplus(tolerance)).unwrap_or_default()
    }

    /// So many may go, once some do.
    pub(crate) fn above_enough(&self, own: u64) -> u64 {
        self.in_region(own, |region| region.above_enough()).unwrap_or_default()
    }

    /// Where fewer clients are than should be, in this region: drawn by lot, by how many are lacking. Nowhere
    /// while this node has no more than enough.
    pub(crate) fn roomier(&self, own: u64, chance: impl FnMut() -> f64) -> Vec<String> {
        let roomier = |region: &Region<'_>| match region.above_enough() {
            0 => Vec::new(),
            _ => addresses_of(steering::order_by_lots(region.lacking(), chance)),
        };
        self.in_region(own, roomier).unwrap_or_default()
    }

    /// What is so of this node's region; nothing while it is not one that takes clients itself.
    fn in_region<T>(&self, own: u64, so: impl FnOnce(&Region<'_>) -> T) -> Option<T> {
        self.while_taking_clients(|me, others| so(&Region::new(me, own, others.iter().copied())))
    }

    /// What is so of this node and the others that take clients; nothing while it takes none itself.
    fn while_taking_clients<T>(
        &self,
        so: impl for<'n> FnOnce(&'n NodeRecord, &[&'n NodeRecord]) -> T,
    ) -> Option<T> {
        let (nodes, slow) = (self.nodes(), self.slow());
        let is_going = self.drains.contains(&self.me) || slow.contains_key(&self.me);
        let me = nodes.get(&self.me).filter(|_| !is_going)?;
        let others: Vec<_> = nodes.values().filter(|node| self.takes_clients(node, &slow)).collect();
        Some(so(me, &others))
    }

    /// Everything about all nodes.
    pub(crate) async fn state(&self) -> wire::Cluster {
        let leases = timeout(LEASES_MAX, self.coordination.leases()).await;
        let leases = leases.ok().and_then(Result::ok).unwrap_or_default();
        let placed = self.coordination.placement().borrow().clone();
        let leader = self.coordination.leader().borrow().clone();
        let (nodes, slow) = (self.nodes(), self.slow());
        let (holding, draining) = (placed.placement.nodes().cloned(), self.drains.names());
        let names: BTreeSet<_> = nodes.keys().cloned().chain(holding).chain(draining).collect();
        let node = |name: NodeName| {
            let is_draining = self.drains.contains(&name);
            let gone = || gone(&name);
            let described = describe(
                nodes.get(&name).unwrap_or(&gone()),
                is_draining,
                slow.get(&name),
                nodes.contains_key(&name),
                placed.placement.held(&name),
            );
            let lease_ms = leases.get(&name).copied().map(milliseconds);
            wire::ClusterNode { lease_ms, ..described }
        };
        wire::Cluster {
            nodes: names.into_iter().map(node).collect(),
            leader: leader.as_ref().map(|leader| leader.node.0.clone()).unwrap_or_default(),
            term: leader.map(|leader| leader.term).unwrap_or_default(),
            placement: placed.version,
            partitions: PARTITIONS.into(),
            ..wire::Cluster::default()
        }
    }

    /// The nodes at this moment, for operators.
    pub(crate) fn seen(&self) -> Seen {
        use wire::cluster_node::State;
        let leader = self.coordination.leader().borrow().clone();
        let placed = self.coordination.placement().borrow().clone();
        let (living, slow, draining) = (self.nodes(), self.slow(), self.drains.names());
        let drain = |node: &NodeRecord| {
            let (is_wished, held) = (draining.contains(&node.name), placed.placement.held(&node.name));
            match describe(node, is_wished, None, true, held).state() {
                State::Drained => Drain::Done,
                State::Draining => Drain::Begun,
                _ => Drain::None,
            }
        };
        Seen {
            leader: leader.map(|leader| (leader.node, leader.term)),
            nodes: living.values().map(|node| (node.name.clone(), drain(node))).collect(),
            slow: slow.iter().map(|(node, verdict)| (node.clone(), verdict.by.clone())).collect(),
        }
    }

    /// Wishes a node emptied, in the name of `by`.
    ///
    /// # Errors
    /// Where there is no such node, where others could not take over, and where coordination is away.
    pub(crate) async fn wish_drained(&self, node: &NodeName, by: &str) -> Result<(), Refusal> {
        self.check_may_go(node)?;
        drains::wish(&*self.coordination, node, by).await.map_err(away)
    }

    /// Takes such a wish back.
    ///
    /// # Errors
    /// Where coordination is away.
    pub(crate) async fn cancel_drain(&self, node: &NodeName) -> Result<(), Refusal> {
        drains::end(&*self.coordination, node).await.map_err(away)
    }

    /// Has the others take over from this node; completes once it has no partition any more and its
    /// `sessions` are gone, or where nobody could take over, from the beginning or since.
    pub(crate) async fn hand_over(&self, sessions: impl Future<Output = ()>) {
        if let Err(why) = self.wish_drained(&self.me, &self.me.0).await {
            tracing::info!(%why, "no hand-over");
            return;
        }
        let emptied = async {
            let mut placement = self.coordination.placement();
            let is_done = placement.wait_for(|placed| placed.placement.held(&self.me) == 0).await.is_ok();
            if is_done {
                sessions.await;
            }
        };
        tokio::select! {
            biased;
            () = emptied => {}
            why = self.nobody_stays() => tracing::info!(%why, "no hand-over"),
        }
    }

    /// Waits until nobody is left who could take over: the others are being stopped too.
    async fn nobody_stays(&self) -> Refusal {
        let (mut nodes, mut drains) = (self.coordination.nodes(), self.drains.clone());
        loop {
            nodes.mark_unchanged();
            drop(drains.see());
            if let Err(why) = self.check_may_go(&self.me) {
                return why;
            }
            tokio::select! {
                biased;
                Ok(()) = nodes.changed() => {}
                true = drains.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// This node goes, and the wish to empty it with it: once the others see it no more, lest they give
    /// something back.
    pub(crate) async fn go(&self) {
        if !self.drains.contains(&self.me) {
            return;
        }
        let mut nodes = self.coordination.nodes();
        let unseen = nodes.wait_for(|nodes| !nodes.contains_key(&self.me));
        let is_unseen = timeout(GONE_MAX, unseen).await.is_ok();
        if is_unseen && let Err(error) = drains::end(&*self.coordination, &self.me).await {
            tracing::info!(%error, "the wish to drain stands until this node starts again");
        }
    }

    /// Waits until clients are to leave this node, or may stay. That it is to be emptied, or slow, does not
    /// hold against them while no other node takes them.
    pub(crate) async fn clients_leave(&self, is_so: bool) {
        let mut drains = self.drains.clone();
        loop {
            let (is_wished, slow) = (drains.see().contains(&self.me), self.slow());
            let is_to_go = is_wished || slow.contains_key(&self.me);
            let leave = is_to_go && self.nodes().values().any(|node| self.takes_clients(node, &slow));
            if leave == is_so {
                return;
            }
            // The nodes are looked at: of several who wait for news of them, chance says who is woken first.
            tokio::select! {
                biased;
                true = drains.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Who is slow, as this node sees it.
    pub(crate) fn slow(&self) -> Arc<Slow> {
        self.verdicts.on(&self.nodes(), self.drains.names())
    }

    /// Is it another node, and clients may go there?
    fn takes_clients(&self, node: &NodeRecord, slow: &Slow) -> bool {
        let is_leaving = node.load.is_draining || self.drains.contains(&node.name);
        node.name != self.me && node.roles.access && !is_leaving && !slow.contains_key(&node.name)
    }

    /// Whatever a node does, another that stays must be able to do.
    fn check_may_go(&self, node: &NodeName) -> Result<(), Refusal> {
        let bad = |reason: String| Refusal::new(Code::BadRequest, reason);
        let nodes = self.nodes();
        let going =
            nodes.get(node).ok_or_else(|| bad(format!("there is no node {} at the moment", node.0)))?;
        let slow = self.slow();
        let goes = |other: &NodeName| self.drains.contains(other) || slow.contains_key(other);
        let stays = |other: &&NodeRecord| other.name != *node && !goes(&other.name);
        let none = Roles { access: false, group: false, coordination: false };
        let left = nodes.values().filter(stays).fold(none, |left, other| left.or(other.roles));
        if left.covers(going.roles) {
            return Ok(());
        }
        Err(bad(format!("no other node that stays has all the roles that {} has", node.0)))
    }

    /// This node.
    pub(crate) fn me(&self) -> &NodeName {
        &self.me
    }

    /// The nodes that live.
    pub(crate) fn nodes(&self) -> Arc<Nodes> {
        self.coordination.nodes().borrow().clone()
    }
}

/// Those to try first, as a client is told of them.
fn addresses_of(nodes: Vec<&NodeRecord>) -> Vec<String> {
    let addresses =
        |node: &NodeRecord| node.addresses.iter().take(ADDRESSES_MAX).cloned().collect::<Vec<_>>();
    nodes.into_iter().take(NODES_MAX).flat_map(addresses).collect()
}

/// A node as administrators are shown it.
pub(crate) fn describe(
    node: &NodeRecord,
    is_wished_drained: bool,
    slow: Option<&Verdict>,
    is_alive: bool,
    partitions: usize,
) -> wire::ClusterNode {
    use wire::cluster_node::State;
    let load = &node.load;
    let is_empty = load.is_draining && load.sessions == 0 && partitions == 0;
    let state = match (is_alive, is_wished_drained) {
        (false, _) => State::Gone,
        (true, false) => State::Up,
        (true, true) if is_empty => State::Drained,
        (true, true) => State::Draining,
    };
    wire::ClusterNode {
        name: node.name.0.clone(),
        addresses: node.addresses.clone(),
        access: node.roles.access,
        group: node.roles.group,
        coordination: node.roles.coordination,
        region: node.region.clone(),
        capacity: node.capacity,
        state: state.into(),
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        sessions: load.sessions,
        groups: load.groups,
        committed: load.committed,
        received: load.received,
        lag_ms: load.lag_ms,
        lag_records: load.lag_records,
        fed: load.fed,
        lease_ms: None,
        placement: load.placement,
        sessions_max: load.sessions_max,
        processor_percent: load.processor_percent,
        slow_since_ms: slow.map(|verdict| verdict.since_ms),
        slow_by: slow
            .map(|verdict| verdict.by.iter().map(|node| node.0.clone()).collect())
            .unwrap_or_default(),
    }
}

/// All that is known of a node whose lease has run out.
fn gone(name: &NodeName) -> NodeRecord {
    NodeRecord {
        name: name.clone(),
        addresses: Vec::new(),
        peer_addresses: Vec::new(),
        roles: Roles { access: false, group: false, coordination: false },
        region: String::new(),
        capacity: 0,
        started_ms: 0,
        load: Default::default(),
    }
}

fn away(error: CoordinationError) -> Refusal {
    let code = match error {
        CoordinationError::TooLarge => Code::BadRequest,
        _ => Code::Busy,
    };
    Refusal::new(code, error.to_string())
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").field("me", &self.me).finish_non_exhaustive()
    }
}
