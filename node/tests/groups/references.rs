//! Edits, recalls and reactions.

use bytes::Bytes;
use shoal_node::store::MemoryTiming;
use shoal_protocol::{Code, GroupId, wire};
use wire::{message::Kind, record};

use crate::world::{World, committed, refused};

fn about(kind: Kind, refers_to: u64, text: &str) -> wire::Message {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    wire::Message { kind: kind.into(), refers_to, payload, ..wire::Message::default() }
}

#[tokio::test(start_paused = true)]
async fn a_recalled_payload_is_gone_from_the_store_with_its_edits() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &["bob"]).await;
    let ann = world.sender("ann");
    let secret = committed(&world.publish(group, &ann, 1, "secret").await);
    committed(&world.publish_message(group, &ann, 2, about(Kind::Edit, secret, "secret edit")).await);
    committed(&world.publish(group, &ann, 3, "other").await);
    let recall = committed(&world.publish_message(group, &ann, 4, about(Kind::Recall, secret, "")).await);
    assert_eq!(world.texts(group).await, ["", "", "other", ""]);
    let records = world.records(group).await;
    let Some(record::Body::Message(message)) = &records[secret as usize - 1].body else {
        panic!("no message")
    };
    assert_eq!(message.recalled_by, recall);
    let (code, _) = refused(&world.publish_message(group, &ann, 5, about(Kind::Edit, secret, "again")).await);
    assert_eq!(code, Code::UnknownRecord);
}

#[tokio::test(start_paused = true)]
async fn an_edit_on_its_way_when_its_message_is_recalled_does_not_bring_it_back() {
    use shoal_protocol::{DeviceId, SenderId};
    for seed in 0..20 {
        let ms = std::time::Duration::from_millis;
        let timing = MemoryTiming { commit: ms(1)..=ms(9), read: ms(0)..=ms(9) };
        let world = World::with(seed, Default::default(), timing);
        let group = GroupId::named("g");
        world.create("ann", group, &[]).await;
        let phone = world.sender("ann");
        let laptop = SenderId { device: DeviceId(2), ..phone.clone() };
        let secret = committed(&world.publish(group, &phone, 1, "secret").await);
        let edits = async {
            for number in 1..6 {
                let _ =
                    world.publish_message(group, &laptop, number, about(Kind::Edit, secret, "secret")).await;
                tokio::time::sleep(ms(seed % 4)).await;
            }
        };
        let recall = async {
            tokio::time::sleep(ms(seed)).await;
            committed(&world.publish_message(group, &phone, 2, about(Kind::Recall, secret, "")).await);
        };
        tokio::join!(edits, recall);
        let texts = world.texts(group).await;
        assert!(!texts.iter().any(|text| text == "secret"), "seed {seed}: {texts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_wrote_a_message_edits_or_recalls_it_and_anyone_reacts() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &["bob"]).await;
    let seq = committed(&world.publish(group, &world.sender("ann"), 1, "mine").await);
    let bob = world.sender("bob");
    let edit = world.publish_message(group, &bob, 1, about(Kind::Edit, seq, "yours")).await;
    assert_eq!(refused(&edit), (Code::NotAllowed, true));
    let recall = world.publish_message(group, &bob, 2, about(Kind::Recall, seq, "")).await;
    assert_eq!(refused(&recall), (Code::NotAllowed, true));
    committed(&world.publish_message(group, &bob, 3, about(Kind::Reaction, seq, "+1")).await);
    let nothing = world.publish_message(group, &bob, 4, about(Kind::Reaction, 999, "+1")).await;
    assert_eq!(refused(&nothing), (Code::UnknownRecord, true));
    let no_message = world.publish_message(group, &bob, 5, about(Kind::Reaction, 1, "+1")).await;
    assert_eq!(refused(&no_message), (Code::UnknownRecord, true));
}

/// What an earlier life of the device had on its way stays behind, also while its record is read.
#[tokio::test(start_paused = true)]
async fn a_reaction_on_its_way_when_its_device_begins_anew_is_refused() {
    let ms = std::time::Duration::from_millis;
    let timing = MemoryTiming { commit: ms(1)..=ms(1), read: ms(100)..=ms(100) };
    let world = World::with(1, Default::default(), timing);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let earlier = world.sender("ann");
    let seq = committed(&world.publish(group, &earlier, 1, "one").await);
    world.advance_ms(1_000);
    let later = world.sender("ann");
    let begins = world.publish(group, &later, 1, "two");
    let reacts = async {
        // The later one's row has been read before this one's record has.
        tokio::time::sleep(ms(50)).await;
        world.publish_message(group, &earlier, 2, about(Kind::Reaction, seq, "+1")).await
    };
    let (begun, reacted) = tokio::join!(begins, reacts);
    committed(&begun);
    assert_eq!(refused(&reacted), (Code::IncarnationExpired, false));
    assert_eq!(world.texts(group).await, ["one", "two"]);
}
