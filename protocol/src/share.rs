//! Shares of a group's members: which slots are among the first so many in a hundred, and which are one
//! sub-group's.
//!
//! Both follow from the slot's number alone and never change, so nodes, clients and other languages agree
//! on them without a word. A slot is a hash ([`Slot::of`]), so a share of the slots is about that share of
//! the members, whoever they are.

use crate::{SLOTS, Slot};

/// An odd number, so that multiplying by it puts the slots in another order: that in which shares are given
/// out. Close to the golden ratio's share of their number, so that the first of them are spread over all.
const ORDER: u16 = 10_125;

/// Is the slot among the first so many in a hundred? One that is stays so when there are more.
///
/// The slot's place in the order is its number times 10,125, modulo [`SLOTS`].
#[must_use]
pub fn is_among_first(slot: Slot, percent: u32) -> bool {
    let place = slot.number().wrapping_mul(ORDER) % SLOTS;
    u32::from(place) * 100 < percent.min(100) * u32::from(SLOTS)
}

/// The sub-group of each slot where a group is cut into `parts`, which are numbered from 0; from 1 to
/// [`SLOTS`] of them.
///
/// The cut into `n + 1` is the cut into `n`, from each of whose parts the new one takes what is above
/// an even share. So shares are even to within one slot, a new sub-group moves its own slots and no
/// others, and going back from `n + 1` to `n` restores what was, whatever the group has been through.
#[must_use]
pub fn cut(parts: u16) -> Vec<u16> {
    let mut held: Vec<Vec<u16>> = vec![(0..SLOTS).collect()];
    for parts in 2..=parts.min(SLOTS) {
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

    fn slots() -> impl Iterator<Item = Slot> {
        (0..SLOTS).filter_map(Slot::new)
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
        fn who_is_among_the_first_stays_so_when_there_are_more(few in 0_u32..=100, more in 0_u32..=200) {
            prop_assert!(slots().all(|slot| !is_among_first(slot, few) || is_among_first(slot, few + more)));
            let among = slots().filter(|slot| is_among_first(*slot, few)).count();
            prop_assert!((among * 100).abs_diff(few as usize * usize::from(SLOTS)) < 100, "{among}");
        }
    }

    #[test]
    fn as_many_sub_groups_as_slots_are_the_most() {
        assert_eq!(counts(&cut(SLOTS), SLOTS), vec![1; usize::from(SLOTS)]);
    }

    /// Written down, so that other languages have something to hold theirs against.
    #[test]
    fn shares_are_what_they_always_were() {
        let first: Vec<u16> =
            slots().filter(|slot| is_among_first(*slot, 1)).map(Slot::number).take(5).collect();
        assert_eq!(first, [0, 89, 178, 267, 356]);
        let third: Vec<u16> =
            (0..).zip(cut(3)).filter(|(_, part)| *part == 2).map(|(slot, _)| slot).collect();
        assert_eq!((third.len(), third[0], third[2_729], third[2_730]), (5_461, 5_462, 8_191, 13_653));
    }
}
