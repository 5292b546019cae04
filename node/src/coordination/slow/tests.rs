use proptest::prelude::*;

use super::*;
use crate::coordination::{Load, NodeRecord, conformance::node};

fn named(name: &str) -> NodeName {
    NodeName(name.into())
}

/// Nodes by the letters of their names, each with whom it calls slow; `!` stands for its store, `?` for a
/// doubt of it, `~` for one that came a minute later.
fn cluster(said: &[(&str, &str)]) -> Nodes {
    let record = |(name, of): &(&str, &str)| {
        let called = of.chars().filter(char::is_ascii_lowercase).map(|letter| (letter.to_string(), 7));
        let complaints = Complaints {
            of: called.map(|(name, since_ms)| (NodeName(name), since_ms)).collect(),
            store_since_ms: of.contains('!').then_some(9),
            store_doubted_since_ms: match of.contains('?') {
                true => Some(10),
                false => of.contains('~').then_some(60_010),
            },
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
    let mut without = |name: &str| {
        nodes.get_mut(&named(name)).unwrap().load.complaints = None;
        slow(&nodes, &BTreeSet::new())
    };
    without("a");
    let found = without("d");
    assert_eq!(found[&named("a")], Verdict { since_ms: 7, by: [named("b"), named("c")].into() });
    assert!(without("e").is_empty(), "two of five do not judge for all");
}

/// In a rolling upgrade, nodes of an older version say nothing of others.
#[test]
fn one_that_can_judge_is_not_enough_where_there_are_three() {
    let mut nodes = cluster(&[("a", "a!"), ("b", ""), ("c", "")]);
    assert_eq!(slow(&nodes, &BTreeSet::new()).len(), 1);
    for name in ["b", "c"] {
        nodes.get_mut(&named(name)).unwrap().load.complaints = None;
    }
    assert!(slow(&nodes, &BTreeSet::new()).is_empty());
    nodes.remove(&named("c"));
    assert_eq!(slow(&nodes, &BTreeSet::new()).len(), 1, "of two, one is half");
}

#[test]
fn a_way_to_the_store_that_is_slow_for_one_is_the_node_s_and_for_most_the_store_s() {
    assert_eq!(slow_of(&[("a", "!"), ("b", ""), ("c", "")]), "a");
    assert_eq!(slow_of(&[("a", "!"), ("b", "!"), ("c", "")]), "");
    assert_eq!(slow_of(&[("a", "!"), ("b", "")]), "a");
    assert_eq!(slow_of(&[("a", "!")]), "", "a node alone goes on");
}

#[test]
fn who_doubts_the_store_speaks_for_who_complains_of_it() {
    assert_eq!(slow_of(&[("a", "!?"), ("b", "?"), ("c", "")]), "");
    assert_eq!(slow_of(&[("a", "!?"), ("b", "?"), ("c", ""), ("d", "")]), "a");
    assert_eq!(slow_of(&[("a", "!?"), ("b", "~"), ("c", "")]), "a", "that has another cause");
    assert_eq!(slow_of(&[("a", "?"), ("b", ""), ("c", "")]), "", "a doubt alone accuses nobody");
    assert_eq!(slow_of(&[("a", "a?"), ("b", "a?"), ("c", "?")]), "a", "a slow node is one all the same");
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

#[test]
fn half_of_those_with_each_role_are_left() {
    let only = |group, access| Roles { group, access, coordination: true };
    let nodes = |said: &[(&str, &str)], roles: &[Roles]| {
        let mut nodes = cluster(said);
        nodes.values_mut().zip(roles).for_each(|(node, roles)| node.roles = *roles);
        slow(&nodes, &BTreeSet::new()).into_keys().map(|node| node.0).collect::<String>()
    };
    let said = [("a", "!"), ("b", "!"), ("c", ""), ("d", ""), ("e", "")];
    let (carrying, open) = (only(true, false), only(false, true));
    assert_eq!(nodes(&said, &[carrying, carrying, open, open, open]), "a", "one of two that carry groups");
    assert_eq!(nodes(&said, &[open, carrying, carrying, open, open]), "ab", "one of either");
    assert_eq!(nodes(&said, &[carrying, open, open, open, open]), "b", "nobody else carries groups");
    assert_eq!(nodes(&said, &[Roles::ALL, open, carrying, open, carrying]), "a", "it has either");
}

/// Whom a node calls slow, and its store, where it has looked.
type Said = Option<(BTreeMap<usize, u64>, Option<u64>, Option<u64>)>;

fn any_nodes() -> impl Strategy<Value = Nodes> {
    let called = prop::collection::btree_map(0_usize..7, 1_u64..5, 0..4);
    let said = prop::option::of((called, prop::option::of(1_u64..5), prop::option::of(1_u64..5)));
    let roles = (any::<bool>(), any::<bool>());
    prop::collection::vec((said, roles), 1..7).prop_map(|all| {
        let name = |number: usize| named(&number.to_string());
        let record = |(number, (said, (group, access))): (usize, (Said, (bool, bool)))| {
            let complaints = said.map(|(of, store_since_ms, store_doubted_since_ms)| Complaints {
                of: of.into_iter().map(|(node, since_ms)| (name(node), since_ms)).collect(),
                store_since_ms,
                store_doubted_since_ms,
            });
            let load = Load { complaints, ..Load::default() };
            let roles = Roles { group, access, coordination: true };
            (name(number), NodeRecord { load, roles, ..node(&number.to_string()) })
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
        for is_one in [|_: Roles| true, |roles: Roles| roles.group, |roles: Roles| roles.access] {
            let all = nodes.iter().filter(|(_, node)| is_one(node.roles)).map(|(name, _)| name);
            let (left, gone): (Vec<_>, Vec<_>) =
                all.partition(|name| !draining.contains(*name) && !new.contains(name));
            let is_any_new = gone.iter().any(|name| new.contains(name));
            prop_assert!(!is_any_new || left.len() >= gone.len());
        }
        let judges = nodes.values().filter(|node| node.load.complaints.is_some()).count();
        prop_assert!(slow.is_empty() || judges * 2 >= nodes.len());
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
