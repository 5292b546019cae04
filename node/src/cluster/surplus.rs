//! Whether a node carries more than its share of its region's sessions, and which others carry less. Pure: what
//! nodes carry goes in, how many sessions are to go, and where, comes out.
//!
//! A node knows its own sessions as they are, and those of the others as they were some seconds ago. So what
//! it gives away at once is bounded by what it has too much when it begins, and goes only to nodes that have
//! too little.

use crate::coordination::NodeRecord;

/// What a node puts up with before it gives anything away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Sessions in a hundred of its share; 0: however many.
    pub(crate) percent: u32,
    /// Sessions above its share.
    pub(crate) sessions: u64,
}

/// A node that has begun stops at so many in a hundred of its share.
const ENOUGH_PERCENT: u64 = 110;

/// The nodes of a region that take clients, as one of them sees it.
pub(super) struct Region<'n> {
    me: &'n NodeRecord,
    /// What this node carries now, whatever its record says.
    own: u64,
    others: Vec<&'n NodeRecord>,
}

impl<'n> Region<'n> {
    /// Of the others, those of another region are left out.
    pub(super) fn new(me: &'n NodeRecord, own: u64, others: impl Iterator<Item = &'n NodeRecord>) -> Self {
        Self { me, own, others: others.filter(|node| node.region == me.region).collect() }
    }

    /// So many are to go, where there are clearly too many.
    pub(super) fn surplus(&self, tolerance: Tolerance) -> u64 {
        let share = self.share(self.me);
        let is_far_above = self.own * 100 > share * u64::from(tolerance.percent);
        let is_over = tolerance.percent > 0 && is_far_above && self.own > share + tolerance.sessions;
        if is_over { self.above_enough() } else { 0 }
    }

    /// So many may go, once some do.
    pub(super) fn above_enough(&self) -> u64 {
        self.own.saturating_sub(self.share(self.me) * ENOUGH_PERCENT / 100)
    }

    /// The others that have less than their share, and how many they lack.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (&'n NodeRecord, u64)> {
        let lacks = |node: &'n NodeRecord| {
            let room = node.load.sessions_max.saturating_sub(node.load.sessions);
            (node, self.share(node).saturating_sub(node.load.sessions).min(room))
        };
        self.others.iter().copied().map(lacks).filter(|(_, lacks)| *lacks > 0)
    }

    /// What a node would carry if all carried as much for what they can.
    fn share(&self, node: &NodeRecord) -> u64 {
        let can = |node: &NodeRecord| u128::from(node.capacity.max(1));
        let all = u128::from(self.own)
            + self.others.iter().map(|node| u128::from(node.load.sessions)).sum::<u128>();
        let capacity = can(self.me) + self.others.iter().map(|node| can(node)).sum::<u128>();
        u64::try_from((all * can(node)).div_ceil(capacity)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
