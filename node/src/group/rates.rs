//! How fast a member and a group may send.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use shoal_protocol::UserId;

use crate::config::GroupLimits;

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
    members: PerMember,
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
        Self {
            members: RateLimiter::new(
                quota(limits.member_rate_per_second, limits.member_burst),
                HashMapStateStore::default(),
                clock.clone(),
            ),
            group: RateLimiter::new(
                quota(limits.group_rate_per_second, limits.group_burst),
                InMemoryState::default(),
                clock.clone(),
            ),
            clock,
            checks: 0,
        }
    }

    /// May the member send one now? If not, how long until they may. `since_start` is a monotonic
    /// clock's.
    pub(crate) fn check(&mut self, user: &UserId, since_start: Duration) -> Result<(), Duration> {
        self.clock.set(since_start);
        self.checks += 1;
        if self.checks >= Self::SWEEP_EACH {
            self.checks = 0;
            self.members.retain_recent();
        }
        let now = self.clock.now();
        let wait = |until: governor::NotUntil<Nanos>| until.earliest_possible().duration_since(now).into();
        self.members.check_key(user).map_err(wait)?;
        self.group.check().map_err(wait)
    }
}

fn quota(per_second: u32, burst: u32) -> Quota {
    let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst))
}
