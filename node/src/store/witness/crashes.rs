//! Every order in which journal and witness can be cut short: a model of the committer, of the
//! thread that tells the witness and of the one that syncs the journal, with the witness's own file
//! and the rules of opening. After each step the power goes in every way it can, and whatever was
//! acknowledged must be found.

use std::{collections::VecDeque, path::PathBuf};

use fjall::Slice;
use proptest::{collection::vec, prelude::*};

use super::{
    slot::{FIELDS_BYTES, HEADER_BYTES},
    *,
};
use crate::store::{
    journal::{self, Scan, Verdict},
    standing::{Standing, standing},
};

const STORE: u64 = 7;
/// Few, so that they are used again.
const LAYOUT: Layout = Layout { slots: 4, copy_bytes: 4 << 10 };

/// A commit is what it wrote: no two are the same, even under the same number.
type Commit = u64;

struct Model {
    _dir: tempfile::TempDir,
    path: PathBuf,
    /// From number 1 on, durable up to `synced` of them.
    journal: Vec<Commit>,
    synced: usize,
    writing: Option<Writing>,
    witness: Witness,
    /// Numbers of commits in the journal that wait for the witness.
    untold: VecDeque<u64>,
    acknowledged: Vec<Commit>,
    begun: Commit,
}

/// What the committer is at.
#[derive(Debug, Clone, Copy)]
enum Writing {
    ToWitness(Commit),
    ToJournal(Commit),
}

#[derive(Debug, Clone)]
enum Step {
    Begin {
        small: bool,
    },
    /// What the committer waits for is synced.
    Synced,
    /// The journal is synced behind.
    JournalSynced,
    /// So many of those that wait are told at once.
    NumbersTold(usize),
    /// One of the ways, as it comes.
    PowerLoss(prop::sample::Index),
}

/// What a disk may hold.
#[derive(Debug, Clone)]
struct Left {
    journal: Vec<Commit>,
    torn: bool,
    witness: Vec<u8>,
}

fn operations(commit: Commit) -> Operations {
    let value = Slice::from(commit.to_le_bytes().repeat(100));
    [(Slice::from(b"commit".as_slice()), Some(value))].into_iter().collect()
}

fn encoded(commit: Commit) -> Vec<u8> {
    operations(commit).encode(OPERATIONS_BYTES_MAX).unwrap()
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let witness = Witness::create_with(&path, STORE, 1, LAYOUT).unwrap();
        let (journal, synced, writing, untold, acknowledged) = (vec![1], 1, None, VecDeque::new(), vec![1]);
        Self { _dir: dir, path, journal, synced, writing, witness, untold, acknowledged, begun: 1 }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Begin { small } => self.begin(*small),
            Step::Synced => self.end(),
            Step::JournalSynced => self.synced = self.journal.len(),
            Step::NumbersTold(count) => self.tell(*count),
            Step::PowerLoss(way) => {
                let left = self.left();
                self.open(way.get(&left));
            }
        }
        let told = self.journal.len().min(usize::try_from(self.witness.commit).unwrap());
        if told > self.acknowledged.len() {
            self.acknowledged = self.journal[..told].to_vec();
        }
    }

    fn begin(&mut self, small: bool) {
        if self.writing.is_some() {
            return;
        }
        self.begun += 1;
        let has_room = small && self.witness.has_room(self.synced as u64);
        let writing = if has_room { Writing::ToWitness } else { Writing::ToJournal };
        self.writing = Some(writing(self.begun));
    }

    fn end(&mut self) {
        let number = self.journal.len() as u64 + 1;
        match self.writing.take() {
            None => {}
            Some(Writing::ToWitness(commit)) => {
                self.witness.record(number, &encoded(commit)).unwrap();
                self.journal.push(commit);
            }
            Some(Writing::ToJournal(commit)) => {
                self.journal.push(commit);
                self.synced = self.journal.len();
                self.untold.push_back(number);
            }
        }
    }

    fn tell(&mut self, count: usize) {
        let count = count.min(self.untold.len());
        if let Some(number) = self.untold.drain(..count).next_back()
            && !self.witness.has(number)
        {
            self.witness.record(number, &[]).unwrap();
        }
    }

    /// Everything that the disk may hold if the power goes now.
    fn left(&self) -> Vec<Left> {
        let mut written = self.journal.clone();
        if let Some(Writing::ToJournal(commit)) = self.writing {
            written.push(commit);
        }
        let cut = (self.synced..=written.len()).map(|kept| &written[..kept]);
        let journals = cut.flat_map(|kept| {
            let may_be_torn = kept.len() < written.len();
            [false, true]
                .into_iter()
                .filter(move |torn| may_be_torn || !torn)
                .map(|torn| (kept.to_vec(), torn))
        });
        let witnesses = self.witnesses();
        let with_witness = |(journal, torn): (Vec<_>, bool)| {
            let left = move |witness| Left { journal: journal.clone(), torn, witness };
            witnesses.clone().into_iter().map(left)
        };
        journals.flat_map(with_witness).collect()
    }

    /// Each copy of what is being written may be whole, torn or missing.
    fn witnesses(&self) -> Vec<Vec<u8>> {
        let durable = fs::read(&self.path).unwrap();
        let mut all = vec![durable.clone()];
        let number = self.journal.len() as u64 + 1;
        let commit = match self.writing {
            Some(Writing::ToWitness(commit)) => Some(slot::encode(STORE, number, &encoded(commit))),
            _ => None,
        };
        let numbers = self.untold.iter().filter(|number| !self.witness.has(**number));
        let numbers = numbers.map(|number| slot::encode(STORE, *number, &[]));
        for copy in commit.into_iter().chain(numbers) {
            let torn = [0, 1, FIELDS_BYTES, HEADER_BYTES, 512, copy.len()];
            for [first, second] in torn.iter().flat_map(|first| torn.map(|second| [*first, second])) {
                let mut torn = durable.clone();
                let slot = &mut torn[self.witness.next * LAYOUT.slot_bytes()..][..LAYOUT.slot_bytes()];
                slot[..first].copy_from_slice(&copy[..first]);
                slot[LAYOUT.copy_bytes..][..second].copy_from_slice(&copy[..second]);
                all.push(torn);
            }
        }
        all
    }

    /// The store is opened, and what it found in the journal alone is to be witnessed.
    fn open(&mut self, left: &Left) {
        fs::write(&self.path, &left.witness).unwrap();
        self.witness = Witness::open_with(&self.path, LAYOUT).unwrap().0;
        self.journal = left.opened().unwrap();
        self.synced = self.journal.len();
        self.writing = None;
        self.untold.clear();
        let last = self.journal.len() as u64;
        if !self.witness.has(last) {
            self.witness.record(last, &[]).unwrap();
        }
    }

    /// Nothing that was acknowledged is missing without a word, whatever is damaged; nothing is
    /// missing at all where only a copy is.
    fn assert_kept(&self) {
        for left in self.left() {
            let one_copy_less = left.without_a_copy();
            for left in [left.clone()].into_iter().chain(one_copy_less) {
                match left.opened() {
                    Ok(found) => assert!(found.starts_with(&self.acknowledged), "{left}: {found:?}"),
                    Err(refused) => panic!("{left} is refused: {refused}"),
                }
            }
            for damaged in left.with_a_damaged_journal() {
                if let Ok(found) = damaged.opened() {
                    assert!(found.starts_with(&self.acknowledged), "{damaged}: {found:?}");
                }
            }
        }
    }
}

