//! Which nodes hold their leases and are too slow to be of use. Pure: what nodes complain of goes in, who
//! is to be emptied comes out.
//!
//! Every node judges all others, by how long they take to answer, and itself, by how late its own timers
//! fire. Most of those who can judge a node must call it slow, because a link may be bad where both its
//! ends are well; and they must be half of the cluster, because in a rolling upgrade some cannot say what
//! they find. Who has time only now and then finds everybody slow: so who calls itself slow is asked
//! about itself alone, and so is who calls more than half of the cluster slow. Two nodes that accuse each
//! other are both left alone, until one says so of itself.
//!
//! A store that is slow for one node only is that node's trouble. Nodes do not find out at the same moment
//! that it is slow for all, nor do the others hear of it at once: so each says that it doubts the store
//! well before it complains, and for a while after.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NodeName, NodeRecord, Nodes, Roles};

/// What a node has found of the others and of itself. It changes when one becomes slow, or is well again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Complaints {
    /// Who is slow, and since when: milliseconds since 1970, by the clock of the node that says so.
    pub of: BTreeMap<NodeName, u64>,
    /// Since when the store takes long to answer it.
    pub store_since_ms: Option<u64>,
    /// Since when the store has been late, where it just has, or was of late for nearly as long as it takes to
    /// complain.
    pub store_doubted_since_ms: Option<u64>,
}

/// What several nodes find of the store has one cause where it began within so long, by their clocks.
const TOGETHER_MS: u64 = 30_000;

/// The nodes that are to be emptied, and why.
pub type Slow = BTreeMap<NodeName, Verdict>;

/// Why a node is to be emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Since when, as the first says who calls it slow.
    pub since_ms: u64,
    /// Who calls it slow.
    pub by: BTreeSet<NodeName>,
}

/// Those that most who can judge them call slow, and those whose own way to the store is. At least half of
/// all nodes are left, and of those with each role, those that are drained not counted: of more, the ones
/// that have been slow longest are named.
#[must_use]
pub fn slow(nodes: &Nodes, draining: &BTreeSet<NodeName>) -> Slow {
    let bench = Bench::new(nodes);
    let verdict = |(name, node): (&NodeName, &'_ NodeRecord)| {
        let verdict = bench.verdict(name).or_else(|| bench.of_its_store(name))?;
        Some((name.clone(), node.roles, verdict))
    };
    let mut found: Vec<_> = nodes.iter().filter_map(verdict).collect();
    found.sort_by(|(one, _, a), (other, _, b)| (a.since_ms, one).cmp(&(b.since_ms, other)));
    let mut spare = Spare::new(nodes, draining);
    // One that is drained is counted already.
    found.retain(|(node, roles, _)| draining.contains(node) || spare.take(*roles));
    found.into_iter().map(|(node, _, verdict)| (node, verdict)).collect()
}

/// How many may still be emptied: of all, and of those with each role that carries something.
struct Spare([usize; KINDS.len()]);

const KINDS: [fn(Roles) -> bool; 3] = [|_| true, |roles| roles.group, |roles| roles.access];

impl Spare {
    fn new(nodes: &Nodes, draining: &BTreeSet<NodeName>) -> Self {
        Self(KINDS.map(|is_one| {
            let all = nodes.iter().filter(|(_, node)| is_one(node.roles));
            let going = all.clone().filter(|(name, _)| draining.contains(*name)).count();
            (all.count() / 2).saturating_sub(going)
        }))
    }

    /// Can a node with these roles be spared too?
    fn take(&mut self, roles: Roles) -> bool {
        let concerned = |kind: &usize| KINDS[*kind](roles);
        let can_go = (0..KINDS.len()).filter(concerned).all(|kind| self.0[kind] > 0);
        if can_go {
            (0..KINDS.len()).filter(concerned).for_each(|kind| self.0[kind] -= 1);
        }
        can_go
    }
}

/// Those who judge.
struct Bench<'n> {
    judges: BTreeMap<&'n NodeName, &'n Complaints>,
    nodes: &'n Nodes,
}

impl<'n> Bench<'n> {
    fn new(nodes: &'n Nodes) -> Self {
        let said = nodes.iter().filter_map(|(name, node)| Some((name, node.load.complaints.as_ref()?)));
        Self { judges: said.collect(), nodes }
    }

    /// Is it asked about others?
    fn is_believed(&self, judge: &NodeName, said: &Complaints) -> bool {
        let living = said.of.keys().filter(|node| self.nodes.contains_key(*node)).count();
        !said.of.contains_key(judge) && living * 2 <= self.nodes.len()
    }

    /// Are so many enough to judge for all?
    fn are_enough(&self, judges: usize) -> bool {
        judges * 2 >= self.nodes.len()
    }

    fn verdict(&self, node: &NodeName) -> Option<Verdict> {
        let asked = |judge: &NodeName, said| judge == node || self.is_believed(judge, said);
        let asked: Vec<_> = self.judges.iter().filter(|(judge, said)| asked(judge, said)).collect();
        let called =
            || asked.iter().filter_map(|(judge, said)| Some(((**judge).clone(), *said.of.get(node)?)));
        let since_ms = called().map(|(_, since_ms)| since_ms).min()?;
        let is_slow = self.are_enough(asked.len()) && called().count() * 2 > asked.len();
        is_slow.then(|| Verdict { since_ms, by: called().map(|(judge, _)| judge).collect() })
    }

    /// A store that is slow for most, or may be, is not this node's trouble.
    fn of_its_store(&self, node: &NodeName) -> Option<Verdict> {
        let since_ms = self.judges.get(node)?.store_since_ms?;
        let by_ms = since_ms.saturating_add(TOGETHER_MS);
        let doubting = self.judges.values().filter(|said| said.doubts_the_store(by_ms)).count();
        let is_its_own = self.are_enough(self.judges.len()) && doubting * 2 <= self.judges.len();
        is_its_own.then(|| Verdict { since_ms, by: [node.clone()].into() })
    }
}

impl Complaints {
    /// Who has been slow to the store for long stays so, whoever finds it late for a moment.
    fn doubts_the_store(&self, by_ms: u64) -> bool {
        self.store_since_ms.is_some() || self.store_doubted_since_ms.is_some_and(|since_ms| since_ms <= by_ms)
    }
}

#[cfg(test)]
mod tests;
