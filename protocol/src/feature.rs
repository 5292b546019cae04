//! A group's features: named values that some of its members are given before the others.
//!
//! A feature is set by a record of the group's sequence, so everybody who has folded the same records
//! agrees on what each member has. Which members these are follows from their slots ([`share`]).
//!
//! ```
//! use shoal_protocol::{Features, Seq, Slot, UserId, wire};
//!
//! let mut features = Features::default();
//! let tenth = wire::Feature {
//!     name: "composer".into(),
//!     value: Some("new".into()),
//!     slots: Some(wire::feature::Slots::Percent(10)),
//!     otherwise: Some("old".into()),
//! };
//! assert!(features.fold(Seq::FIRST, &tenth));
//! let slot = |user| Slot::of(&UserId::new(user).unwrap());
//! let values = ["ada", "ben", "cid"].map(|user| features.value("composer", slot(user)));
//! assert!(values.iter().all(|value| [Some("new"), Some("old")].contains(value)));
//! ```

use std::{collections::BTreeMap, sync::Arc};

use crate::{SLOTS, Seq, Slot, share, wire};

/// The most bytes in a feature's name.
pub const FEATURE_NAME_BYTES_MAX: usize = 64;

/// The most bytes in a feature's value.
pub const FEATURE_VALUE_BYTES_MAX: usize = 256;

/// A name or a value that breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Empty or longer than [`FEATURE_NAME_BYTES_MAX`], or with a character outside the set.
    #[error("a feature's name has 1 to 64 characters out of a-z 0-9 . _ -")]
    Name,
    /// Longer than [`FEATURE_VALUE_BYTES_MAX`].
    #[error("a feature's value has 256 bytes at most, not {0}")]
    Value(usize),
}

/// Checks a name.
///
/// # Errors
/// [`FeatureError::Name`].
pub fn check_name(name: &str) -> Result<(), FeatureError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    let fits = !name.is_empty() && name.len() <= FEATURE_NAME_BYTES_MAX && name.bytes().all(allowed);
    fits.then_some(()).ok_or(FeatureError::Name)
}

/// Checks a value.
///
/// # Errors
/// [`FeatureError::Value`].
pub fn check_value(value: &str) -> Result<(), FeatureError> {
    (value.len() <= FEATURE_VALUE_BYTES_MAX).then_some(()).ok_or(FeatureError::Value(value.len()))
}

/// The slots whose members have a feature's value. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureSlots {
    /// The first so many in a hundred, in the order of [`share::is_among_first`].
    Percent(u32),
    /// Those of one sub-group where a group is cut into so many.
    SubGroup {
        /// Its number, from 0.
        number: u16,
        /// How many there are.
        of: u16,
        /// Its slots, ascending.
        slots: Arc<[u16]>,
    },
}

impl FeatureSlots {
    /// All of them.
    pub const ALL: Self = Self::Percent(100);

    /// Those of one sub-group by the cut into so many.
    #[must_use]
    pub fn sub_group(number: u16, of: u16) -> Self {
        let of = of.clamp(1, SLOTS);
        let slots = (0..SLOTS).zip(share::cut(of)).filter(|(_, part)| *part == number).map(|(slot, _)| slot);
        Self::SubGroup { number, of, slots: slots.collect() }
    }

    /// Is the slot one of them?
    #[must_use]
    pub fn contain(&self, slot: Slot) -> bool {
        match self {
            Self::Percent(percent) => share::is_among_first(slot, *percent),
            Self::SubGroup { slots, .. } => slots.binary_search(&slot.number()).is_ok(),
        }
    }

    /// What this version does not know is nobody's.
    fn from_wire(slots: Option<&wire::feature::Slots>) -> Self {
        match slots {
            Some(wire::feature::Slots::Percent(percent)) => Self::Percent(*percent),
            Some(wire::feature::Slots::SubGroup(wire::SubGroupSlots { number, of })) => {
                match (u16::try_from(*number), u16::try_from(*of)) {
                    (Ok(number), Ok(of)) => Self::sub_group(number, of),
                    _ => Self::Percent(0),
                }
            }
            None => Self::Percent(0),
        }
    }

    fn to_wire(&self) -> wire::feature::Slots {
        match self {
            Self::Percent(percent) => wire::feature::Slots::Percent(*percent),
            Self::SubGroup { number, of, .. } => {
                let (number, of) = ((*number).into(), (*of).into());
                wire::feature::Slots::SubGroup(wire::SubGroupSlots { number, of })
            }
        }
    }
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// For the members in its slots.
    pub value: String,
    /// Which these are.
    pub slots: FeatureSlots,
    /// For all others.
    pub otherwise: Option<String>,
}

impl Feature {
    /// What a member in this slot has.
    #[must_use]
    pub fn value(&self, slot: Slot) -> Option<&str> {
        if self.slots.contain(slot) { Some(&self.value) } else { self.otherwise.as_deref() }
    }

    /// What all have who are in no share of it.
    #[must_use]
    pub fn settled(&self) -> Option<&str> {
        if self.slots == FeatureSlots::ALL { Some(&self.value) } else { self.otherwise.as_deref() }
    }

    /// The record that sets it.
    #[must_use]
    pub fn to_wire(&self, name: &str) -> wire::Feature {
        let Self { value, slots, otherwise } = self;
        wire::Feature {
            name: name.to_owned(),
            value: Some(value.clone()),
            slots: Some(slots.to_wire()),
            otherwise: otherwise.clone(),
        }
    }
}

/// All features of a group: what the records so far add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    changed: Option<Seq>,
    by_name: BTreeMap<String, Feature>,
}

