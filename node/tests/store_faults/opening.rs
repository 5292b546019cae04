//! A folder that is not what its witness says is not served, says why, and is left as it is.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use shoal_node::{
    config::StoreLimits,
    store::{Append, Changes, Create, FjallStore, OpenError, ReadLimit, Store, StoreError},
};
use shoal_protocol::Seq;

use super::workload::{self, Place, group};

const COMMITS: u64 = 20;
/// Of a slot in the witness.
const COPY_BYTES: usize = 128 << 10;

/// A store with one group of one record a commit, closed. The witness holds every commit whole.
fn written() -> Place {
    written_with(b"a record")
}

/// The same, with commits too big for the witness, which has their numbers.
fn written_by_number() -> Place {
    written_with(&[7; 140_000])
}

fn written_with(record: &'static [u8]) -> Place {
    let place = Place::new();
    block_on(async {
        let store = open(&place.root()).unwrap();
        let create = Create { incarnation: 1, created_ms: 1 };
        let row = store.activate(group(1), Some(create)).await.unwrap().unwrap();
        let mut expected_tail = row.tail;
        for _ in 0..COMMITS {
            let changes = Changes { records: vec![Bytes::from_static(record)], ..Changes::default() };
            store.append(Append { group: group(1), epoch: row.epoch, expected_tail, changes }).await.unwrap();
            expected_tail = expected_tail.next();
        }
    });
    place
}

