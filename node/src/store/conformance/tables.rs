//! Senders, members, cursors, notices and settings.

use futures_util::future::join_all;
use shoal_protocol::{Code, DeviceId, Incarnation, Outcome, SLOTS, SenderId, SenderNumbers, Slot};

use super::*;
use crate::store::{CursorRaise, Cursors, Setting};

conformance! {
    senders_are_kept_until_they_expire
    senders_come_in_the_order_asked_for
    senders_of_one_user_are_not_anothers
    member_rows_come_in_the_order_asked_for
    a_row_that_says_nothing_is_deleted
    members_are_listed_by_slot_and_user_each_once
    a_users_groups_are_those_they_are_a_member_of
    cursors_keep_the_greater_of_each
    cursors_raised_together_keep_the_greater
    groups_with_notices_due_are_listed
    a_setting_is_swapped_only_at_its_version
    of_many_who_swap_one_wins
    settings_are_listed_by_prefix
    rows_are_there_after_opening_again
}

fn sender(name: &str, device: u64, incarnation: u64) -> SenderId {
    SenderId { user: user(name), device: DeviceId(device), incarnation: Incarnation(incarnation) }
}

fn numbers(count: u64) -> SenderNumbers {
    let mut numbers = SenderNumbers::new();
    for number in 1..=count {
        let refused = number.is_multiple_of(3);
        let committed = Outcome::Committed { seq: seq(number * 10) };
        numbers.record(number, if refused { Outcome::Refused(Code::Muted) } else { committed });
    }
    numbers
}

async fn senders_are_kept_until_they_expire(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let (one, two) = (sender("al", 1, 5), sender("al", u64::MAX, u64::MAX));
    let senders = vec![(one.clone(), numbers(3)), (two.clone(), numbers(300))];
    append(&store, group(1), Changes { senders, ..Changes::default() }).await;
    assert_eq!(store.sender(group(1), &one).await.unwrap(), Some(numbers(3)));
    assert_eq!(store.sender(group(1), &two).await.unwrap(), Some(numbers(300)));
    let senders = vec![(one.clone(), numbers(4))];
    append(&store, group(1), Changes { senders, senders_expired: vec![two.clone()], ..Changes::default() })
        .await;
    assert_eq!(store.sender(group(1), &one).await.unwrap(), Some(numbers(4)));
    assert_eq!(store.sender(group(1), &two).await.unwrap(), None);
    assert_eq!(store.senders_of(group(1), &user("al")).await.unwrap(), [one]);
}

async fn senders_come_in_the_order_asked_for(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    create(&store, group(2)).await;
    let all: Vec<_> = (1..=40).map(|device| (sender("al", device, 5), numbers(device))).collect();
    append(&store, group(1), Changes { senders: all.clone(), ..Changes::default() }).await;
    let asked = [sender("al", 40, 5), sender("al", 7, 6), sender("bo", 7, 5), sender("al", 7, 5)];
    let expected = [Some(numbers(40)), None, None, Some(numbers(7))];
    assert_eq!(store.senders(group(1), &asked).await.unwrap(), expected);
    let ids: Vec<_> = all.iter().map(|(id, _)| id.clone()).collect();
    let found = store.senders(group(1), &ids).await.unwrap();
    assert!(all.iter().map(|(_, numbers)| Some(numbers)).eq(found.iter().map(Option::as_ref)));
    assert_eq!(store.senders(group(2), &asked).await.unwrap(), [None, None, None, None]);
    assert_eq!(store.senders(group(1), &[]).await.unwrap(), []);
}

async fn senders_of_one_user_are_not_anothers(place: &impl Place) {
    let store = place.open().await;
    let mine = [sender("al", 1, 5), sender("al", 1, 6), sender("al", 2, 1)];
    let others = [sender("a", 1, 5), sender("al.", 1, 5), sender("alice", 1, 5)];
    for id in [group(1), group(2)] {
        create(&store, id).await;
        let senders = mine.iter().chain(&others).map(|sender| (sender.clone(), numbers(1))).collect();
        append(&store, id, Changes { senders, ..Changes::default() }).await;
    }
    assert_eq!(store.senders_of(group(1), &user("al")).await.unwrap(), mine);
    assert_eq!(store.senders_of(group(1), &user("alic")).await.unwrap(), []);
    assert_eq!(store.sender(group(3), &mine[0]).await.unwrap(), None);
}

async fn member_rows_come_in_the_order_asked_for(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let (al, bo) = (member("al", wire::Role::Owner), member("bo", wire::Role::Member));
    append(&store, group(1), Changes { members: vec![al.clone(), bo.clone()], ..Changes::default() }).await;
    let asked = ["bo", "cy", "al", "bo"].map(user);
    let found = store.members(group(1), &asked).await.unwrap();
    assert_eq!(found, [Some(bo.clone()), None, Some(al), Some(bo)]);
    assert_eq!(store.members(group(2), &asked).await.unwrap(), [None, None, None, None]);
}

