//! Which slot belongs to which sub-group: it follows from how many there are.
//!
//! The cut into `n + 1` is the cut into `n`, from each of whose parts the new one takes what is above
//! an even share. So shares are even to within one slot, a new sub-group moves its own slots and no
//! others, and going back from `n + 1` to `n` restores what was, whatever the group has been through.

use std::sync::Arc;

use shoal_protocol::{GroupId, SLOTS, Slot};

use crate::coordination::Partition;

/// Some sub-groups, and where each one is placed. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    partitions: Arc<[Partition]>,
    /// The sub-group of each slot; none where there is one alone.
    slots: Option<Arc<[u16]>>,
}

impl Cut {
    /// Of a group that was never cut: one sub-group, in its home's partition.
    #[must_use]
    pub(super) fn whole(group: GroupId) -> Self {
        Self { partitions: [Partition::of(group)].into(), slots: None }
    }

    /// What a layout's record holds; none where it names no partition.
    #[must_use]
    pub(super) fn from_wire(group: GroupId, partitions: &[u32]) -> Option<Self> {
        let number = |number: &u32| u16::try_from(*number).ok().and_then(Partition::new);
        // One that this node does not know is in nobody's hands, but for the home's.
        let partitions: Arc<[_]> = partitions
            .iter()
            .take(usize::from(SLOTS))
            .map(|partition| number(partition).unwrap_or(Partition::of(group)))
            .collect();
        let slots = (partitions.len() > 1).then(|| assign(partitions.len() as u16).into());
        (!partitions.is_empty()).then_some(Self { partitions, slots })
    }

    /// The number of the sub-group that a slot belongs to.
    #[must_use]
    pub(crate) fn sub_group(&self, slot: Slot) -> u16 {
        self.slots.as_ref().map_or(0, |slots| slots[usize::from(slot.number())])
    }

    /// Where the owner of a slot is placed.
    #[must_use]
    pub(crate) fn partition(&self, slot: Slot) -> Partition {
        self.partitions[usize::from(self.sub_group(slot))]
    }

    /// Where each sub-group is placed. Never none.
    #[must_use]
    pub(crate) fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
}

/// The sub-group of each slot in a cut into `parts`.
pub(super) fn assign(parts: u16) -> Vec<u16> {
    let mut held: Vec<Vec<u16>> = vec![(0..SLOTS).collect()];
    for parts in 2..=parts {
        let share = |part: usize| usize::from(SLOTS / parts) + usize::from(part < usize::from(SLOTS % parts));
        let mut taken = Vec::with_capacity(share(held.len()));
        for (part, slots) in held.iter_mut().enumerate() {
            taken.extend(slots.split_off(share(part)));
        }
        held.push(taken);
    }
    let mut slots = vec![0; usize::from(SLOTS)];
    for (part, held) in (0..).zip(held) {
        for slot in held {
            slots[usize::from(slot)] = part;
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(slots: &[u16], parts: u16) -> Vec<usize> {
        let mut counts = vec![0; usize::from(parts)];
        slots.iter().for_each(|part| counts[usize::from(*part)] += 1);
        counts
    }

    proptest! {
        #[test]
        fn shares_are_even(parts in 1_u16..2_000) {
            let counts = counts(&assign(parts), parts);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{least} to {most}");
        }

        /// What moves goes to a new sub-group: nothing moves between two that were there.
        #[test]
        fn growing_moves_what_the_new_ones_get_and_no_more(parts in 1_u16..400, more in 1_u16..400) {
            let (before, after) = (assign(parts), assign(parts + more));
            for (before, after) in before.into_iter().zip(after) {
                prop_assert!(before == after || after >= parts, "{before} to {after}");
            }
        }
    }

    #[test]
    fn as_many_sub_groups_as_slots_are_the_most() {
        assert_eq!(counts(&assign(SLOTS), SLOTS), vec![1; usize::from(SLOTS)]);
    }
}
