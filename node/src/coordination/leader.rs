//! What the leader decides: which node looks after which partition, as nodes come and go.
//!
//! Every node with the role may run this; the one that is elected decides, and each of its decisions is
//! written only if it still leads and nobody has decided before it.
//!
//! What a dead node has left is given away at once, and so is what a slow one has, which the store's fence
//! makes safe: who is slow is not waited for. What moves between living ones, because a node has
//! joined or is to be emptied, moves one partition at a time: the next one once both its nodes act by
//! the step before, so that no more than one partition's groups change their home at the same moment.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Coordination, CoordinationError, Drains, Leadership, Move, NodeName, NodeRecord, Nodes, Placed,
    Placement, Refused, Registration, Slow, Standing, candidate, slow,
};

/// How long the leader waits after coordination did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// How long a step may take those whom it concerns, before the next one is taken.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// The nodes that partitions can be given to, and how much each can carry.
type Capacities = BTreeMap<NodeName, u32>;

/// Leads whenever this node is elected. When coordination was away the others' leases ran out with
/// this node's own, so they get `grace` to come back before they count as dead.
pub async fn run(
    coordination: &dyn Coordination,
    registration: &dyn Registration,
    grace: Duration,
) -> Infallible {
    let drains = watch_drains(coordination).await;
    let mut term = Term { coordination, standing: registration.standing(), drains, grace };
    loop {
        let ended = tokio::select! {
            biased;
            Ok(()) = term.standing.changed() => Ended::Lapsed,
            leadership = candidate::elected(coordination, registration, &term.drains) => {
                term.serve(&leadership).await
            }
        };
        match ended {
            Ended::Deposed => info!("this node leads no more"),
            Ended::Lapsed => term.come_back().await,
            Ended::Away(error) => {
                warn!(%error, "the leader cannot decide");
                sleep(RETRY).await;
            }
        }
    }
}

/// Waits until coordination answers.
async fn watch_drains(coordination: &dyn Coordination) -> Drains {
    loop {
        match Drains::watch(coordination).await {
            Ok(drains) => return drains,
            Err(error) => warn!(%error, "nobody can decide here yet"),
        }
        sleep(RETRY).await;
    }
}

/// What to move first: everything that nobody looks after, at once; or else one partition, to the node
/// that carries least for what it can, and among those to the one that is to get most.
fn first_step(moves: Vec<Move>, nodes: &Nodes) -> Vec<Move> {
    let (orphans, handed_over): (Vec<_>, Vec<_>) = moves.into_iter().partition(|step| step.from.is_none());
    if !orphans.is_empty() {
        return orphans;
    }
    let burden = |node: &NodeName| {
        let carried = nodes.get(node).map(|node| node.load.groups * 1_000 / u64::from(node.capacity.max(1)));
        carried.unwrap_or_default()
    };
    let wanting = |node: &NodeName| handed_over.iter().filter(|step| step.to == *node).count();
    let targets: BTreeSet<_> = handed_over.iter().map(|step| &step.to).collect();
    let target = targets.into_iter().min_by_key(|node| (burden(node), Reverse(wanting(node)))).cloned();
    handed_over.into_iter().find(|step| Some(&step.to) == target.as_ref()).into_iter().collect()
}

/// Everything that is to be moved. Where all nodes are to be emptied, each keeps what it has, and takes
/// its share of what nobody has.
fn moves(placement: &Placement, nodes: &Nodes, capacities: &Capacities) -> Vec<Move> {
    if capacities.values().any(|capacity| *capacity > 0) {
        return placement.balance(capacities);
    }
    let undiminished = |node: &NodeName| Some((node.clone(), nodes.get(node)?.capacity));
    let mut moves = placement.balance(&capacities.keys().filter_map(undiminished).collect());
    moves.retain(|step| step.from.is_none());
    moves
}

/// One that is to be emptied carries nothing more; one that is slow is as good as gone.
fn capacities(nodes: &Nodes, draining: &BTreeSet<NodeName>, slow: &Slow) -> Capacities {
    let capacity = |node: &NodeRecord| if draining.contains(&node.name) { 0 } else { node.capacity };
    let carrying = nodes.values().filter(|node| node.roles.group && !slow.contains_key(&node.name));
    carrying.map(|node| (node.name.clone(), capacity(node))).collect()
}

struct Term<'c> {
    coordination: &'c dyn Coordination,
    standing: watch::Receiver<Standing>,
    drains: Drains,
    grace: Duration,
}

/// Why a term, or the part of one, ended.
enum Ended {
    Deposed,
    Lapsed,
    Away(CoordinationError),
}

impl Term<'_> {
    /// Keeps every partition with a living node for as long as this node leads.
    async fn serve(&mut self, leadership: &Leadership) -> Ended {
        info!(term = leadership.term, "this node leads");
        let mut nodes = self.coordination.nodes();
        let mut placed = self.coordination.placement().borrow().clone();
        let mut decided: Option<Capacities> = None;
        loop {
            let living = Arc::clone(&nodes.borrow_and_update());
            let draining = self.drains.see();
            let capacities = capacities(&living, &draining, &slow(&living, &draining));
            // Most changes are reports of load.
            if decided.as_ref() != Some(&capacities) {
                let step = first_step(moves(&placed.placement, &living, &capacities), &living);
                if !step.is_empty() {
                    match self.take(leadership, &placed, &step, &mut nodes).await {
                        Ok(now) => placed = now,
                        Err(ended) => return ended,
                    }
                    continue;
                }
                decided = Some(capacities);
            }
            tokio::select! {
                biased;
                Ok(()) = self.standing.changed() => return Ended::Lapsed,
                Ok(()) = nodes.changed() => {}
                true = self.drains.changed() => {}
                else => pending().await,
            }
        }
    }

    /// Takes a step, and waits until those whom it concerns act by it, for a while: the next step
    /// begins from what stands then.
    async fn take(
        &mut self,
        leadership: &Leadership,
        placed: &Placed,
        step: &[Move],
        nodes: &mut watch::Receiver<Arc<Nodes>>,
    ) -> Result<Arc<Placed>, Ended> {
        let placement = placed.placement.after(step);
        let written = self.coordination.place(leadership, placed.version, placement.clone()).await;
        let version = match written.map_err(Ended::Away)? {
            Ok(version) => version,
            Err(Refused::Moved(current)) => return Ok(current),
            Err(Refused::Deposed) => return Err(Ended::Deposed),
        };
        debug!(version, partitions = step.len(), "moved");
        let concerned: BTreeSet<_> =
            step.iter().flat_map(|step| step.from.iter().chain([&step.to])).collect();
        let act_by_it = |nodes: &Arc<Nodes>| {
            let mut living = concerned.iter().filter_map(|node| nodes.get(*node));
            living.all(|node| node.load.placement >= version)
        };
        tokio::select! {
            biased;
            Ok(()) = self.standing.changed() => Err(Ended::Lapsed),
            // Whoever is slow hears of it by the next step at the latest.
            _ = timeout(SETTLE_MAX, nodes.wait_for(act_by_it)) => Ok(Arc::new(Placed { version, placement })),
        }
    }

    /// Waits until this node is registered again, and the others have had the time to be.
    async fn come_back(&mut self) {
        loop {
            if self.standing.wait_for(|standing| *standing == Standing::Held).await.is_err() {
                pending::<()>().await;
            }
            if timeout(self.grace, self.standing.changed()).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
