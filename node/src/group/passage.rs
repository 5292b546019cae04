//! A message on its way between nodes: to the owner of its sender's slot, and from there to the home.

use shoal_protocol::Seq;

use super::{Groups, Opinion, Publish, input::Input};

/// Whom a message is for.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The owner of its sender's slot.
    Owner {
        /// The version of the layout that says who that is.
        layout: u64,
    },
    /// The home, with what the owner thinks.
    Home(Opinion),
}

/// A message on its way to another node.
#[derive(Debug)]
pub struct Passage {
    /// The message, and where its receipt goes.
    pub publish: Publish,
    /// Whom it is for there.
    pub stage: Stage,
    /// Where it comes back to if the opinion was out of date.
    pub(super) from: Groups,
}

impl Passage {
    /// It did not come to who looks after it, or that is not known: its group sends it again, under its
    /// number.
    pub fn go_astray(self) {
        self.from.send_or_refuse(self.publish.group, Input::Astray(self.publish));
    }

    /// The home wants another opinion, once every record below `at` is folded.
    pub fn come_back(self, at: Seq) {
        self.from.send_or_refuse(self.publish.group, Input::Again(self.publish, at));
    }
}