fn open(root: &Path) -> Result<FjallStore, OpenError> {
    workload::open(root, &StoreLimits::default())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn records(root: &Path) -> usize {
    let limit = ReadLimit { records_max: 1000, bytes_max: 8 << 20 };
    block_on(async { open(root).unwrap().read(group(1), Seq::FIRST, limit).await.unwrap().len() })
}

fn refused(root: &Path) -> String {
    match open(root) {
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        other => panic!("it should have been refused as damaged: {other:?}"),
    }
}

fn journal(root: &Path) -> PathBuf {
    root.join("engine/0.jnl")
}

fn accept(root: &Path) {
    File::create(root.join("accept-loss")).unwrap();
}

/// Where each batch of the journal begins, by its place in the engine's order.
fn batches(root: &Path) -> Vec<u64> {
    let bytes = fs::read(journal(root)).unwrap();
    let ends = bytes.windows(4).enumerate().filter(|(_, window)| window == b"FJL\x03");
    let ends: Vec<_> = ends.map(|(at, _)| at as u64 + 4).collect();
    [0].into_iter().chain(ends).collect()
}

#[test]
fn one_process_has_it_open() {
    let place = written();
    let held = open(&place.root()).unwrap();
    let second = FjallStore::open(&place.root(), &StoreLimits::default());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    drop(held);
    assert_eq!(records(&place.root()), 20);
}

#[test]
fn a_folder_without_its_witness_is_refused_until_the_loss_is_accepted() {
    let place = written();
    fs::remove_file(place.root().join("witness")).unwrap();
    let said = refused(&place.root());
    assert!(said.contains("is missing") && said.contains("accept-loss"), "{said}");
    refused(&place.root());
    accept(&place.root());
    assert_eq!(records(&place.root()), 20);
    assert!(!place.root().join("accept-loss").exists(), "it is accepted once");
    assert_eq!(records(&place.root()), 20);
}

#[test]
fn an_unreadable_witness_and_that_of_another_store_are_refused() {
    let (place, other) = (written(), written());
    let witness = place.root().join("witness");
    let own = fs::read(&witness).unwrap();
    fs::copy(other.root().join("witness"), &witness).unwrap();
    assert!(refused(&place.root()).contains("another store"));
    fs::write(&witness, vec![0; 8192]).unwrap();
    assert!(refused(&place.root()).contains("unreadable"));
    fs::write(&witness, own).unwrap();
    assert_eq!(records(&place.root()), 20);
}

#[test]
fn a_witness_of_another_format_is_refused_whatever_is_accepted() {
    let place = written();
    let witness = place.root().join("witness");
    let mut bytes = fs::read(&witness).unwrap();
    let format = b"witness".len();
    let own = bytes[format];
    let copies = (0..bytes.len()).step_by(COPY_BYTES).filter(|copy| bytes[*copy..].starts_with(b"witness"));
    let copies: Vec<_> = copies.collect();
    let mut set_format = |number| {
        copies.iter().for_each(|copy| bytes[copy + format] = number);
        fs::write(&witness, &bytes).unwrap();
    };
    set_format(9);
    accept(&place.root());
    let refused = open(&place.root()).unwrap_err();
    assert!(matches!(refused, OpenError::Format { found: 9, .. }), "{refused:?}");
    assert!(refused.to_string().contains("witness was written in format 9"), "{refused}");
    set_format(own);
    assert_eq!(records(&place.root()), 20);
}

#[test]
fn a_database_that_is_gone_is_not_made_anew() {
    let place = written();
    fs::remove_dir_all(place.root().join("engine")).unwrap();
    refused(&place.root());
    accept(&place.root());
    assert_eq!(records(&place.root()), 0);
}

#[test]
fn a_database_that_lacks_a_part_is_kept_from_the_engine() {
    let place = written();
    let part = place.root().join("engine/keyspaces/1/current");
    let bytes = fs::read(&part).unwrap();
    fs::remove_file(&part).unwrap();
    assert!(refused(&place.root()).contains("keyspaces/1/current is missing"));
    fs::write(&part, bytes).unwrap();
    assert_eq!(records(&place.root()), 20, "the engine has cleared nothing away");
}

#[test]
fn a_list_of_tables_that_has_changed_is_kept_from_the_engine() {
    let place = written();
    let list = place.root().join("engine/keyspaces/1/v0");
    let mut bytes = fs::read(&list).unwrap();
    bytes[10] ^= 1;
    fs::write(&list, bytes).unwrap();
    assert!(refused(&place.root()).contains("the checksum of v0 is wrong"));
}

#[test]
fn a_journal_damaged_in_the_middle_is_reported_and_left_as_it_is() {
    let place = written_by_number();
    let batches = batches(&place.root());
    let file = File::options().write(true).open(journal(&place.root())).unwrap();
    // The engine takes this for the end, and would cut off what follows.
    file.write_all_at(&[0xff], batches[10]).unwrap();
    let before = fs::read(journal(&place.root())).unwrap();
    let said = refused(&place.root());
    assert!(said.contains(&format!("from byte {}", batches[10])), "{said}");
    assert!(fs::read(journal(&place.root())).unwrap() == before, "not a byte of it is changed");
    accept(&place.root());
    assert_eq!(records(&place.root()), 8, "what stood before is served");
    let kept = fs::read_dir(place.root().join("damaged")).unwrap().count();
    assert_eq!(kept, 1, "what followed is kept aside");
}

#[test]
fn a_batch_whose_place_in_the_order_has_changed_is_found() {
    let place = written_by_number();
    let start = batches(&place.root())[10];
    let file = File::options().read(true).write(true).open(journal(&place.root())).unwrap();
    let mut order = [0; 8];
    file.read_exact_at(&mut order, start + 5).unwrap();
    // The engine's checksum does not cover it, and would skip the batch as one it has had.
    file.write_all_at(&0_u64.to_le_bytes(), start + 5).unwrap();
    assert!(refused(&place.root()).contains("cannot be read"));
    file.write_all_at(&order, start + 5).unwrap();
    assert_eq!(records(&place.root()), 20);
}

/// Cuts the journal before the last so many commits.
fn cut_commits(root: &Path, count: usize) {
    let batches = batches(root);
    let file = File::options().write(true).open(journal(root)).unwrap();
    file.set_len(batches[batches.len() - 1 - count]).unwrap();
}

#[test]
fn the_last_commits_are_written_again_from_the_witness() {
    for missing in [1, 2, 7, 20] {
        let place = written();
        let whole = batches(&place.root());
        cut_commits(&place.root(), missing);
        assert_eq!(records(&place.root()), 20, "{missing} were missing");
        assert_eq!(batches(&place.root()), whole, "the journal has them again");
        assert_eq!(records(&place.root()), 20);
        assert_eq!(batches(&place.root()), whole, "and has them once");
    }
}

#[test]
fn so_are_those_from_a_damaged_one_on() {
    for (commit, damaged_at) in [(1, 0), (1, 3), (1, 40), (1, 90), (2, 40), (9, 3), (20, 90)] {
        let place = written();
        let batches = batches(&place.root());
        let file = File::options().write(true).open(journal(&place.root())).unwrap();
        file.write_all_at(&[0xff], batches[batches.len() - 1 - commit] + damaged_at).unwrap();
        assert_eq!(records(&place.root()), 20, "{commit} from the end is damaged at {damaged_at}");
        assert_eq!(records(&place.root()), 20);
    }
}

#[test]
fn commits_are_written_again_though_a_table_holds_them() {
    let place = written();
    let end = *batches(&place.root()).last().unwrap();
    let engine = || fjall::Database::builder(place.root().join("engine")).open();
    let database = workload::when_free(engine, |error| matches!(error, fjall::Error::Locked)).unwrap();
    let store = database.keyspace("store", fjall::KeyspaceCreateOptions::default).unwrap();
    store.rotate_memtable_and_wait().unwrap();
    drop((store, database));
    assert_eq!(*batches(&place.root()).last().unwrap(), end, "the journal is there still");
    cut_commits(&place.root(), 3);
    block_on(async {
        let store = open(&place.root()).unwrap();
        // More than the witness holds.
        for _ in 0..40 {
            store.activate(group(1), None).await.unwrap();
        }
    });
    assert_eq!(records(&place.root()), 20, "no number is missing in the journal");
}

#[test]
fn a_journal_without_commits_too_big_for_the_witness_is_refused() {
    for missing in [1, 2] {
        let place = written_by_number();
        cut_commits(&place.root(), missing);
        let said = refused(&place.root());
        let readable = format!("after commit {}", 22 - missing);
        assert!(said.contains("commits up to 22 were acknowledged") && said.contains(&readable), "{said}");
        accept(&place.root());
        assert_eq!(records(&place.root()), 20 - missing);
        assert_eq!(records(&place.root()), 20 - missing);
    }
}

/// Changes the database behind the store's back.
fn tamper(root: &Path, change: impl Fn(&fjall::Keyspace)) {
    let open = || fjall::Database::builder(root.join("engine")).open();
    let database = workload::when_free(open, |error| matches!(error, fjall::Error::Locked)).unwrap();
    change(&database.keyspace("store", fjall::KeyspaceCreateOptions::default).unwrap());
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

fn record_key(seq: u64) -> Vec<u8> {
    [b"r".as_slice(), group(1).as_bytes(), &seq.to_be_bytes()].concat()
}

fn read_from(root: &Path, from: u64) -> Result<usize, StoreError> {
    let limit = ReadLimit { records_max: 5, bytes_max: 1000 };
    let from = Seq::new(from).unwrap();
    block_on(async { open(root).unwrap().read(group(1), from, limit).await.map(|records| records.len()) })
}

#[test]
fn a_hole_below_the_tail_is_reported_and_never_skipped() {
    let place = written();
    tamper(&place.root(), |store| store.remove(record_key(10)).unwrap());
    assert_eq!(read_from(&place.root(), 1), Ok(5));
    assert_eq!(read_from(&place.root(), 11), Ok(5));
    for from in [6, 9, 10] {
        assert!(matches!(read_from(&place.root(), from), Err(StoreError::Corrupt(_))), "from {from}");
    }
}

#[test]
fn a_record_under_another_ones_key_is_reported() {
    let place = written();
    tamper(&place.root(), |store| {
        let other = store.get(record_key(3)).unwrap().unwrap();
        store.insert(record_key(12), other).unwrap();
    });
    assert_eq!(read_from(&place.root(), 1), Ok(5));
    assert!(matches!(read_from(&place.root(), 10), Err(StoreError::Corrupt(_))));
}

#[test]
fn a_tail_below_the_one_that_an_activation_found_is_reported() {
    let place = written();
    block_on(async { open(&place.root()).unwrap().activate(group(1), None).await.unwrap() });
    tamper(&place.root(), |store| store.remove(record_key(COMMITS)).unwrap());
    let store = open(&place.root()).unwrap();
    assert!(matches!(block_on(store.group(group(1))), Err(StoreError::Corrupt(_))));
    assert!(matches!(block_on(store.activate(group(1), None)), Err(StoreError::Corrupt(_))));
    assert_eq!(store.health(), Ok(()), "the damage stays with its group");
}

#[test]
fn what_an_unfinished_creation_left_is_made_again() {
    let place = Place::new();
    fs::create_dir_all(place.root().join("engine.new/keyspaces")).unwrap();
    File::create(place.root().join("engine.new/0.jnl")).unwrap().write_all(b"half").unwrap();
    let store = Arc::new(open(&place.root()).unwrap());
    assert_eq!(block_on(store.group(group(1))), Ok(None));
}
