//! Epochs, tails and records.

use std::sync::Arc;

use futures_util::future::join_all;

use super::*;

conformance! {
    a_new_group_has_an_empty_sequence
    what_does_not_exist_is_not_there
    activating_again_raises_the_epoch_and_changes_nothing_else
    a_home_that_was_replaced_is_shut_out
    an_append_at_another_tail_changes_nothing
    appends_that_wait_together_follow_each_other
    what_is_refused_stays_with_its_group
    reading_stops_at_the_limits_but_never_before_the_first
    groups_do_not_see_each_other
    a_redaction_overwrites_in_its_place
    an_append_may_redact_what_it_brings
    edits_are_found_under_what_they_edit
    the_state_is_the_last_one_written
    everything_is_there_after_opening_again
}

async fn a_new_group_has_an_empty_sequence(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    assert_eq!((row.epoch, row.tail, row.incarnation), (Epoch(1), Seq::FIRST, 77));
    assert_eq!(row.state, crate::store::GroupState::new(1_000));
    assert_eq!(store.group(group(1)).await.unwrap(), Some(row));
    assert!(store.read(group(1), Seq::FIRST, all()).await.unwrap().is_empty());
}

async fn what_does_not_exist_is_not_there(place: &impl Place) {
    let store = place.open().await;
    assert_eq!(store.activate(group(1), None).await.unwrap(), None);
    assert_eq!(store.group(group(1)).await.unwrap(), None);
    assert!(store.read(group(1), Seq::FIRST, all()).await.unwrap().is_empty());
    let refused = append_at(&store, group(1), Epoch(1), Seq::FIRST, only_records(records(1, 2))).await;
    assert_eq!(refused, Err(AppendError::Fenced { current: Epoch(0) }));
    assert_eq!(store.group(group(1)).await.unwrap(), None);
}

async fn activating_again_raises_the_epoch_and_changes_nothing_else(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    append(&store, group(1), only_records(records(1, 4))).await;
    let other = Create { incarnation: 99, created_ms: 2_000 };
    let again = store.activate(group(1), Some(other)).await.unwrap().unwrap();
    assert_eq!((again.epoch, again.tail, again.incarnation), (Epoch(2), seq(4), 77));
    assert_eq!(again.state.created_ms, 1_000);
    let third = store.activate(group(1), None).await.unwrap().unwrap();
    assert_eq!(third, GroupRow { epoch: Epoch(3), ..again });
}

async fn a_home_that_was_replaced_is_shut_out(place: &impl Place) {
    let store = place.open().await;
    let old = create(&store, group(1)).await;
    let new = store.activate(group(1), None).await.unwrap().unwrap();
    let late = append_at(&store, group(1), old.epoch, old.tail, only_records(records(1, 2))).await;
    assert_eq!(late, Err(AppendError::Fenced { current: new.epoch }));
    let ahead = append_at(&store, group(1), Epoch(9), old.tail, only_records(records(1, 2))).await;
    assert_eq!(ahead, Err(AppendError::Fenced { current: new.epoch }));
    append_at(&store, group(1), new.epoch, new.tail, only_records(records(1, 2))).await.unwrap();
    assert_eq!(store.group(group(1)).await.unwrap().unwrap().tail, seq(2));
}

async fn an_append_at_another_tail_changes_nothing(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    append(&store, group(1), only_records(records(1, 4))).await;
    for expected in [1, 3, 5] {
        let changes = Changes {
            records: vec![record("elsewhere")],
            members: vec![member("eve", wire::Role::Member)],
            notices_due: Some(true),
            ..Changes::default()
        };
        let refused = append_at(&store, group(1), row.epoch, seq(expected), changes).await;
        assert_eq!(refused, Err(AppendError::TailMoved { tail: seq(4) }));
    }
    assert_eq!(store.read(group(1), Seq::FIRST, all()).await.unwrap(), records(1, 4));
    assert_eq!(store.members(group(1), &[user("eve")]).await.unwrap(), [None]);
    assert!(store.notices_due(None, 9).await.unwrap().is_empty());
}

async fn appends_that_wait_together_follow_each_other(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    let append =
        |from: u64| append_at(&store, group(1), row.epoch, seq(from), only_records(records(from, from + 3)));
    for outcome in join_all((0..50).map(|batch| append(1 + batch * 3))).await {
        assert_eq!(outcome, Ok(()));
    }
    assert_eq!(store.read(group(1), Seq::FIRST, all()).await.unwrap(), records(1, 151));
}

async fn what_is_refused_stays_with_its_group(place: &impl Place) {
    let store = place.open().await;
    join_all((0..20).map(|number| create(&store, group(number)))).await;
    let append = |number: u128| {
        let expected = if number.is_multiple_of(3) { seq(5) } else { Seq::FIRST };
        let epoch = if number % 3 == 1 { Epoch(7) } else { Epoch(1) };
        append_at(&store, group(number), epoch, expected, only_records(records(1, 3)))
    };
    let outcomes = join_all((0..20).map(append)).await;
    for (number, outcome) in (0..20).zip(outcomes) {
        let (expected, tail) = match number % 3 {
            0 => (Err(AppendError::TailMoved { tail: Seq::FIRST }), 1),
            1 => (Err(AppendError::Fenced { current: Epoch(1) }), 1),
            _ => (Ok(()), 3),
        };
        assert_eq!(outcome, expected);
        assert_eq!(store.group(group(number)).await.unwrap().unwrap().tail, seq(tail));
    }
}