impl Left {
    /// The commits that a store has which is opened here.
    fn opened(&self) -> Result<Vec<Commit>, String> {
        let (_, testimony) = read(&self.witness, LAYOUT).map_err(|unreadable| format!("{unreadable:?}"))?;
        let last = self.journal.len() as u64;
        let commits = (last > 0).then_some((1, last));
        let scan = Scan { whole_bytes: 0, commits, remainder: self.torn };
        if let damaged @ Verdict::Damaged { .. } = journal::judge(&[(0, scan)], testimony.journaled()) {
            return Err(format!("{damaged:?}"));
        }
        match standing(testimony, STORE, last) {
            Standing::Whole => Ok(self.journal.clone()),
            Standing::Short(missing) => {
                let commit = |missing: &Operations| (1..100).find(|commit| *missing == operations(*commit));
                let missing = missing.iter().map(|missing| commit(missing).expect("it was begun"));
                Ok(self.journal.iter().copied().chain(missing).collect())
            }
            Standing::Lost(what) => Err(what),
        }
    }

    /// The same, unreadable from one commit on.
    fn with_a_damaged_journal(&self) -> impl Iterator<Item = Self> {
        let until = |commits: &[Commit]| Self { journal: commits.to_vec(), torn: true, ..self.clone() };
        (0..self.journal.len()).map(move |last| until(&self.journal[..last]))
    }

    /// The same, one copy in the witness unreadable.
    fn without_a_copy(&self) -> impl Iterator<Item = Self> {
        (0..self.witness.len() / LAYOUT.copy_bytes).map(|copy| {
            let mut damaged = self.clone();
            damaged.witness[copy * LAYOUT.copy_bytes..][..HEADER_BYTES].fill(0xff);
            damaged
        })
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let witness =
            read(&self.witness, LAYOUT).map(|(_, testimony)| (testimony.journaled(), testimony.commit));
        write!(f, "journal {:?}, torn {}, the witness {witness:?}", self.journal, self.torn)
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::bool::weighted(0.8).prop_map(|small| Step::Begin { small }),
        6 => Just(Step::Synced),
        1 => Just(Step::JournalSynced),
        3 => (1..4_usize).prop_map(Step::NumbersTold),
        1 => any::<prop::sample::Index>().prop_map(Step::PowerLoss),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_acknowledged_is_found_however_journal_and_witness_are_cut_short(steps in vec(step(), 1..32)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            model.assert_kept();
        }
    }
}
