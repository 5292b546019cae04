//! Against real servers: one that all share, and one of its own for each fault.

mod faults;

mod proxy;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use shoal_engines::{Etcd as Server, shared_etcd};
use tokio::time::timeout;

use super::*;
use crate::coordination::{
    Load, NodeName, Standing,
    conformance::{self, node, over, until},
};

/// The shortest that etcd grants.
const LEASE: Duration = Duration::from_secs(2);

/// A cluster's name that no other test has.
fn cluster() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("test-{}-{process}-{number}", now_ms())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn options(endpoints: &[&str], cluster: &str) -> EtcdOptions {
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    EtcdOptions { endpoints, cluster: cluster.into(), lease: LEASE, tls: None }
}

async fn open_at(endpoints: &[&str], cluster: &str) -> Etcd {
    open_with(&options(endpoints, cluster)).await
}

async fn open_with(options: &EtcdOptions) -> Etcd {
    let (etcd, driver) = Etcd::open(options).await.unwrap();
    tokio::spawn(driver.run());
    etcd
}

async fn open() -> Etcd {
    open_at(&[&shared_etcd()], &cluster()).await
}

fn named(name: &str) -> NodeName {
    NodeName(name.into())
}

#[tokio::test]
async fn it_keeps_the_contract() {
    // What is given up goes at once: nothing here waits until a lease runs out.
    let lease = Duration::from_secs(600);
    let fresh =
        || async { open_with(&EtcdOptions { lease, ..options(&[&shared_etcd()], &cluster()) }).await };
    conformance::all(fresh).await;
}

