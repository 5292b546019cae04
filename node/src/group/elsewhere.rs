//! The other nodes, as this node's group layer sees them.
//!
//! Which one looks after what, and how it is reached, is another layer's business: `peer` knows.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shoal_protocol::{RecordFrame, Refusal, UserId, wire};
use tokio::sync::mpsc;

use super::{Actor, Passage};
use crate::{
    coordination::{NodeName, Partition},
    delivery::Tail,
};

/// Who looks after a partition: its homes and its sub-groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// This node.
    Here,
    /// Another.
    There(NodeName),
    /// Nobody, as far as this node knows.
    Nowhere,
}

/// The other nodes.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// Who looks after a partition now.
    fn place(&self, partition: Partition) -> Place;

    /// Sends a message on its way to its owner or its home. Never waits: where the node is not reached,
    /// or its link has too much to take, it goes astray; where its lane has, it is answered `Busy`.
    fn publish(&self, to: &NodeName, passage: Passage);

    /// Has the home carry out a change. An error leaves it open whether it was.
    async fn change(
        &self,
        home: &NodeName,
        actor: Actor,
        change: wire::Change,
    ) -> Result<wire::Changed, Refusal>;

    /// Has the home put a notice into a user's own sequence.
    async fn notify(&self, home: &NodeName, user: UserId, notice: wire::Notice) -> Result<(), Refusal>;

    /// Follows a group from where `tail` ends; datagrams from the home go to whoever is attached there.
    /// Dropping the feed ends it.
    fn follow(&self, home: &NodeName, tail: &Arc<Tail>) -> Feed;

    /// Sends the home what may be lost, if a link is there.
    fn signal(&self, home: &NodeName, datagram: Bytes);

    /// Asks who follows a group, there or everywhere.
    async fn attendance(
        &self,
        node: &NodeName,
        asked: wire::GetAttendance,
    ) -> Result<wire::Attendance, Refusal>;

    /// Asks a node how it does as an owner.
    async fn owner(&self, node: &NodeName, asked: wire::GetOwner) -> Result<wire::Owner, Refusal>;
}

/// A group's records as its home delivers them, in order, from a watermark on.
#[derive(Debug)]
pub struct Feed {
    records: mpsc::Receiver<Vec<RecordFrame>>,
}

impl Feed {
    /// Up to so many deliveries wait; then the home is not read on, for this group.
    const DELIVERIES_MAX: usize = 8;

    /// A feed, and where its records are put. It has ended when that is dropped.
    #[must_use]
    pub fn new() -> (mpsc::Sender<Vec<RecordFrame>>, Self) {
        let (sender, records) = mpsc::channel(Self::DELIVERIES_MAX);
        (sender, Self { records })
    }

    /// The next records; none when the feed has ended. Cancellation safe.
    pub async fn next(&mut self) -> Option<Vec<RecordFrame>> {
        self.records.recv().await
    }
}
