//! Who is here: the sessions of this node, by user and device.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{Rng, seq::IteratorRandom};
use shoal_protocol::{Code, DeviceId, GroupId, Refusal, UserId};
use tokio::sync::Notify;

use super::session::Session;
use crate::{
    config::{AccessLimits, Current},
    presence,
};

/// What the registry knows of a session.
pub(crate) trait Registered {
    fn user(&self) -> &UserId;
    fn device(&self) -> DeviceId;
    /// Where its client says it is; empty where it says nothing.
    fn region(&self) -> &str;
}

/// All sessions of a node, one for each device.
#[derive(Debug)]
pub(crate) struct Registry<S> {
    state: Mutex<State<S>>,
    emptied: Notify,
    limits: Current<AccessLimits>,
}

#[derive(Debug)]
struct State<S> {
    by_user: BTreeMap<UserId, Vec<Arc<S>>>,
    /// How many there are of each region that was stated.
    by_region: BTreeMap<Box<str>, usize>,
    count: usize,
    is_draining: bool,
}

impl<S: Registered> State<S> {
    fn may_admit(&self, session: &S, limits: &AccessLimits) -> Result<(), Refusal> {
        let devices = self.by_user.get(session.user()).map_or(&[][..], Vec::as_slice);
        if self.is_draining {
            Err(Refusal::new(Code::Draining, "the node is going"))
        } else if devices.iter().any(|other| other.device() == session.device()) {
            Ok(())
        } else if self.count >= limits.sessions_max {
            Err(Refusal::new(Code::Busy, "the node has as many sessions as it takes"))
        } else if devices.len() >= limits.sessions_per_user_max {
            Err(Refusal::new(Code::TooMany, "the user has as many sessions as one may have"))
        } else {
            Ok(())
        }
    }

    fn is_in(&mut self, session: &S) {
        let region = session.region();
        match self.by_region.get_mut(region) {
            Some(count) => *count += 1,
            None if region.is_empty() => {}
            None => drop(self.by_region.insert(region.into(), 1)),
        }
    }

    fn is_out(&mut self, session: &S) {
        let Some(count) = self.by_region.get_mut(session.region()) else { return };
        *count -= 1;
        if *count == 0 {
            self.by_region.remove(session.region());
        }
    }
}

impl<S: Registered> Registry<S> {
    pub(crate) fn new(limits: Current<AccessLimits>) -> Self {
        let state =
            State { by_user: BTreeMap::new(), by_region: BTreeMap::new(), count: 0, is_draining: false };
        Self { state: Mutex::new(state), emptied: Notify::new(), limits }
    }

    /// Would [`Self::admit`] take it in now?
    ///
    /// # Errors
    /// Those of `admit`.
    pub(super) fn may_admit(&self, session: &S) -> Result<(), Refusal> {
        self.lock().may_admit(session, &self.limits.load())
    }

    /// Takes a session in; the one that its device had before, if any, is put out and handed back.
    ///
    /// # Errors
    /// `Draining`, `Busy` (the node is full) or `TooMany` (the user has enough devices here).
    pub(super) fn admit(&self, session: &Arc<S>) -> Result<Option<Arc<S>>, Refusal> {
        let mut state = self.lock();
        state.may_admit(session, &self.limits.load())?;
        let devices = state.by_user.entry(session.user().clone()).or_default();
        let replaced = match devices.iter_mut().find(|other| other.device() == session.device()) {
            Some(same) => Some(std::mem::replace(same, Arc::clone(session))),
            None => {
                devices.push(Arc::clone(session));
                state.count += 1;
                None
            }
        };
        if let Some(replaced) = &replaced {
            state.is_out(replaced);
        }
        state.is_in(session);
        Ok(replaced)
    }

    /// Puts a session out, if it has not been replaced already.
    pub(super) fn remove(&self, session: &Arc<S>) {
        let mut state = self.lock();
        let Some(devices) = state.by_user.get_mut(session.user()) else { return };
        let before = devices.len();
        devices.retain(|other| !Arc::ptr_eq(other, session));
        let removed = before - devices.len();
        if devices.is_empty() {
            state.by_user.remove(session.user());
        }
        state.count -= removed;
        if removed > 0 {
            state.is_out(session);
        }
        if state.count == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.lock().count
    }

    /// How many there are whose clients say they are in this region.
    pub(super) fn len_of(&self, region: &str) -> usize {
        self.lock().by_region.get(region).copied().unwrap_or_default()
    }

    /// How many there are of which this is so.
    pub(super) fn count(&self, is_so: impl Fn(&S) -> bool) -> usize {
        self.lock().by_user.values().flatten().filter(|session| is_so(session)).count()
    }

    /// A user's sessions.
    pub(super) fn of(&self, user: &UserId) -> Vec<Arc<S>> {
        self.lock().by_user.get(user).cloned().unwrap_or_default()
    }

    /// Takes no more in from now on, and hands out all that are here.
    pub(super) fn drain(&self) -> Vec<Arc<S>> {
        let mut state = self.lock();
        state.is_draining = true;
        state.by_user.values().flatten().cloned().collect()
    }

    /// Takes sessions in again, and hands out all that are here.
    pub(super) fn stay(&self) -> Vec<Arc<S>> {
        let mut state = self.lock();
        state.is_draining = false;
        state.by_user.values().flatten().cloned().collect()
    }

