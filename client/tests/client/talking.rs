//! Members of a group, on a real node.

use std::time::Duration;

use shoal_client::{
    Client, Code, Delivered, FollowError, GroupId, PublishError, RequestError, Seq, SignalKind, Start, wire,
};
use tokio::time::sleep;

use crate::world::{PATIENCE, World, ada_and_bob, message, open_group, texts, users};

#[tokio::test(start_paused = true)]
async fn what_one_member_says_reaches_the_other_in_order() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..300 {
        receipts.push(ada.send(group, format!("{number}")).await.unwrap());
    }
    let mut last = None;
    for receipt in receipts {
        let seq = receipt.await.unwrap();
        assert!(last < Some(seq));
        last = Some(seq);
    }
    let expected: Vec<_> = (0..300).map(|number| format!("{number}")).collect();
    assert_eq!(texts(&mut heard, 300).await, expected);
    assert_eq!(heard.watermark(), last.unwrap().next());
    assert_eq!(ada.stats().acknowledged, 300);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_read_costs_no_memory_and_misses_nothing() {
    let world = World::new().await;
    let group = GroupId::named("test");
    let ada = world.client("ada").await;
    ada.create(group, open_group(), &users(&["bob"])).await.unwrap();
    let quiet = GroupId::named("quiet");
    ada.create(quiet, open_group(), &users(&["bob"])).await.unwrap();
    let config = world.config("bob", 1).follow_buffer_bytes(16 << 10);
    let bob = Client::connect(config).await.unwrap();
    let mut slow = bob.follow(group, Start::Join).await.unwrap();
    let mut quick = bob.follow(quiet, Start::Join).await.unwrap();

    let payload = "x".repeat(4000);
    for _ in 0..400 {
        ada.publish(group, payload.clone()).await.unwrap();
    }
    ada.publish(quiet, "hello").await.unwrap();
    assert_eq!(texts(&mut quick, 1).await, ["hello"], "the one that is not read holds up no other");
    sleep(Duration::from_secs(30)).await;
    let stats = bob.stats();
    assert_eq!(stats.parked, 1);
    assert!(stats.records < 40, "{} records were taken in", stats.records);

    let first = message(&mut slow).await.0;
    let mut last = first;
    for _ in 1..400 {
        let (seq, text) = message(&mut slow).await;
        assert_eq!((seq, text.len()), (last + 1, 4000));
        last = seq;
    }
    assert_eq!(bob.stats().gaps_refilled, 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_hears_of_it_and_then_nothing_more() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut own = bob.own().await.unwrap();
    ada.publish(group, "last").await.unwrap();
    ada.remove(group, &users(&["bob"])).await.unwrap();
    ada.publish(group, "secret").await.unwrap();

    assert_eq!(message(&mut heard).await.1, "last");
    let Some(Ok(Delivered::Record(record))) = heard.next().await else { panic!("the removal is told") };
    let Some(wire::record::Body::Members(changes)) = record.body else { panic!("{record:?}") };
    assert_eq!(changes.changes[0].kind(), wire::member_change::Kind::Removed);
    let Some(Err(FollowError::Refused(why))) = heard.next().await else { panic!("it ends") };
    assert_eq!(why.code, Code::NotMember);
    assert!(heard.next().await.is_none());

    let Some(Ok(Delivered::Record(notice))) = own.next().await else { panic!("a notice comes") };
    assert!(matches!(notice.body, Some(wire::record::Body::Notice(_))), "{notice:?}");
    let refused = bob.publish(group, "may I?").await.unwrap_err();
    assert!(matches!(&refused, PublishError::Refused(why) if why.code == Code::NotMember), "{refused:?}");
    ada.add(group, &users(&["bob"])).await.unwrap();
    bob.publish(group, "I am back").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_left_and_came_back_is_told_what_was_not_theirs() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    ada.publish(group, "one").await.unwrap();
    message(&mut heard).await;
    let watermark = heard.watermark();
    drop(heard);
    bob.leave(group).await.unwrap();
    ada.publish(group, "two").await.unwrap();
    bob.join(group).await.unwrap();
    ada.publish(group, "three").await.unwrap();
    let mut heard = bob.follow(group, Start::Watermark(watermark)).await.unwrap();
    let first = heard.next().await.unwrap().unwrap();
    assert!(matches!(first, Delivered::Skipped { from, .. } if from == watermark), "{first:?}");
    assert_eq!(message(&mut heard).await.1, "three");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_changed_listed_and_read_by_requests() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let first = ada.publish(group, "first").await.unwrap();
    ada.edit(group, first, "first, better").await.unwrap();
    bob.react(group, first, "+1").await.unwrap();
    ada.recall(group, first).await.unwrap();
    ada.set_role(group, &"bob".parse().unwrap(), wire::Role::Admin).await.unwrap();

    let history = bob.history(group, None, 3, true).await.unwrap();
    assert_eq!(history.records.len(), 3);
    assert_eq!(history.records.last().unwrap().seq + 1, history.tail);
    let members = bob.members(group, None, 10).await.unwrap();
    assert_eq!(members.members.len(), 2);
    let info = bob.group(group).await.unwrap();
    assert_eq!((info.members, info.me.unwrap().role()), (2, wire::Role::Admin));
    bob.set_read(group, Seq::new(info.tail).unwrap()).await.unwrap();
    let groups = bob.groups(None, 10).await.unwrap();
    assert_eq!(groups.groups.iter().map(|group| group.unread).collect::<Vec<_>>(), [0]);
    let refused = bob.close_group(group).await.unwrap_err();
    assert!(matches!(&refused, RequestError::Refused(why) if why.code == Code::NotAllowed), "{refused:?}");
    let stranger = world.client("eve").await;
    let refused = stranger.history(group, None, 3, true).await.unwrap_err();
    assert!(matches!(&refused, RequestError::Refused(why) if why.code == Code::NotMember), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_lost_reaches_those_who_follow() {
    let world = World::new().await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let _ada_follows = ada.follow(group, Start::Tail).await.unwrap();
    let _bob_follows = bob.follow(group, Start::Tail).await.unwrap();
    let mut signals = bob.signals();
    assert!(ada.signal(group, SignalKind::Typing(true)));
    let signal = tokio::time::timeout(PATIENCE, signals.next()).await.unwrap().unwrap();
    assert_eq!((signal.user.as_str(), signal.what), ("ada", SignalKind::Typing(true)));
    assert_eq!(bob.presence(group, &users(&["ada", "eve"])).await.unwrap().users, ["ada"]);
    bob.close().await;
    assert!(signals.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_payload_above_the_limit_is_not_queued() {
    let world = World::new().await;
    let (group, ada, _bob) = ada_and_bob(&world).await;
    let too_large = ada.publish(group, vec![0; 64 * 1024 + 1]).await.unwrap_err();
    assert_eq!(too_large, PublishError::TooLarge { bytes: 64 * 1024 + 1, bytes_max: 64 * 1024 });
    ada.publish(group, vec![0; 64 * 1024]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_too_fast_is_slowed_and_stays_in_order() {
    let world = World::with(|limits| {
        limits.group.member_rate_per_second = 20;
        limits.group.member_burst = 10;
    })
    .await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let mut heard = bob.follow(group, Start::Join).await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..100 {
        receipts.push(ada.send(group, format!("{number}")).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let expected: Vec<_> = (0..100).map(|number| format!("{number}")).collect();
    assert_eq!(texts(&mut heard, 100).await, expected);
}

#[tokio::test(start_paused = true)]
async fn more_groups_than_streams_take_turns() {
    let world = World::new().await;
    let ada = world.client("ada").await;
    let bob = Client::connect(world.config("bob", 1).streams_max(2)).await.unwrap();
    let mut heard = Vec::new();
    for number in 0..20 {
        let group = GroupId::named(&format!("group {number}"));
        ada.create(group, open_group(), &users(&["bob"])).await.unwrap();
        heard.push(bob.follow(group, Start::Tail).await.unwrap());
    }
    for round in 0..3 {
        for follow in &heard {
            drop(ada.send(follow.group(), format!("{round}")).await.unwrap());
        }
        for follow in &mut heard {
            assert_eq!(message(follow).await.1, format!("{round}"));
        }
    }
    assert_eq!((bob.stats().gaps_refilled, bob.stats().reconnects), (0, 0));
}
