use async_trait::async_trait;

use super::*;
use crate::{
    coordination::{
        Complaints, InProcess, Load, Roles,
        conformance::{act, node, over, until},
        drains,
    },
    store::MemoryStore,
};

const GRACE: Duration = Duration::from_secs(3);

async fn coordination() -> InProcess {
    let (coordination, writer) = InProcess::open(Arc::new(MemoryStore::new(1))).await.unwrap();
    tokio::spawn(writer.run());
    coordination
}

fn named(names: &[&str]) -> Capacities {
    names.iter().map(|name| (NodeName((*name).into()), 1)).collect()
}

/// Runs the leader on a registration that may say anything of its standing.
fn lead(coordination: &InProcess, registration: Box<dyn Registration>) -> watch::Sender<Standing> {
    let standing = watch::Sender::default();
    let wavering = Wavering { registration, standing: standing.clone() };
    let coordination = coordination.clone();
    tokio::spawn(async move {
        tokio::join!(run(&coordination, &wavering, GRACE), act(&coordination, &wavering));
    });
    standing
}

struct Wavering {
    registration: Box<dyn Registration>,
    standing: watch::Sender<Standing>,
}

#[async_trait]
impl Registration for Wavering {
    fn node(&self) -> &NodeName {
        self.registration.node()
    }

    fn report(&self, load: Load) {
        self.registration.report(load);
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    async fn lead(&self) -> Leadership {
        self.registration.lead().await
    }
}

/// A node that carries groups and acts by every placement at once, until the task is ended.
async fn join(coordination: &InProcess, name: &str) -> tokio::task::JoinHandle<()> {
    let registration = coordination.register(node(name)).await.unwrap();
    let coordination = coordination.clone();
    tokio::spawn(async move { act(&coordination, &*registration).await })
}

fn is_over(placed: &Placed, names: &[&str]) -> bool {
    placed.version > 0 && placed.placement.balance(&named(names)).is_empty()
}

#[test]
fn what_nobody_looks_after_goes_first_and_all_at_once() {
    let placement = over(&["a", "b", "c"]);
    let moves =
        placement.balance(&[("b", 1), ("c", 0), ("d", 1)].map(|(n, c)| (NodeName(n.into()), c)).into());
    let step = first_step(moves.clone(), &Nodes::new());
    assert!(step.len() == placement.held(&NodeName("a".into())) && step.len() < moves.len());
    assert!(step.iter().all(|step| step.from.is_none()));
}

#[test]
fn one_partition_moves_to_the_node_that_carries_least() {
    let moves = over(&["a"]).balance(&named(&["a", "b", "c"]));
    let carrying = |name: &str, groups, capacity| {
        let load = Load { groups, ..Load::default() };
        (NodeName(name.into()), NodeRecord { load, capacity, ..node(name) })
    };
    for (b, c, target) in [((10, 1), (5, 1), "c"), ((10, 4), (5, 1), "b")] {
        let nodes = Nodes::from([carrying("b", b.0, b.1), carrying("c", c.0, c.1)]);
        let step = first_step(moves.clone(), &nodes);
        assert!(step.len() == 1 && step[0].to.0 == target, "{step:?}");
    }
    assert_eq!(first_step(Vec::new(), &Nodes::new()), []);
}

#[tokio::test]
async fn partitions_follow_the_nodes_that_carry_groups() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let _standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
    until(&mut placement, |placed| is_over(placed, &["a"])).await;
    let access_only = NodeRecord { roles: Roles { group: false, ..Roles::ALL }, ..node("x") };
    let _access = coordination.register(access_only).await.unwrap();
    let b = join(&coordination, "b").await;
    let c = join(&coordination, "c").await;
    b.abort();
    until(&mut placement, |placed| is_over(placed, &["a", "c"])).await;
    c.abort();
    until(&mut placement, |placed| is_over(placed, &["a"])).await;
}

#[tokio::test(start_paused = true)]
async fn a_joining_node_is_given_one_partition_at_a_time_and_the_next_once_both_act_by_it() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let a = coordination.register(node("a")).await.unwrap();
    let b = coordination.register(node("b")).await.unwrap();
    let _standing = lead(
        &coordination,
        coordination
            .register(NodeRecord { roles: Roles { group: false, ..Roles::ALL }, ..node("x") })
            .await
            .unwrap(),
    );
    until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
    let mut before = placement.borrow_and_update().clone();
    for registration in [&a, &b] {
        registration.report(Load { placement: before.version, ..Load::default() });
    }
    let _c = join(&coordination, "c").await;
    for _ in 0..20 {
        placement.changed().await.unwrap();
        let now = placement.borrow_and_update().clone();
        let moves = before.placement.moves_to(&now.placement);
        assert!(moves.len() == 1 && moves[0].to.0 == "c", "{moves:?}");
        assert!(timeout(SETTLE_MAX / 2, placement.changed()).await.is_err(), "nobody acts by it yet");
        for registration in [&a, &b] {
            registration.report(Load { placement: now.version, ..Load::default() });
        }
        before = now;
    }
    let waited = tokio::time::Instant::now();
    for _ in 0..10 {
        placement.changed().await.unwrap();
        placement.borrow_and_update();
    }
    let waited = waited.elapsed();
    assert!(
        waited > 8 * SETTLE_MAX && waited < 11 * SETTLE_MAX,
        "a slow node holds it up a little: {waited:?}"
    );
}