    /// So many of those that `may` be, drawn by lot; all of them, where there are no more.
    pub(super) fn draw(&self, most: usize, may: impl Fn(&S) -> bool, random: &mut impl Rng) -> Vec<Arc<S>> {
        let state = self.lock();
        let drawn = state.by_user.values().flatten().filter(|session| may(session)).sample(random, most);
        drawn.into_iter().cloned().collect()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().is_draining
    }

    /// Waits until nobody is here.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl presence::Sessions for Registry<Session> {
    fn follows(&self, user: &UserId, group: GroupId) -> bool {
        self.of(user).iter().any(|session| session.deliveries().watermark(group).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[derive(Debug)]
    struct Somebody(UserId, DeviceId, &'static str);

    impl Registered for Somebody {
        fn user(&self) -> &UserId {
            &self.0
        }

        fn device(&self) -> DeviceId {
            self.1
        }

        fn region(&self) -> &str {
            self.2
        }
    }

    fn registry(sessions_max: usize, sessions_per_user_max: usize) -> Registry<Somebody> {
        let limits = AccessLimits { sessions_max, sessions_per_user_max, ..AccessLimits::default() };
        Registry::new(limits.into())
    }

    fn session(user: &str, device: u64) -> Arc<Somebody> {
        session_in(user, device, "")
    }

    fn session_in(user: &str, device: u64, region: &'static str) -> Arc<Somebody> {
        Arc::new(Somebody(UserId::new(user).unwrap(), DeviceId(device), region))
    }

    #[test]
    fn a_device_that_comes_back_replaces_its_session_and_no_other() {
        let registry = registry(10, 10);
        let (phone, laptop, phone_again) = (session("ada", 1), session("ada", 2), session("ada", 1));
        assert!(registry.admit(&phone).unwrap().is_none());
        assert!(registry.admit(&laptop).unwrap().is_none());
        let replaced = registry.admit(&phone_again).unwrap().unwrap();
        assert!(Arc::ptr_eq(&replaced, &phone));
        registry.remove(&phone);
        assert_eq!(registry.len(), 2, "the one that was replaced is out already");
        assert_eq!(registry.of(phone.user()).len(), 2);
    }

    #[test]
    fn a_full_node_and_a_user_with_too_many_devices_are_told_apart() {
        let registry = registry(3, 2);
        for device in 1..=2 {
            registry.admit(&session("ada", device)).unwrap();
        }
        assert_eq!(registry.admit(&session("ada", 3)).unwrap_err().code, Code::TooMany);
        registry.admit(&session("bob", 1)).unwrap();
        assert_eq!(registry.admit(&session("eve", 1)).unwrap_err().code, Code::Busy);
        assert!(
            registry.admit(&session("bob", 1)).unwrap().is_some(),
            "a device may come back to a full node"
        );
        assert_eq!(registry.len(), 3);
    }

    #[test]
    fn whoever_states_a_region_is_counted_there_while_here_and_once() {
        let registry = registry(10, 10);
        let (north, south, silent) =
            (session_in("ada", 1, "north"), session_in("ada", 2, "south"), session("bob", 1));
        for session in [&north, &south, &silent] {
            registry.admit(session).unwrap();
        }
        assert_eq!(["north", "south", ""].map(|region| registry.len_of(region)), [1, 1, 0]);
        assert_eq!(registry.count(|session| session.region().is_empty()), 1);

        registry.admit(&session_in("ada", 1, "south")).unwrap();
        registry.remove(&north);
        assert_eq!(["north", "south"].map(|region| registry.len_of(region)), [0, 2], "it has moved");
        registry.remove(&south);
        registry.remove(&south);
        assert_eq!(registry.len_of("south"), 1);
        assert_eq!(registry.lock().by_region.len(), 1, "what nobody states takes no room");
    }

    #[test]
    fn whoever_may_be_is_drawn_by_lot_and_nobody_else() {
        let (registry, mut random) = (registry(100, 2), StdRng::seed_from_u64(1));
        for number in 0..100 {
            registry.admit(&session(&format!("u{number}"), number)).unwrap();
        }
        let mut draw = |most| {
            let drawn = registry.draw(most, |session| session.device().0 < 20, &mut random);
            drawn.iter().map(|session| session.device().0).collect::<BTreeSet<_>>()
        };
        let often: Vec<_> = (0..100).map(|_| draw(5)).collect();
        assert!(often.iter().all(|drawn| drawn.len() == 5));
        assert_eq!(often.into_iter().flatten().collect::<BTreeSet<_>>(), (0..20).collect());
        assert_eq!((draw(50).len(), draw(0).len()), (20, 0));
    }

    #[tokio::test]
    async fn a_draining_node_takes_nobody_in_and_knows_when_all_have_left() {
        let registry = registry(3, 2);
        let ada = session("ada", 1);
        registry.admit(&ada).unwrap();
        assert_eq!(registry.drain().len(), 1);
        assert_eq!(registry.admit(&session("bob", 1)).unwrap_err().code, Code::Draining);
        assert_eq!(registry.stay().len(), 1);
        let eve = session("eve", 1);
        registry.admit(&eve).unwrap();
        registry.remove(&eve);
        assert_eq!(registry.drain().len(), 1);
        let (emptied, ()) = tokio::join!(registry.emptied(), async { registry.remove(&ada) });
        emptied
    }
}
