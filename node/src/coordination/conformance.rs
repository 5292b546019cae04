//! What every [`Coordination`] owes, whatever engine is below it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::*;

/// Runs the whole suite; each part gets a fresh one.
pub(super) async fn all<C: Coordination, F: Future<Output = C>>(fresh: impl Fn() -> F) {
    nodes_come_and_go(&fresh().await).await;
    a_node_that_comes_back_replaces_itself(&fresh().await).await;
    one_node_leads_and_the_next_one_when_it_goes(&fresh().await).await;
    a_leader_that_is_replaced_leads_no_more(&fresh().await).await;
    a_leader_that_is_deposed_leads_no_more_and_another_may(&fresh().await).await;
    placement_changes_only_from_the_version_named(&fresh().await).await;
    of_two_placements_from_one_version_one_is_written(&fresh().await).await;
    of_two_swaps_from_one_version_one_wins(&fresh().await).await;
    a_setting_taken_away_is_gone(&fresh().await).await;
    a_watch_shows_what_is_there_and_what_becomes_of_it(&fresh().await).await;
    a_watcher_that_was_slow_sees_the_latest(&fresh().await).await;
    a_wish_to_drain_stands_until_it_is_taken_back(&fresh().await).await;
    what_is_too_large_is_refused(&fresh().await).await;
}

pub(crate) fn node(name: &str) -> NodeRecord {
    NodeRecord {
        name: NodeName(name.into()),
        addresses: vec!["127.0.0.1:4433".into()],
        peer_addresses: vec!["127.0.0.1:4434".into()],
        roles: Roles::ALL,
        region: "here".into(),
        capacity: 1,
        started_ms: 0,
        load: Load::default(),
    }
}

/// A placement over these nodes.
pub(super) fn over(names: &[&str]) -> Placement {
    let capacities: BTreeMap<_, _> = names.iter().map(|name| (NodeName((*name).into()), 1)).collect();
    Placement::default().after(&Placement::default().balance(&capacities))
}