async fn reading_stops_at_the_limits_but_never_before_the_first(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let sized = |bytes: usize| record("x".repeat(bytes));
    append(&store, group(1), only_records(vec![sized(100), sized(10), sized(10), sized(0), sized(10)])).await;
    let read = async |from, records_max, bytes_max| {
        store.read(group(1), seq(from), ReadLimit { records_max, bytes_max }).await.unwrap().len()
    };
    assert_is(read(1, 2, 1_000).await, 2);
    assert_is(read(1, 9, 0).await, 1);
    assert_is(read(1, 0, 0).await, 1);
    assert_is(read(1, 9, 10).await, 2);
    assert_is(read(1, 9, 20).await, 4);
    assert_is(read(3, 9, 0).await, 2);
    assert_is(read(5, 9, 1_000).await, 1);
    assert_is(read(6, 9, 1_000).await, 0);
    assert_is(read(600, 9, 1_000).await, 0);
}

async fn groups_do_not_see_each_other(place: &impl Place) {
    let store = place.open().await;
    let ids = [group(0), group(1), group(u128::MAX), GroupId::own(&user("al")), group(256)];
    for (number, id) in (1..).zip(ids) {
        create(&store, id).await;
        append(&store, id, only_records(records(number, number + number))).await;
    }
    for (number, id) in (1..).zip(ids) {
        assert_eq!(store.read(id, Seq::FIRST, all()).await.unwrap(), records(number, number + number));
        assert_eq!(store.group(id).await.unwrap().unwrap().tail, seq(1 + number));
    }
}

async fn a_redaction_overwrites_in_its_place(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    append(&store, group(1), only_records(records(1, 4))).await;
    let redactions = vec![(seq(2), record("recalled"))];
    append(&store, group(1), Changes { records: records(4, 5), redactions, ..Changes::default() }).await;
    let mut expected = records(1, 5);
    expected[1] = record("recalled");
    assert_eq!(store.read(group(1), Seq::FIRST, all()).await.unwrap(), expected);
}

async fn an_append_may_redact_what_it_brings(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    let first =
        Changes { records: records(1, 3), redactions: vec![(seq(2), record("own"))], ..Changes::default() };
    let second = Changes {
        records: records(3, 4),
        redactions: vec![(seq(1), record("before"))],
        ..Changes::default()
    };
    let outcomes = tokio::join!(
        append_at(&store, group(1), row.epoch, seq(1), first),
        append_at(&store, group(1), row.epoch, seq(3), second),
    );
    assert_eq!(outcomes, (Ok(()), Ok(())));
    let expected = vec![record("before"), record("own"), record("record 3")];
    assert_eq!(store.read(group(1), Seq::FIRST, all()).await.unwrap(), expected);
}

async fn edits_are_found_under_what_they_edit(place: &impl Place) {
    let store = place.open().await;
    create(&store, group(1)).await;
    let edits = vec![(seq(1), seq(4)), (seq(1), seq(3)), (seq(2), seq(5))];
    append(&store, group(1), Changes { records: records(1, 6), edits, ..Changes::default() }).await;
    append(
        &store,
        group(1),
        Changes { records: records(6, 7), edits: vec![(seq(1), seq(6))], ..Changes::default() },
    )
    .await;
    assert_eq!(store.edits_of(group(1), seq(1)).await.unwrap(), [seq(3), seq(4), seq(6)]);
    assert_eq!(store.edits_of(group(1), seq(2)).await.unwrap(), [seq(5)]);
    assert!(store.edits_of(group(1), seq(3)).await.unwrap().is_empty());
    assert!(store.edits_of(group(2), seq(1)).await.unwrap().is_empty());
}

async fn the_state_is_the_last_one_written(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    let mut state = row.state.clone();
    state.settings =
        wire::Settings { title: "shoal".into(), open: true, members_max: 7, ..Default::default() };
    (state.closed, state.members, state.senders_watermark) = (true, 3, seq(2));
    state.notices_watermark = None;
    let none = Changes { state: Some(state.clone()), ..Changes::default() };
    append(&store, group(1), Changes { records: records(1, 3), ..none.clone() }).await;
    append(&store, group(1), only_records(records(3, 4))).await;
    let found = store.group(group(1)).await.unwrap().unwrap();
    assert_eq!(found, GroupRow { epoch: Epoch(1), tail: seq(4), incarnation: 77, state: state.clone() });
    state.notices_watermark = Some(seq(3));
    let plan = wire::Plan { number: 4, partitions: vec![3], percent: 30, ..wire::Plan::default() };
    let partitions = vec![1_000, 0, 7];
    state.layout =
        Some(Box::new(wire::Layout { version: 4, partitions, plan: Some(plan), ..wire::Layout::default() }));
    let feature = wire::Feature { name: "a".into(), value: Some("1".into()), ..wire::Feature::default() };
    state.features = Some(Box::new(wire::Features { changed_seq: 3, features: vec![feature] }));
    append(&store, group(1), Changes { state: Some(state.clone()), ..Changes::default() }).await;
    assert_eq!(store.activate(group(1), None).await.unwrap().unwrap().state, state);
}

async fn everything_is_there_after_opening_again(place: &impl Place) {
    let store = place.open().await;
    let row = create(&store, group(1)).await;
    append(&store, group(1), only_records(records(1, 40))).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.group(group(1)).await.unwrap(), Some(GroupRow { tail: seq(40), ..row.clone() }));
    append_at(&store, group(1), row.epoch, seq(40), only_records(records(40, 60))).await.unwrap();
    drop(store);
    let store: Arc<dyn Store> = place.open().await;
    assert_eq!(store.read(group(1), Seq::FIRST, all()).await.unwrap(), records(1, 60));
    assert_eq!(store.activate(group(1), None).await.unwrap().unwrap().epoch, Epoch(2));
}
