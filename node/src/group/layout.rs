//! How a group is cut into sub-groups: which slot belongs to which, and where each one is placed.
//!
//! Pure. Which slots a sub-group has follows from the number of sub-groups alone: the cut into `n + 1`
//! is the cut into `n`, from each of whose parts the new one takes what is above an even share. So
//! shares are even to within one slot, a new sub-group moves its own slots and no others, and going
//! back from `n + 1` to `n` restores what was, whatever the group has been through.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use shoal_protocol::{GroupId, SLOTS, Slot, wire};

use crate::coordination::Partition;

/// Of so many partitions the best is taken for a new sub-group: with a few to choose from, the fullest
/// node is little above the average ("the power of two choices"; eight also fill a small cluster).
const CANDIDATES: u64 = 8;

/// A sub-group's number, from 0, below the number of sub-groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubGroupId(u16);

impl SubGroupId {
    /// Its number.
    #[must_use]
    pub(crate) fn number(self) -> u16 {
        self.0
    }
}

/// A group's layout. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    version: u64,
    partitions: Arc<[Partition]>,
    /// The sub-group of each slot; none where there is one alone.
    slots: Option<Arc<[u16]>>,
}

impl Layout {
    /// A group that was never cut: one sub-group, in its home's partition.
    #[must_use]
    pub(crate) fn whole(group: GroupId) -> Self {
        Self { version: 0, partitions: [Partition::of(group)].into(), slots: None }
    }

    /// The layout that a group's row or a record of its sequence holds.
    #[must_use]
    pub(crate) fn from_wire(group: GroupId, layout: Option<&wire::Layout>) -> Self {
        let Some(layout) = layout.filter(|layout| !layout.partitions.is_empty()) else {
            return Self::whole(group);
        };
        let number = |number: &u32| u16::try_from(*number).ok().and_then(Partition::new);
        // One that this node does not know is in nobody's hands, but for the home's.
        let partitions: Arc<[_]> = layout
            .partitions
            .iter()
            .take(usize::from(SLOTS))
            .map(|partition| number(partition).unwrap_or(Partition::of(group)))
            .collect();
        let slots = (partitions.len() > 1).then(|| cut(partitions.len() as u16).into());
        Self { version: layout.version, partitions, slots }
    }

    /// 0: the group was never cut.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whose slot it is.
    #[must_use]
    pub(crate) fn sub_group(&self, slot: Slot) -> SubGroupId {
        SubGroupId(self.slots.as_ref().map_or(0, |slots| slots[usize::from(slot.number())]))
    }

    /// Where the owner of a slot is placed.
    #[must_use]
    pub(crate) fn partition(&self, slot: Slot) -> Partition {
        self.partitions[usize::from(self.sub_group(slot).number())]
    }

    /// The layout with so many sub-groups instead. Those that stay, stay where they are; each new one
    /// is placed, of a few partitions that its number names, in that whose node has the fewest.
    #[must_use]
    pub(crate) fn with<N: Ord>(
        &self,
        group: GroupId,
        sub_groups: u16,
        node_of: impl Fn(Partition) -> N,
    ) -> wire::Layout {
        let mut partitions = self.partitions.to_vec();
        partitions.truncate(usize::from(sub_groups));
        let mut held: BTreeMap<N, usize> = BTreeMap::new();
        for partition in &partitions {
            *held.entry(node_of(*partition)).or_default() += 1;
        }
        for number in partitions.len() as u64..u64::from(sub_groups) {
            let candidates = (0..CANDIDATES).map(|attempt| Partition::of_sub_group(group, number, attempt));
            let load = |partition: &Partition| held.get(&node_of(*partition)).copied().unwrap_or(0);
            let best = candidates.min_by_key(load).unwrap_or(Partition::of(group));
            *held.entry(node_of(best)).or_default() += 1;
            partitions.push(best);
        }
        let partitions = partitions.into_iter().map(|partition| partition.number().into()).collect();
        wire::Layout { version: self.version + 1, partitions }
    }

    /// The slots of the sub-groups whose partition is wanted.
    #[must_use]
    pub(crate) fn slots(&self, is_wanted: impl Fn(Partition) -> bool) -> Slots {
        let wanted: Vec<_> = self.partitions.iter().map(|partition| is_wanted(*partition)).collect();
        Slots::that(|slot| wanted[usize::from(self.sub_group(slot).number())])
    }
}

/// How many sub-groups a group of so many members is to have, of which it has `now`; none where
/// these will do. Each has room for `target`; a group is cut before they are full, and grown thin
/// before it is put together, so that a member more or less changes nothing.
#[must_use]
pub(crate) fn wanted(members: u64, now: usize, target: u64) -> Option<u16> {
    let target = target.max(1);
    let full = members.saturating_mul(10) > (now as u64).saturating_mul(target.saturating_mul(9));
    let thin = members.saturating_mul(10) < (now as u64).saturating_mul(target.saturating_mul(3));
    if !(full || thin && now > 1) {
        return None;
    }
    let wanted = members.saturating_mul(10).div_ceil(target.saturating_mul(7)).clamp(1, SLOTS.into());
    u16::try_from(wanted).ok().filter(|wanted| usize::from(*wanted) != now)
}

