//! Membership: in the sequence, in the table, and in the members' own sequences.

use std::{collections::BTreeSet, sync::Arc};

use shoal_node::{
    delivery::{Runs, Signal, TailTurn},
    group::{Follow, From},
};
use shoal_protocol::{Code, GroupId, SLOTS, Seq, wire};
use wire::{change::Body, record};

use crate::world::{World, committed, id, refused, text_message};

fn add(users: &[&str]) -> Body {
    Body::Add(wire::Add { users: users.iter().map(ToString::to_string).collect() })
}

fn remove(users: &[&str]) -> Body {
    Body::Remove(wire::Remove { users: users.iter().map(ToString::to_string).collect() })
}

/// The notices in a user's own sequence, as (group seq, is a member).
async fn notices(world: &World, user: &str) -> Vec<(u64, bool)> {
    let notice = |record: wire::Record| match record.body {
        Some(record::Body::Notice(notice)) => {
            Some((notice.group_seq, matches!(notice.what, Some(wire::notice::What::Joined(_)))))
        }
        _ => None,
    };
    world.records(GroupId::own(&id(user))).await.into_iter().filter_map(notice).collect()
}

async fn settle() {
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn thousands_are_added_by_one_record_and_each_is_told() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &[]).await;
    let users: Vec<_> = (0..3000).map(|n| format!("u{n}")).collect();
    let names: Vec<_> = users.iter().map(String::as_str).collect();
    let changed = world.change("owner", group, add(&names)).await.expect("adds");
    assert_eq!((changed.seq, changed.changed), (3, 3000));
    let records = world.records(group).await;
    assert_eq!(records.len(), 4);
    let Some(record::Body::Layout(layout)) = &records[3].body else { panic!("{:?}", records[3]) };
    let planned = layout.plan.as_ref().map(|plan| plan.partitions.len());
    assert_eq!((layout.version, layout.partitions.len(), planned), (1, 1, Some(5)), "for 3,001 members");
    settle().await;
    for user in &users {
        assert_eq!(notices(&world, user).await, [(3, true)], "{user}");
    }
    let again = world.change("owner", group, add(&names)).await.expect("is idempotent");
    assert_eq!((again.seq, again.changed), (3, 0), "the record that made them members");
    let members = |record: &wire::Record| matches!(record.body, Some(record::Body::Members(_)));
    assert_eq!(world.records(group).await.iter().filter(|record| members(record)).count(), 2);
}