impl Features {
    /// As a group's row, or an answer about the group, has them.
    #[must_use]
    pub fn from_wire(features: &wire::Features) -> Self {
        let mut all = Self::default();
        features.features.iter().for_each(|feature| all.put(feature));
        all.changed = Seq::new(features.changed_seq);
        all
    }

    /// As a group's row, or an answer about the group, has them.
    #[must_use]
    pub fn to_wire(&self) -> wire::Features {
        wire::Features {
            changed_seq: self.changed.map_or(0, Seq::get),
            features: self.by_name.iter().map(|(name, feature)| feature.to_wire(name)).collect(),
        }
    }

    /// Folds the record of a feature at its place; false where it is in it already.
    pub fn fold(&mut self, seq: Seq, feature: &wire::Feature) -> bool {
        let is_new = self.changed < Some(seq);
        if is_new {
            self.changed = Some(seq);
            self.put(feature);
        }
        is_new
    }

    /// The latest record that is in it.
    #[must_use]
    pub fn changed(&self) -> Option<Seq> {
        self.changed
    }

    /// What a member in this slot has of this name.
    #[must_use]
    pub fn value(&self, name: &str, slot: Slot) -> Option<&str> {
        self.get(name)?.value(slot)
    }

    /// The feature of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.by_name.get(name)
    }

    /// All of them, by name, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Feature)> {
        self.by_name.iter().map(|(name, feature)| (name.as_str(), feature))
    }

    fn put(&mut self, feature: &wire::Feature) {
        let wire::Feature { name, value, slots, otherwise } = feature;
        match value {
            Some(value) => {
                let slots = FeatureSlots::from_wire(slots.as_ref());
                let feature = Feature { value: value.clone(), slots, otherwise: otherwise.clone() };
                self.by_name.insert(name.clone(), feature);
            }
            None => drop(self.by_name.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn set(name: &str, value: &str, slots: &FeatureSlots) -> wire::Feature {
        Feature { value: value.into(), slots: slots.clone(), otherwise: None }.to_wire(name)
    }

    fn slots() -> impl Iterator<Item = Slot> {
        (0..SLOTS).filter_map(Slot::new)
    }

    #[test]
    fn names_and_values_have_their_bounds() {
        assert!(
            ["a", "new-composer", "shoal.payload_max_bytes", &"x".repeat(64)]
                .iter()
                .all(|it| check_name(it).is_ok())
        );
        assert!(
            ["", "A", "a b", "ä", &"x".repeat(65)].iter().all(|it| check_name(it) == Err(FeatureError::Name))
        );
        assert_eq!(
            (check_value(&"x".repeat(256)), check_value(&"x".repeat(257))),
            (Ok(()), Err(FeatureError::Value(257)))
        );
    }

    #[test]
    fn who_is_in_no_share_has_what_all_had() {
        let feature =
            Feature { value: "new".into(), slots: FeatureSlots::Percent(10), otherwise: Some("old".into()) };
        let (new, old): (Vec<_>, Vec<_>) = slots().partition(|slot| feature.value(*slot) == Some("new"));
        assert_eq!(new.len(), 1_639);
        assert!(old.iter().all(|slot| feature.value(*slot) == Some("old")));
        assert_eq!(feature.settled(), Some("old"));
    }

    #[test]
    fn what_is_cleared_nobody_has() {
        let mut features = Features::default();
        assert!(features.fold(seq(3), &set("a", "1", &FeatureSlots::ALL)));
        let cleared = wire::Feature { name: "a".into(), ..wire::Feature::default() };
        assert!(!features.fold(seq(3), &cleared), "what is at its place, or below it, is in it");
        assert!(features.fold(seq(9), &cleared));
        assert_eq!((features.iter().len(), features.changed()), (0, Some(seq(9))));
    }

    /// Of a version to come, or spoilt.
    #[test]
    fn slots_that_are_not_known_are_nobody_s() {
        let strange =
            [None, Some(wire::feature::Slots::SubGroup(wire::SubGroupSlots { number: 0, of: 1 << 20 }))];
        for strange in strange {
            let known = FeatureSlots::from_wire(strange.as_ref());
            assert!(slots().all(|slot| !known.contain(slot)), "{strange:?}");
        }
        let none = wire::feature::Slots::SubGroup(wire::SubGroupSlots { number: 0, of: 0 });
        assert!(slots().all(|slot| FeatureSlots::from_wire(Some(&none)).contain(slot)));
    }

    proptest! {
        #[test]
        fn each_slot_is_in_one_sub_group_s_share(of in 1_u16..40) {
            let shares: Vec<_> = (0..of).map(|number| FeatureSlots::sub_group(number, of)).collect();
            for slot in slots() {
                prop_assert_eq!(shares.iter().filter(|share| share.contain(slot)).count(), 1);
            }
        }

        /// Whoever begins at a later place with what the row says, and whoever folds all along, agree.
        #[test]
        fn a_fold_from_the_row_is_the_fold_from_the_beginning(
            changes in prop::collection::vec((0_usize..3, prop::option::of(0_u32..5), 0_u32..=100), 0..20),
            at in 0_usize..20,
        ) {
            let records: Vec<_> = (1..).map(seq).zip(changes.iter().map(|(name, value, percent)| {
                let name = ["a", "b", "c"][*name];
                let value = value.map(|value| value.to_string());
                let feature = set(name, "", &FeatureSlots::Percent(*percent));
                wire::Feature { value, ..feature }
            })).collect();
            let mut whole = Features::default();
            let mut row = wire::Features::default();
            for (at_record, (seq, record)) in records.iter().enumerate() {
                whole.fold(*seq, record);
                if at_record == at {
                    row = whole.to_wire();
                }
            }
            let mut later = Features::from_wire(&row);
            for (seq, record) in &records {
                later.fold(*seq, record);
            }
            prop_assert_eq!(later, whole);
        }
    }
}
