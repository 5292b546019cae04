//! Which node looks after which partition. Pure: nodes and their capacities in, moves out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_protocol::GroupId;

use super::NodeName;

/// How many partitions there are: with thirty nodes, about 34 on each.
pub const PARTITIONS: u16 = 1024;

/// The unit of placement; every home and sub-group belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(u16);

impl Partition {
    /// The partition of a group's home.
    #[must_use]
    pub fn of(group: GroupId) -> Self {
        // The remainder is below 1,024 and so fits.
        Self((group.stable_hash() % u64::from(PARTITIONS)) as u16)
    }

    /// One that the owner of a sub-group may be placed in: each attempt names another.
    #[must_use]
    pub fn of_sub_group(group: GroupId, sub_group: u64, attempt: u64) -> Self {
        // An odd multiplier spreads neighbours apart; the upper bits are mixed best.
        let mixed = (group.stable_hash() ^ (sub_group << 8 | attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The remainder is below 1,024 and so fits.
        Self(((mixed >> 32) % u64::from(PARTITIONS)) as u16)
    }

    /// The partition with this number, if there is one.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    /// Its number, below [`PARTITIONS`].
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }
}

/// Which node looks after which partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Every node that has a partition.
    partitions: BTreeMap<NodeName, Vec<Partition>>,
}

/// One partition's way to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub partition: Partition,
    /// Who looks after it now; nobody where that node is gone.
    pub from: Option<NodeName>,
    /// Who is to.
    pub to: NodeName,
}

impl Placement {
    /// Who looks after a partition.
    #[must_use]
    pub fn node_of(&self, partition: Partition) -> Option<&NodeName> {
        let holds = |(_, held): &(&NodeName, &Vec<Partition>)| held.binary_search(&partition).is_ok();
        self.partitions.iter().find(holds).map(|(node, _)| node)
    }

    /// The moves after which every living node (with its capacity) has its share, to within one
    /// partition, and every partition a node: those that nobody looks after first, and of the
    /// others as few as possible. None where no node lives.
    #[must_use]
    pub fn balance(&self, capacities: &BTreeMap<NodeName, u32>) -> Vec<Move> {
        let quotas = self.quotas(capacities);
        if quotas.is_empty() {
            return Vec::new();
        }
        let mut spare: Vec<(Option<&NodeName>, Partition)> =
            self.without_node(&quotas).into_iter().map(|partition| (None, partition)).collect();
        for (node, held) in &self.partitions {
            let quota = quotas.get(node).copied().unwrap_or(held.len());
            spare.extend(held.iter().skip(quota).map(|partition| (Some(node), *partition)));
        }
        let wanting = quotas
            .iter()
            .flat_map(|(node, quota)| std::iter::repeat_n(*node, quota.saturating_sub(self.held(node))));
        let moved = |((from, partition), to): ((Option<&NodeName>, Partition), &NodeName)| Move {
            partition,
            from: from.cloned(),
            to: to.clone(),
        };
        spare.into_iter().zip(wanting).map(moved).collect()
    }

    /// The placement after these moves.
    #[must_use]
    pub fn after(&self, moves: &[Move]) -> Self {
        let mut node_of: BTreeMap<Partition, NodeName> = self
            .partitions
            .iter()
            .flat_map(|(node, held)| held.iter().map(move |partition| (*partition, node.clone())))
            .collect();
        node_of.extend(moves.iter().map(|step| (step.partition, step.to.clone())));
        let mut partitions: BTreeMap<NodeName, Vec<Partition>> = BTreeMap::new();
        for (partition, node) in node_of {
            partitions.entry(node).or_default().push(partition);
        }
        Self { partitions }
    }

    /// The moves that lead from here to `after`.
    #[must_use]
    pub fn moves_to(&self, after: &Self) -> Vec<Move> {
        let moved = |partition| {
            let (from, to) = (self.node_of(partition), after.node_of(partition)?);
            (from != Some(to)).then(|| Move { partition, from: from.cloned(), to: to.clone() })
        };
        Partition::all().filter_map(moved).collect()
    }

