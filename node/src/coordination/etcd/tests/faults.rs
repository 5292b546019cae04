//! What becomes of leases, watches and leaders when etcd goes, stands still, forgets, or cannot be
//! reached.

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{proxy::Proxy, *};
use crate::coordination::{Roles, leader};

/// A node that is registered, and leads when elected.
struct Node {
    registration: Arc<dyn Registration>,
    leading: JoinHandle<()>,
    acting: JoinHandle<()>,
}

impl Node {
    async fn start(etcd: &Etcd, name: &str) -> Self {
        let registration: Arc<dyn Registration> = etcd.register(node(name)).await.unwrap().into();
        let (leads_by, leads) = (etcd.clone(), Arc::clone(&registration));
        let leading = tokio::spawn(async move {
            leader::run(&leads_by, &*leads, LEASE).await;
        });
        let acting = acting(etcd, &registration);
        Self { registration, leading, acting }
    }

    async fn stop(self) {
        for task in [self.leading, self.acting] {
            task.abort();
            drop(task.await);
        }
    }
}

/// It acts by every placement at once, until the task is ended.
fn acting(etcd: &Etcd, registration: &Arc<dyn Registration>) -> JoinHandle<()> {
    let (etcd, registration) = (etcd.clone(), Arc::clone(registration));
    tokio::spawn(async move { conformance::act(&etcd, &*registration).await })
}

/// Is every partition with one of these nodes, and has each its share?
fn is_over(placed: &Placed, names: &[&str]) -> bool {
    let capacities: BTreeMap<_, _> = names.iter().map(|name| (named(name), 1)).collect();
    placed.version > 0 && placed.placement.balance(&capacities).is_empty()
}

async fn lease_of(etcd: &Etcd, name: &str) -> i64 {
    let range = RangeRequest { key: etcd.keys.node(&named(name)).into(), ..RangeRequest::default() };
    etcd.client.range(range).await.unwrap().kvs[0].lease
}

#[tokio::test]
async fn a_killed_etcd_comes_back_and_everything_goes_on() {
    let mut server = Server::start();
    let (endpoint, cluster) = (server.endpoint(), cluster());
    let (one, two) = (open_at(&[&endpoint], &cluster).await, open_at(&[&endpoint], &cluster).await);
    let registered = one.register(node("a")).await.unwrap();
    let leadership = registered.lead().await;
    one.place(&leadership, 0, over(&["a"])).await.unwrap().unwrap();
    one.compare_and_swap("k", 0, Some("before".into())).await.unwrap().unwrap();
    let mut watched = two.watch("k").await.unwrap();
    until(&mut two.nodes(), |nodes| nodes.len() == 1).await;
    until(&mut two.placement(), |placed| placed.version == 1).await;

    server.kill();
    let refused = one.compare_and_swap("k", 1, Some("meanwhile".into())).await;
    assert!(matches!(refused, Err(CoordinationError::Unavailable(_))), "{refused:?}");
    assert!(one.register(node("b")).await.is_err());
    until(&mut registered.standing(), |standing| *standing == Standing::Lapsed).await;
    assert_eq!(two.placement().borrow().version, 1, "what was read last stands");
    assert_eq!((two.nodes().borrow().len(), watched.borrow().len()), (1, 1));

    server.up();
    until(&mut registered.standing(), |standing| *standing == Standing::Held).await;
    one.compare_and_swap("k", 1, Some("after".into())).await.unwrap().unwrap();
    until(&mut watched, |settings| settings["k"].value == "after").await;
    let load = Load { sessions: 1, ..Load::default() };
    registered.report(load.clone());
    until(&mut two.nodes(), |nodes| nodes.get(&named("a")).is_some_and(|node| node.load == load)).await;
    let again = timeout(Duration::from_secs(10), registered.lead()).await.expect("it leads");
    one.place(&again, 1, over(&["b"])).await.unwrap().unwrap();
    until(&mut two.placement(), |placed| placed.version == 2).await;
}

