//! Who is slow, worked out once for all who ask while neither the nodes nor the wishes change: each
//! session that is welcomed does.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::coordination::{self, NodeName, Nodes, Slow};

/// What was asked last, and the answer.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    nodes: Arc<Nodes>,
    draining: BTreeSet<NodeName>,
    slow: Arc<Slow>,
}

impl Verdicts {
    /// Who of these nodes is slow, of which some are drained.
    pub(super) fn on(&self, nodes: &Arc<Nodes>, draining: BTreeSet<NodeName>) -> Arc<Slow> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.nodes, nodes) || latest.draining != draining {
            let slow = Arc::new(coordination::slow(nodes, &draining));
            *latest = Latest { nodes: Arc::clone(nodes), draining, slow };
        }
        Arc::clone(&latest.slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::{Complaints, Load, NodeRecord, conformance::node};

    fn nodes(calls_itself_slow: bool) -> Arc<Nodes> {
        let own = || (NodeName("a".into()), 1);
        let complaints =
            Complaints { of: calls_itself_slow.then(own).into_iter().collect(), ..Default::default() };
        let load = Load { complaints: Some(complaints), ..Load::default() };
        let records = [NodeRecord { load, ..node("a") }, node("b")];
        Arc::new(records.into_iter().map(|node| (node.name.clone(), node)).collect())
    }

    #[test]
    fn an_answer_is_worked_out_once_for_the_same_nodes_and_wishes() {
        let verdicts = Verdicts::default();
        let ask = |nodes: &Arc<Nodes>, draining: &[&str]| {
            verdicts.on(nodes, draining.iter().map(|name| NodeName((*name).into())).collect())
        };
        let (well, slow) = (nodes(false), nodes(true));
        assert!(ask(&well, &[]).is_empty());
        let found = ask(&slow, &[]);
        assert_eq!(found.len(), 1);
        assert!(Arc::ptr_eq(&found, &ask(&slow, &[])));
        assert!(ask(&slow, &["b"]).is_empty());
        assert_eq!(ask(&slow, &[]).len(), 1);
        assert!(ask(&well, &[]).is_empty());
    }
}
