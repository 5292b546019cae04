//! Who stands for the leadership: nobody who is slow, while another could lead.
//!
//! A leader that is slow may hold its lease for ever and decide too late each time. It need not notice
//! that: whoever waits for the leadership sees it in the nodes' records, and ends the leadership in its
//! place. Where that was wrong no harm is done, for a leader's decisions are taken only while it leads.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{Coordination, Leadership, NodeName, Nodes, Registration, Slow, slow};

/// How often who waits looks how the leader does.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until this node leads. Cancellation safe.
pub(super) async fn elected(coordination: &dyn Coordination, registration: &dyn Registration) -> Leadership {
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
        let slow = slow(&nodes, &BTreeSet::new());
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
        coordination::{Complaints, InProcess, Load, Roles, conformance::node},
        store::MemoryStore,
    };

    async fn coordination() -> InProcess {
        let (coordination, writer) = InProcess::open(Arc::new(MemoryStore::new(1))).await.unwrap();
        tokio::spawn(writer.run());
        coordination
    }

    fn complains_of(names: &[&str]) -> Load {
        let of = names.iter().map(|name| (NodeName((*name).into()), 1)).collect();
        Load { complaints: Some(Complaints { of, store_since_ms: None }), ..Load::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_slow_is_deposed_and_does_not_stand_again_before_it_is_well() {
        let coordination = coordination().await;
        let a = coordination.register(node("a")).await.unwrap();
        let b = coordination.register(node("b")).await.unwrap();
        let first = elected(&coordination, &*a).await;
        assert!(timeout(2 * LOOK, elected(&coordination, &*b)).await.is_err(), "one leads");
        a.report(complains_of(&["a"]));
        b.report(complains_of(&["a"]));
        let second = timeout(2 * LOOK, elected(&coordination, &*b)).await.expect("it is replaced");
        assert!(second.node.0 == "b" && second.term > first.term);
        coordination.depose(&second).await.unwrap();
        assert!(timeout(2 * LOOK, elected(&coordination, &*a)).await.is_err(), "it is slow");
        a.report(complains_of(&[]));
        b.report(complains_of(&[]));
        assert!(timeout(2 * LOOK, elected(&coordination, &*a)).await.is_ok());
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
        let leadership = timeout(2 * LOOK, elected(&coordination, &*a)).await.expect("it is the only one");
        sleep(2 * LOOK).await;
        assert_eq!(*coordination.leader().borrow(), Some(leadership));
    }
}
