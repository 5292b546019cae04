//! Every order in which journal and witness can be cut short: a model of the committer and of the
//! thread that tells the witness, with the witness's own file and the rules of opening. After each
//! step the power goes in every way it can, and whatever was acknowledged must be found.

use std::{collections::VecDeque, path::PathBuf};

use fjall::Slice;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::store::{
    journal::{self, Scan, Verdict},
    standing::{Standing, standing},
};

const STORE: u64 = 7;

/// A commit is what it wrote: no two are the same, even under the same number.
type Commit = u64;

struct Model {
    _dir: tempfile::TempDir,
    path: PathBuf,
    /// The durable ones, from number 1 on.
    journal: Vec<Commit>,
    /// The one that is being written, and whether it was told whole.
    writing: Option<(Commit, bool)>,
    witness: Witness,
    /// What waits for the witness, or is being written to it.
    untold: VecDeque<(u64, Vec<u8>)>,
    acknowledged: Vec<Commit>,
    begun: Commit,
}

#[derive(Debug, Clone)]
enum Step {
    Begin {
        whole: bool,
    },
    JournalSynced,
    /// So many of those that wait are told at once.
    WitnessSynced(usize),
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

fn operations(commit: Commit) -> Vec<u8> {
    let value = Slice::from(commit.to_le_bytes().repeat(100));
    let operations: Operations = [(Slice::from(b"commit".as_slice()), Some(value))].into_iter().collect();
    operations.encode(OPERATIONS_BYTES_MAX).unwrap()
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let witness = Witness::create(&path, STORE, 1).unwrap();
        let journal = vec![1];
        let (writing, untold, acknowledged) = (None, VecDeque::new(), vec![1]);
        Self { _dir: dir, path, journal, writing, witness, untold, acknowledged, begun: 1 }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Begin { whole } => self.begin(*whole),
            Step::JournalSynced => self.end(),
            Step::WitnessSynced(count) => self.tell(*count),
            Step::PowerLoss(way) => {
                let left = self.left();
                self.open(way.get(&left));
            }
        }
        let durable = self.journal.len().min(usize::try_from(self.witness.commit).unwrap());
        if durable > self.acknowledged.len() {
            self.acknowledged = self.journal[..durable].to_vec();
        }
    }

    /// A commit begins when the one before is in the journal; and in the witness, if it was told whole.
    fn begin(&mut self, whole: bool) {
        if self.writing.is_some() || self.untold.iter().any(|(_, operations)| !operations.is_empty()) {
            return;
        }
        self.begun += 1;
        self.writing = Some((self.begun, whole));
        if whole {
            self.untold.push_back((self.journal.len() as u64 + 1, operations(self.begun)));
        }
    }

    fn end(&mut self) {
        let Some((commit, whole)) = self.writing.take() else { return };
        self.journal.push(commit);
        if !whole {
            self.untold.push_back((self.journal.len() as u64, Vec::new()));
        }
    }

    fn tell(&mut self, count: usize) {
        let count = count.min(self.untold.len());
        if let Some((number, operations)) = self.untold.drain(..count).next_back() {
            self.witness.record(number, &operations).unwrap();
        }
    }

    /// Everything that the disk may hold if the power goes now.
    fn left(&self) -> Vec<Left> {
        let mut journals = vec![(self.journal.clone(), false)];
        if let Some((commit, _)) = self.writing {
            journals.push((self.journal.clone(), true));
            journals.push(([self.journal.as_slice(), &[commit]].concat(), false));
        }
        let witnesses = self.witnesses();
        let with_witness = |(journal, torn): (Vec<_>, bool)| {
            let left = move |witness| Left { journal: journal.clone(), torn, witness };
            witnesses.clone().into_iter().map(left)
        };
        journals.into_iter().flat_map(with_witness).collect()
    }

    fn witnesses(&self) -> Vec<Vec<u8>> {
        let durable = fs::read(&self.path).unwrap();
        let mut all = vec![durable.clone()];
        for (number, operations) in &self.untold {
            let slot = encode(STORE, *number, operations);
            for kept in [1, FIELDS_BYTES, HEADER_BYTES, 512, slot.len()].map(|kept| kept.min(slot.len())) {
                let mut torn = durable.clone();
                torn[self.witness.slot * SLOT_BYTES..][..kept].copy_from_slice(&slot[..kept]);
                all.push(torn);
            }
        }
        all
    }

    /// The store is opened, and what it found in the journal alone is to be witnessed.
    fn open(&mut self, left: &Left) {
        fs::write(&self.path, &left.witness).unwrap();
        self.witness = Witness::open(&self.path).unwrap().0;
        self.journal = left.opened().unwrap();
        self.writing = None;
        self.untold.clear();
        let last = self.journal.len() as u64;
        if !self.witness.has(last) {
            self.untold.push_back((last, Vec::new()));
        }
    }

    /// Nothing that was acknowledged is missing without a word; and only damage is refused.
    fn assert_kept(&self) {
        for left in self.left() {
            match left.opened() {
                Ok(found) => assert!(found.starts_with(&self.acknowledged), "{left:?}: {found:?}"),
                Err(refused) => panic!("{left:?} is refused: {refused}"),
            }
            for damaged in left.damaged() {
                if let Ok(found) = damaged.opened() {
                    assert!(found.starts_with(&self.acknowledged), "{damaged:?}: {found:?}");
                }
            }
        }
    }
}

impl Left {
    /// The commits that a store has which is opened here.
    fn opened(&self) -> Result<Vec<Commit>, String> {
        let (_, testimony) = read(&self.witness).map_err(|unreadable| format!("{unreadable:?}"))?;
        let last = self.journal.len() as u64;
        let commits = (last > 0).then_some((1, last));
        let scan = Scan { whole_bytes: 0, commits, remainder: self.torn };
        if let damaged @ Verdict::Damaged { .. } = journal::judge(&[(0, scan)], testimony.journaled()) {
            return Err(format!("{damaged:?}"));
        }
        let again = self.journal.iter().copied();
        match standing(testimony, STORE, last) {
            Standing::Whole => Ok(again.collect()),
            Standing::OneShort(missing) => {
                let is_missing = |commit: &Commit| {
                    missing.encode(OPERATIONS_BYTES_MAX).is_some_and(|missing| missing == operations(*commit))
                };
                Ok(again.chain((1..100).find(is_missing)).collect())
            }
            Standing::Lost(what) => Err(what),
        }
    }

    /// The same, with one commit or one slot unreadable.
    fn damaged(&self) -> Vec<Self> {
        let until = |commits: &[Commit]| Self { journal: commits.to_vec(), torn: true, ..self.clone() };
        let mut all: Vec<_> = (0..self.journal.len()).map(|last| until(&self.journal[..last])).collect();
        for slot in 0..SLOTS {
            let mut damaged = self.clone();
            damaged.witness[slot * SLOT_BYTES..][..HEADER_BYTES].fill(0xff);
            all.push(damaged);
        }
        all
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|whole| Step::Begin { whole }),
        4 => Just(Step::JournalSynced),
        4 => (1..4_usize).prop_map(Step::WitnessSynced),
        1 => any::<prop::sample::Index>().prop_map(Step::PowerLoss),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_acknowledged_is_found_however_journal_and_witness_are_cut_short(steps in vec(step(), 1..24)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            model.assert_kept();
        }
    }
}