/// What a node does that acts by every placement at once. Never ends.
pub(super) async fn act(coordination: &impl Coordination, registration: &dyn Registration) {
    let mut placement = coordination.placement();
    loop {
        let placement_version = placement.borrow_and_update().version;
        registration.report(Load { placement: placement_version, ..Load::default() });
        if placement.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Waits until what is watched is as it should be.
pub(super) async fn until<S>(watched: &mut watch::Receiver<S>, wanted: impl Fn(&S) -> bool) {
    let seen = timeout(Duration::from_secs(20), watched.wait_for(|state| wanted(state))).await;
    drop(seen.expect("the change is seen").expect("coordination lives"));
}

async fn nodes_come_and_go(coordination: &impl Coordination) {
    let mut nodes = coordination.nodes();
    let a = coordination.register(node("a")).await.unwrap();
    let b = coordination.register(node("b")).await.unwrap();
    until(&mut nodes, |nodes| nodes.len() == 2).await;
    let load = Load { sessions: 3, groups: 2, committed: 1, ..Load::default() };
    a.report(load.clone());
    until(&mut nodes, |nodes| nodes[&NodeName("a".into())].load == load).await;
    drop(b);
    until(&mut nodes, |nodes| nodes.keys().map(|name| name.0.as_str()).eq(["a"])).await;
}

async fn a_node_that_comes_back_replaces_itself(coordination: &impl Coordination) {
    let mut nodes = coordination.nodes();
    let before = coordination.register(node("a")).await.unwrap();
    let again = NodeRecord { region: "there".into(), ..node("a") };
    let after = coordination.register(again).await.unwrap();
    timeout(Duration::from_secs(10), before.lost()).await.expect("the first lease is lost");
    before.report(Load { sessions: 9, ..Load::default() });
    drop(before);
    let load = Load { sessions: 1, ..Load::default() };
    after.report(load.clone());
    until(&mut nodes, |nodes| {
        nodes.get(&NodeName("a".into())).is_some_and(|node| node.region == "there" && node.load == load)
    })
    .await;
    assert!(timeout(Duration::from_millis(20), after.lost()).await.is_err(), "the second lease is held");
}

async fn placement_changes_only_from_the_version_named(coordination: &impl Coordination) {
    let mut placement = coordination.placement();
    assert_eq!(placement.borrow().version, 0);
    let leader = coordination.register(node("a")).await.unwrap();
    let leadership = leader.lead().await;
    let (one, two) = (over(&["a"]), over(&["a", "b"]));
    assert_eq!(coordination.place(&leadership, 0, one.clone()).await.unwrap(), Ok(1));
    let refused = coordination.place(&leadership, 0, two.clone()).await.unwrap();
    assert_eq!(refused, Err(Refused::Moved(Arc::new(Placed { version: 1, placement: one }))));
    assert_eq!(coordination.place(&leadership, 1, two.clone()).await.unwrap(), Ok(2));
    until(&mut placement, |placed| **placed == Placed { version: 2, placement: two.clone() }).await;
}

async fn of_two_placements_from_one_version_one_is_written(coordination: &impl Coordination) {
    let leader = coordination.register(node("a")).await.unwrap();
    let leadership = leader.lead().await;
    let (first, second) = tokio::join!(
        coordination.place(&leadership, 0, over(&["a"])),
        coordination.place(&leadership, 0, over(&["b"])),
    );
    let (won, refused) = match (first.unwrap(), second.unwrap()) {
        (Ok(1), Err(refused)) => (over(&["a"]), refused),
        (Err(refused), Ok(1)) => (over(&["b"]), refused),
        other => panic!("one of two is written, not {other:?}"),
    };
    assert_eq!(refused, Refused::Moved(Arc::new(Placed { version: 1, placement: won })));
}

async fn one_node_leads_and_the_next_one_when_it_goes(coordination: &impl Coordination) {
    let mut leader = coordination.leader();
    assert_eq!(*leader.borrow(), None);
    let a = coordination.register(node("a")).await.unwrap();
    let b = coordination.register(node("b")).await.unwrap();
    let first = a.lead().await;
    assert_eq!((first.node.0.as_str(), &a.lead().await), ("a", &first), "asked again, it leads already");
    until(&mut leader, |leader| *leader == Some(first.clone())).await;
    assert!(timeout(Duration::from_millis(50), b.lead()).await.is_err(), "one leads");
    assert_eq!(coordination.place(&first, 0, over(&["a"])).await.unwrap(), Ok(1));

    drop(a);
    let second = timeout(Duration::from_secs(10), b.lead()).await.expect("the other leads");
    assert!(second.node.0 == "b" && second.term > first.term, "{second:?} after {first:?}");
    until(&mut leader, |leader| *leader == Some(second.clone())).await;
    assert_eq!(coordination.place(&first, 1, over(&["b"])).await.unwrap(), Err(Refused::Deposed));
    assert_eq!(coordination.place(&second, 1, over(&["b"])).await.unwrap(), Ok(2));
}

async fn a_leader_that_is_replaced_leads_no_more(coordination: &impl Coordination) {
    let before = coordination.register(node("a")).await.unwrap();
    let first = before.lead().await;
    let after = coordination.register(node("a")).await.unwrap();
    let second = timeout(Duration::from_secs(10), after.lead()).await.expect("the new one leads");
    assert_eq!(coordination.place(&first, 0, over(&["b"])).await.unwrap(), Err(Refused::Deposed));
    assert!(timeout(Duration::from_millis(50), before.lead()).await.is_err(), "the old one never again");
    assert_eq!(coordination.place(&second, 0, over(&["a"])).await.unwrap(), Ok(1));
}

async fn a_leader_that_is_deposed_leads_no_more_and_another_may(coordination: &impl Coordination) {
    let (a, b) =
        (coordination.register(node("a")).await.unwrap(), coordination.register(node("b")).await.unwrap());
    let first = a.lead().await;
    let waiting = b.lead();
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "one leads");
    coordination.depose(&first).await.unwrap();
    assert_eq!(coordination.place(&first, 0, over(&["a"])).await.unwrap(), Err(Refused::Deposed));
    let second = timeout(Duration::from_secs(10), waiting).await.expect("the other leads");
    assert!(second.node.0 == "b" && second.term > first.term, "{second:?} after {first:?}");
    coordination.depose(&first).await.unwrap();
    assert_eq!(coordination.place(&second, 0, over(&["b"])).await.unwrap(), Ok(1), "it is not meant");
}

async fn of_two_swaps_from_one_version_one_wins(coordination: &impl Coordination) {
    let (first, second) = tokio::join!(
        coordination.compare_and_swap("k", 0, Some("1".into())),
        coordination.compare_and_swap("k", 0, Some("2".into())),
    );
    let (won, lost) = match (first.unwrap(), second.unwrap()) {
        (Ok(1), Err(lost)) => ("1", lost),
        (Err(lost), Ok(1)) => ("2", lost),
        other => panic!("one of two wins, not {other:?}"),
    };
    let setting = Some(Setting { version: 1, value: won.into() });
    assert_eq!(lost, setting);
    assert_eq!(coordination.setting("k").await.unwrap(), setting);
}

async fn a_setting_taken_away_is_gone(coordination: &impl Coordination) {
    assert_eq!(coordination.compare_and_swap("k", 0, Some("1".into())).await.unwrap(), Ok(1));
    assert!(coordination.compare_and_swap("k", 0, None).await.unwrap().is_err());
    assert!(coordination.compare_and_swap("k", 1, None).await.unwrap().is_ok());
    assert_eq!(coordination.setting("k").await.unwrap(), None);
    assert_eq!(coordination.compare_and_swap("k", 0, Some("2".into())).await.unwrap(), Ok(1));
}

async fn a_watch_shows_what_is_there_and_what_becomes_of_it(coordination: &impl Coordination) {
    coordination.compare_and_swap("a/1", 0, Some("x".into())).await.unwrap().unwrap();
    coordination.compare_and_swap("b/1", 0, Some("y".into())).await.unwrap().unwrap();
    let mut watched = coordination.watch("a/").await.unwrap();
    assert!(watched.borrow().keys().eq(["a/1"]), "{:?}", watched.borrow());
    coordination.compare_and_swap("a/2", 0, Some("z".into())).await.unwrap().unwrap();
    until(&mut watched, |settings| settings.len() == 2 && settings["a/2"].value == "z").await;
    coordination.compare_and_swap("a/1", 1, None).await.unwrap().unwrap();
    until(&mut watched, |settings| settings.keys().eq(["a/2"])).await;
}

async fn a_watcher_that_was_slow_sees_the_latest(coordination: &impl Coordination) {
    let mut watched = coordination.watch("k").await.unwrap();
    for version in 0..500_u64 {
        let value = Some(version.to_string().into());
        coordination.compare_and_swap("k", version, value).await.unwrap().unwrap();
    }
    until(&mut watched, |settings| settings.get("k").is_some_and(|setting| setting.version == 500)).await;
}

async fn a_wish_to_drain_stands_until_it_is_taken_back(coordination: &impl Coordination) {
    let (a, b) = (NodeName("a".into()), NodeName("b".into()));
    let mut watched = Drains::watch(coordination).await.unwrap();
    for by in ["one", "another"] {
        drains::wish(coordination, &a, by).await.unwrap();
    }
    let seen = timeout(Duration::from_secs(20), async {
        while !watched.contains(&a) {
            assert!(watched.changed().await);
        }
    });
    seen.await.expect("the wish is seen");
    assert!(!watched.contains(&b) && watched.names() == [a.clone()].into());
    for _ in 0..2 {
        drains::end(coordination, &a).await.unwrap();
    }
    let seen = timeout(Duration::from_secs(20), async {
        while watched.contains(&a) {
            assert!(watched.changed().await);
        }
    });
    seen.await.expect("its end is seen");
}

async fn what_is_too_large_is_refused(coordination: &impl Coordination) {
    let large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    let refused = coordination.compare_and_swap("k", 0, Some(large)).await;
    assert_eq!(refused.unwrap_err(), CoordinationError::TooLarge);
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(coordination.setting(&key).await.unwrap_err(), CoordinationError::TooLarge);
}