    /// The nodes that have partitions.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.partitions.keys()
    }

    /// How many partitions a node has.
    #[must_use]
    pub fn held(&self, node: &NodeName) -> usize {
        self.partitions.get(node).map_or(0, Vec::len)
    }

    /// How many partitions each node should have. What is left over after rounding down goes to
    /// those who hold more than that already, so that nothing moves for it.
    fn quotas<'c>(&self, capacities: &'c BTreeMap<NodeName, u32>) -> BTreeMap<&'c NodeName, usize> {
        let total: u64 = capacities.values().map(|capacity| u64::from(*capacity)).sum();
        if total == 0 {
            return BTreeMap::new();
        }
        let share = |capacity: &u32| u64::from(PARTITIONS) * u64::from(*capacity);
        let mut quotas: BTreeMap<&NodeName, usize> =
            capacities.iter().map(|(node, capacity)| (node, (share(capacity) / total) as usize)).collect();
        let mut rounded: Vec<(&NodeName, usize)> = capacities
            .iter()
            .filter(|(_, capacity)| share(capacity) % total != 0)
            .map(|(node, _)| (node, self.held(node).saturating_sub(quotas[node])))
            .collect();
        rounded.sort_by_key(|(_, more)| std::cmp::Reverse(*more));
        let left = usize::from(PARTITIONS) - quotas.values().sum::<usize>();
        for (node, _) in rounded.into_iter().take(left) {
            *quotas.entry(node).or_default() += 1;
        }
        quotas
    }

    fn without_node(&self, living: &BTreeMap<&NodeName, usize>) -> Vec<Partition> {
        let is_held =
            |partition: &Partition| self.node_of(*partition).is_some_and(|node| living.contains_key(node));
        Partition::all().filter(|partition| !is_held(partition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(capacities: &[(u8, u32)]) -> BTreeMap<NodeName, u32> {
        capacities.iter().map(|(node, capacity)| (NodeName(format!("node-{node}")), *capacity)).collect()
    }

    fn balanced(before: &Placement, nodes: &BTreeMap<NodeName, u32>) -> Placement {
        before.after(&before.balance(nodes))
    }

    #[test]
    fn one_node_looks_after_everything() {
        let placement = balanced(&Placement::default(), &nodes(&[(1, 1)]));
        let node = NodeName("node-1".into());
        assert!(Partition::all().all(|partition| placement.node_of(partition) == Some(&node)));
    }

    #[test]
    fn a_joining_node_takes_its_share_and_nothing_else_moves() {
        let two = balanced(&Placement::default(), &nodes(&[(1, 1), (2, 1)]));
        let moves = two.balance(&nodes(&[(1, 1), (2, 1), (3, 1)]));
        assert!(moves.iter().all(|step| step.to.0 == "node-3" && step.from.is_some()));
        assert_eq!(moves.len(), 341);
    }

    #[test]
    fn a_dead_node_s_partitions_are_moved_and_no_others() {
        let three = balanced(&Placement::default(), &nodes(&[(1, 1), (2, 1), (3, 1)]));
        let moves = three.balance(&nodes(&[(1, 1), (3, 1)]));
        assert!(moves.iter().all(|step| step.from.is_none()));
        assert_eq!(moves.len(), three.held(&NodeName("node-2".into())));
    }

    #[test]
    fn without_nodes_nothing_moves() {
        assert_eq!(Placement::default().balance(&BTreeMap::new()), []);
        assert_eq!(Placement::default().balance(&nodes(&[(1, 0)])), []);
    }

    proptest! {
        #[test]
        fn every_partition_has_a_node_and_every_node_its_share(
            first in prop::collection::vec((0_u8..8, 1_u32..5), 1..8),
            then in prop::collection::vec((0_u8..8, 1_u32..5), 1..8),
        ) {
            let (first, then) = (nodes(&first), nodes(&then));
            let before = balanced(&Placement::default(), &first);
            let moves = before.balance(&then);
            let after = before.after(&moves);
            let total: u32 = then.values().sum();
            for (node, capacity) in &then {
                let share = f64::from(PARTITIONS) * f64::from(*capacity) / f64::from(total);
                prop_assert!((after.held(node) as f64 - share).abs() < 1.0, "{node:?}: {}", after.held(node));
            }
            let is_placed = |partition| after.node_of(partition).is_some_and(|node| then.contains_key(node));
            prop_assert!(Partition::all().all(is_placed));
            let gained: usize =
                then.keys().map(|node| after.held(node).saturating_sub(before.held(node))).sum();
            prop_assert_eq!(moves.len(), gained, "a move that does not bring a node nearer to its share");
            prop_assert_eq!(after.balance(&then), []);
            let mut shown = before.moves_to(&after);
            let mut made = moves;
            shown.sort_by_key(|step| step.partition);
            made.sort_by_key(|step| step.partition);
            let is_same = |(shown, made): (&Move, &Move)| {
                shown.partition == made.partition && shown.to == made.to
            };
            prop_assert!(shown.len() == made.len() && shown.iter().zip(&made).all(is_same));
        }
    }
}