/// Whoever lost the first answer counts on the second.
#[tokio::test(start_paused = true)]
async fn a_change_that_holds_already_is_answered_with_the_record_that_brought_it_about() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &[]).await;
    let first = world.change("owner", group, add(&["ann", "bob"])).await.expect("adds");
    let later = world.change("owner", group, add(&["bob", "cid"])).await.expect("adds one more");
    assert_eq!((first.changed, later.changed), (2, 1));
    committed(&world.publish(group, &world.sender("ann"), 1, "and time goes by").await);
    let repeated = [(&["ann", "bob"][..], first.seq), (&["bob", "cid"], later.seq)];
    for (users, seq) in repeated {
        let again = world.change("owner", group, add(users)).await.expect("is idempotent");
        assert_eq!((again.seq, again.changed), (seq, 0), "{users:?}");
    }
    let gone = world.change("owner", group, remove(&["ann", "cid"])).await.expect("removes");
    committed(&world.publish(group, &world.sender("bob"), 1, "and more of it").await);
    let again = world.change("owner", group, remove(&["ann", "cid"])).await.expect("is idempotent");
    assert_eq!((again.seq, again.changed), (0, 0), "nothing is kept of who is no member");
    let back = world.change("owner", group, add(&["cid"])).await.expect("adds again");
    assert!(later.seq < gone.seq && gone.seq < back.seq, "{later:?} {gone:?} {back:?}");
    let again = world.change("owner", group, add(&["bob", "cid"])).await.expect("is idempotent");
    assert_eq!((again.seq, again.changed), (back.seq, 0), "the newest of them");
    let ban = Body::Ban(wire::Ban { user: "ann".into(), banned: true });
    world.change("owner", group, ban).await.expect("bans who is no member");
    let again = world.change("owner", group, add(&["ann", "bob"])).await.expect("is idempotent");
    assert_eq!((again.seq, again.changed), (first.seq, 0), "who is banned is not among them");
    let again = world.change("owner", group, remove(&["ann", "cod"])).await.expect("is idempotent");
    assert_eq!((again.seq, again.changed), (0, 0), "nor does a ban say who was removed");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_a_change_and_its_notices_loses_none_and_doubles_none() {
    for seed in 0..20 {
        let ms = std::time::Duration::from_millis;
        let timing = shoal_node::store::MemoryTiming { commit: ms(1)..=ms(5), read: ms(0)..=ms(1) };
        let mut world = World::with(seed, Default::default(), timing);
        let group = GroupId::named("g");
        world.create("owner", group, &["ann"]).await;
        let users: Vec<_> = (0..40).map(|n| format!("u{n}")).collect();
        let names: Vec<_> = users.iter().map(String::as_str).collect();
        world.change("owner", group, add(&names)).await.expect("adds");
        tokio::time::sleep(ms(seed)).await;
        world.restart();
        world.groups.finish_notices().await.expect("lists what is due");
        settle().await;
        for user in users.iter().map(String::as_str).chain(["ann"]) {
            let told = notices(&world, user).await;
            assert_eq!(told.len(), 1, "seed {seed}: {user} was told {told:?}");
        }
        assert_eq!(world.store.notices_due(None, 10).await.expect("lists"), [], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_while_it_tells_members_goes_and_tells_the_rest_at_its_next_start() {
    let ms = std::time::Duration::from_millis;
    let timing = shoal_node::store::MemoryTiming { commit: ms(1)..=ms(5), read: ms(0)..=ms(1) };
    let mut world = World::with(1, Default::default(), timing);
    let group = GroupId::named("g");
    world.create("owner", group, &[]).await;
    let users: Vec<_> = (0..500).map(|n| format!("u{n}")).collect();
    let names: Vec<_> = users.iter().map(String::as_str).collect();
    world.change("owner", group, add(&names)).await.expect("adds");
    tokio::time::timeout(ms(60_000), world.groups.shut_down()).await.expect("the node goes");
    world.restart();
    world.groups.finish_notices().await.expect("lists what is due");
    settle().await;
    for user in &users {
        assert_eq!(notices(&world, user).await, [(3, true)], "{user}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_removed_member_follows_the_removal_and_nothing_more_reaches_them() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &["ann", "bob"]).await;
    let signal = Arc::new(Signal::new(id("bob")));
    let follow = Follow { group, signal, cursor: 0, from: From::Join };
    let followed = world.groups.follow(follow).await.expect("follows");
    let (ann, bob) = (world.sender("ann"), world.sender("bob"));
    committed(&world.publish(group, &bob, 1, "here").await);
    // The removal and the messages are on their way together.
    let removal = world.change("owner", group, remove(&["bob"]));
    let late = async { world.publish(group, &bob, 2, "late").await };
    let other = async { world.publish(group, &ann, 1, "go on").await };
    let (removal, late, other) = tokio::join!(removal, late, other);
    let removed_at = removal.expect("removes").seq;
    let late = match late {
        wire::receipt::Outcome::Committed(late) => late.seq,
        other => {
            assert_eq!(refused(&other), (Code::NotMember, false));
            0
        }
    };
    assert!(late < removed_at, "{late} stands after the removal at {removed_at}");
    committed(&other);
    committed(&world.publish(group, &ann, 2, "and on").await);
    assert_eq!(refused(&world.publish(group, &bob, 3, "hello?").await).0, Code::NotMember);
    let mut watermark = followed.from;
    loop {
        match followed.tail.read(followed.attachment, watermark, usize::MAX, &mut Runs::new()) {
            TailTurn::Records { next, .. } => watermark = next,
            end => {
                assert_eq!(end, TailTurn::Ended);
                break;
            }
        }
    }
    assert_eq!(watermark.get(), removed_at + 1, "the last they are given is their own removal");
}

#[tokio::test(start_paused = true)]
async fn a_member_who_joins_again_starts_at_the_new_join() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &["bob"]).await;
    world.change("bob", group, Body::Leave(wire::Leave {})).await.expect("leaves");
    committed(&world.publish(group, &world.sender("owner"), 1, "not for bob").await);
    let joined = world.change("bob", group, Body::Join(wire::Join {})).await.expect("joins");
    let signal = Arc::new(Signal::new(id("bob")));
    let from = From::Watermark(Seq::FIRST);
    let followed = world.groups.follow(Follow { group, signal, cursor: 0, from }).await.expect("follows");
    assert_eq!(followed.from.get(), joined.seq);
}

#[tokio::test(start_paused = true)]
async fn a_watermark_above_the_tail_is_an_alarm_and_not_caught_up() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &[]).await;
    let signal = Arc::new(Signal::new(id("ann")));
    let from = From::Watermark(Seq::FIRST.advance(99));
    let refusal = world.groups.follow(Follow { group, signal, cursor: 0, from }).await.expect_err("refuses");
    assert_eq!(refusal.code, Code::WatermarkAhead);
}

#[tokio::test(start_paused = true)]
async fn roles_decide_who_may_do_what() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("owner", group, &["admin", "ann"]).await;
    let role =
        |user: &str, role: wire::Role| Body::Role(wire::SetRole { user: user.into(), role: role.into() });
    let code = |result: Result<wire::Changed, shoal_protocol::Refusal>| {
        result.map_or_else(|r| r.code, |_| Code::None)
    };
    assert_eq!(code(world.change("ann", group, add(&["eve"])).await), Code::NotAllowed);
    assert_eq!(code(world.change("eve", group, add(&["eve"])).await), Code::NotMember);
    assert_eq!(code(world.change("owner", group, role("admin", wire::Role::Admin)).await), Code::None);
    assert_eq!(code(world.change("admin", group, remove(&["owner"])).await), Code::NotAllowed);
    assert_eq!(code(world.change("admin", group, remove(&["ann"])).await), Code::None);
    let ban = |banned| Body::Ban(wire::Ban { user: "ann".into(), banned });
    assert_eq!(code(world.change("admin", group, ban(true)).await), Code::None);
    assert_eq!(code(world.change("ann", group, Body::Join(wire::Join {})).await), Code::Banned);
    assert_eq!(code(world.change("admin", group, ban(false)).await), Code::None);
    assert_eq!(code(world.change("ann", group, Body::Join(wire::Join {})).await), Code::None);
    assert_eq!(code(world.change("admin", group, Body::Close(wire::Closed {})).await), Code::NotAllowed);
    assert_eq!(code(world.change("owner", group, role("ann", wire::Role::Owner)).await), Code::None);
    assert_eq!(code(world.change("owner", group, Body::Close(wire::Closed {})).await), Code::NotAllowed);
    assert_eq!(code(world.change("ann", group, Body::Close(wire::Closed {})).await), Code::None);
    assert_eq!(refused(&world.publish(group, &world.sender("ann"), 1, "?").await), (Code::GroupClosed, true));
    assert_eq!(code(world.change("ann", group, add(&["eve"])).await), Code::GroupClosed);
}

