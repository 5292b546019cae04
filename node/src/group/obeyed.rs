//! The features that nodes go by: settings of a group that some of its members get before the others.
//!
//! Their names begin with `shoal.`; what other names mean is between apps.

use shoal_protocol::{Code, FeatureSlots, Features, Refusal, Slot};

/// No other names begin so.
const PREFIX: &str = "shoal.";

/// So many messages a second may a member send, lasting, and as many at once.
const MESSAGES_PER_SECOND: &str = "shoal.messages_per_second";

/// So many bytes may a message's payload have; never more than the node's own limit.
const PAYLOAD_BYTES_MAX: &str = "shoal.payload_max_bytes";

/// Could a node go by it, if it is one that nodes are to go by?
///
/// # Errors
/// `BadRequest`, with what would do.
pub(super) fn check(name: &str, value: &str) -> Result<(), Refusal> {
    let bad = |reason| Err(Refusal::new(Code::BadRequest, reason));
    match name {
        MESSAGES_PER_SECOND | PAYLOAD_BYTES_MAX if number(value).is_none() => {
            bad(format!("{name} is a whole number from 1 to {}, not {value:?}", u32::MAX))
        }
        MESSAGES_PER_SECOND | PAYLOAD_BYTES_MAX => Ok(()),
        _ if name.starts_with(PREFIX) => bad(format!(
            "names that begin with {PREFIX} are settings of the nodes, which know {MESSAGES_PER_SECOND} and \
             {PAYLOAD_BYTES_MAX}, but not {name}"
        )),
        _ => Ok(()),
    }
}

/// What holds for each member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Obeyed {
    messages_per_second: Option<Given>,
    payload_bytes_max: Option<Given>,
}

/// A number that some members have, and what others have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    value: Option<u32>,
    slots: FeatureSlots,
    otherwise: Option<u32>,
}

impl Obeyed {
    /// What of a group's features nodes go by.
    #[must_use]
    pub(super) fn new(features: &Features) -> Self {
        let given = |name| {
            let feature = features.get(name)?;
            let otherwise = feature.otherwise.as_deref().and_then(number);
            Some(Given { value: number(&feature.value), slots: feature.slots.clone(), otherwise })
        };
        Self { messages_per_second: given(MESSAGES_PER_SECOND), payload_bytes_max: given(PAYLOAD_BYTES_MAX) }
    }

    /// What a member in this slot has in place of everybody's rate.
    #[must_use]
    pub(super) fn messages_per_second(&self, slot: Slot) -> Option<u32> {
        self.messages_per_second.as_ref()?.of(slot)
    }

    /// Does anybody have this rate?
    #[must_use]
    pub(super) fn has_rate(&self, per_second: u32) -> bool {
        let rates = self.messages_per_second.as_ref().map(|given| [given.value, given.otherwise]);
        rates.is_some_and(|rates| rates.contains(&Some(per_second)))
    }

    /// What a member in this slot has as a bound below the node's own.
    #[must_use]
    pub(super) fn payload_bytes_max(&self, slot: Slot) -> Option<usize> {
        let bytes = self.payload_bytes_max.as_ref()?.of(slot)?;
        usize::try_from(bytes).ok()
    }
}

impl Given {
    fn of(&self, slot: Slot) -> Option<u32> {
        if self.slots.contain(slot) { self.value } else { self.otherwise }
    }
}

fn number(value: &str) -> Option<u32> {
    value.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use shoal_protocol::{SLOTS, Seq, wire};

    use super::*;

    #[test]
    fn what_no_node_could_go_by_is_refused() {
        assert_eq!(check("composer", "new"), Ok(()));
        assert_eq!(check(MESSAGES_PER_SECOND, "5"), Ok(()));
        for (name, value) in [(MESSAGES_PER_SECOND, "0"), (PAYLOAD_BYTES_MAX, "many"), ("shoal.colour", "5")]
        {
            assert_eq!(check(name, value).map_err(|refusal| refusal.code), Err(Code::BadRequest), "{name}");
        }
    }

    #[test]
    fn a_setting_holds_for_its_slots_and_what_was_for_all_others() {
        let tenth = wire::feature::Slots::Percent(10);
        let feature = |name: &str, otherwise: Option<&str>| wire::Feature {
            name: name.into(),
            value: Some("5".into()),
            slots: Some(tenth),
            otherwise: otherwise.map(str::to_owned),
        };
        let mut features = Features::default();
        features.fold(Seq::FIRST, &feature(MESSAGES_PER_SECOND, Some("9")));
        features.fold(Seq::FIRST.next(), &feature(PAYLOAD_BYTES_MAX, None));
        let obeyed = Obeyed::new(&features);
        for slot in (0..SLOTS).filter_map(Slot::new) {
            let is_first = shoal_protocol::share::is_among_first(slot, 10);
            assert_eq!(obeyed.messages_per_second(slot), Some(if is_first { 5 } else { 9 }));
            assert_eq!(obeyed.payload_bytes_max(slot), is_first.then_some(5));
        }
        assert_eq!([5, 9, 200].map(|rate| obeyed.has_rate(rate)), [true, true, false]);
    }
}
