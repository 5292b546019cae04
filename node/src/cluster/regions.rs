//! Which clients are at home in another region, and whether they can be sent there. Pure: nodes go in, regions
//! and their room come out.
//!
//! A client that states a region is at home there. On a node elsewhere it is a guest, from when a node at home
//! has room: it is offered that before anything else, and is not counted where nodes compare what they carry,
//! for it is about to go. It is only ever moved home, and by load only within a region: so whoever has come
//! home is not sent out again, and whoever states no region, or one without nodes, stays where it is.

use std::collections::BTreeMap;

use crate::coordination::NodeRecord;

/// So many in a hundred of a node's sessions are left to those who come by themselves.
const SPARE_PERCENT: u64 = 10;

/// The other regions that have room, and for how many more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Homes(BTreeMap<String, u64>);

impl Homes {
    /// Those that a node `here` can send clients to.
    pub(super) fn new<'n>(here: &str, others: impl Iterator<Item = &'n NodeRecord>) -> Self {
        let mut homes = BTreeMap::new();
        for node in others.filter(|node| node.region != here && room(node) > 0) {
            *homes.entry(node.region.clone()).or_default() += room(node);
        }
        Self(homes)
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Is whoever states this region a guest here?
    pub(crate) fn have(&self, region: &str) -> bool {
        self.0.get(region).is_some_and(|room| *room > 0)
    }

    /// Takes the place of one client in a region, if there is one left.
    pub(crate) fn take(&mut self, region: &str) -> bool {
        let Some(room) = self.0.get_mut(region).filter(|room| **room > 0) else { return false };
        *room -= 1;
        true
    }
}

/// The nodes that a client of `region` can be sent to from a node `here`.
pub(super) fn at_home<'n>(
    here: &str,
    region: &str,
    others: impl Iterator<Item = &'n NodeRecord>,
) -> impl Iterator<Item = &'n NodeRecord> {
    others.filter(move |node| region != here && node.region == region && room(node) > 0)
}

/// So many more a node is sent.
fn room(node: &NodeRecord) -> u64 {
    let max = node.load.sessions_max;
    (max - max / 100 * SPARE_PERCENT).saturating_sub(node.load.sessions)
}

#[cfg(test)]
mod tests;
