//! How a group is cut into sub-groups: which slot belongs to which, where each one is placed, and, while
//! a plan is under way, which slots have moved.
//!
//! Pure. A layout is a record of the group's sequence and stands in its row: whoever folds the one or
//! reads the other knows it.
//!
//! ```text
//!  begun        10 %          30 %          100 %        committed
//!   │ both sides │ a tenth of  │             │            │ the old side
//!   │ keep the   │ the moving  │             │            │ forgets
//!   │ members    │ slots has   │             │            │
//!   └────────────┴─────────────┴─────────────┴─► rolled back, from anywhere: as before
//! ```

mod cut;

mod placing;

mod slots;

use shoal_protocol::{GroupId, Slot, share, wire};

use crate::coordination::Partition;

pub(crate) use cut::Cut;
pub(crate) use slots::Slots;

/// A group's layout. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    version: u64,
    now: Cut,
    moving: Option<Moving>,
}

/// Where a layout goes, and how far it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moving {
    to: Cut,
    percent: u32,
}

impl Layout {
    /// A group that was never cut: one sub-group, in its home's partition.
    #[must_use]
    pub(crate) fn whole(group: GroupId) -> Self {
        Self { version: 0, now: Cut::whole(group), moving: None }
    }

    /// The layout that a group's row or a record of its sequence holds.
    #[must_use]
    pub(crate) fn from_wire(group: GroupId, layout: Option<&wire::Layout>) -> Self {
        let Some(layout) = layout else { return Self::whole(group) };
        let now = Cut::from_wire(group, &layout.partitions).unwrap_or_else(|| Cut::whole(group));
        let plan = layout.plan.as_ref();
        let moving = plan.and_then(|plan| {
            let to = Cut::from_wire(group, &plan.partitions)?;
            Some(Moving { to, percent: plan.percent })
        });
        Self { version: layout.version, now, moving }
    }

    /// 0: the group was never cut.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// How it was cut before a plan that is under way, and where it stays if that is rolled back.
    #[must_use]
    pub(crate) fn now(&self) -> &Cut {
        &self.now
    }

    /// How it is to be cut, while a plan is under way.
    #[must_use]
    pub(crate) fn to(&self) -> Option<&Cut> {
        self.moving.as_ref().map(|moving| &moving.to)
    }

    /// So many in a hundred of the slots that move have moved, while a plan is under way.
    #[must_use]
    pub(crate) fn moved_percent(&self) -> Option<u32> {
        self.moving.as_ref().map(|moving| moving.percent)
    }

    /// Where the owner of a slot is placed.
    #[must_use]
    pub(crate) fn partition(&self, slot: Slot) -> Partition {
        match &self.moving {
            // Where both sides are the same it makes no difference.
            Some(moving) if share::is_among_first(slot, moving.percent) => moving.to.partition(slot),
            _ => self.now.partition(slot),
        }
    }

    /// The slots that are, or are to be, in a wanted partition: of those that move, both sides keep the
    /// members until the plan has ended.
    #[must_use]
    pub(crate) fn slots(&self, is_wanted: impl Fn(Partition) -> bool) -> Slots {
        let wanted = |cut: &Cut| -> Vec<bool> {
            cut.partitions().iter().map(|partition| is_wanted(*partition)).collect()
        };
        let now = wanted(&self.now);
        let to = self.moving.as_ref().map(|moving| (&moving.to, wanted(&moving.to)));
        Slots::that(|slot| {
            let of = |cut: &Cut, wanted: &[bool]| wanted[usize::from(cut.sub_group(slot))];
            of(&self.now, &now) || to.as_ref().is_some_and(|(to, wanted)| of(to, wanted))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_protocol::SLOTS;

    use super::*;

    fn slots() -> impl Iterator<Item = Slot> {
        (0..SLOTS).filter_map(Slot::new)
    }

    fn moving(from: u16, to: u16, percent: u32) -> Layout {
        let partitions = |count| (0..u32::from(count)).collect::<Vec<_>>();
        let plan = wire::Plan { partitions: partitions(to), percent, ..wire::Plan::default() };
        let layout = wire::Layout {
            version: 1,
            partitions: partitions(from),
            plan: Some(plan),
            ..wire::Layout::default()
        };
        Layout::from_wire(GroupId::named("reef"), Some(&layout))
    }

    #[test]
    fn a_layout_comes_back_from_its_record() {
        let group = GroupId::named("reef");
        assert_eq!(Layout::from_wire(group, None), Layout::whole(group));
        let record = wire::Layout { version: 3, partitions: vec![5, 6, 70_000], ..wire::Layout::default() };
        let layout = Layout::from_wire(group, Some(&record));
        assert_eq!((layout.version(), layout.now().partitions().len()), (3, 3));
        assert_eq!(layout.now().partitions()[1], Partition::new(6).unwrap());
        assert_eq!(layout.now().partitions()[2], Partition::of(group), "no such partition");
        let second = layout.slots(|partition| partition.number() == 6);
        assert!(slots().all(|slot| second.contains(slot) == (layout.partition(slot).number() == 6)));
    }

    proptest! {
        /// Of every pair of sub-groups between which slots move, about as many in a hundred have as were
        /// to; and one that has moved does not go back when more do.
        #[test]
        fn slots_move_by_their_share(from in 1_u16..40, to in 1_u16..40, few in 1_u32..100, more in 0_u32..100) {
            prop_assume!(from != to);
            let (layout, further) = (moving(from, to, few), moving(from, to, (few + more).min(100)));
            let moves = |slot: &Slot| layout.now.partition(*slot) != layout.to().unwrap().partition(*slot);
            let has = |layout: &Layout, slot: Slot| layout.partition(slot) != layout.now.partition(slot);
            let all = slots().filter(moves).count();
            let moved = slots().filter(|slot| has(&layout, *slot)).count();
            let off = (moved as f64 / all as f64 - f64::from(few) / 100.0).abs();
            prop_assert!(off < 0.05, "{moved} of {all} for {few} %");
            prop_assert!(slots().all(|slot| !has(&layout, slot) || has(&further, slot)));
        }

        /// Whoever may be sent a message of a slot, or will be, has its members.
        #[test]
        fn both_sides_keep_the_members(from in 1_u16..40, to in 1_u16..40, percent in 0_u32..=100, one in 0_u16..40) {
            let layout = moving(from, to, percent);
            let kept = layout.slots(|partition| partition.number() == one);
            for slot in slots() {
                let sides = [layout.now.partition(slot), layout.to().unwrap().partition(slot)];
                prop_assert_eq!(kept.contains(slot), sides.iter().any(|side| side.number() == one));
                prop_assert!(sides.contains(&layout.partition(slot)));
            }
        }
    }

    #[test]
    fn none_has_moved_before_the_first_step_and_all_have_after_the_last() {
        let (before, after) = (moving(3, 7, 0), moving(3, 7, 100));
        assert!(slots().all(|slot| before.partition(slot) == before.now.partition(slot)));
        assert!(slots().all(|slot| after.partition(slot) == after.to().unwrap().partition(slot)));
    }
}
