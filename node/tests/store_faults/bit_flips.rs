//! A bit flips anywhere in the store's files: it does no harm, or is reported; nothing that was
//! acknowledged is missing without a word.

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::FileExt, path::Path};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::workload::{Judgement, Place, Promised, Workload, seed};

const FLIPS: usize = 100;
const WITNESS_FLIPS: usize = 30;
/// Bits behind a file's last byte that is not zero flip too.
const BEYOND_BYTES: usize = 64;

/// A folder's files, each without the zeros at its end, and with its length.
struct Files(BTreeMap<String, (Vec<u8>, u64)>);

impl Files {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        read_into(root, "", &mut files);
        Self(files)
    }

    fn lay_down(&self, root: &Path) {
        for (name, (data, bytes)) in &self.0 {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = fs::File::create(path).unwrap();
            file.write_all(data).unwrap();
            file.set_len(*bytes).unwrap();
        }
    }

    /// Every other bit is one of any byte, so that big files have their share; the rest are of any
    /// file, so that small ones have theirs.
    fn random_bit(&self, random: &mut StdRng) -> (&str, u64, u8) {
        let reach = |(data, bytes): &(Vec<u8>, u64)| {
            (data.len() + BEYOND_BYTES).min(usize::try_from(*bytes).unwrap())
        };
        let files: Vec<_> = self.0.iter().filter(|(_, file)| reach(file) > 0).collect();
        let (name, file) = if random.random() {
            files[random.random_range(0..files.len())]
        } else {
            let all: usize = files.iter().map(|(_, file)| reach(file)).sum();
            let mut at = random.random_range(0..all);
            let is_in = |(_, file): &&(&String, &(Vec<u8>, u64))| {
                let before = at < reach(file);
                at = at.wrapping_sub(reach(file));
                before
            };
            *files.iter().find(is_in).unwrap()
        };
        (name, random.random_range(0..reach(file)) as u64, 1 << random.random_range(0..8))
    }
}

fn read_into(root: &Path, name: &str, files: &mut BTreeMap<String, (Vec<u8>, u64)>) {
    for entry in fs::read_dir(root.join(name)).unwrap() {
        let entry = entry.unwrap();
        let name = Path::new(name).join(entry.file_name()).into_os_string().into_string().unwrap();
        if entry.path().is_dir() {
            read_into(root, &name, files);
            continue;
        }
        let mut data = fs::read(entry.path()).unwrap();
        let bytes = data.len() as u64;
        data.truncate(data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        files.insert(name, (data, bytes));
    }
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= bit;
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn a_flipped_bit_is_harmless_or_reported() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new();
    workload.run(&place, &[]);
    let promised = Promised::of(&place.acks());
    let files = Files::read(&place.root());
    let (mut harmless, mut reported) = (0, 0);
    for _ in 0..FLIPS {
        let (name, at, bit) = files.random_bit(&mut random);
        let copy = Place::new();
        files.lay_down(&copy.root());
        flip(&copy.root().join(name), at, bit);
        match promised.judge(&copy.root(), &workload) {
            Judgement::Kept => harmless += 1,
            Judgement::Refused(_) | Judgement::Reported(_) => reported += 1,
            Judgement::Broken(promise) => {
                panic!("seed {seed}: bit {bit:#x} of byte {at} of {name}: {promise}")
            }
        }
    }
    println!("{harmless} of {FLIPS} flipped bits were harmless, {reported} were reported");
    assert!(reported > FLIPS / 10, "seed {seed}: only {reported} of {FLIPS} were reported");
}

#[test]
fn a_bit_flipped_in_the_witness_is_harmless_while_the_other_slot_and_the_journal_are_whole() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new();
    workload.run(&place, &[]);
    let promised = Promised::of(&place.acks());
    let files = Files::read(&place.root());
    let (witness, _) = &files.0["store/witness"];
    let written: Vec<_> = (0..witness.len()).filter(|at| witness[*at] != 0).collect();
    assert!(written.len() > 500, "a commit stands in it whole");
    for _ in 0..WITNESS_FLIPS {
        let (at, bit) = (written[random.random_range(0..written.len())], 1 << random.random_range(0..8));
        let copy = Place::new();
        files.lay_down(&copy.root());
        flip(&copy.root().join("store/witness"), at as u64, bit);
        match promised.judge(&copy.root(), &workload) {
            Judgement::Kept => {}
            other => panic!("seed {seed}: bit {bit:#x} of byte {at} of the witness: {other:?}"),
        }
    }
}
