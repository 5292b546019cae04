//! Somebody who does nothing wrong, while others do.

use shoal_protocol::{GroupId, wire};

use super::{
    client::{CREATED, Client, Delivery, Publisher, payload},
    world::World,
};

/// The group that a bystander and the others share.
pub(super) fn shared() -> GroupId {
    GroupId::named("shared")
}

/// A client that was there before, and publishes and gets what is published on one connection.
pub(super) struct Bystander {
    pub(super) client: Client,
    publisher: Publisher,
    delivery: Delivery,
    number: u64,
}

impl Bystander {
    /// Makes the shared group, with these members.
    pub(super) async fn enter(world: &World, members: &[&str]) -> Self {
        let mut client = Client::connect(world, "bystander", 1).await;
        client.create(shared(), members).await;
        client.follow(shared()).await;
        let publisher = client.publisher().await;
        let mut delivery = client.delivery().await;
        delivery.read_until(CREATED).await;
        Self { client, publisher, delivery, number: 0 }
    }

    /// Checks that its session goes on, in both directions, with all that was written to the group;
    /// the payloads of the others' messages since the last time.
    pub(super) async fn is_well(&mut self) -> Vec<Vec<u8>> {
        const MINE: &[u8] = b"I am well";
        self.number += 1;
        self.publisher.send(shared(), self.number, MINE).await;
        let seq = self.publisher.committed().await;
        let records = self.delivery.read_until(seq + 1).await;
        let is_message = |record: &&wire::Record| matches!(record.body, Some(wire::record::Body::Message(_)));
        let mut payloads: Vec<_> =
            records.iter().filter(is_message).map(|record| payload(record).to_vec()).collect();
        assert_eq!(payloads.pop().as_deref(), Some(MINE));
        assert!(self.client.connection.close_reason().is_none());
        payloads
    }
}
