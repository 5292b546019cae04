//! A group of so many that its members are not told of each who comes and goes.

use std::time::Duration;

use shoal_client::{Client, Code, Delivered, Follow, FollowError, GroupId, Start};
use tokio::time::{Instant, timeout};

use crate::world::{PATIENCE, World, ada_and_bob, message, users};

/// A group of two that is one of many, which bob follows from his join on, and ada.
async fn many() -> (World, GroupId, Client, Follow) {
    let world = World::with(|limits| limits.group.announced_members_max = 1).await;
    let (group, ada, bob) = ada_and_bob(&world).await;
    let heard = bob.follow(group, Start::Join).await.unwrap();
    (world, group, ada, heard)
}

async fn next(follow: &mut Follow) -> Delivered {
    timeout(PATIENCE, follow.next()).await.expect("something comes").unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_came_and_went_is_told_at_once_before_the_next_message() {
    let (_world, group, ada, mut heard) = many().await;
    let from = heard.watermark();
    ada.add(group, &users(&["cid", "dan"])).await.unwrap();
    ada.remove(group, &users(&["cid"])).await.unwrap();
    let seq = ada.publish(group, "welcome").await.unwrap();
    assert_eq!(next(&mut heard).await, Delivered::GroupChanged { from, to: seq });
    assert_eq!(message(&mut heard).await, (seq.get(), "welcome".to_owned()));
    let history = ada.history(group, Some(from), 10, false).await.unwrap();
    assert_eq!(history.records.len(), 4, "bob, the two who came, the one who went, and the message");
}

#[tokio::test(start_paused = true)]
async fn that_somebody_came_is_told_after_a_while_though_nobody_says_anything() {
    let (_world, group, ada, mut heard) = many().await;
    next(&mut heard).await;
    let (from, asked) = (heard.watermark(), Instant::now());
    let added = ada.add(group, &users(&["cid"])).await.unwrap();
    let told = next(&mut heard).await;
    assert_eq!(told, Delivered::GroupChanged { from, to: from.next() });
    assert_eq!(added.seq, from.get());
    assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&asked.elapsed()), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_hears_of_it_at_once() {
    let (_world, group, ada, mut heard) = many().await;
    next(&mut heard).await;
    let asked = Instant::now();
    ada.add(group, &users(&["cid"])).await.unwrap();
    ada.remove(group, &users(&["bob"])).await.unwrap();
    let Delivered::GroupChanged { to, .. } = next(&mut heard).await else { panic!("a change") };
    assert_eq!(to, heard.watermark());
    let Some(Err(FollowError::Refused(why))) = heard.next().await else { panic!("it ends") };
    assert_eq!(why.code, Code::NotMember);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_mute_is_told_to_all() {
    let (_world, group, ada, mut heard) = many().await;
    next(&mut heard).await;
    ada.mute(group, &"bob".parse().unwrap(), 9_999_999_999_999).await.unwrap();
    assert!(matches!(next(&mut heard).await, Delivered::Record(_)));
}
