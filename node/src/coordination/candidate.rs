//! Who stands for the leadership: nobody who is slow, while another could lead.
//!
//! A leader that is slow may hold its lease for ever and decide too late each time. It need not notice
//! that: whoever waits for the leadership sees it in the nodes' records, and ends the leadership in its
//! place. Where that was wrong no harm is done, for a leader's decisions are taken only while it leads.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{Coordination, Drains, Leadership, NodeName, Nodes, Registration, Slow, slow};

/// How often who waits looks how the leader does.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until this node leads. Cancellation safe.
pub(super) async fn elected(
    coordination: &dyn Coordination,
    registration: &dyn Registration,
    drains: &Drains,
) -> Leadership {
    let (nodes, leader) = (coordination.nodes(), coordination.leader());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let election = registration.lead();
    tokio::pin!(election);
    let mut stands = false;
    loop {
        tokio::select! {
            biased;
            leadership = &mut election, if stands => return leadership,
            _ = looks.tick() => {}
        }
        let nodes = nodes.borrow().clone();
        let slow = slow(&nodes, &drains.names());
        stands = may_lead(registration.node(), &nodes, &slow);
        let in_office = leader.borrow().clone();
        if let Some(leadership) = in_office.filter(|leader| stands && slow.contains_key(&leader.node)) {
            depose(coordination, &leadership).await;
        }
    }
}

/// A node that is slow leads only where no other can.
fn may_lead(node: &NodeName, nodes: &Nodes, slow: &Slow) -> bool {
    let could = |other: &NodeName| nodes.get(other).is_some_and(|record| record.roles.coordination);
    !slow.contains_key(node) || !nodes.keys().any(|other| could(other) && !slow.contains_key(other))
}

async fn depose(coordination: &dyn Coordination, leadership: &Leadership) {
    warn!(node = leadership.node.0, term = leadership.term, "the leader is slow: another is elected");
    if let Err(error) = coordination.depose(leadership).await {
        debug!(%error, "the leader stays until the next look");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{
        coordination::{Complaints, InProcess, Load, Roles, conformance::node, drains},
        store::MemoryStore,
    };

    async fn coordination() -> InProcess {
        let (coordination, writer) = InProcess::open(Arc::new(MemoryStore::new(1))).await.unwrap();
        tokio::spawn(writer.run());
        coordination
    }

    /// Waits until a node leads, for no longer than takes two looks.
    async fn soon(coordination: &InProcess, registration: &dyn Registration) -> Option<Leadership> {
        let drains = Drains::watch(coordination).await.unwrap();
        timeout(2 * LOOK, elected(coordination, registration, &drains)).await.ok()
    }

    fn complains_of(names: &[&str]) -> Load {
        let of = names.iter().map(|name| (NodeName((*name).into()), 1)).collect();
        Load { complaints: Some(Complaints { of, ..Complaints::default() }), ..Load::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_slow_is_deposed_and_does_not_stand_again_before_it_is_well() {
        let coordination = coordination().await;
        let a = coordination.register(node("a")).await.unwrap();
        let b = coordination.register(node("b")).await.unwrap();
        let first = soon(&coordination, &*a).await.expect("nobody else leads");
        assert_eq!(soon(&coordination, &*b).await, None, "one leads");
        a.report(complains_of(&["a"]));
        b.report(complains_of(&["a"]));
        let second = soon(&coordination, &*b).await.expect("it is replaced");
        assert!(second.node.0 == "b" && second.term > first.term);
        coordination.depose(&second).await.unwrap();
        assert_eq!(soon(&coordination, &*a).await, None, "it is slow");
        a.report(complains_of(&[]));
        b.report(complains_of(&[]));
        assert!(soon(&coordination, &*a).await.is_some());
    }

    /// As for everybody else, a node that is drained does not count among the half that is left.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_could_not_be_emptied_stays() {
        let coordination = coordination().await;
        let a = coordination.register(node("a")).await.unwrap();
        let b = coordination.register(node("b")).await.unwrap();
        let drained = NodeName("b".into());
        drains::wish(&coordination, &drained, "an operator").await.unwrap();
        let first = soon(&coordination, &*a).await.expect("nobody else leads");
        a.report(complains_of(&["a"]));
        b.report(complains_of(&["a"]));
        assert_eq!(soon(&coordination, &*b).await, None);
        assert_eq!(*coordination.leader().borrow(), Some(first));
        drains::end(&coordination, &drained).await.unwrap();
        assert!(soon(&coordination, &*b).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_node_leads_where_no_other_can_and_is_not_deposed_by_another_that_is_slow() {
        let coordination = coordination().await;
        let a = coordination.register(node("a")).await.unwrap();
        let other = crate::coordination::NodeRecord {
            roles: Roles { coordination: false, ..Roles::ALL },
            ..node("b")
        };
        let b = coordination.register(other).await.unwrap();
        a.report(complains_of(&["a"]));
        b.report(complains_of(&["a"]));
        let leadership = soon(&coordination, &*a).await.expect("it is the only one");
        sleep(2 * LOOK).await;
        assert_eq!(*coordination.leader().borrow(), Some(leadership));
    }
}
