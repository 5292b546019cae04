//! Several nodes in one store.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use shoal_node::store::{AppendError, CursorRaise, Cursors, Epoch, MemberRow, Store};
use shoal_protocol::{GroupId, Seq, UserId, wire};

use crate::world::{
    Load, activate, append, client, database, eventually, group, open, read_all, records, seq,
};

#[tokio::test]
async fn of_two_nodes_that_fight_over_a_group_one_writes() {
    let url = database().await;
    let (one, two) = (open(&[&url]).await.unwrap(), open(&[&url]).await.unwrap());
    let old = activate(&one, group(1)).await;
    append(&one, group(1), old.epoch, seq(1), records(["a".into()])).await.unwrap();
    let new = activate(&two, group(1)).await;
    assert_eq!((new.epoch, new.tail), (Epoch(old.epoch.0 + 1), seq(2)));
    let late = append(&one, group(1), old.epoch, seq(2), records(["late".into()])).await;
    assert_eq!(late, Err(AppendError::Fenced { current: new.epoch }));
    append(&two, group(1), new.epoch, seq(2), records(["b".into()])).await.unwrap();
    assert_eq!(read_all(&one, group(1)).await, ["a", "b"], "what one acknowledged, the other reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_take_groups_from_each_other_all_the_time_leave_no_hole_and_no_double() {
    let url = database().await;
    let nodes = join_all((0..3).map(async |_| open(&[&url]).await.unwrap())).await;
    let fights = nodes.iter().enumerate().flat_map(|(number, node)| {
        (0..10).map(move |of| {
            let node = Arc::clone(node);
            tokio::spawn(async move { fight(&node, number, group(of)).await })
        })
    });
    let mut acknowledged: Vec<(GroupId, Seq, String)> = Vec::new();
    for fought in join_all(fights).await {
        acknowledged.extend(fought.unwrap());
    }
    for of in (0..10).map(group) {
        let found = read_all(&nodes[0], of).await;
        let written = acknowledged.iter().filter(|(group, ..)| *group == of);
        let mut count = 0;
        for (_, seq, text) in written {
            let at = usize::try_from(seq.since(Seq::FIRST)).unwrap();
            assert_eq!(found[at], text.as_bytes(), "{of} at {seq}");
            count += 1;
        }
        assert_eq!(found.len(), count, "nothing else is there");
    }
}

async fn fight(node: &Arc<dyn Store>, number: usize, of: GroupId) -> Vec<(GroupId, Seq, String)> {
    let mut written = Vec::new();
    for round in 0..20 {
        let row = activate(node, of).await;
        let text = format!("node {number} round {round}");
        match append(node, of, row.epoch, row.tail, records([text.clone()])).await {
            Ok(()) => written.push((of, row.tail, text)),
            Err(AppendError::Fenced { current }) => assert!(current > row.epoch),
            Err(other) => panic!("{other}"),
        }
    }
    written
}

#[tokio::test]
async fn of_many_groups_in_a_batch_one_is_fenced_and_the_others_are_written() {
    let url = database().await;
    let store = open(&[&url]).await.unwrap();
    let rows = join_all((0..200).map(|number| activate(&store, group(number)))).await;
    activate(&store, group(77)).await;
    let appends = rows.iter().zip(0..).map(|(row, number)| {
        append(&store, group(number), row.epoch, row.tail, records([format!("{number}")]))
    });
    for (outcome, number) in join_all(appends).await.into_iter().zip(0..) {
        let expected = if number == 77 { Err(AppendError::Fenced { current: Epoch(2) }) } else { Ok(()) };
        assert_eq!(outcome, expected, "group {number}");
        assert_eq!(read_all(&store, group(number)).await.len(), usize::from(number != 77));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_homes_append_at_once_without_a_failure() {
    let store = open(&[&database().await]).await.unwrap();
    let load = Load::start(&store, 100);
    load.acknowledges(2_000).await;
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
    load.check(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_want_the_same_groups_in_opposite_orders_do_not_lock_each_other_out() {
    let url = database().await;
    let nodes = join_all((0..2).map(async |_| open(&[&url]).await.unwrap())).await;
    let all = async |node: &Arc<dyn Store>, groups: Vec<u64>| {
        for _ in 0..20 {
            let rows = join_all(groups.iter().map(|number| activate(node, group(*number)))).await;
            let appends = groups.iter().zip(&rows).map(|(number, row)| {
                append(node, group(*number), row.epoch, row.tail, records(["x".into()]))
            });
            for outcome in join_all(appends).await {
                assert!(matches!(outcome, Ok(()) | Err(AppendError::Fenced { .. })), "{outcome:?}");
            }
        }
    };
    tokio::join!(all(&nodes[0], (0..100).collect()), all(&nodes[1], (0..100).rev().collect()));
    // A server reports what it has counted when a connection is idle or ends.
    drop(nodes);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(client(&url).await.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// A node that is paused while its transaction is open, as a stopped process or a dead machine.
#[tokio::test]
async fn a_group_whose_row_somebody_holds_holds_up_no_other_for_good() {
    let url = database().await;
    let store = open(&[&url]).await.unwrap();
    let rows = join_all((0..20).map(|number| activate(&store, group(number)))).await;
    let other = client(&url).await;
    other.batch_execute("BEGIN").await.unwrap();
    let id = group(7).as_bytes().to_vec();
    other.query("SELECT 1 FROM shoal.groups WHERE group_id = $1 FOR UPDATE", &[&id]).await.unwrap();
    let appends = rows.iter().zip(0..).map(|(row, number)| {
        append(&store, group(number), row.epoch, row.tail, records([format!("{number}")]))
    });
    for (outcome, number) in join_all(appends).await.into_iter().zip(0..) {
        assert_eq!(outcome.is_err(), number == 7, "group {number}: {outcome:?}");
    }
    drop(other);
    let row = eventually(async || store.activate(group(7), None).await.ok()?).await;
    append(&store, group(7), row.epoch, row.tail, records(["now".into()])).await.unwrap();
}

#[tokio::test]
async fn several_databases_are_one_store() {
    let urls = [database().await, database().await, database().await];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = open(&urls).await.unwrap();
    let al = UserId::new("al").unwrap();
    for number in 0..30 {
        let row = activate(&store, group(number)).await;
        let (joined, changed) = (seq(1), seq(1));
        let member = MemberRow {
            user: al.clone(),
            role: wire::Role::Member,
            muted_until_ms: u64::MAX,
            banned: false,
            joined,
            changed,
        };
        let mut changes = records([format!("{number}")]);
        (changes.members, changes.notices_due) = (vec![member], Some(true));
        append(&store, group(number), row.epoch, row.tail, changes).await.unwrap();
        let cursors = Cursors { read: Some(seq(number + 1)), delivered: None };
        let raise = CursorRaise { user: al.clone(), group: group(number), cursors };
        store.raise_cursors(vec![raise]).await.unwrap();
    }
    let mut expected: Vec<GroupId> = (0..30).map(group).collect();
    assert_eq!(
        store.cursors(&al, &expected).await.unwrap().iter().map(|cursors| cursors.read).collect::<Vec<_>>(),
        (1..=30).map(|number| Some(seq(number))).collect::<Vec<_>>()
    );
    expected.sort();
    let mut listed = Vec::new();
    loop {
        let page = store.groups_of(&al, listed.last().copied(), 7).await.unwrap();
        assert_eq!(page, store.notices_due(listed.last().copied(), 7).await.unwrap());
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, expected);
    let counts = join_all(urls.iter().map(async |url| {
        let count = "SELECT count(*) FROM shoal.groups";
        client(url).await.query_one(count, &[]).await.unwrap().get::<_, i64>(0)
    }));
    let counts = counts.await;
    assert!(counts.iter().all(|count| *count > 3) && counts.iter().sum::<i64>() == 30, "{counts:?}");
}
