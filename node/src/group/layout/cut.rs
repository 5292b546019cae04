//! Which slot belongs to which sub-group, and where each is placed. The first follows from how many there
//! are ([`share::cut`]).

use std::sync::Arc;

use shoal_protocol::{GroupId, SLOTS, Slot, share};

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
        let slots = (partitions.len() > 1).then(|| share::cut(partitions.len() as u16).into());
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