async fn a_row_that_says_nothing_is_deleted(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let put = async |row: MemberRow| {
        append(&store, group(1), Changes { members: vec![row], ..Changes::default() }).await
    };
    put(member("al", wire::Role::Admin)).await;
    let banned = MemberRow { banned: true, ..member("al", wire::Role::None) };
    put(banned.clone()).await;
    assert_eq!(store.members(group(1), &[user("al")]).await.unwrap(), [Some(banned.clone())]);
    assert_eq!(store.members_page(group(1), 0..SLOTS, None, 9).await.unwrap(), [banned]);
    assert_eq!(store.groups_of(&user("al"), None, 9).await.unwrap(), []);
    put(member("al", wire::Role::None)).await;
    assert_eq!(store.members(group(1), &[user("al")]).await.unwrap(), [None]);
    assert_eq!(store.members_page(group(1), 0..SLOTS, None, 9).await.unwrap(), []);
}

async fn members_are_listed_by_slot_and_user_each_once(place: &impl Place) {
    let store = place.open().await;
    for id in [group(1), group(2)] {
        create(&store, id).await;
        let members = (0..100).map(|number| member(&format!("user{number}"), wire::Role::Member)).collect();
        append(&store, id, Changes { members, ..Changes::default() }).await;
    }
    let mut expected: Vec<_> = (0..100).map(|number| user(&format!("user{number}"))).collect();
    expected.sort_by_key(|user| (Slot::of(user), user.clone()));
    let mut listed = Vec::new();
    while let Ok(page) = store.members_page(group(1), 0..SLOTS, listed.last().map(position), 7).await {
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|row| row.user));
    }
    assert_eq!(listed, expected);
    let slots = 4_000..9_000;
    expected.retain(|user| slots.contains(&Slot::of(user).number()));
    for after in [None, listed.first().map(position)] {
        let page = store.members_page(group(1), slots.clone(), after, 100).await.unwrap();
        assert_eq!(page.into_iter().map(|row| row.user).collect::<Vec<_>>(), expected);
    }
    let rest = store.members_page(group(1), slots, Some(position(&expected[0])), 2).await.unwrap();
    assert_eq!(rest.into_iter().map(|row| row.user).collect::<Vec<_>>(), expected[1..3]);
}

fn position(user: &UserId) -> (Slot, UserId) {
    (Slot::of(user), user.clone())
}

async fn a_users_groups_are_those_they_are_a_member_of(place: &impl Place) {
    let store = place.open().await;
    for number in (1..=9).rev() {
        create(&store, group(number)).await;
        let role = if number == 5 { wire::Role::None } else { wire::Role::Member };
        let members = vec![member("al", role), member("alice", wire::Role::Member)];
        append(&store, group(number), Changes { members, ..Changes::default() }).await;
    }
    let first = store.groups_of(&user("al"), None, 5).await.unwrap();
    assert_eq!(first, [1, 2, 3, 4, 6].map(group));
    assert_eq!(store.groups_of(&user("al"), first.last().copied(), 5).await.unwrap(), [7, 8, 9].map(group));
    assert_eq!(store.groups_of(&user("al"), Some(group(9)), 5).await.unwrap(), []);
    assert_eq!(store.groups_of(&user("bo"), None, 5).await.unwrap(), []);
    append(&store, group(7), Changes { members: vec![member("al", wire::Role::None)], ..Changes::default() })
        .await;
    assert_eq!(store.groups_of(&user("al"), Some(group(6)), 5).await.unwrap(), [8, 9].map(group));
}

fn raise(name: &str, to: GroupId, read: Option<u64>, delivered: Option<u64>) -> CursorRaise {
    CursorRaise { user: user(name), group: to, cursors: cursors(read, delivered) }
}

fn cursors(read: Option<u64>, delivered: Option<u64>) -> Cursors {
    Cursors { read: read.map(seq), delivered: delivered.map(seq) }
}

async fn cursors_keep_the_greater_of_each(place: &impl Place) {
    let store = place.open().await;
    let none = Cursors::default();
    assert_eq!(store.cursors(&user("al"), &[group(1), group(2)]).await.unwrap(), [none, none]);
    store.raise_cursors(vec![raise("al", group(1), Some(5), None)]).await.unwrap();
    store
        .raise_cursors(vec![raise("al", group(1), Some(3), Some(9)), raise("al", group(2), None, Some(1))])
        .await
        .unwrap();
    store
        .raise_cursors(vec![raise("al", group(1), None, Some(8)), raise("alice", group(1), Some(50), None)])
        .await
        .unwrap();
    store.raise_cursors(Vec::new()).await.unwrap();
    let found = store.cursors(&user("al"), &[group(2), group(1), group(3)]).await.unwrap();
    assert_eq!(found, [cursors(None, Some(1)), cursors(Some(5), Some(9)), none]);
}

