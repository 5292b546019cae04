//! What a group refuses: its code, whether the number is used up, and that the group goes on.

use std::{collections::BTreeMap, time::Duration};

use shoal_node::clock::Clock;
use shoal_protocol::{Code, GroupId, Incarnation, wire};
use wire::{receipt::Outcome, request::Body as Ask, response::Body as Answer, to_client::Body as Told};

use super::{
    bystander::{Bystander, shared},
    client::{Client, Publisher},
    world::World,
};

/// The code of a message's refusal, and whether its number is used up.
async fn refused(publisher: &mut Publisher, group: GroupId, number: u64, bytes: &[u8]) -> (Code, bool) {
    publisher.send(group, number, bytes).await;
    match publisher.outcome().await {
        Outcome::Refused(refused) => (Code::from_wire(refused.why.unwrap().code), refused.consumed),
        outcome => panic!("{outcome:?}"),
    }
}

/// The code with which a follow and each question about a group are refused.
async fn is_hidden(client: &mut Client, group: GroupId, code: Code) {
    let from = Some(wire::follow::From::Tail(true));
    let follow = wire::Follow { group: group.to_wire(), from };
    client.say(wire::to_node::Body::Follow(follow)).await;
    let Told::FollowEnded(ended) = client.told().await else { panic!("it is refused") };
    assert_eq!(Code::from_wire(ended.why.unwrap().code), code);
    let group = group.to_wire();
    let questions = [
        Ask::Group(wire::GetGroup { group: group.clone() }),
        Ask::History(wire::GetHistory { group: group.clone(), from: 1, limit: 1, backwards: false }),
        Ask::Members(wire::GetMembers { group: group.clone(), ..Default::default() }),
        Ask::Presence(wire::GetPresence { group: group.clone(), users: Vec::new() }),
        Ask::Change(wire::Change {
            group,
            body: Some(wire::change::Body::Add(wire::Add { users: vec!["ada".to_owned()] })),
        }),
    ];
    for question in questions {
        let Answer::Failure(failure) = client.ask(question.clone()).await else { panic!("{question:?}") };
        assert_eq!(Code::from_wire(failure.code), code, "{question:?}");
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_is_unknown() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let nowhere = GroupId::named("nowhere");
    let mut ada = Client::connect(&world, "ada", 1).await;
    let mut publisher = ada.publisher().await;
    assert_eq!(refused(&mut publisher, nowhere, 1, b"hello?").await, (Code::UnknownGroup, false));
    is_hidden(&mut ada, nowhere, Code::UnknownGroup).await;
    assert!(bystander.is_well().await.is_empty());
}

#[tokio::test]
async fn a_stranger_neither_writes_nor_reads() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &[]).await;
    let mut eve = Client::connect(&world, "eve", 1).await;
    let mut publisher = eve.publisher().await;
    assert_eq!(refused(&mut publisher, shared(), 1, b"let me in").await, (Code::NotMember, false));
    is_hidden(&mut eve, shared(), Code::NotMember).await;
    assert!(bystander.is_well().await.is_empty());
    assert!(eve.is_left_alone().await);
}

#[tokio::test]
async fn who_is_muted_reads_and_does_not_write() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let mut ada = Client::connect(&world, "ada", 1).await;
    ada.follow(shared()).await;
    let mut publisher = ada.publisher().await;
    publisher.send(shared(), 1, b"before").await;
    let before = publisher.committed().await;
    let mute = |until_ms| wire::change::Body::Mute(wire::Mute { user: "ada".to_owned(), until_ms });
    bystander.client.change(shared(), mute(u64::MAX)).await;
    assert_eq!(refused(&mut publisher, shared(), 2, b"meanwhile").await, (Code::Muted, true));
    publisher.send(shared(), 1, b"before").await;
    assert_eq!(publisher.committed().await, before, "what was taken before stays taken");
    assert_eq!(bystander.is_well().await, [b"before"]);
    bystander.client.change(shared(), mute(0)).await;
    publisher.send(shared(), 3, b"after").await;
    let after = publisher.committed().await;
    ada.delivery().await.read_until(after + 1).await;
    assert_eq!(bystander.is_well().await, [b"after"]);
}

