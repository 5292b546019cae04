//! A sender's numbers: order and exactly once, over refusals, retries, crashes and lost receipts.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_node::{
    config::GroupLimits,
    store::{MemoryFault, MemoryTiming},
};
use shoal_protocol::{Code, DeviceId, GroupId, Incarnation, SenderId, wire};
use wire::{change::Body, receipt::Outcome};

use crate::world::{World, committed, id, refused, text_message};

#[tokio::test(start_paused = true)]
async fn a_retry_gets_the_receipt_although_its_sender_was_muted_meanwhile() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &["ann"]).await;
    let ann = world.sender("ann");
    let seq = committed(&world.publish(group, &ann, 1, "hello").await);
    let mute = wire::Mute { user: "ann".into(), until_ms: u64::MAX };
    world.change("owner", group, Body::Mute(mute)).await.expect("mutes");
    assert_eq!(committed(&world.publish(group, &ann, 1, "hello").await), seq);
    assert_eq!(refused(&world.publish(group, &ann, 2, "more").await), (Code::Muted, true));
}

#[tokio::test(start_paused = true)]
async fn a_recorded_refusal_stays_one_after_the_mute_has_ended_and_over_a_restart() {
    let mut world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &["ann"]).await;
    let ann = world.sender("ann");
    let mute = |until_ms| Body::Mute(wire::Mute { user: "ann".into(), until_ms });
    world.change("owner", group, mute(u64::MAX)).await.expect("mutes");
    assert_eq!(refused(&world.publish(group, &ann, 1, "early").await), (Code::Muted, true));
    world.change("owner", group, mute(0)).await.expect("unmutes");
    world.restart();
    assert_eq!(refused(&world.publish(group, &ann, 1, "early").await), (Code::Muted, true));
    committed(&world.publish(group, &ann, 2, "late").await);
    assert_eq!(world.texts(group).await, ["late"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_behind_a_message_told_too_fast_waits_for_it() {
    let limits = GroupLimits { member_rate_per_second: 1, member_burst: 1, ..GroupLimits::default() };
    let world = World::with(1, limits, MemoryTiming::default());
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let ann = world.sender("ann");
    committed(&world.publish(group, &ann, 1, "one").await);
    let (code, consumed) = refused(&world.publish(group, &ann, 2, "two").await);
    assert_eq!((code, consumed), (Code::TooFast, false));
    tokio::time::advance(Duration::from_secs(5)).await;
    let Outcome::OutOfOrder(back) = world.publish(group, &ann, 3, "three").await else {
        panic!("the third overtook the second");
    };
    assert_eq!(back.expected, 2);
    tokio::time::advance(Duration::from_secs(5)).await;
    committed(&world.publish(group, &ann, 2, "two").await);
    tokio::time::advance(Duration::from_secs(5)).await;
    committed(&world.publish(group, &ann, 3, "three").await);
    assert_eq!(world.texts(group).await, ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn numbers_too_high_repeated_and_forgotten_get_their_answers() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let ann = world.sender("ann");
    let Outcome::OutOfOrder(back) = world.publish(group, &ann, 5, "five").await else { panic!("took five") };
    assert_eq!(back.expected, 1);
    let first = committed(&world.publish(group, &ann, 1, "one").await);
    assert_eq!(committed(&world.publish(group, &ann, 1, "another one").await), first);
    for number in 2..=200 {
        committed(&world.publish(group, &ann, number, "more").await);
    }
    assert_eq!(refused(&world.publish(group, &ann, 1, "one").await), (Code::NumberForgotten, false));
    assert_eq!(world.texts(group).await.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_incarnation_issued_long_ago_or_in_the_future_begins_nothing() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let old = world.sender("ann");
    world.advance_ms(25 * 3600 * 1000);
    assert_eq!(refused(&world.publish(group, &old, 1, "a replay").await), (Code::IncarnationExpired, false));
    assert_eq!(refused(&world.publish(group, &old, 9, "unknown").await), (Code::IncarnationExpired, false));
    let future = SenderId { incarnation: Incarnation(u64::MAX), ..old.clone() };
    assert_eq!(
        refused(&world.publish(group, &future, 1, "made up").await),
        (Code::IncarnationExpired, false)
    );
    committed(&world.publish(group, &world.sender("ann"), 1, "new").await);
}

#[tokio::test(start_paused = true)]
async fn an_incarnation_that_has_begun_goes_on_at_any_age() {
    let mut world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let ann = world.sender("ann");
    committed(&world.publish(group, &ann, 1, "one").await);
    world.advance_ms(90 * 24 * 3600 * 1000);
    world.restart();
    committed(&world.publish(group, &ann, 2, "two").await);
}

/// What an app that died had still on its way would stand behind what it said in its next life.
#[tokio::test(start_paused = true)]
async fn a_devices_later_incarnation_ends_the_earlier_ones() {
    let mut world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let unheard = world.sender("ann");
    world.advance_ms(1_000);
    let earlier = world.sender("ann");
    let first = committed(&world.publish(group, &earlier, 1, "one").await);
    world.advance_ms(1_000);
    let later = world.sender("ann");
    let elsewhere = SenderId { device: DeviceId(2), ..unheard.clone() };
    committed(&world.publish(group, &later, 1, "two").await);
    committed(&world.publish(group, &elsewhere, 1, "three").await);
    for pass in ["in memory", "folded", "from rows"] {
        for (sender, number) in [(&unheard, 1), (&earlier, 2)] {
            let outcome = world.publish(group, sender, number, "late").await;
            assert_eq!(refused(&outcome), (Code::IncarnationExpired, false), "{pass}");
            let Outcome::Refused(why) = outcome else { unreachable!() };
            assert_eq!(why.succeeded_by, later.incarnation.0, "{pass}");
        }
        assert_eq!(committed(&world.publish(group, &earlier, 1, "again").await), first, "{pass}");
        match pass {
            "in memory" => world.restart(),
            // It sleeps, and writes what it knows of senders first.
            _ => tokio::time::sleep(Duration::from_secs(3_600)).await,
        }
    }
    committed(&world.publish(group, &later, 2, "four").await);
    committed(&world.publish(group, &elsewhere, 2, "five").await);
    assert_eq!(world.texts(group).await, ["one", "two", "three", "four", "five"]);
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_nothing_behind_and_use_up_nothing() {
    let world = World::new(1);
    let group = GroupId::named("g");
    let eve = world.sender("eve");
    assert_eq!(refused(&world.publish(group, &eve, 1, "hi").await), (Code::UnknownGroup, false));
    assert!(world.store.group(group).await.expect("reads").is_none());
    world.create("ann", group, &[]).await;
    assert_eq!(refused(&world.publish(group, &eve, 1, "hi").await), (Code::NotMember, false));
    assert_eq!(world.store.sender(group, &eve).await.expect("reads"), None);
}

#[tokio::test(start_paused = true)]
async fn a_users_senders_in_a_group_are_bounded() {
    let limits = GroupLimits { senders_per_user_max: 3, ..GroupLimits::default() };
    let mut world = World::with(1, limits, MemoryTiming::default());
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let mut devices = Vec::new();
    for device in 0..3 {
        let sender = SenderId { device: DeviceId(device), ..world.sender("ann") };
        committed(&world.publish(group, &sender, 1, "hi").await);
        devices.push(sender);
        world.advance_ms(1000);
    }
    world.groups.shut_down().await;
    world.restart();
    let fourth = SenderId { device: DeviceId(9), ..world.sender("ann") };
    assert_eq!(refused(&world.publish(group, &fourth, 1, "hi").await), (Code::TooMany, false));
    world.advance_ms(25 * 3600 * 1000);
    committed(&world.publish(group, &devices[0], 2, "still here").await);
    let fourth = SenderId { device: DeviceId(9), ..world.sender("ann") };
    committed(&world.publish(group, &fourth, 1, "hi").await);
    // Its last message stands above the checkpoint, and its row is gone: the group wakes.
    world.restart();
    let (code, _) = refused(&world.publish(group, &devices[0], 3, "again").await);
    assert_eq!(code, Code::IncarnationExpired);
}

/// Which runs: `SHOAL_SEEDS=0..5000` for more than the test command tries.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SHOAL_SEEDS").ok();
    let range = given.as_deref().and_then(|given| given.split_once(".."));
    range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?)).unwrap_or(0..60)
}

/// Clients that pipeline, lose receipts, retry and go back, over a store that fails and a node
/// that dies: each message stands in the sequence once, in its sender's order, where its receipt
/// said.
#[test]
fn any_interleaving_keeps_each_senders_order_once() {
    for seed in seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(interleave(seed));
    }
}

async fn interleave(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let ms = Duration::from_millis;
    let timing = MemoryTiming { commit: ms(1)..=ms(9), read: ms(0)..=ms(3) };
    let limits = GroupLimits {
        member_rate_per_second: 50,
        member_burst: 8,
        sender_checkpoint_records: 16,
        idle_ms: 40,
        ..GroupLimits::default()
    };
    let mut world = World::with(seed, limits, timing);
    let group = GroupId::named("g");
    world.create("u0", group, &["u1", "u2"]).await;
    let senders: Vec<_> = (0..3).map(|n| world.sender(&format!("u{n}"))).collect();
    let mut done: BTreeMap<usize, u64> = BTreeMap::new();
    let mut receipts: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    let mut rounds = 0;
    while done.values().filter(|last| **last >= 40).count() < senders.len() {
        rounds += 1;
        assert!(rounds < 5_000, "seed {seed}: no progress: {done:?}");
        match random.random_range(0..100) {
            0 => world.restart(),
            1 => world.disk.inject(MemoryFault::OutcomeUnknown),
            2 => world.disk.inject(MemoryFault::Slow(ms(30))),
            3 => world.disk.inject(MemoryFault::Read),
            4 => tokio::time::sleep(ms(100)).await,
            _ => {}
        }
        let at = random.random_range(0..senders.len());
        let last = *done.get(&at).unwrap_or(&0);
        let count = random.random_range(1..6);
        // Pipelined, now and then with an old one first, or with one left out.
        let from = (last + 1).saturating_sub(random.random_range(0..3)).max(1);
        let skip = random.random_range(0..8) == 0;
        let numbers = (from..last + count).filter(|number| !(skip && *number == last + 1));
        let sent: Vec<_> = numbers
            .map(|number| {
                (number, world.send(group, &senders[at], number, text_message(&format!("{at}:{number}"))))
            })
            .collect();
        if random.random_range(0..6) == 0 {
            // The receipts get lost.
            tokio::time::sleep(ms(random.random_range(0..20))).await;
            continue;
        }
        for (number, mut receipt) in sent {
            let Ok(Some(receipt)) = tokio::time::timeout(ms(200), receipt.recv()).await else { continue };
            match receipt.outcome.expect("an outcome") {
                Outcome::Committed(committed) => {
                    let before = receipts.insert((at, number), committed.seq);
                    assert!(before.is_none_or(|seq| seq == committed.seq), "seed {seed}: two places");
                    let last = done.entry(at).or_default();
                    *last = (*last).max(number);
                }
                Outcome::OutOfOrder(back) => assert!(back.expected <= number, "seed {seed}"),
                Outcome::Refused(refused) => assert!(!refused.consumed, "seed {seed}: {refused:?}"),
            }
        }
    }
    world.restart();
    let records = world.records(group).await;
    for (index, sender) in senders.iter().enumerate() {
        let mine = records.iter().filter(|record| {
            record.author.as_ref().is_some_and(|author| id(&author.user) == sender.user && author.number != 0)
        });
        for (expected, record) in (1_u64..).zip(mine) {
            let number = record.author.as_ref().map_or(0, |author| author.number);
            assert_eq!(number, expected, "seed {seed}: order of sender {index}");
            if let Some(seq) = receipts.get(&(index, number)) {
                assert_eq!(*seq, record.seq, "seed {seed}: the receipt of {index}:{number}");
            }
        }
    }
    for ((index, number), seq) in &receipts {
        let record = records.get(usize::try_from(*seq).expect("small") - 1);
        let author = record.and_then(|record| record.author.as_ref());
        assert!(
            author.is_some_and(|author| author.number == *number && id(&author.user) == senders[*index].user),
            "seed {seed}: {index}:{number} was acknowledged at {seq} and is not there"
        );
    }
}
