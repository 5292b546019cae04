//! A set of slots.

use std::ops::Range;

use shoal_protocol::{SLOTS, Slot};

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

    /// Those that are in either.
    #[must_use]
    pub(crate) fn with(&self, other: &Self) -> Self {
        Self::that(|slot| self.contains(slot) || other.contains(slot))
    }

    /// Is the slot one of them?
    #[must_use]
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        let above = self.0.partition_point(|range| range.start <= slot.number());
        above > 0 && self.0[above - 1].contains(&slot.number())
    }

    /// Is there none?
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
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

    proptest! {
        #[test]
        fn a_set_of_slots_holds_what_it_was_made_of(parts in 1_u16..40, a: u16, b: u16, slot in 0..SLOTS) {
            let slot = Slot::new(slot).unwrap();
            let part = |slot: Slot| slot.number() % parts;
            let (a, b) = (a % parts, b % parts);
            let (one, other) = (Slots::that(|slot| part(slot) == a), Slots::that(|slot| part(slot) == b));
            let set = one.with(&other);
            prop_assert_eq!(set.contains(slot), part(slot) == a || part(slot) == b);
            prop_assert_eq!(set.without(&other).contains(slot), part(slot) == a && a != b);
            prop_assert_eq!(set.within(&other).contains(slot), part(slot) == b);
            prop_assert_eq!(one.within(&other).is_empty(), a != b);
        }
    }
}
