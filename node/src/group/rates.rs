//! How fast a member and a group may send.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use shoal_protocol::UserId;

use crate::config::{GroupLimits, Rate};

/// A clock that stands where it was put: time is an argument here.
#[derive(Debug, Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, since_start: Duration) {
        self.0.store(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

type PerMember = RateLimiter<UserId, HashMapStateStore<UserId>, SetClock, NoOpMiddleware<Nanos>>;
type PerGroup = RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Nanos>>;

/// The rate limits of one sub-group.
#[derive(Debug)]
pub(crate) struct Rates {
    clock: SetClock,
    percent: u32,
    member_rate: Rate,
    members: PerMember,
    /// Of members who have a rate of their own, by that.
    apart: BTreeMap<u32, PerMember>,
    group_rate: Rate,
    group: PerGroup,
    checks: u32,
}

impl Rates {
    /// How often members that have long been quiet are forgotten, in checks.
    const SWEEP_EACH: u32 = 16_384;

    /// Full buckets.
    #[must_use]
    pub(crate) fn new(limits: &GroupLimits) -> Self {
        let clock = SetClock::default();
        let (member_rate, group_rate) = (limits.member_rate(), limits.group_rate());
        Self {
            percent: 100,
            apart: BTreeMap::new(),
            members: per_member(member_rate, &clock),
            member_rate,
            group: per_group(group_rate, &clock),
            group_rate,
            clock,
            checks: 0,
        }
    }

    /// From now on these hold, and of that of a member so many in a hundred. Where a rate is another, all
    /// begin with its burst.
    pub(crate) fn set_limits(&mut self, limits: &GroupLimits, percent: u32) {
        let (member_rate, group_rate) = (limits.member_rate().percent(percent), limits.group_rate());
        if member_rate != self.member_rate {
            self.member_rate = member_rate;
            self.members = per_member(member_rate, &self.clock);
            self.apart.clear();
        }
        self.percent = percent;
        if group_rate != self.group_rate {
            self.group_rate = group_rate;
            self.group = per_group(group_rate, &self.clock);
        }
    }

    /// Of the rates that members had of their own, only these are still anybody's.
    pub(crate) fn keep(&mut self, has: impl Fn(u32) -> bool) {
        self.apart.retain(|per_second, _| has(*per_second));
    }

    /// May the member send one now? If not, how long until they may. One may have a rate of their own, in
    /// messages a second. `since_start` is a monotonic clock's.
    pub(crate) fn check(
        &mut self,
        user: &UserId,
        theirs: Option<u32>,
        since_start: Duration,
    ) -> Result<(), Duration> {
        self.clock.set(since_start);
        self.checks += 1;
        if self.checks >= Self::SWEEP_EACH {
            self.checks = 0;
            self.members.retain_recent();
            self.apart.values().for_each(PerMember::retain_recent);
        }
        let now = self.clock.now();
        let wait = |until: governor::NotUntil<Nanos>| until.earliest_possible().duration_since(now).into();
        let members = match theirs {
            None => &self.members,
            Some(per_second) => self.apart.entry(per_second).or_insert_with(|| {
                // Never more than members have without one: that is the operator's to say.
                let rate = Rate { per_second, burst: per_second }.percent(self.percent);
                per_member(rate.at_most(self.member_rate), &self.clock)
            }),
        };
        members.check_key(user).map_err(wait)?;
        self.group.check().map_err(wait)
    }
}

fn per_member(rate: Rate, clock: &SetClock) -> PerMember {
    RateLimiter::new(rate.quota(), HashMapStateStore::default(), clock.clone())
}

fn per_group(rate: Rate, clock: &SetClock) -> PerGroup {
    RateLimiter::new(rate.quota(), InMemoryState::default(), clock.clone())
}
