//! A removal, and messages of who is removed that are on their way at the same time.

use std::time::Duration;

use shoal_node::store::MemoryTiming;
use shoal_protocol::{DeviceId, GroupId, SenderId, wire};
use wire::{change::Body, member_change::Kind, message, record};

use crate::world::{World, committed, id};

/// Reads take their time: meanwhile much is decided that a message judged before has not seen.
#[tokio::test(start_paused = true)]
async fn nothing_of_a_removed_member_follows_however_slow_the_store_is() {
    let ms = Duration::from_millis;
    for seed in 0..60 {
        let timing = MemoryTiming { commit: ms(0)..=ms(4), read: ms(0)..=ms(12) };
        let world = World::with(seed, Default::default(), timing);
        let group = GroupId::named("g");
        world.create("owner", group, &["bob"]).await;
        let bob = world.sender("bob");
        let first = committed(&world.publish(group, &bob, 1, "first").await);
        let laptop = SenderId { device: DeviceId(2), ..bob.clone() };
        let about = wire::Message {
            kind: message::Kind::Reaction.into(),
            refers_to: first,
            ..wire::Message::default()
        };
        let messages = async {
            tokio::time::sleep(ms(seed % 7)).await;
            // The one waits for its sender's numbers, the other for what it is about.
            tokio::join!(
                world.publish(group, &laptop, 1, "late"),
                world.publish_message(group, &bob, 2, about)
            )
        };
        let removal = async {
            let remove = Body::Remove(wire::Remove { users: vec!["bob".into()] });
            world.change("owner", group, remove).await.expect("removes");
        };
        tokio::join!(messages, removal);
        assert_nothing_follows_bobs_removal(&world, group, seed).await;
    }
}

async fn assert_nothing_follows_bobs_removal(world: &World, group: GroupId, seed: u64) {
    let mut is_removed = false;
    for record in world.records(group).await {
        if let Some(record::Body::Members(changes)) = &record.body {
            is_removed |= changes.changes.iter().any(|change| change.kind() == Kind::Removed);
        }
        let author = record.author.as_ref().map_or("", |author| author.user.as_str());
        let is_bobs = matches!(record.body, Some(record::Body::Message(_))) && author == id("bob").as_str();
        assert!(!(is_removed && is_bobs), "seed {seed}: {} is after the removal", record.seq);
    }
    assert!(is_removed, "seed {seed}");
}
