//! Who holds a lease, who leads, and what is placed where: pure, with the moment as an argument.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use shoal_node::{
    coordination::{Leadership, NodeName, NodeRecord, Nodes, Placed, Placement, Refused, Standing},
    store::Setting,
};

/// One registration; the same after its lease has run out and was granted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseId(u64);

#[derive(Debug)]
pub(super) struct Model {
    lease: Duration,
    now: Duration,
    leases: u64,
    held: BTreeMap<NodeName, Held>,
    terms: u64,
    leader: Option<(LeaseId, Leadership)>,
    placed: Arc<Placed>,
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug)]
struct Held {
    by: LeaseId,
    until: Duration,
    record: NodeRecord,
}

impl Model {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            lease,
            now: Duration::ZERO,
            leases: 0,
            held: BTreeMap::new(),
            terms: 0,
            leader: None,
            placed: Arc::default(),
            settings: BTreeMap::new(),
        }
    }

    /// It is now so late: leases that are over run out.
    pub(super) fn pass_to(&mut self, now: Duration) {
        self.now = now;
        self.held.retain(|_, held| held.until > now);
        self.depose_the_gone();
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    pub(super) fn nodes(&self) -> Arc<Nodes> {
        Arc::new(self.held.iter().map(|(name, held)| (name.clone(), held.record.clone())).collect())
    }

    pub(super) fn placed(&self) -> Arc<Placed> {
        Arc::clone(&self.placed)
    }

    pub(super) fn leader(&self) -> Option<Leadership> {
        self.leader.as_ref().map(|(_, leadership)| leadership.clone())
    }

    /// Registers a node in place of whoever has its name.
    pub(super) fn register(&mut self, record: NodeRecord) -> LeaseId {
        self.leases += 1;
        let id = LeaseId(self.leases);
        self.hold(id, record);
        id
    }

    /// Prolongs a lease. One that ran out is granted again, unless another has the name.
    pub(super) fn keep(&mut self, id: LeaseId, record: NodeRecord) -> Standing {
        match self.held.get(&record.name).map(|held| held.by) {
            Some(by) if by != id => Standing::Lost,
            Some(_) => {
                self.hold(id, record);
                Standing::Held
            }
            None => {
                self.hold(id, record);
                Standing::Lapsed
            }
        }
    }

    pub(super) fn give_back(&mut self, id: LeaseId) {
        self.held.retain(|_, held| held.by != id);
        self.depose_the_gone();
    }

    pub(super) fn expire(&mut self, node: &NodeName) {
        self.held.remove(node);
        self.depose_the_gone();
    }

    /// The leadership, if it is this one's or nobody's.
    pub(super) fn elect(&mut self, id: LeaseId) -> Option<Leadership> {
        let (name, _) = self.held.iter().find(|(_, held)| held.by == id)?;
        if self.leader.is_none() {
            self.terms += 1;
            self.leader = Some((id, Leadership { node: name.clone(), term: self.terms }));
        }
        self.leader.as_ref().filter(|(by, _)| *by == id).map(|(_, leadership)| leadership.clone())
    }

    /// Ends a leadership, if it is this one.
    pub(super) fn depose(&mut self, leadership: &Leadership) {
        self.leader.take_if(|(_, leader)| leader == leadership);
    }

    pub(super) fn place(
        &mut self,
        leadership: &Leadership,
        expected: u64,
        placement: Placement,
    ) -> Result<u64, Refused> {
        if self.leader().as_ref() != Some(leadership) {
            return Err(Refused::Deposed);
        }
        if self.placed.version != expected {
            return Err(Refused::Moved(self.placed()));
        }
        self.force(|_| placement);
        Ok(self.placed.version)
    }

    /// Replaces the placement, whoever leads.
    pub(super) fn force(&mut self, change: impl FnOnce(&Placement) -> Placement) {
        let placement = change(&self.placed.placement);
        self.placed = Arc::new(Placed { version: self.placed.version + 1, placement });
    }

    pub(super) fn settings(&self, prefix: &str) -> BTreeMap<String, Setting> {
        let from = self.settings.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        from.map(|(key, setting)| (key.clone(), setting.clone())).collect()
    }

    /// Sets a setting, or removes it, whatever it says.
    pub(super) fn set(&mut self, key: &str, value: Option<Bytes>) {
        let current = self.settings.get(key).map_or(0, |setting| setting.version);
        self.swap(key, current, value).expect("it is this version");
    }

    pub(super) fn swap(
        &mut self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<u64, Option<Setting>> {
        let current = self.settings.get(key);
        if current.map_or(0, |setting| setting.version) != expected {
            return Err(current.cloned());
        }
        let Some(value) = value else {
            self.settings.remove(key);
            return Ok(0);
        };
        let version = expected + 1;
        self.settings.insert(key.to_owned(), Setting { version, value });
        Ok(version)
    }

    fn hold(&mut self, by: LeaseId, record: NodeRecord) {
        let until = self.now + self.lease;
        self.held.insert(record.name.clone(), Held { by, until, record });
        self.depose_the_gone();
    }

    fn depose_the_gone(&mut self) {
        let is_held = |id: LeaseId| self.held.values().any(|held| held.by == id);
        if self.leader.as_ref().is_some_and(|(by, _)| !is_held(*by)) {
            self.leader = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_node::coordination::{Load, Roles};

    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    fn node(name: &str) -> NodeRecord {
        NodeRecord {
            name: NodeName(name.into()),
            addresses: Vec::new(),
            peer_addresses: Vec::new(),
            roles: Roles::ALL,
            region: String::new(),
            capacity: 1,
            started_ms: 0,
            load: Load::default(),
        }
    }

    #[test]
    fn a_lease_that_runs_out_ends_a_leadership_and_what_it_wrote_after_is_refused() {
        let mut model = Model::new(LEASE);
        let (one, other) = (model.register(node("one")), model.register(node("other")));
        let led = model.elect(one).unwrap();
        assert_eq!(model.elect(other), None);
        assert_eq!(model.place(&led, 0, Placement::default()), Ok(1));
        assert!(matches!(model.place(&led, 0, Placement::default()), Err(Refused::Moved(_))));
        model.pass_to(LEASE / 2);
        assert_eq!(model.keep(other, node("other")), Standing::Held);
        model.pass_to(LEASE);
        assert_eq!(model.nodes().keys().collect::<Vec<_>>(), [&NodeName("other".into())]);
        assert_eq!(model.place(&led, 1, Placement::default()), Err(Refused::Deposed));
        assert!(model.elect(one).is_none());
        assert!(model.elect(other).unwrap().term > led.term);
    }

    #[test]
    fn a_lease_is_granted_again_unless_another_has_the_name() {
        let mut model = Model::new(LEASE);
        let first = model.register(node("one"));
        model.pass_to(LEASE);
        assert_eq!(model.keep(first, node("one")), Standing::Lapsed);
        assert_eq!(model.keep(first, node("one")), Standing::Held);
        let second = model.register(node("one"));
        assert_eq!(model.keep(first, node("one")), Standing::Lost);
        model.give_back(first);
        assert_eq!(model.keep(second, node("one")), Standing::Held);
    }
}
