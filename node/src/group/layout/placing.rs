//! Where new sub-groups go.

use std::collections::BTreeMap;

use shoal_protocol::GroupId;

use super::Cut;
use crate::coordination::Partition;

/// Of so many partitions the best is taken for a new sub-group: with a few to choose from, the fullest
/// node is little above the average ("the power of two choices"; eight also fill a small cluster).
const CANDIDATES: u64 = 8;

fn candidates(group: GroupId, number: u64) -> impl Iterator<Item = Partition> {
    (0..CANDIDATES).map(move |attempt| Partition::of_sub_group(group, number, attempt))
}

/// How many sub-groups each node has.
fn counts<N: Ord>(partitions: &[Partition], node_of: &impl Fn(Partition) -> N) -> BTreeMap<N, usize> {
    let mut counts = BTreeMap::new();
    for partition in partitions {
        *counts.entry(node_of(*partition)).or_default() += 1;
    }
    counts
}

impl Cut {
    /// The partitions of so many sub-groups instead. Those that stay, stay where they are; each new one
    /// is placed, of a few partitions that its number names, in that whose node has the fewest.
    #[must_use]
    pub(crate) fn with<N: Ord>(
        &self,
        group: GroupId,
        sub_groups: u16,
        node_of: impl Fn(Partition) -> N,
    ) -> Vec<Partition> {
        let mut partitions = self.partitions().to_vec();
        partitions.truncate(usize::from(sub_groups.max(1)));
        let mut held = counts(&partitions, &node_of);
        for number in partitions.len() as u64..u64::from(sub_groups) {
            let load = |partition: &Partition| held.get(&node_of(*partition)).copied().unwrap_or(0);
            let best = candidates(group, number).min_by_key(load).unwrap_or(Partition::of(group));
            *held.entry(node_of(best)).or_default() += 1;
            partitions.push(best);
        }
        partitions
    }

    /// The partitions of the same sub-groups, of which as few as possible go elsewhere so that no node
    /// has two more than another to which one could go.
    #[must_use]
    pub(crate) fn evened<N: Ord>(&self, group: GroupId, node_of: impl Fn(Partition) -> N) -> Vec<Partition> {
        let mut partitions = self.partitions().to_vec();
        let mut held = counts(&partitions, &node_of);
        // Each that goes makes the fullest less full by one.
        for _ in 0..partitions.len() {
            let load = |partition: Partition| held.get(&node_of(partition)).copied().unwrap_or(0);
            let moves = (0_u64..).zip(&partitions).flat_map(|(number, from)| {
                candidates(group, number).map(move |to| (number as usize, *from, to))
            });
            let gain = |(_, from, to): &(usize, Partition, Partition)| load(*from).saturating_sub(load(*to));
            let best = moves.max_by_key(|candidate| (gain(candidate), std::cmp::Reverse(candidate.0)));
            let Some(best @ (number, from, to)) = best else { break };
            if gain(&best) < 2 {
                break;
            }
            *held.entry(node_of(from)).or_default() -= 1;
            *held.entry(node_of(to)).or_default() += 1;
            partitions[number] = to;
        }
        partitions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(partitions: &[Partition]) -> Cut {
        let numbers: Vec<u32> = partitions.iter().map(|partition| partition.number().into()).collect();
        Cut::from_wire(GroupId::named("reef"), &numbers).unwrap()
    }

    #[test]
    fn new_sub_groups_go_where_the_fewest_are() {
        let group = GroupId::named("reef");
        let node = |partition: Partition| partition.number() % 3;
        let first = Cut::whole(group).with(group, 6, node);
        assert_eq!(first[0], Partition::of(group), "what stays, stays");
        assert!(counts(&first, &node).values().all(|count| *count == 2), "{first:?}");
        let second = cut(&first).with(group, 2, node);
        assert_eq!(second, first[..2]);
    }

    proptest! {
        /// Whatever nodes there are afterwards, sub-groups that were placed on others are spread again.
        #[test]
        fn what_drifted_is_evened_out(sub_groups in 1_u16..40, before in 1_u16..4, after in 1_u16..6) {
            let group = GroupId::named("reef");
            let node_of = |nodes: u16| move |partition: Partition| partition.number() % nodes;
            let was = cut(&Cut::whole(group).with(group, sub_groups, node_of(before)));
            let is = was.evened(group, node_of(after));
            let counts = counts(&is, &node_of(after));
            let most = counts.values().max().copied().unwrap_or(0);
            let share = usize::from(sub_groups).div_ceil(usize::from(after));
            prop_assert!(most <= share + 1, "{counts:?}");
            prop_assert_eq!(cut(&is).evened(group, node_of(after)), is.clone(), "it comes to rest");
            let moved = was.partitions().iter().zip(&is).filter(|(was, is)| was != is).count();
            prop_assert!(before != after || moved == 0 || moved < usize::from(sub_groups));
        }
    }
}
