//! What the leader decides: which node looks after which partition, as nodes come and go.
//!
//! Every node may run this; the one that is elected decides, and each of its decisions is written
//! only if it still leads and nobody has decided before it.

use std::{collections::BTreeMap, convert::Infallible, future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Coordination, CoordinationError, Leadership, NodeName, Nodes, Placed, Placement, Refused, Registration,
    Standing,
};

/// How long the leader waits after coordination did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// The nodes that partitions can be given to, and how much each can carry.
type Capacities = BTreeMap<NodeName, u32>;

/// Leads whenever this node is elected. When coordination was away the others' leases ran out with
/// this node's own, so they get `grace` to come back before they count as dead.
pub async fn run(
    coordination: &dyn Coordination,
    registration: &dyn Registration,
    grace: Duration,
) -> Infallible {
    let mut term = Term { coordination, standing: registration.standing(), grace };
    loop {
        let ended = tokio::select! {
            biased;
            Ok(()) = term.standing.changed() => Ended::Lapsed,
            leadership = registration.lead() => term.serve(&leadership).await,
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

/// The placement after these nodes came or went; none where nothing is to change.
///
/// All moves are made at once. Moves from a living node are to be handed over one partition at a
/// time: it is here that the first of them would be chosen.
fn decide(placement: &Placement, capacities: &Capacities) -> Option<Placement> {
    let moves = placement.balance(capacities);
    (!moves.is_empty()).then(|| placement.after(&moves))
}

fn capacities(nodes: &Nodes) -> Capacities {
    let carrying = nodes.values().filter(|node| node.roles.group);
    carrying.map(|node| (node.name.clone(), node.capacity)).collect()
}

struct Term<'c> {
    coordination: &'c dyn Coordination,
    standing: watch::Receiver<Standing>,
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
            let living = capacities(&nodes.borrow_and_update());
            // Most changes are reports of load.
            if decided.as_ref() != Some(&living) {
                match self.place(leadership, placed, &living).await {
                    Ok(now) => placed = now,
                    Err(ended) => return ended,
                }
                decided = Some(living);
            }
            tokio::select! {
                biased;
                Ok(()) = self.standing.changed() => return Ended::Lapsed,
                Ok(()) = nodes.changed() => {}
                else => pending().await,
            }
        }
    }

    async fn place(
        &self,
        leadership: &Leadership,
        mut placed: Arc<Placed>,
        living: &Capacities,
    ) -> Result<Arc<Placed>, Ended> {
        while let Some(placement) = decide(&placed.placement, living) {
            let written = self.coordination.place(leadership, placed.version, placement.clone()).await;
            placed = match written.map_err(Ended::Away)? {
                Ok(version) => {
                    info!(version, nodes = living.len(), "placed");
                    Arc::new(Placed { version, placement })
                }
                Err(Refused::Moved(current)) => current,
                Err(Refused::Deposed) => return Err(Ended::Deposed),
            };
        }
        Ok(placed)
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
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        coordination::{
            InProcess, Load, NodeRecord, Roles,
            conformance::{node, over, until},
        },
        store::MemoryStore,
    };

    const GRACE: Duration = Duration::from_secs(3);

    async fn coordination() -> InProcess {
        let (coordination, writer) = InProcess::open(Arc::new(MemoryStore::new(1))).await.unwrap();
        tokio::spawn(writer.run());
        coordination
    }

    fn named(names: &[&str]) -> Capacities {
        names.iter().map(|name| (NodeName((*name).into()), 1)).collect()
    }

    /// Runs the leader on a registration that may say anything of its standing.
    fn lead(coordination: &InProcess, registration: Box<dyn Registration>) -> watch::Sender<Standing> {
        let standing = watch::Sender::default();
        let wavering = Wavering { registration, standing: standing.clone() };
        let coordination = coordination.clone();
        tokio::spawn(async move {
            run(&coordination, &wavering, GRACE).await;
        });
        standing
    }

    struct Wavering {
        registration: Box<dyn Registration>,
        standing: watch::Sender<Standing>,
    }

    #[async_trait]
    impl Registration for Wavering {
        fn report(&self, load: Load) {
            self.registration.report(load);
        }

        fn standing(&self) -> watch::Receiver<Standing> {
            self.standing.subscribe()
        }

        async fn lead(&self) -> Leadership {
            self.registration.lead().await
        }
    }

    #[test]
    fn what_is_placed_well_is_left_alone() {
        let placement = over(&["a", "b"]);
        assert_eq!(decide(&placement, &named(&["a", "b"])), None);
        assert_eq!(decide(&placement, &named(&[])), None, "there is nobody to give it to");
        let after = decide(&placement, &named(&["a"])).unwrap();
        assert_eq!(after.balance(&named(&["a"])), []);
    }

    #[tokio::test]
    async fn partitions_follow_the_nodes_that_carry_groups() {
        let coordination = coordination().await;
        let mut placement = coordination.placement();
        let is_over = |placed: &Arc<Placed>, names: &[&str]| {
            placed.version > 0 && placed.placement.balance(&named(names)).is_empty()
        };
        let _standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
        until(&mut placement, |placed| is_over(placed, &["a"])).await;
        let access_only = NodeRecord { roles: Roles { group: false, ..Roles::ALL }, ..node("x") };
        let _access = coordination.register(access_only).await.unwrap();
        let b = coordination.register(node("b")).await.unwrap();
        until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
        drop(b);
        until(&mut placement, |placed| is_over(placed, &["a"])).await;
        assert_eq!(placement.borrow().version, 3, "one decision for each change");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_gives_the_others_time_to() {
        let coordination = coordination().await;
        let mut placement = coordination.placement();
        let b = coordination.register(node("b")).await.unwrap();
        let standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
        until(&mut placement, |placed| placed.version == 1).await;

        standing.send_replace(Standing::Lapsed);
        tokio::task::yield_now().await;
        drop(b);
        sleep(2 * GRACE).await;
        assert_eq!(placement.borrow().version, 1, "it does not know who lives");
        standing.send_replace(Standing::Held);
        sleep(GRACE / 2).await;
        assert_eq!(placement.borrow().version, 1, "the others may be on their way");
        sleep(GRACE).await;
        assert_eq!(placement.borrow().version, 2, "who is not back by now is dead");
    }
}
