//! Which nodes hold their leases and are too slow to be of use. Pure: what nodes complain of goes in, who
//! is to be emptied comes out.
//!
//! Every node judges all others, by how long they take to answer, and itself, by how late its own timers
//! fire. Most of those who can judge a node must call it slow, because a link may be bad where both its
//! ends are well. Who has time only now and then finds everybody slow: so who calls itself slow is asked
//! about itself alone, and so is who calls more than half of the cluster slow. Two nodes that accuse each
//! other are both left alone, until one says so of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NodeName, Nodes};

/// What a node has found of the others and of itself. It changes when one becomes slow, or is well again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Complaints {
    /// Who is slow, and since when: milliseconds since 1970, by the clock of the node that says so.
    pub of: BTreeMap<NodeName, u64>,
    /// Since when the store takes long to answer it.
    pub store_since_ms: Option<u64>,
}

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
/// all nodes are left, those that are drained not counted: of more, the ones that have been slow longest
/// are named.
#[must_use]
pub fn slow(nodes: &Nodes, draining: &BTreeSet<NodeName>) -> Slow {
    let bench = Bench::new(nodes);
    let verdict = |node: &NodeName| bench.verdict(node).or_else(|| bench.of_its_store(node));
    let mut found: Vec<_> = nodes.keys().filter_map(|node| Some((node.clone(), verdict(node)?))).collect();
    found.sort_by(|(one, a), (other, b)| (a.since_ms, one).cmp(&(b.since_ms, other)));
    let going = draining.iter().filter(|node| nodes.contains_key(*node)).count();
    let mut more = bench.most.saturating_sub(going);
    found.retain(|(node, _)| {
        // It is counted already.
        if draining.contains(node) {
            return true;
        }
        let has_room = more > 0;
        more = more.saturating_sub(1);
        has_room
    });
    found.into_iter().collect()
}

/// Those who judge.
struct Bench<'n> {
    judges: BTreeMap<&'n NodeName, &'n Complaints>,
    /// As many as may be slow at once.
    most: usize,
    nodes: &'n Nodes,
}

impl<'n> Bench<'n> {
    fn new(nodes: &'n Nodes) -> Self {
        let said = nodes.iter().filter_map(|(name, node)| Some((name, node.load.complaints.as_ref()?)));
        Self { judges: said.collect(), most: nodes.len() / 2, nodes }
    }

    /// Is it asked about others?
    fn is_believed(&self, judge: &NodeName, said: &Complaints) -> bool {
        let living = said.of.keys().filter(|node| self.nodes.contains_key(*node)).count();
        !said.of.contains_key(judge) && living <= self.most
    }

    fn verdict(&self, node: &NodeName) -> Option<Verdict> {
        let asked = |judge: &NodeName, said| judge == node || self.is_believed(judge, said);
        let asked: Vec<_> = self.judges.iter().filter(|(judge, said)| asked(judge, said)).collect();
        let called =
            || asked.iter().filter_map(|(judge, said)| Some(((**judge).clone(), *said.of.get(node)?)));
        let since_ms = called().map(|(_, since_ms)| since_ms).min()?;
        let is_slow = called().count() * 2 > asked.len();
        is_slow.then(|| Verdict { since_ms, by: called().map(|(judge, _)| judge).collect() })
    }

