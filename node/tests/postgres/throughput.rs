//! Appends a second, beside bare inserts of the same rows: `cargo test --release -p shoal-node
//! --test postgres -- --ignored --nocapture throughput`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shoal_engines::Postgres;
use shoal_node::{
    config::StoreLimits,
    store::{PostgresStore, Store},
};
use shoal_protocol::Seq;
use tokio::{task::JoinSet, time::sleep};

use crate::world::{activate, append, client, config, database_on, group, records};

const IN_FLIGHT: u64 = 1_000;
const BODY_BYTES: usize = 128;
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures"]
async fn throughput_of_a_lone_home() {
    let server = Postgres::start();
    let url = database_on(&server.url()).await;
    let store: Arc<dyn Store> =
        Arc::new(PostgresStore::open(&config([&*url]), &StoreLimits::default()).await.unwrap());
    let bare = client(&url).await;
    bare.batch_execute(BARE_TABLE).await.unwrap();
    let row = activate(&store, group(1)).await;
    let (mut tail, mut appends, mut inserts) = (row.tail, Vec::new(), Vec::new());
    for _ in 0..500 {
        let began = Instant::now();
        append(&store, group(1), row.epoch, tail, records(["x".repeat(BODY_BYTES)])).await.unwrap();
        appends.push(began.elapsed());
        tail = tail.next();
        let began = Instant::now();
        let insert = "INSERT INTO bare VALUES ('g', $1, 'x')";
        bare.execute(insert, &[&tail.get().cast_signed()]).await.unwrap();
        inserts.push(began.elapsed());
    }
    appends.sort_unstable();
    inserts.sort_unstable();
    println!("p50 of a lone append: {:?}; of a bare insert: {:?}", appends[250], inserts[250]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures"]
async fn throughput_at_a_thousand_in_flight() {
    let server = Postgres::start();
    println!(
        "| write connections | store, appends/s | rows in a transaction | bare inserts, rows/s | store : bare |"
    );
    println!("|---|---|---|---|---|");
    for connections in [1, 2, 4] {
        let (url, bare) = (database_on(&server.url()).await, database_on(&server.url()).await);
        let limits = StoreLimits { write_connections: connections, ..StoreLimits::default() };
        let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&config([&*url]), &limits).await.unwrap());
        let count = Arc::new(AtomicU64::new(0));
        let turn = Arc::new(AtomicUsize::new(0));
        let mut homes = JoinSet::new();
        for number in 0..IN_FLIGHT {
            let (store, count, turn) = (Arc::clone(&store), Arc::clone(&count), Arc::clone(&turn));
            homes.spawn(async move { home(&store, number, &count, &turn).await });
        }
        let batch = (IN_FLIGHT as usize / connections / 2).max(1);
        let mut inserters = Vec::new();
        let tables = client(&bare).await;
        tables.batch_execute(BARE_TABLE).await.unwrap();
        for _ in 0..connections {
            inserters.push(client(&bare).await);
        }
        let (mut appended, mut transactions, mut inserted) = (0, 0, 0);
        let observer = client(&url).await;
        for _ in 0..TURNS {
            let before = commits(&observer).await;
            let from = count.load(Ordering::Relaxed);
            turn.store(1, Ordering::Relaxed);
            sleep(TURN).await;
            turn.store(0, Ordering::Relaxed);
            appended += count.load(Ordering::Relaxed) - from;
            // Statistics come late, and what is under way ends.
            sleep(Duration::from_millis(1_500)).await;
            transactions += commits(&observer).await - before;
            let turns = inserters.iter().map(|inserter| insert(inserter, batch));
            inserted += futures_util::future::join_all(turns).await.into_iter().sum::<u64>();
        }
        homes.abort_all();
        let seconds = TURN.as_secs_f64() * TURNS as f64;
        let (appended, inserted) = (appended as f64, inserted as f64);
        println!(
            "| {connections} | {:.0} | {:.0} | {:.0} (batches of {batch}) | {:.0} % |",
            appended / seconds,
            appended / (transactions as f64),
            inserted / seconds,
            appended / inserted * 100.0,
        );
    }
}

const BARE_TABLE: &str = "CREATE TABLE bare (group_id bytea NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, \
                          PRIMARY KEY (group_id, seq))";

async fn home(store: &Arc<dyn Store>, number: u64, count: &AtomicU64, turn: &AtomicUsize) {
    let row = activate(store, group(number)).await;
    let mut tail = row.tail;
    loop {
        if turn.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        append(store, group(number), row.epoch, tail, records(["x".repeat(BODY_BYTES)])).await.unwrap();
        tail = tail.next();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn commits(observer: &tokio_postgres::Client) -> i64 {
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    observer.query_one(commits, &[]).await.unwrap().get(0)
}

/// Rows of the same size and keys, in transactions of `batch`, for one turn.
async fn insert(client: &tokio_postgres::Client, batch: usize) -> u64 {
    let sql = "INSERT INTO bare SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[])";
    let statement = client.prepare(sql).await.unwrap();
    let groups: Vec<Vec<u8>> = (0..batch).map(|_| rand::random::<u128>().to_be_bytes().to_vec()).collect();
    let bodies: Vec<Vec<u8>> = (0..batch).map(|_| vec![b'x'; BODY_BYTES]).collect();
    let (began, mut count) = (Instant::now(), 0);
    let mut seq = Seq::FIRST;
    while began.elapsed() < TURN {
        let seqs = vec![seq.get().cast_signed(); batch];
        count += client.execute(&statement, &[&groups, &seqs, &bodies]).await.unwrap();
        seq = seq.next();
    }
    count
}
