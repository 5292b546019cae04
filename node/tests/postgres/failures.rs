//! Connections and servers that die in the middle.

use std::{sync::atomic::Ordering, time::Duration};

use shoal_engines::Postgres;
use shoal_node::store::{AppendError, StoreError};
use tokio::time::sleep;

use crate::world::{Load, activate, append, client, database_on, eventually, group, open, read_all, records};

const GROUPS: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_killed_and_nothing_acknowledged_is_missing() {
    let server = Postgres::start();
    let url = database_on(&server.url()).await;
    let store = open(&[&url]).await.unwrap();
    let load = Load::start(&store, GROUPS);
    let assassin = client(&server.url()).await;
    for _ in 0..15 {
        load.acknowledges(50).await;
        let killed =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shoal'";
        assert!(!assassin.query(killed, &[]).await.unwrap().is_empty());
    }
    load.acknowledges(200).await;
    assert!(load.failed.load(Ordering::Relaxed) > 0, "the kills hit appends");
    load.check(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_and_nothing_acknowledged_is_missing() {
    let mut server = Postgres::start();
    let url = database_on(&server.url()).await;
    let store = open(&[&url]).await.unwrap();
    let load = Load::start(&store, GROUPS);
    for _ in 0..4 {
        load.acknowledges(200).await;
        server.kill();
        sleep(Duration::from_millis(100)).await;
        server.up();
    }
    load.acknowledges(200).await;
    load.check(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_restarted_under_load_and_the_store_comes_back_by_itself() {
    let mut server = Postgres::start();
    let url = database_on(&server.url()).await;
    let store = open(&[&url]).await.unwrap();
    let load = Load::start(&store, GROUPS);
    load.acknowledges(200).await;
    server.stop();
    eventually(async || store.health().err()).await;
    server.up();
    load.acknowledges(500).await;
    eventually(async || store.health().ok()).await;
    load.check(&store).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_not_written_off() {
    let mut server = Postgres::start();
    let url = database_on(&server.url()).await;
    let store = open(&[&url]).await.unwrap();
    let row = activate(&store, group(1)).await;
    server.stop();
    // The first one may still find the connection that was.
    let first = append(&store, group(1), row.epoch, row.tail, records(["a".into()])).await;
    assert!(first.is_err());
    let away = append(&store, group(1), row.epoch, row.tail, records(["b".into()])).await;
    assert!(matches!(away, Err(AppendError::Store(StoreError::Unavailable(_)))), "{away:?}");
    assert!(matches!(store.group(group(1)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.health(), Err(StoreError::Unavailable(_))));
    server.up();
    let row = eventually(async || store.activate(group(1), None).await.ok()?).await;
    append(&store, group(1), row.epoch, row.tail, records(["c".into()])).await.unwrap();
    assert_eq!(read_all(&store, group(1)).await, ["c"]);
}
