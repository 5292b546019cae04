//! A sub-group: who its members are, and what the owner thinks of what they send.

use std::time::Duration;

use shoal_protocol::{Code, Features, Refusal, Seq, Slot, UserId, wire};

use super::{judgement::Opinion, member_list::MemberList, obeyed::Obeyed, rates::Rates};
use crate::config::GroupLimits;

/// The moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// The wall clock, milliseconds since 1970: for mutes and for display.
    pub(crate) wall_ms: u64,
    /// A monotonic clock, since the node's start: for rates.
    pub(crate) since_start: Duration,
}

/// The owner's part of a sub-group.
#[derive(Debug)]
pub(crate) struct SubGroup {
    members: MemberList,
    rates: Rates,
    payload_bytes_max: usize,
    obeyed: Obeyed,
    judged: u64,
    objected: u64,
}

impl SubGroup {
    /// Opens with a member list whose rows have been loaded.
    #[must_use]
    pub(crate) fn new(members: MemberList, limits: &GroupLimits) -> Self {
        Self {
            members,
            rates: Rates::new(limits),
            payload_bytes_max: limits.payload_bytes_max,
            obeyed: Obeyed::default(),
            judged: 0,
            objected: 0,
        }
    }

    /// From now on these hold; members may send so many in a hundred of what they allow.
    pub(crate) fn set_limits(&mut self, limits: &GroupLimits, percent: u32) {
        self.rates.set_limits(limits, percent);
        self.payload_bytes_max = limits.payload_bytes_max;
    }

    /// From now on these are the group's features: some of them are limits of single members.
    pub(crate) fn set_features(&mut self, features: &Features) {
        self.obeyed = Obeyed::new(features);
        self.rates.keep(|per_second| self.obeyed.has_rate(per_second));
    }

    /// The members.
    #[must_use]
    pub(crate) fn members(&self) -> &MemberList {
        &self.members
    }

    /// The members, for who takes over slots or lets go of some.
    pub(crate) fn members_mut(&mut self) -> &mut MemberList {
        &mut self.members
    }

    /// How many messages it has judged, and to how many of them it objected.
    #[must_use]
    pub(crate) fn judged(&self) -> (u64, u64) {
        (self.judged, self.objected)
    }

    /// Judges what a user sends; the home decides.
    pub(crate) fn judge(&mut self, user: &UserId, message: &wire::Message, now: Now) -> Opinion {
        let objection = self.objection(user, message, now);
        self.judged += 1;
        self.objected += u64::from(objection.is_some());
        Opinion { objection, as_of: self.members.watermark() }
    }

    /// Folds one record; `changes` where it changes members.
    ///
    /// # Panics
    /// Where a record was left out: whoever feeds an owner refills first.
    pub(crate) fn fold(&mut self, seq: Seq, changes: Option<&wire::MemberChanges>) {
        let accept = self.members.fold(seq, changes);
        assert!(
            !matches!(accept, shoal_protocol::Accept::Gap { .. }),
            "an owner folds every record in order"
        );
    }

    fn objection(&mut self, user: &UserId, message: &wire::Message, now: Now) -> Option<Refusal> {
        let Some(member) = self.members.get(user) else {
            return Some(Refusal::new(Code::NotMember, "you are not a member of this group"));
        };
        if member.muted_until_ms > now.wall_ms {
            return Some(Refusal::new(
                Code::Muted,
                format!("you are muted until {} ms", member.muted_until_ms),
            ));
        }
        let slot = Slot::of(user);
        let theirs = self.obeyed.payload_bytes_max(slot).unwrap_or(usize::MAX);
        let payload_bytes_max = self.payload_bytes_max.min(theirs);
        if message.payload.len() > payload_bytes_max {
            let reason = format!("{} bytes of payload, {payload_bytes_max} at most", message.payload.len());
            return Some(Refusal::new(Code::PayloadTooLarge, reason));
        }
        let theirs = self.obeyed.messages_per_second(slot);
        let wait = self.rates.check(user, theirs, now.since_start).err()?;
        let mut refusal = Refusal::new(Code::TooFast, "more messages than the rate allows");
        refusal.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        Some(refusal)
    }
}