async fn cursors_raised_together_keep_the_greater(place: &impl Place) {
    let store = place.open().await;
    let raises = (1..40).map(|number| {
        let to = number * 7 % 40;
        store.raise_cursors(vec![
            raise("al", group(1), Some(to), None),
            raise("al", group(1), None, Some(41 - to)),
        ])
    });
    join_all(raises).await.into_iter().for_each(|raised| raised.unwrap());
    assert_eq!(store.cursors(&user("al"), &[group(1)]).await.unwrap(), [cursors(Some(39), Some(40))]);
}

async fn groups_with_notices_due_are_listed(place: &impl Place) {
    let store = place.open().await;
    for number in 1..=5 {
        create(&store, group(number)).await;
        let notices_due = (number != 3).then_some(true);
        append(&store, group(number), Changes { notices_due, ..Changes::default() }).await;
    }
    append(&store, group(2), Changes { notices_due: Some(false), ..Changes::default() }).await;
    append(&store, group(3), Changes { notices_due: Some(false), ..Changes::default() }).await;
    assert_eq!(store.notices_due(None, 2).await.unwrap(), [1, 4].map(group));
    assert_eq!(store.notices_due(Some(group(4)), 2).await.unwrap(), [5].map(group));
}

fn setting(version: u64, value: &str) -> Setting {
    Setting { version, value: record(value) }
}

async fn a_setting_is_swapped_only_at_its_version(place: &impl Place) {
    let store = place.open().await;
    let swap = async |expected, value: Option<&str>| {
        store.compare_and_swap("a/b", expected, value.map(record)).await.unwrap()
    };
    assert_is(swap(1, Some("early")).await, Err(None));
    assert_is(swap(0, None).await, Ok(0));
    assert_is(swap(0, Some("one")).await, Ok(1));
    assert_is(swap(0, Some("other")).await, Err(Some(setting(1, "one"))));
    assert_is(swap(1, Some("two")).await, Ok(2));
    assert_is(swap(1, None).await, Err(Some(setting(2, "two"))));
    assert_eq!(store.setting("a/b").await.unwrap(), Some(setting(2, "two")));
    assert_eq!(store.setting("a/").await.unwrap(), None);
    assert_is(swap(2, None).await, Ok(0));
    assert_eq!(store.setting("a/b").await.unwrap(), None);
    assert_is(swap(0, Some("again")).await, Ok(1));
}

async fn of_many_who_swap_one_wins(place: &impl Place) {
    let store = place.open().await;
    let swap = |number: u64| store.compare_and_swap("leader", 0, Some(record(format!("{number}"))));
    let outcomes = join_all((0..20).map(swap)).await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(1)))).count();
    let lost =
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(Some(held))) if held.version == 1)).count();
    assert_eq!((won, lost), (1, 19));
}

async fn settings_are_listed_by_prefix(place: &impl Place) {
    let store = place.open().await;
    for key in ["a", "a/1", "a/2", "a0", "b/1", "ä"] {
        store.compare_and_swap(key, 0, Some(record(key))).await.unwrap().unwrap();
    }
    let keys = async |prefix| store.settings(prefix).await.unwrap().into_keys().collect::<Vec<_>>();
    assert_eq!(keys("a/").await, ["a/1", "a/2"]);
    assert_eq!(keys("a").await, ["a", "a/1", "a/2", "a0"]);
    assert_eq!(keys("").await.len(), 6);
    assert!(keys("c").await.is_empty());
}

async fn rows_are_there_after_opening_again(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let members = vec![member("al", wire::Role::Member)];
    let senders = vec![(sender("al", 1, 1), numbers(200))];
    append(
        &store,
        group(1),
        Changes { members: members.clone(), senders, notices_due: Some(true), ..Changes::default() },
    )
    .await;
    store.raise_cursors(vec![raise("al", group(1), Some(5), None)]).await.unwrap();
    store.compare_and_swap("key", 0, Some(record("value"))).await.unwrap().unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.members_page(group(1), 0..SLOTS, None, 9).await.unwrap(), members);
    assert_eq!(store.groups_of(&user("al"), None, 9).await.unwrap(), [group(1)]);
    assert_eq!(store.sender(group(1), &sender("al", 1, 1)).await.unwrap(), Some(numbers(200)));
    assert_eq!(store.notices_due(None, 9).await.unwrap(), [group(1)]);
    assert_eq!(store.cursors(&user("al"), &[group(1)]).await.unwrap(), [cursors(Some(5), None)]);
    assert_eq!(store.setting("key").await.unwrap(), Some(setting(1, "value")));
}
