//! Features are records of the sequence: who may set them, for which members, and what owners make of those
//! that are settings.

use std::time::Duration;

use shoal_node::{
    config::GroupLimits,
    store::{MemoryFault, MemoryTiming},
};
use shoal_protocol::{Code, Features, GroupId, Slot, share, wire};
use wire::{change::Body, receipt::Outcome, record, set_feature::Slots};

use crate::world::{World, committed, id, refused};

const RATE: &str = "shoal.messages_per_second";

fn set(name: &str, value: Option<&str>, slots: Option<Slots>) -> Body {
    Body::Feature(wire::SetFeature { name: name.into(), value: value.map(str::to_owned), slots })
}

/// A user who is among the first tenth, and one who is not.
fn first_and_other() -> (String, String) {
    let users = || (0..).map(|at| format!("user-{at}"));
    let is_first = |user: &String| share::is_among_first(Slot::of(&id(user)), 10);
    let other = |user: &String| !is_first(user);
    (users().find(is_first).expect("one of ten is"), users().find(other).expect("nine of ten are"))
}

async fn features(world: &World, group: GroupId) -> Features {
    let row = world.store.group(group).await.expect("reads").expect("there is one");
    let folded = world.records(group).await.into_iter().fold(Features::default(), |mut all, record| {
        if let Some(record::Body::Feature(feature)) = &record.body {
            assert!(!record.silent, "members hear of it at once");
            all.fold(shoal_protocol::Seq::new(record.seq).expect("no record is at 0"), feature);
        }
        all
    });
    let stored = row.state.features.map(|features| Features::from_wire(&features)).unwrap_or_default();
    assert_eq!(stored, folded, "the row says what the records add up to");
    stored
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_for_a_share_of_the_members_and_for_no_others() {
    let mut world = World::new(1);
    let group = GroupId::named("g");
    let (first, other) = first_and_other();
    world.create("ann", group, &[&first, &other]).await;
    let (first, other) = (world.sender(&first), world.sender(&other));
    committed(&world.publish(group, &first, 1, "as everybody").await);
    world.change("ann", group, set(RATE, Some("1"), Some(Slots::Percent(10)))).await.unwrap();
    committed(&world.publish(group, &first, 2, "one").await);
    assert_eq!(refused(&world.publish(group, &first, 3, "two").await), (Code::TooFast, false));
    for number in 1..20 {
        committed(&world.publish(group, &other, number, "as fast as ever").await);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    committed(&world.publish(group, &first, 3, "two").await);
    world.restart();
    committed(&world.publish(group, &first, 4, "three").await);
    assert_eq!(refused(&world.publish(group, &first, 5, "four").await), (Code::TooFast, false));
    world.change("ann", group, set(RATE, None, None)).await.unwrap();
    for number in 5..20 {
        committed(&world.publish(group, &first, number, "as everybody").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_bounded_for_a_share_and_never_above_the_node_s_own_limit() {
    let limits = GroupLimits { payload_bytes_max: 8, ..GroupLimits::default() };
    let world = World::with(1, limits, MemoryTiming::default());
    let group = GroupId::named("g");
    let (first, other) = first_and_other();
    world.create("ann", group, &[&first, &other]).await;
    let (first, other) = (world.sender(&first), world.sender(&other));
    let bounded = |bytes| set("shoal.payload_max_bytes", Some(bytes), Some(Slots::Percent(10)));
    world.change("ann", group, bounded("4")).await.unwrap();
    committed(&world.publish(group, &other, 1, "12345678").await);
    assert_eq!(refused(&world.publish(group, &first, 1, "12345").await), (Code::PayloadTooLarge, true));
    world.change("ann", group, bounded("100")).await.unwrap();
    committed(&world.publish(group, &first, 2, "12345678").await);
    assert_eq!(refused(&world.publish(group, &first, 3, "123456789").await), (Code::PayloadTooLarge, true));
}

#[tokio::test(start_paused = true)]
async fn who_is_in_no_share_keeps_what_all_had_until_all_have_the_new() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let (first, other) = first_and_other();
    let (first, other) = (Slot::of(&id(&first)), Slot::of(&id(&other)));
    let have = async || {
        let features = features(&world, group).await;
        [first, other].map(|slot| features.value("composer", slot).map(str::to_owned))
    };
    let steps = [
        (Some("new"), Some(Slots::Percent(10)), [Some("new"), None]),
        (Some("old"), None, [Some("old"), Some("old")]),
        (Some("new"), Some(Slots::Percent(10)), [Some("new"), Some("old")]),
        (Some("newer"), Some(Slots::Percent(10)), [Some("newer"), Some("old")]),
        (Some("new"), Some(Slots::SubGroup(0)), [Some("new"), Some("new")]),
        (Some("new"), Some(Slots::Percent(100)), [Some("new"), Some("new")]),
        (None, None, [None, None]),
    ];
    for (value, slots, wanted) in steps {
        let changed = world.change("ann", group, set("composer", value, slots)).await.unwrap();
        assert_eq!(have().await, wanted.map(|value| value.map(str::to_owned)), "{value:?} for {slots:?}");
        let tail = world.records(group).await.len();
        let again = world.change("ann", group, set("composer", value, slots)).await.unwrap();
        assert_eq!((again.seq, world.records(group).await.len()), (changed.seq, tail), "it is so already");
    }
}

#[tokio::test(start_paused = true)]
async fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    let limits = GroupLimits { features_max: 2, ..GroupLimits::default() };
    let world = World::with(1, limits, MemoryTiming::default());
    let group = GroupId::named("g");
    world.create("ann", group, &["bob"]).await;
    let long = "x".repeat(257);
    let refusals = [
        ("bob", set("a", Some("1"), None), Code::NotAllowed),
        ("eve", set("a", Some("1"), None), Code::NotMember),
        ("ann", set("A", Some("1"), None), Code::BadRequest),
        ("ann", set("a", Some(&long), None), Code::BadRequest),
        ("ann", set("a", Some("1"), Some(Slots::Percent(0))), Code::BadRequest),
        ("ann", set("a", Some("1"), Some(Slots::Percent(101))), Code::BadRequest),
        ("ann", set("a", Some("1"), Some(Slots::SubGroup(1))), Code::BadRequest),
        ("ann", set("shoal.colour", Some("1"), None), Code::BadRequest),
        ("ann", set(RATE, Some("fast"), None), Code::BadRequest),
    ];
    for (user, body, code) in refusals {
        let refused = world.change(user, group, body.clone()).await.map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(code), "{body:?}");
    }
    assert_eq!(features(&world, group).await, Features::default());
    for name in ["a", "b"] {
        world.change("ann", group, set(name, Some("1"), None)).await.unwrap();
    }
    let third = world.change("ann", group, set("c", Some("1"), None)).await;
    assert_eq!(third.map_err(|refusal| refusal.code), Err(Code::BadRequest), "as many as there may be");
    world.change("ann", group, set("b", Some("2"), None)).await.unwrap();
    assert_eq!(features(&world, group).await.iter().len(), 2);
}

/// Whether the crash took the record with it or not, the row, the records and the owner agree.
#[tokio::test(start_paused = true)]
async fn a_crash_between_leaves_all_of_a_feature_or_nothing() {
    let group = GroupId::named("g");
    let mut left = [0, 0];
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.create("ann", group, &["bob"]).await;
        world.disk.inject(MemoryFault::OutcomeUnknown);
        assert!(world.change("ann", group, set(RATE, Some("1"), None)).await.is_err());
        if seed % 2 == 0 {
            world.restart();
        }
        let bob = world.sender("bob");
        committed(&world.publish(group, &bob, 1, "one").await);
        let is_slow = matches!(world.publish(group, &bob, 2, "two").await, Outcome::Refused(_));
        assert_eq!(features(&world, group).await.get(RATE).is_some(), is_slow, "seed {seed}");
        left[usize::from(is_slow)] += 1;
        world.change("ann", group, set(RATE, None, None)).await.unwrap();
        committed(&world.publish(group, &bob, 2, "two").await);
    }
    assert!(left.iter().all(|count| *count > 0), "{left:?}");
}
