//! Crashes, faults and timing of the store in memory.

use std::sync::Arc;

use shoal_protocol::GroupId;
use tokio::time::Instant;

use super::*;
use crate::store::{Changes, Epoch};

const GROUP: &str = "group";

fn group() -> GroupId {
    GroupId::named(GROUP)
}

fn timing(commit_ms: u64) -> MemoryTiming {
    let commit = Duration::from_millis(commit_ms);
    MemoryTiming { commit: commit..=commit, ..MemoryTiming::default() }
}

async fn active(store: &MemoryStore) -> GroupRow {
    let create = Create { incarnation: 1, created_ms: 1 };
    store.activate(group(), Some(create)).await.unwrap().unwrap()
}

fn append(row: &GroupRow, from: u64, records: usize) -> Append {
    let changes = Changes { records: vec![Bytes::from_static(b"record"); records], ..Changes::default() };
    Append { group: group(), epoch: row.epoch, expected_tail: Seq::new(from).unwrap(), changes }
}

async fn tail(disk: &MemoryDisk) -> u64 {
    let store = MemoryStore::open(disk, MemoryTiming::default());
    store.group(group()).await.unwrap().unwrap().tail.get()
}

/// Acknowledged 3 records, and then crashed with two more appends of 1 on their way.
async fn crashed(seed: u64) -> u64 {
    let disk = MemoryDisk::new(seed);
    let store = MemoryStore::open(&disk, timing(5));
    let row = active(&store).await;
    store.append(append(&row, 1, 3)).await.unwrap();
    let waiting: Vec<_> = [4, 5]
        .map(|from| {
            let (store, append) = (store.clone(), append(&row, from, 1));
            tokio::spawn(async move { store.append(append).await })
        })
        .into_iter()
        .collect();
    tokio::task::yield_now().await;
    disk.crash();
    for waiting in waiting {
        waiting.await.unwrap().unwrap_err();
    }
    store.append(append(&row, 4, 1)).await.unwrap_err();
    assert!(store.group(group()).await.is_err(), "the process is gone");
    tail(&disk).await
}

#[tokio::test(start_paused = true)]
async fn a_crash_keeps_what_was_acknowledged_and_some_of_what_was_not() {
    let mut tails = std::collections::BTreeSet::new();
    for seed in 0..40 {
        tails.insert(crashed(seed).await);
        assert_eq!(crashed(seed).await, crashed(seed).await, "one seed, one outcome");
    }
    assert!(tails.into_iter().eq([4, 5, 6]));
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_commit_shares_the_next_one() {
    let store = MemoryStore::open(&MemoryDisk::new(1), timing(10));
    let row = Arc::new(active(&store).await);
    let began = Instant::now();
    let appends = (1..=5_u64).map(|from| {
        let (store, row) = (store.clone(), Arc::clone(&row));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(from)).await;
            store.append(append(&row, from, 1)).await.unwrap();
            began.elapsed().as_millis()
        })
    });
    let mut ends = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        ends.push(append.await.unwrap());
    }
    assert_eq!(ends, [11, 21, 21, 21, 21]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_stops_the_writing_but_not_the_reading() {
    let disk = MemoryDisk::new(1);
    let store = MemoryStore::open(&disk, timing(5));
    let row = active(&store).await;
    store.append(append(&row, 1, 2)).await.unwrap();
    disk.inject(MemoryFault::Stop);
    assert!(matches!(store.append(append(&row, 3, 1)).await, Err(AppendError::OutcomeUnknown(_))));
    assert!(matches!(
        store.append(append(&row, 3, 1)).await,
        Err(AppendError::Store(StoreError::Stopped(_)))
    ));
    assert!(store.activate(group(), None).await.is_err());
    assert!(store.health().is_err());
    assert_eq!(store.group(group()).await.unwrap().unwrap().tail.get(), 3);
    let tail = tail(&disk).await;
    assert!((3..=4).contains(&tail), "{tail}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_any_and_the_next_activation_shows_which() {
    let mut tails = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let store = MemoryStore::open(&MemoryDisk::new(seed), timing(5));
        let row = active(&store).await;
        store.disk().inject(MemoryFault::OutcomeUnknown);
        assert!(matches!(store.append(append(&row, 1, 2)).await, Err(AppendError::OutcomeUnknown(_))));
        let seen = store.group(group()).await.unwrap().unwrap().tail.get();
        let row = store.activate(group(), None).await.unwrap().unwrap();
        tails.insert((seen, row.tail.get()));
        store.append(append(&row, row.tail.get(), 1)).await.unwrap();
        assert_eq!(row.epoch, Epoch(2));
    }
    assert!(tails.into_iter().eq([(1, 1), (1, 3), (3, 3)]), "never written, written late, written at once");
}

#[tokio::test(start_paused = true)]
async fn a_slow_commit_and_a_failed_read_pass() {
    let store = MemoryStore::open(&MemoryDisk::new(1), timing(5));
    let row = active(&store).await;
    store.disk().inject(MemoryFault::Slow(Duration::from_secs(2)));
    let began = Instant::now();
    store.append(append(&row, 1, 1)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(2005));
    store.disk().inject(MemoryFault::Read);
    assert!(matches!(store.group(group()).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.group(group()).await.unwrap().unwrap().tail.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_opening_shuts_out_the_one_before() {
    let disk = MemoryDisk::new(1);
    let old = MemoryStore::open(&disk, timing(5));
    let row = active(&old).await;
    let new = MemoryStore::open(&disk, timing(5));
    assert!(matches!(old.append(append(&row, 1, 1)).await, Err(AppendError::Store(StoreError::Stopped(_)))));
    new.append(append(&row, 1, 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_observes_hears_of_what_nobody_was_told() {
    let disk = MemoryDisk::new(1);
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    disk.observe(move |write| hears.lock().unwrap().push(write));
    let store = MemoryStore::open(&disk, MemoryTiming::default());
    let row = active(&store).await;
    store.append(append(&row, 1, 2)).await.unwrap();
    assert!(store.append(append(&row, 1, 1)).await.is_err(), "the tail is another");
    for from in 3..13 {
        disk.inject(MemoryFault::OutcomeUnknown);
        drop(store.append(append(&row, from, 1)).await);
    }
    let (mut tail_heard, heard) = (Seq::FIRST, heard.lock().unwrap().clone());
    assert_eq!(heard[0], MemoryWrite::Activated { group: group(), epoch: row.epoch, tail: Seq::FIRST });
    for write in &heard[1..] {
        let MemoryWrite::Appended { from, count, .. } = *write else { panic!("{write:?}") };
        assert_eq!(from, tail_heard);
        tail_heard = from.advance(count);
    }
    assert!(tail_heard > Seq::new(3).unwrap(), "one of unknown outcome was written");
    assert_eq!(store.group(group()).await.unwrap().unwrap().tail, tail_heard);
}