#[tokio::test]
async fn a_watch_whose_past_was_compacted_shows_the_latest() {
    let etcd = open().await;
    let (follow, mut settings) =
        Follow::new(&etcd.client, Range::below(etcd.keys.settings(), ""), views::setting_changed)
            .await
            .unwrap();
    // It has read, and does not watch yet.
    for version in 0..10_u64 {
        etcd.compare_and_swap("k", version, Some("v".into())).await.unwrap().unwrap();
    }
    etcd.compare_and_swap("gone", 0, Some("v".into())).await.unwrap().unwrap();
    etcd.compare_and_swap("gone", 1, None).await.unwrap().unwrap();
    let latest =
        etcd.client.range(RangeRequest { key: "k".into(), ..RangeRequest::default() }).await.unwrap();
    etcd.client.compact(latest.header.unwrap().revision).await.unwrap();
    tokio::spawn(follow.run());
    until(&mut settings, |settings| settings.get("k").is_some_and(|setting| setting.version == 10)).await;
    assert!(settings.borrow().keys().eq(["k"]));
    etcd.compare_and_swap("k", 10, Some("v".into())).await.unwrap().unwrap();
    until(&mut settings, |settings| settings["k"].version == 11).await;
}

#[tokio::test]
async fn a_node_whose_lease_is_gone_is_registered_again() {
    let etcd = open().await;
    let registered = etcd.register(node("a")).await.unwrap();
    let leadership = registered.lead().await;
    let mut nodes = etcd.nodes();
    until(&mut nodes, |nodes| nodes.len() == 1).await;
    etcd.client.revoke(lease_of(&etcd, "a").await).await.unwrap();
    until(&mut nodes, |nodes| nodes.is_empty()).await;
    assert_eq!(etcd.place(&leadership, 0, over(&["a"])).await.unwrap(), Err(Refused::Deposed));
    until(&mut nodes, |nodes| nodes.len() == 1).await;
    until(&mut registered.standing(), |standing| *standing == Standing::Held).await;
    let again = timeout(Duration::from_secs(10), registered.lead()).await.expect("it leads again");
    assert!(again.term > leadership.term);
    assert!(timeout(Duration::from_millis(50), registered.lost()).await.is_err(), "nobody took its name");
}

#[tokio::test]
async fn a_node_that_died_and_is_back_does_not_wait_for_its_old_lease() {
    let options = EtcdOptions { lease: Duration::from_secs(600), ..options(&[&shared_etcd()], &cluster()) };
    let (etcd, driver) = Etcd::open(&options).await.unwrap();
    let running = tokio::spawn(driver.run());
    let died = etcd.register(node("a")).await.unwrap().lead().await;
    running.abort();
    drop(running.await);
    let back = open_with(&options).await;
    let registered = back.register(node("a")).await.unwrap();
    let leadership = timeout(Duration::from_secs(10), registered.lead()).await.expect("it leads");
    assert!(leadership.term > died.term);
}

#[tokio::test]
async fn who_was_away_does_not_take_its_name_back() {
    let endpoint = shared_etcd();
    let (proxy, cluster) = (Proxy::to(&endpoint).await, cluster());
    let (cut_off, other) =
        (open_at(&[proxy.address()], &cluster).await, open_at(&[&endpoint], &cluster).await);
    let before = cut_off.register(node("a")).await.unwrap();
    proxy.block(true);
    until(&mut before.standing(), |standing| *standing == Standing::Lapsed).await;
    until(&mut other.nodes(), |nodes| nodes.is_empty()).await;
    let after = other.register(NodeRecord { region: "there".into(), ..node("a") }).await.unwrap();
    proxy.block(false);
    timeout(Duration::from_secs(10), before.lost()).await.expect("the name is another's");
    sleep(LEASE).await;
    assert_eq!(other.nodes().borrow()[&named("a")].region, "there");
    assert_eq!(*after.standing().borrow(), Standing::Held);
}