#[tokio::test]
async fn a_member_who_is_too_fast_is_told_for_how_long_and_slows_down_nobody_else() {
    const BURST: u64 = 3;
    // At one a second, no machine is so slow that it takes them all.
    const MANY: u64 = 60;
    let world = World::with(|limits| {
        limits.group.member_rate_per_second = 1;
        limits.group.member_burst = u32::try_from(BURST).unwrap();
    })
    .await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let ada = Client::connect(&world, "ada", 1).await;
    let mut publisher = ada.publisher().await;
    for number in 1..=MANY {
        publisher.send(shared(), number, b"hurry").await;
    }
    // What is refused is answered at once, what is taken when it is durable.
    let mut outcomes = BTreeMap::new();
    for _ in 1..=MANY {
        let receipt = publisher.receipts.next::<wire::Receipt>().await;
        outcomes.insert(receipt.number, receipt.outcome.unwrap());
    }
    let mut outcomes = outcomes.into_values().peekable();
    let mut taken = 0;
    while outcomes.next_if(|outcome| matches!(outcome, Outcome::Committed(_))).is_some() {
        taken += 1;
    }
    assert!(taken >= BURST, "{taken} at once");
    let Some(Outcome::Refused(mut refused)) = outcomes.next() else { panic!("so many at once") };
    for outcome in outcomes {
        let Outcome::OutOfOrder(back) = outcome else { panic!("{outcome:?} overtakes it") };
        assert_eq!(back.expected, taken + 1);
    }
    assert_eq!(bystander.is_well().await.len() as u64, taken);
    loop {
        let why = refused.why.unwrap();
        assert_eq!((Code::from_wire(why.code), refused.consumed), (Code::TooFast, false));
        assert!((1..=1_000).contains(&why.retry_after_ms), "{} ms", why.retry_after_ms);
        tokio::time::sleep(Duration::from_millis(why.retry_after_ms.into())).await;
        publisher.send(shared(), taken + 1, b"patience").await;
        match publisher.outcome().await {
            Outcome::Committed(_) => break,
            Outcome::Refused(again) => refused = again,
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(bystander.is_well().await, [b"patience"]);
}

#[tokio::test]
async fn a_payload_above_the_limit_is_refused_and_the_stream_goes_on() {
    let world = World::with(|limits| limits.group.payload_bytes_max = 1_000).await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let ada = Client::connect(&world, "ada", 1).await;
    let mut publisher = ada.publisher().await;
    assert_eq!(refused(&mut publisher, shared(), 1, &[0; 1_001]).await, (Code::PayloadTooLarge, true));
    publisher.send(shared(), 2, &[0; 1_000]).await;
    publisher.committed().await;
    assert_eq!(bystander.is_well().await, [[0; 1_000]]);
}

#[tokio::test]
async fn numbers_too_high_repeated_and_forgotten_get_their_answers() {
    const MANY: u64 = 300;
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let ada = Client::connect(&world, "ada", 1).await;
    let mut publisher = ada.publisher().await;
    publisher.send(shared(), 7, b"seventh").await;
    let Outcome::OutOfOrder(back) = publisher.outcome().await else { panic!("the first is still to come") };
    assert_eq!(back.expected, 1);
    publisher.send(shared(), 1, b"first").await;
    let first = publisher.committed().await;
    publisher.send(shared(), 1, b"first again").await;
    assert_eq!(publisher.committed().await, first, "its outcome, and no second place");
    assert_eq!(bystander.is_well().await, [b"first"]);
    publisher.send_many(shared(), 2, MANY, b"more").await;
    assert_eq!(refused(&mut publisher, shared(), 1, b"first").await, (Code::NumberForgotten, false));
    assert_eq!(bystander.is_well().await.len() as u64, MANY);
}

#[tokio::test]
async fn an_incarnation_from_long_ago_or_never_issued_begins_nothing() {
    let world = World::new().await;
    let mut bystander = Bystander::enter(&world, &["ada"]).await;
    let ada = Client::connect(&world, "ada", 1).await;
    let mut publisher = ada.publisher().await;
    let issued = publisher.incarnation;
    let two_days_ms = 2 * 24 * 3_600_000;
    for ms in [world.clock.now_ms() - two_days_ms, world.clock.now_ms() + two_days_ms] {
        publisher.incarnation = Incarnation::issue(ms, 7).0;
        for number in [1, 9] {
            let answer = refused(&mut publisher, shared(), number, b"again").await;
            assert_eq!(answer, (Code::IncarnationExpired, false));
        }
    }
    assert!(bystander.is_well().await.is_empty());
    publisher.incarnation = issued;
    publisher.send(shared(), 1, b"now").await;
    publisher.committed().await;
    assert_eq!(bystander.is_well().await, [b"now"]);
}