/// The sub-group of each slot in a cut into `parts`.
fn cut(parts: u16) -> Vec<u16> {
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

/// A set of slots, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Slots(Vec<Range<u16>>);

impl Slots {
    /// The slots for which this holds.
    #[must_use]
    pub(crate) fn that(holds: impl Fn(Slot) -> bool) -> Self {
        let mut ranges: Vec<Range<u16>> = Vec::new();
        for slot in (0..SLOTS).filter_map(Slot::new).filter(|slot| holds(*slot)).map(Slot::number) {
            match ranges.last_mut().filter(|range| range.end == slot) {
                Some(range) => range.end += 1,
                None => ranges.push(slot..slot + 1),
            }
        }
        Self(ranges)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self::that(|slot| self.contains(slot) && !other.contains(slot))
    }

    /// Those that are in `other` too.
    #[must_use]
    pub(crate) fn within(&self, other: &Self) -> Self {
        Self::that(|slot| self.contains(slot) && other.contains(slot))
    }

    /// Is the slot one of them?
    #[must_use]
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        let above = self.0.partition_point(|range| range.start <= slot.number());
        above > 0 && self.0[above - 1].contains(&slot.number())
    }

    /// Ascending; no two touch.
    #[must_use]
    pub(crate) fn ranges(&self) -> &[Range<u16>] {
        &self.0
    }
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
            let counts = counts(&cut(parts), parts);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{least} to {most}");
        }

        /// What moves goes to a new sub-group: nothing moves between two that were there.
        #[test]
        fn growing_moves_what_the_new_ones_get_and_no_more(parts in 1_u16..400, more in 1_u16..400) {
            let (before, after) = (cut(parts), cut(parts + more));
            for (before, after) in before.into_iter().zip(after) {
                prop_assert!(before == after || after >= parts, "{before} to {after}");
            }
        }

        #[test]
        fn a_set_of_slots_holds_what_it_was_made_of(parts in 1_u16..40, a: u16, b: u16, slot in 0..SLOTS) {
            let (cut, slot) = (cut(parts), Slot::new(slot).unwrap());
            let part = |slot: Slot| cut[usize::from(slot.number())];
            let (a, b) = (a % parts, b % parts);
            let set = Slots::that(|slot| part(slot) == a || part(slot) == b);
            prop_assert_eq!(set.contains(slot), part(slot) == a || part(slot) == b);
            let rest = set.without(&Slots::that(|slot| part(slot) == b));
            prop_assert_eq!(rest.contains(slot), part(slot) == a && a != b);
        }
    }

    #[test]
    fn as_many_sub_groups_as_slots_are_the_most() {
        assert_eq!(counts(&cut(SLOTS), SLOTS), vec![1; usize::from(SLOTS)]);
        assert_eq!(wanted(u64::MAX, 3, 1000), Some(SLOTS));
    }

    /// After a cut, a tenth of the members more or less changes nothing.
    #[test]
    fn a_group_that_was_just_cut_is_left_alone() {
        for (target, now) in [1, 2, 3, 7, 10, 99].into_iter().flat_map(|t| (1..40).map(move |now| (t, now))) {
            for members in 0..target * 40 {
                let Some(then) = wanted(members, now, target) else { continue };
                for near in [members - members / 10, members, members + members / 10] {
                    let again = wanted(near, then.into(), target);
                    assert_eq!(again, None, "of {target}: {members} in {now}, then {near} in {then}");
                }
            }
        }
    }

    #[test]
    fn a_group_is_cut_before_its_sub_groups_are_full() {
        assert_eq!(wanted(900, 1, 1000), None);
        assert_eq!(wanted(901, 1, 1000), Some(2));
        assert_eq!(wanted(2_000, 1, 1000), Some(3));
        assert_eq!(wanted(1_300, 3, 1000), None);
        assert_eq!(wanted(900, 3, 1000), None);
        assert_eq!(wanted(899, 3, 1000), Some(2));
        assert_eq!(wanted(0, 2, 1000), Some(1));
    }

    #[test]
    fn new_sub_groups_go_where_the_fewest_are() {
        let group = GroupId::named("reef");
        let node = |partition: Partition| partition.number() % 3;
        let first = Layout::whole(group).with(group, 6, node);
        assert_eq!(first.version, 1);
        assert_eq!(first.partitions[0], u32::from(Partition::of(group).number()), "what stays, stays");
        let layout = Layout::from_wire(group, Some(&first));
        let mut counts = [0; 3];
        layout.partitions.iter().for_each(|partition| counts[usize::from(node(*partition))] += 1);
        assert_eq!(counts, [2; 3]);
        let second = layout.with(group, 2, node);
        assert_eq!((second.version, &second.partitions[..]), (2, &first.partitions[..2]));
    }

    #[test]
    fn a_layout_comes_back_from_its_record() {
        let group = GroupId::named("reef");
        assert_eq!(Layout::from_wire(group, None), Layout::whole(group));
        let layout =
            Layout::from_wire(group, Some(&wire::Layout { version: 3, partitions: vec![5, 6, 70_000] }));
        assert_eq!((layout.version(), layout.partitions.len()), (3, 3));
        assert_eq!(layout.partitions[1], Partition::new(6).unwrap());
        assert_eq!(layout.partitions[2], Partition::of(group), "no such partition");
        let second = layout.slots(|partition| partition.number() == 6);
        assert!(
            second
                .ranges()
                .iter()
                .flat_map(Clone::clone)
                .all(|slot| { layout.partition(Slot::new(slot).unwrap()).number() == 6 })
        );
    }
}