#[tokio::test]
async fn it_says_how_much_longer_leases_last() {
    let etcd = open().await;
    let registered = etcd.register(node("a")).await.unwrap();
    let leases = etcd.leases().await.unwrap();
    assert_eq!(leases.keys().collect::<Vec<_>>(), [&named("a")]);
    assert!(leases[&named("a")] <= LEASE, "{leases:?}");
    drop(registered);
    until(&mut etcd.nodes(), |nodes| nodes.is_empty()).await;
    assert!(etcd.leases().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_one_node_writes_another_sees() {
    let (endpoint, cluster) = (shared_etcd(), cluster());
    let (one, two) = (open_at(&[&endpoint], &cluster).await, open_at(&[&endpoint], &cluster).await);
    let mut watched = two.watch("").await.unwrap();
    let registered = one.register(node("a")).await.unwrap();
    let leadership = registered.lead().await;
    one.place(&leadership, 0, over(&["a"])).await.unwrap().unwrap();
    one.compare_and_swap("k", 0, Some("v".into())).await.unwrap().unwrap();
    until(&mut two.nodes(), |nodes| nodes.contains_key(&named("a"))).await;
    until(&mut two.leader(), |leader| *leader == Some(leadership.clone())).await;
    until(&mut two.placement(), |placed| placed.version == 1 && placed.placement == over(&["a"])).await;
    until(&mut watched, |settings| settings.contains_key("k")).await;
    let other = open().await;
    assert!(other.setting("k").await.unwrap().is_none(), "another cluster has its own");
}

#[tokio::test]
async fn many_settings_are_read_page_by_page_whatever_is_compacted_meanwhile() {
    let etcd = open().await;
    for number in 0..1_050 {
        etcd.compare_and_swap(&format!("k/{number:04}"), 0, Some("v".into())).await.unwrap().unwrap();
    }
    let compacting = async {
        for version in 0.. {
            etcd.compare_and_swap("other", version, Some("v".into())).await.unwrap().unwrap();
            let key = etcd.keys.setting("other").into();
            let read = etcd.client.range(RangeRequest { key, ..RangeRequest::default() }).await.unwrap();
            // Another test may have compacted beyond.
            drop(etcd.client.compact(read.header.unwrap().revision).await);
        }
    };
    let reading = async {
        for _ in 0..20 {
            let watched = etcd.watch("k/").await.unwrap();
            let expected = (0..1_050).map(|number| format!("k/{number:04}"));
            assert!(watched.borrow().keys().cloned().eq(expected));
        }
    };
    tokio::select! {
        () = compacting => unreachable!("it goes on"),
        () = reading => {}
    }
}

#[tokio::test]
async fn load_is_written_once_a_second_and_the_last_one_stands() {
    let etcd = open().await;
    let registered = etcd.register(node("a")).await.unwrap();
    let mut nodes = etcd.nodes();
    let begun = tokio::time::Instant::now();
    for sessions in 1..=400 {
        registered.report(Load { sessions, ..Load::default() });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(&mut nodes, |nodes| nodes.get(&named("a")).is_some_and(|node| node.load.sessions == 400)).await;
    let written = async || {
        let range = RangeRequest { key: etcd.keys.node(&named("a")).into(), ..RangeRequest::default() };
        etcd.client.range(range).await.unwrap().kvs[0].version
    };
    let version = written().await;
    let changes = i64::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((2..=1 + changes).contains(&version), "written {version} times in {changes} s");
    tokio::time::sleep(LEASE).await;
    assert_eq!(written().await, version, "what has not changed is not written");
}

#[tokio::test]
async fn prefixes_are_watched_up_to_a_limit_and_those_given_up_make_room() {
    let etcd = open().await;
    let mut held = Vec::new();
    for number in 0..WATCHES_MAX {
        held.push(etcd.watch(&format!("{number:03}")).await.unwrap());
    }
    assert!(matches!(etcd.watch("more").await, Err(CoordinationError::TooManyWatches(_))));
    held.pop();
    let mut another = etcd.watch("more").await;
    for _ in 0..100 {
        if another.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        another = etcd.watch("more").await;
    }
    panic!("no room: {another:?}");
}

#[tokio::test]
async fn the_driver_ends_with_the_last_who_needs_it() {
    let (etcd, driver) = Etcd::open(&options(&[&shared_etcd()], &cluster())).await.unwrap();
    let running = tokio::spawn(driver.run());
    let registered = etcd.register(node("a")).await.unwrap();
    let watched = etcd.watch("").await.unwrap();
    drop((etcd, watched));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished(), "the lease is kept");
    drop(registered);
    timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn where_no_endpoint_answers_the_start_says_so() {
    let refused =
        Etcd::open(&options(&["http://127.0.0.1:1", "http://127.0.0.1:2"], "c")).await.err().unwrap();
    let said = refused.to_string();
    assert!(
        said.contains("127.0.0.1:1") && said.contains("127.0.0.1:2") && said.contains("refused"),
        "{said}"
    );
}

#[tokio::test]
async fn an_address_that_is_none_is_named() {
    let refused = Etcd::open(&options(&["http://[::1"], "c")).await.err().unwrap();
    assert!(refused.to_string().contains("http://[::1"), "{refused}");
}

#[tokio::test]
async fn etcd_is_spoken_to_with_certificates() {
    let keys = tempfile::tempdir().unwrap();
    let folder = shoal_certs::KeyFolder::create_dir(keys.path()).unwrap();
    let (seed, now_ms) = (shoal_certs::Seed::random(), now_ms());
    folder.create_authority(&seed, now_ms).unwrap();
    folder.create_node(&["127.0.0.1".into()], &seed, now_ms).unwrap();
    let server = Server::start_with_tls(keys.path());
    let read = |name: &str| std::fs::read_to_string(keys.path().join(name)).unwrap();
    let with = |identity| EtcdOptions {
        tls: Some(EtcdTls { ca: read("ca.pem"), identity }),
        ..options(&[&server.endpoint()], "c")
    };
    let etcd = open_with(&with(Some((read("node.pem"), read("node.key"))))).await;
    etcd.compare_and_swap("k", 0, Some("v".into())).await.unwrap().unwrap();
    let stranger = Etcd::open(&with(None)).await;
    assert!(matches!(stranger, Err(CoordinationError::Unavailable(_))), "it asks for a certificate");
}
