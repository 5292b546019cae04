use fjall::Slice;

use super::{
    slot::{FIELDS_BYTES, HEADER_BYTES, MAGIC},
    *,
};

const COPY_BYTES: usize = 4 << 10;
const SLOT_BYTES: usize = 2 * COPY_BYTES;

fn layout(slots: usize) -> Layout {
    Layout { slots, copy_bytes: COPY_BYTES }
}

fn operations(commit: u64) -> Operations {
    let key = |text: &str| Slice::from(text.as_bytes());
    let value = Slice::from(commit.to_le_bytes().as_slice());
    [(key("a key"), Some(value)), (key("another"), None)].into_iter().collect()
}

fn encoded(commit: u64) -> Vec<u8> {
    operations(commit).encode(OPERATIONS_BYTES_MAX).unwrap()
}

/// These commits, each whole, the last ones.
fn testimony(commits: std::ops::RangeInclusive<u64>) -> Testimony {
    Testimony { store: 7, commit: *commits.end(), whole: commits.map(operations).collect() }
}

/// Commits up to this one, each told whole, in so many slots.
fn witness_at(commit: u64, slots: usize) -> (tempfile::TempDir, std::path::PathBuf, Witness) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness");
    let mut witness = Witness::create_with(&path, 7, 1, layout(slots)).unwrap();
    (2..=commit).for_each(|commit| witness.record(commit, &encoded(commit)).unwrap());
    (dir, path, witness)
}

fn said(file: &[u8]) -> Testimony {
    read(file, layout(file.len() / SLOT_BYTES)).unwrap().1
}

#[test]
fn the_last_commits_are_remembered() {
    let (_dir, path, _) = witness_at(9, 4);
    let (mut witness, found) = Witness::open_with(&path, layout(4)).unwrap();
    assert_eq!(found, testimony(6..=9));
    assert_eq!(found.journaled(), 5);
    assert!(witness.has(9) && !witness.has(10));
    witness.record(10, &[]).unwrap();
    let (_, found) = Witness::open_with(&path, layout(4)).unwrap();
    assert_eq!(found, Testimony { store: 7, commit: 10, whole: Vec::new() });
    assert_eq!(found.journaled(), 10);
}

#[test]
fn a_number_alone_says_that_the_journal_has_it_and_all_before() {
    let (_dir, path, mut witness) = witness_at(3, 8);
    witness.record(4, &[]).unwrap();
    (5..=6).for_each(|commit| witness.record(commit, &encoded(commit)).unwrap());
    assert_eq!(said(&fs::read(path).unwrap()), testimony(5..=6));
}

#[test]
fn there_is_room_while_the_slot_to_come_holds_nothing_that_the_journal_may_lack() {
    let (_dir, path, mut witness) = witness_at(4, 4);
    assert!(witness.has_room(1), "the first one is that of the creation, a number");
    witness.record(5, &encoded(5)).unwrap();
    assert!(!witness.has_room(1));
    assert!(witness.has_room(2));
    witness.record(6, &[]).unwrap();
    assert!(!witness.has_room(2));
    assert!(Witness::open_with(&path, layout(4)).unwrap().0.has_room(0), "the engine has everything by then");
}

#[test]
fn a_slot_torn_anywhere_leaves_the_commits_before() {
    let (_dir, path, mut witness) = witness_at(9, 4);
    let before = fs::read(&path).unwrap();
    witness.record(10, &encoded(10)).unwrap();
    let after = fs::read(&path).unwrap();
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    let (first, second): (Vec<_>, Vec<_>) = changed.into_iter().partition(|at| at % SLOT_BYTES < COPY_BYTES);
    // Either copy may be the first that the disk has.
    for order in [[first.as_slice(), &second], [second.as_slice(), &first]] {
        let order = order.concat();
        for torn in 0..order.len() {
            let mut file = before.clone();
            order[..torn].iter().for_each(|at| file[*at] = after[*at]);
            // Until a copy is whole the slot holds what it held, in the other one.
            let expected = if torn < order.len() / 2 { testimony(6..=9) } else { testimony(7..=10) };
            assert_eq!(said(&file), expected, "{torn} bytes of {}", order.len());
        }
    }
}

#[test]
fn the_first_write_after_opening_spares_what_was_said_last() {
    for commit in [4, 5, 6] {
        let (_dir, path, _) = witness_at(commit, 3);
        Witness::open_with(&path, layout(3)).unwrap().0.record(commit + 1, &[]).unwrap();
        let mut file = fs::read(&path).unwrap();
        let (slot, _) = read(&file, layout(3)).unwrap();
        file[slot * SLOT_BYTES..][..SLOT_BYTES].fill(0);
        assert_eq!(said(&file).commit, commit);
    }
}

#[test]
fn no_flipped_bit_changes_what_it_says() {
    let (_dir, path, _) = witness_at(9, 4);
    let file = fs::read(&path).unwrap();
    let copy_bytes = HEADER_BYTES + encoded(9).len();
    for copy in 0..file.len() / COPY_BYTES {
        for bit in copy * COPY_BYTES * 8..(copy * COPY_BYTES + copy_bytes) * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(said(&flipped), testimony(6..=9), "bit {bit}");
        }
    }
}

#[test]
fn a_copy_that_is_gone_is_missed_by_nobody() {
    let (_dir, path, _) = witness_at(9, 4);
    let file = fs::read(&path).unwrap();
    for copy in 0..file.len() / COPY_BYTES {
        let mut damaged = file.clone();
        damaged[copy * COPY_BYTES..][..COPY_BYTES].fill(0xff);
        assert_eq!(said(&damaged), testimony(6..=9), "copy {copy}");
    }
}

#[test]
fn a_format_of_another_version_is_told_from_damage() {
    let (_dir, path, _) = witness_at(5, 2);
    let mut file = fs::read(&path).unwrap();
    for copy in 0..4 {
        assert!(read(&file, layout(2)).is_ok(), "a copy is left");
        file[copy * COPY_BYTES + MAGIC.len()] = 9;
    }
    assert!(matches!(read(&file, layout(2)), Err(Unreadable::Format(9))));
    for damaged in [&[][..], &[0; SLOT_BYTES * 2], &file[..FIELDS_BYTES]] {
        let unreadable = read(damaged, layout(2)).unwrap_err();
        assert!(matches!(unreadable, Unreadable::Damaged | Unreadable::Format(9)), "{unreadable:?}");
    }
}