#[tokio::test]
async fn when_an_endpoint_falls_silent_everything_goes_on_at_the_next() {
    for silent in [true, false] {
        let endpoint = shared_etcd();
        let (mut proxy, cluster) = (Proxy::to(&endpoint).await, cluster());
        let etcd = open_at(&[proxy.address(), &endpoint], &cluster).await;
        let writer = open_at(&[&endpoint], &cluster).await;
        let registered = etcd.register(node("a")).await.unwrap();
        let mut watched = etcd.watch("").await.unwrap();
        let standing = registered.standing();
        writer.compare_and_swap("before", 0, Some("v".into())).await.unwrap().unwrap();
        until(&mut watched, |settings| settings.len() == 1).await;
        if silent {
            proxy.block(true)
        } else {
            proxy.close().await
        }
        writer.compare_and_swap("k", 0, Some("v".into())).await.unwrap().unwrap();
        let seen = timeout(2 * LEASE, watched.wait_for(|settings| settings.len() == 2)).await;
        drop(seen.expect("the watch goes on before the silent connection is given up").unwrap());
        sleep(LEASE).await;
        assert_eq!(*standing.borrow(), Standing::Held);
        assert!(!standing.has_changed().unwrap(), "the lease was never lost");
        etcd.compare_and_swap("k", 1, Some("w".into())).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn of_two_that_want_to_lead_one_decides_and_the_other_after_it() {
    let (endpoint, cluster) = (shared_etcd(), cluster());
    let (one, two) = (open_at(&[&endpoint], &cluster).await, open_at(&[&endpoint], &cluster).await);
    let mut placement = two.placement();
    let a = Node::start(&one, "a").await;
    until(&mut placement, |placed| is_over(placed, &["a"])).await;
    let b = Node::start(&two, "b").await;
    until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
    let access_only = NodeRecord { roles: Roles { group: false, ..Roles::ALL }, ..node("x") };
    let _access = one.register(access_only).await.unwrap();
    let c: Arc<dyn Registration> = one.register(node("c")).await.unwrap().into();
    let acting_c = acting(&one, &c);
    until(&mut placement, |placed| is_over(placed, &["a", "b", "c"])).await;
    let deposed = one.leader().borrow().clone().unwrap();
    assert_eq!(deposed.node, named("a"));

    a.stop().await;
    until(&mut placement, |placed| is_over(placed, &["b", "c"])).await;
    let version = placement.borrow().version;
    assert_eq!(one.place(&deposed, version, over(&["a"])).await.unwrap(), Err(Refused::Deposed));
    acting_c.abort();
    drop((acting_c.await, c));
    until(&mut placement, |placed| is_over(placed, &["b"])).await;
    b.stop().await;
}

#[tokio::test]
async fn leaders_whose_leases_are_taken_away_never_write_two_placements_from_one_version() {
    let (endpoint, cluster) = (shared_etcd(), cluster());
    let mut written: Vec<u64> = Vec::new();
    let mut contenders = Vec::new();
    for name in ["a", "b"] {
        let etcd = open_at(&[&endpoint], &cluster).await;
        contenders.push(tokio::spawn(async move {
            let registered = etcd.register(node(name)).await.unwrap();
            let (mut written, mut deposed) = (Vec::new(), 0);
            for _ in 0..6 {
                let leadership = registered.lead().await;
                let mut version = etcd.placement().borrow().version;
                let lease = lease_of(&etcd, name).await;
                let revoke = etcd.client.revoke(lease);
                // Writes until the leadership that is being taken away is gone.
                let write = async {
                    loop {
                        match etcd.place(&leadership, version, over(&[name])).await.unwrap() {
                            Ok(now) => {
                                written.push(now);
                                version = now;
                            }
                            Err(Refused::Moved(placed)) => version = placed.version,
                            Err(Refused::Deposed) => break deposed += 1,
                        }
                    }
                };
                let (revoked, ()) = tokio::join!(revoke, write);
                revoked.unwrap();
            }
            (written, deposed)
        }));
    }
    for contender in contenders {
        let (versions, deposed) = timeout(Duration::from_secs(60), contender).await.unwrap().unwrap();
        assert!(deposed == 6 && !versions.is_empty(), "{deposed} {versions:?}");
        written.extend(versions);
    }
    written.sort_unstable();
    assert!(written.iter().copied().eq(1..=written.len() as u64), "{written:?}");
}

#[tokio::test]
async fn after_an_etcd_that_stood_still_nobody_is_taken_for_dead() {
    let server = Server::start();
    let (endpoint, cluster) = (server.endpoint(), cluster());
    let (one, two) = (open_at(&[&endpoint], &cluster).await, open_at(&[&endpoint], &cluster).await);
    let (a, b) = (Node::start(&one, "a").await, Node::start(&two, "b").await);
    let mut placement = two.placement();
    until(&mut placement, |placed| is_over(placed, &["a", "b"])).await;
    let before = placement.borrow().clone();

    server.pause();
    let paused = Instant::now();
    for node in [&a, &b] {
        until(&mut node.registration.standing(), |standing| *standing == Standing::Lapsed).await;
    }
    assert_eq!((**placement.borrow()).clone(), *before, "what was read last stands");
    sleep_until(paused + 2 * LEASE).await;
    server.resume();
    for node in [&a, &b] {
        until(&mut node.registration.standing(), |standing| *standing == Standing::Held).await;
    }
    // Both are back: the next leader decides, and has nothing to change.
    sleep(2 * LEASE).await;
    assert_eq!((**placement.borrow()).clone(), *before);
    assert_eq!(one.nodes().borrow().len(), 2);

    a.stop().await;
    until(&mut placement, |placed| is_over(placed, &["b"])).await;
    b.stop().await;
}