    /// A store that is slow for most is not this node's trouble.
    fn of_its_store(&self, node: &NodeName) -> Option<Verdict> {
        let since_ms = self.judges.get(node)?.store_since_ms?;
        let complaining = self.judges.values().filter(|said| said.store_since_ms.is_some()).count();
        (complaining <= self.most).then(|| Verdict { since_ms, by: [node.clone()].into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coordination::{Load, NodeRecord, conformance::node};

    fn named(name: &str) -> NodeName {
        NodeName(name.into())
    }

    /// Nodes by the letters of their names, each with whom it calls slow; `!` stands for its store.
    fn cluster(said: &[(&str, &str)]) -> Nodes {
        let record = |(name, of): &(&str, &str)| {
            let called = of.chars().filter(|letter| *letter != '!').map(|letter| (letter.to_string(), 7));
            let complaints = Complaints {
                of: called.map(|(name, since_ms)| (NodeName(name), since_ms)).collect(),
                store_since_ms: of.contains('!').then_some(9),
            };
            let load = Load { complaints: Some(complaints), ..Load::default() };
            (named(name), NodeRecord { load, ..node(name) })
        };
        said.iter().map(record).collect()
    }

    /// Who is to be emptied, as letters.
    fn slow_of(said: &[(&str, &str)]) -> String {
        slow(&cluster(said), &BTreeSet::new()).into_keys().map(|node| node.0).collect()
    }

    #[test]
    fn most_of_those_who_can_judge_a_node_must_call_it_slow() {
        assert_eq!(slow_of(&[("a", ""), ("b", "a"), ("c", "")]), "", "a link may be bad");
        assert_eq!(slow_of(&[("a", ""), ("b", "a"), ("c", "a")]), "a");
        assert_eq!(slow_of(&[("a", "a"), ("b", "a"), ("c", "")]), "a");
        assert_eq!(slow_of(&[("a", "a"), ("b", ""), ("c", "")]), "", "the others do not feel it");
        assert_eq!(slow_of(&[("a", ""), ("b", "d"), ("c", "d"), ("d", "")]), "", "half are not most");
        assert_eq!(slow_of(&[("a", "d"), ("b", "d"), ("c", "d"), ("d", "")]), "d");
    }

    #[test]
    fn of_two_that_accuse_each_other_none_is_emptied_unless_it_says_so_itself() {
        assert_eq!(slow_of(&[("a", "b"), ("b", "a")]), "");
        assert_eq!(slow_of(&[("a", ""), ("b", "a")]), "");
        assert_eq!(slow_of(&[("a", "ab"), ("b", "a")]), "a");
        assert_eq!(slow_of(&[("a", "a"), ("b", "")]), "");
    }

    #[test]
    fn who_finds_everybody_slow_is_not_believed() {
        assert_eq!(slow_of(&[("a", "bc"), ("b", "a"), ("c", "a")]), "a", "it is cut off");
        assert_eq!(slow_of(&[("a", "abc"), ("b", "a"), ("c", "a")]), "a", "it stood still");
        assert_eq!(slow_of(&[("a", "bc"), ("b", "ac"), ("c", "ab")]), "", "the network is slow");
        assert_eq!(slow_of(&[("a", "b"), ("b", "bc"), ("c", "b")]), "b", "about others");
    }

    #[test]
    fn who_has_not_looked_yet_is_not_asked() {
        let mut nodes = cluster(&[("a", ""), ("b", "a"), ("c", "a"), ("d", ""), ("e", "")]);
        assert!(slow(&nodes, &BTreeSet::new()).is_empty());
        for name in ["a", "d", "e"] {
            nodes.get_mut(&named(name)).unwrap().load.complaints = None;
        }
        let slow = slow(&nodes, &BTreeSet::new());
        assert_eq!(slow[&named("a")], Verdict { since_ms: 7, by: [named("b"), named("c")].into() });
    }

    #[test]
    fn a_way_to_the_store_that_is_slow_for_one_is_the_node_s_and_for_most_the_store_s() {
        assert_eq!(slow_of(&[("a", "!"), ("b", ""), ("c", "")]), "a");
        assert_eq!(slow_of(&[("a", "!"), ("b", "!"), ("c", "")]), "");
        assert_eq!(slow_of(&[("a", "!"), ("b", "")]), "a");
        assert_eq!(slow_of(&[("a", "!")]), "", "a node alone goes on");
    }

    #[test]
    fn half_are_left_and_those_that_are_drained_do_not_count_as_left() {
        let said = [("a", "a!"), ("b", "b!"), ("c", ""), ("d", ""), ("e", "")];
        let nodes = cluster(&said);
        let names = |draining: &[&str]| {
            let draining = draining.iter().map(|name| named(name)).collect();
            slow(&nodes, &draining).into_keys().map(|node| node.0).collect::<String>()
        };
        assert_eq!(names(&[]), "ab");
        assert_eq!(names(&["c"]), "a", "one more would be too many");
        assert_eq!(names(&["c", "d"]), "");
        assert_eq!(names(&["b"]), "ab", "one that goes anyway goes at once");
        assert_eq!(names(&["gone"]), "ab");
    }

    /// Whom a node calls slow, and its store, where it has looked.
    type Said = Option<(BTreeMap<usize, u64>, Option<u64>)>;

    fn any_nodes() -> impl Strategy<Value = Nodes> {
        let complaints =
            (prop::collection::btree_map(0_usize..7, 1_u64..5, 0..4), prop::option::of(1_u64..5));
        prop::collection::vec(prop::option::of(complaints), 1..7).prop_map(|all| {
            let name = |number: usize| named(&number.to_string());
            let record = |(number, said): (usize, Said)| {
                let complaints = said.map(|(of, store_since_ms)| Complaints {
                    of: of.into_iter().map(|(node, since_ms)| (name(node), since_ms)).collect(),
                    store_since_ms,
                });
                let load = Load { complaints, ..Load::default() };
                (name(number), NodeRecord { load, ..node(&number.to_string()) })
            };
            all.into_iter().enumerate().map(record).collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_is_said_half_are_left_and_nobody_is_emptied_without_cause(
            nodes in any_nodes(),
            draining in prop::collection::btree_set((0_usize..7).prop_map(|n| named(&n.to_string())), 0..3),
        ) {
            let slow = slow(&nodes, &draining);
            let new: Vec<_> = slow.keys().filter(|node| !draining.contains(*node)).collect();
            let going = draining.iter().filter(|node| nodes.contains_key(*node)).count();
            prop_assert!(new.is_empty() || (nodes.len() - new.len() - going) * 2 >= nodes.len());
            for (node, verdict) in &slow {
                prop_assert!(nodes.contains_key(node) && !verdict.by.is_empty());
                for judge in &verdict.by {
                    let said = nodes[judge].load.complaints.as_ref().unwrap();
                    let mut since_ms = said.of.get(node).into_iter().chain(&said.store_since_ms);
                    prop_assert!(judge == node || !said.of.contains_key(judge), "it has enough to do with itself");
                    prop_assert!(since_ms.any(|since_ms| *since_ms >= verdict.since_ms));
                }
            }
        }

        #[test]
        fn one_that_nobody_complains_of_is_left_alone(nodes in any_nodes()) {
            let mut nodes = nodes;
            let spared = named("0");
            for record in nodes.values_mut() {
                if let Some(said) = &mut record.load.complaints {
                    said.of.remove(&spared);
                    said.store_since_ms = None;
                }
            }
            prop_assert!(!slow(&nodes, &BTreeSet::new()).contains_key(&spared));
        }
    }
}
