//! A node that goes down, or stands still, just as a plan has come to a step.

use std::time::Duration;

use shoal_node::coordination::{NodeName, Partition, Placement};
use shoal_protocol::{GroupId, wire};

/// When, and whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// So many in a hundred of the slots that move have moved.
    pub percent: u32,
    /// Whom it hits.
    pub victim: Victim,
}

/// A node, by what it has to do with the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// It owns a sub-group that there is.
    OldOwner,
    /// It is to own one.
    NewOwner,
    /// It numbers the group's records, and carries the plan out.
    Home,
    /// It decides which node has what.
    Leader,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OldOwner, Self::NewOwner, Self::Home, Self::Leader];
}

impl Strike {
    /// Every step × every victim.
    pub fn all() -> impl Iterator<Item = Self> {
        let steps = [0, 10, 30, 100];
        steps.into_iter().flat_map(|percent| Victim::ALL.map(|victim| Self { percent, victim }))
    }

    /// The node that is hit now, if the group's plan has come to the step. An owner is one apart from the
    /// home, unless there is little time left for such a plan.
    #[must_use]
    pub fn hits(
        &self,
        group: GroupId,
        layout: &wire::Layout,
        placement: &Placement,
        leader: Option<NodeName>,
        is_late: bool,
    ) -> Option<NodeName> {
        let plan = layout.plan.as_ref().filter(|plan| plan.percent == self.percent)?;
        let home = placement.node_of(Partition::of(group))?;
        let owner = |partitions: Vec<u32>| {
            let nodes = partitions
                .into_iter()
                .filter_map(|number| placement.node_of(Partition::new(u16::try_from(number).ok()?)?));
            let nodes: Vec<_> = nodes.collect();
            let apart = nodes.iter().find(|node| **node != home).or(nodes.first().filter(|_| is_late));
            apart.map(|node| (*node).clone())
        };
        let new =
            || plan.partitions.iter().copied().filter(|partition| !layout.partitions.contains(partition));
        match self.victim {
            Victim::OldOwner => owner(layout.partitions.clone()),
            Victim::NewOwner if new().next().is_some() => owner(new().collect()),
            Victim::NewOwner => owner(plan.partitions.clone()),
            Victim::Home => Some(home.clone()),
            Victim::Leader => leader,
        }
    }
}

/// How long the node is away: longer than its lease, and shorter than a plan waits for an owner, or longer.
#[must_use]
pub fn away(seed: u64, lease: Duration) -> Duration {
    lease + Duration::from_millis(500 + seed % 5 * 800)
}
