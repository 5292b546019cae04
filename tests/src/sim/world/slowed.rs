//! Slows a node while all else is well, and looks what coordination has of it.

use shoal_node::coordination::NodeName;

use super::World;
use crate::sim::{
    app,
    plan::Disturbance,
    slowing::{FROM, LASTS, Sample, Slowing},
};

/// The node, and what was seen of it.
#[derive(Debug)]
pub(super) struct Slowed {
    node: usize,
    is_well: bool,
    samples: Vec<Sample>,
}

impl World {
    /// What was seen of the node that was slowed.
    pub(in crate::sim) fn slowed(&self) -> &[Sample] {
        self.slowed.as_ref().map_or(&[], |slowed| &slowed.samples)
    }

    pub(super) fn slow_one(&mut self) {
        let Some(slowing) = self.scene.plan.slowing else { return };
        let now = self.sim.elapsed();
        if self.slowed.is_none() && now >= FROM {
            self.slow(slowing);
        }
        let Some(slowed) = &mut self.slowed else { return };
        if now >= FROM + LASTS && !slowed.is_well {
            slowed.is_well = true;
            let node = slowed.node;
            self.disturb(&Disturbance::Slow(node, false));
        }
        if self.is_time_to_look() {
            self.sample();
        }
    }

    /// The biggest group says who it is.
    fn slow(&mut self, slowing: Slowing) {
        let (placed, leader) = (self.coordination.placed(), self.coordination.leader());
        let group = app::town();
        let layout = self.disk.row(group).and_then(|row| row.state.layout);
        let victim = slowing.victim(group, layout.as_deref(), &placed.placement, leader);
        let node = victim.and_then(|victim| self.nodes.iter().position(|node| node.name() == victim.0));
        let Some(node) = node else { return };
        self.slowed = Some(Slowed { node, is_well: false, samples: Vec::new() });
        self.disturb(&Disturbance::Slow(node, true));
    }

    fn sample(&mut self) {
        let at = self.sim.elapsed();
        let Some(slowed) = &mut self.slowed else { return };
        let name = NodeName(self.nodes[slowed.node].name());
        slowed.samples.push(Sample {
            at,
            lives: self.coordination.living().contains(&name),
            leads: self.coordination.leader().as_ref() == Some(&name),
            partitions: self.coordination.placed().placement.held(&name),
        });
    }
}