#[tokio::test]
async fn a_node_that_is_to_be_emptied_is_and_one_whose_wish_is_taken_back_is_filled_again() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let _b = join(&coordination, "b").await;
    let _c = join(&coordination, "c").await;
    let _standing = lead(
        &coordination,
        coordination
            .register(NodeRecord { roles: Roles { group: false, ..Roles::ALL }, ..node("x") })
            .await
            .unwrap(),
    );
    until(&mut placement, |placed| is_over(placed, &["b", "c"])).await;
    let b = NodeName("b".into());
    drains::wish(&coordination, &b, "test").await.unwrap();
    until(&mut placement, |placed| placed.placement.held(&b) == 0).await;
    assert!(is_over(&placement.borrow(), &["c"]));
    let _d = join(&coordination, "d").await;
    until(&mut placement, |placed| is_over(placed, &["c", "d"])).await;
    drains::end(&coordination, &b).await.unwrap();
    until(&mut placement, |placed| is_over(placed, &["b", "c", "d"])).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_is_emptied_at_once_and_filled_again_one_by_one_when_it_is_well() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let a = coordination.register(node("a")).await.unwrap();
    let _standing = lead(&coordination, coordination.register(node("b")).await.unwrap());
    until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
    let slow = NodeName("a".into());
    let complaints = Complaints { of: BTreeMap::from([(slow.clone(), 1)]), ..Complaints::default() };
    let version = placement.borrow_and_update().version;
    a.report(Load { placement: version, complaints: Some(complaints), ..Load::default() });
    timeout(SETTLE_MAX / 2, placement.changed()).await.expect("nobody waits for it").unwrap();
    assert_eq!((placement.borrow().version, placement.borrow().placement.held(&slow)), (version + 1, 0));
    a.report(Load { placement: version, complaints: Some(Complaints::default()), ..Load::default() });
    until(&mut placement, |placed| placed.placement.held(&slow) == 1).await;
    assert_eq!(placement.borrow().version, version + 2);
}

#[tokio::test]
async fn where_all_are_to_be_emptied_nothing_moves() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let _standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
    until(&mut placement, |placed| is_over(placed, &["a"])).await;
    drains::wish(&coordination, &NodeName("a".into()), "test").await.unwrap();
    let _b = join(&coordination, "b").await;
    drains::wish(&coordination, &NodeName("b".into()), "test").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let held = ["a", "b"].map(|name| placement.borrow().placement.held(&NodeName(name.into())));
    assert_eq!(held.iter().sum::<usize>(), usize::from(crate::coordination::PARTITIONS));
}

#[tokio::test]
async fn what_the_last_that_stayed_has_left_goes_to_those_that_were_to_be_emptied() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let _standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
    let b = join(&coordination, "b").await;
    until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
    let a = NodeName("a".into());
    drains::wish(&coordination, &a, "test").await.unwrap();
    until(&mut placement, |placed| placed.placement.held(&a) == 0).await;
    b.abort();
    until(&mut placement, |placed| is_over(placed, &["a"])).await;
    let _b = join(&coordination, "b").await;
    until(&mut placement, |placed| is_over(placed, &["b"])).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_gives_the_others_time_to() {
    let coordination = coordination().await;
    let mut placement = coordination.placement();
    let b = coordination.register(node("b")).await.unwrap();
    let standing = lead(&coordination, coordination.register(node("a")).await.unwrap());
    until(&mut placement, |placed| placed.version == 1).await;

    standing.send_replace(Standing::Lapsed);
    tokio::task::yield_now().await;
    drop(b);
    sleep(2 * GRACE).await;
    assert_eq!(placement.borrow().version, 1, "it does not know who lives");
    standing.send_replace(Standing::Held);
    sleep(GRACE / 2).await;
    assert_eq!(placement.borrow().version, 1, "the others may be on their way");
    sleep(GRACE).await;
    assert_eq!(placement.borrow().version, 2, "who is not back by now is dead");
}
