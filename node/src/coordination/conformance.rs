//! What every [`Coordination`] owes, whatever engine is below it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::*;

/// Runs the whole suite; each part gets a fresh one.
pub(super) async fn all<C: Coordination, F: Future<Output = C>>(fresh: impl Fn() -> F) {
    nodes_come_and_go(&fresh().await).await;
    a_node_that_comes_back_replaces_itself(&fresh().await).await;
    placement_changes_only_from_the_version_named(&fresh().await).await;
    of_two_swaps_from_one_version_one_wins(&fresh().await).await;
    a_setting_taken_away_is_gone(&fresh().await).await;
    a_watch_shows_what_is_there_and_what_becomes_of_it(&fresh().await).await;
    a_watcher_that_was_slow_sees_the_latest(&fresh().await).await;
    what_is_too_large_is_refused(&fresh().await).await;
}

pub(super) fn node(name: &str) -> NodeRecord {
    NodeRecord {
        name: NodeName(name.into()),
        addresses: vec!["127.0.0.1:4433".into()],
        roles: Roles { access: true, group: true },
        region: "here".into(),
        capacity: 1,
        load: Load::default(),
    }
}

/// Waits until what is watched is as it should be.
async fn until<T>(watched: &mut watch::Receiver<Arc<T>>, wanted: impl Fn(&T) -> bool) {
    let seen = timeout(Duration::from_secs(10), watched.wait_for(|state| wanted(state))).await;
    drop(seen.expect("the change is seen").expect("coordination lives"));
}

async fn nodes_come_and_go(coordination: &impl Coordination) {
    let mut nodes = coordination.nodes();
    let a = coordination.register(node("a")).await.unwrap();
    let b = coordination.register(node("b")).await.unwrap();
    until(&mut nodes, |nodes| nodes.len() == 2).await;
    let load = Load { sessions: 3, groups: 2, committed: 1 };
    a.report(load);
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
    after.report(load);
    until(&mut nodes, |nodes| {
        nodes.get(&NodeName("a".into())).is_some_and(|node| node.region == "there" && node.load == load)
    })
    .await;
    assert!(timeout(Duration::from_millis(20), after.lost()).await.is_err(), "the second lease is held");
}

async fn placement_changes_only_from_the_version_named(coordination: &impl Coordination) {
    let mut placement = coordination.placement();
    assert_eq!(placement.borrow().version, 0);
    let over = |names: &[&str]| {
        let capacities: BTreeMap<_, _> = names.iter().map(|name| (NodeName((*name).into()), 1)).collect();
        Placement::default().after(&Placement::default().balance(&capacities))
    };
    let (one, two) = (over(&["a"]), over(&["a", "b"]));
    assert_eq!(coordination.place(0, one.clone()).await.unwrap(), Ok(1));
    let refused = coordination.place(0, two.clone()).await.unwrap().unwrap_err();
    assert_eq!(*refused, Placed { version: 1, placement: one });
    assert_eq!(coordination.place(1, two.clone()).await.unwrap(), Ok(2));
    until(&mut placement, |placed| *placed == Placed { version: 2, placement: two.clone() }).await;
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

async fn what_is_too_large_is_refused(coordination: &impl Coordination) {
    let large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    let refused = coordination.compare_and_swap("k", 0, Some(large)).await;
    assert_eq!(refused.unwrap_err(), CoordinationError::TooLarge);
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(coordination.setting(&key).await.unwrap_err(), CoordinationError::TooLarge);
}