/// The table that the members are read from, and the fold of the sequence, say the same.
#[tokio::test(start_paused = true)]
async fn the_table_and_the_sequence_agree_after_any_changes() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    for seed in 0..30 {
        let mut world = World::new(seed);
        let mut random = StdRng::seed_from_u64(seed);
        let group = GroupId::named("g");
        world.create("owner", group, &["u0", "u1"]).await;
        for _ in 0..60 {
            let user = format!("u{}", random.random_range(0..6));
            let body = match random.random_range(0..7) {
                0 => add(&[&user, "u5"]),
                1 => remove(&[&user]),
                2 => Body::Ban(wire::Ban { user: user.clone(), banned: random.random() }),
                3 => Body::Mute(wire::Mute { user: user.clone(), until_ms: random.random_range(0..3) }),
                4 => Body::Role(wire::SetRole { user: user.clone(), role: random.random_range(1..3) }),
                5 => Body::Join(wire::Join {}),
                _ => Body::Leave(wire::Leave {}),
            };
            let actor = if matches!(body, Body::Join(_) | Body::Leave(_)) { user.as_str() } else { "owner" };
            // Refused or not: what counts is that both say the same.
            let _ = world.change(actor, group, body).await;
            if random.random_range(0..20) == 0 {
                world.restart();
            }
        }
        let table = world.store.members_page(group, 0..SLOTS, None, 100).await.expect("reads");
        let in_table: BTreeSet<_> =
            table.iter().filter(|row| row.role != wire::Role::None).map(|row| row.user.to_string()).collect();
        let mut folded = BTreeSet::new();
        for record in world.records(group).await {
            let Some(record::Body::Members(changes)) = record.body else { continue };
            for change in changes.changes {
                use wire::member_change::Kind;
                match change.kind() {
                    Kind::Joined | Kind::Added => {
                        assert!(folded.insert(change.user), "seed {seed}: twice in")
                    }
                    Kind::Left | Kind::Removed => {
                        assert!(folded.remove(&change.user), "seed {seed}: out before in")
                    }
                    Kind::Banned => drop(folded.remove(&change.user)),
                    _ => {}
                }
            }
        }
        assert_eq!(in_table, folded, "seed {seed}");
        let row = world.store.group(group).await.expect("reads").expect("a row");
        assert_eq!(row.state.members, folded.len() as u64, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_sleeps_wakes_where_it_was() {
    let world = World::new(1);
    let group = GroupId::named("g");
    world.create("ann", group, &["bob"]).await;
    committed(&world.publish(group, &world.sender("ann"), 1, "one").await);
    settle().await;
    tokio::time::sleep(world.limits.idle() * 3).await;
    assert_eq!(world.groups.awake(), 0, "all groups sleep");
    let row = world.store.group(group).await.expect("reads").expect("a row");
    assert_eq!(row.state.senders_watermark, row.tail, "what only memory had was written back");
    assert_eq!(committed(&world.publish(group, &world.sender("ann"), 1, "one").await), 3);
    drop(world.send(group, &world.sender("ann"), 2, text_message("nobody waits for this")));
}
