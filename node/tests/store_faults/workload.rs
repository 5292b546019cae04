//! A process that writes to a store and says what was acknowledged, and the judge of what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_node::{
    config::StoreLimits,
    store::{Append, Changes, Create, CursorRaise, Cursors, FjallStore, OpenError, ReadLimit, Store},
};
use shoal_protocol::{GroupId, Seq, UserId};

const TASKS_MAX: u64 = 4;
const GROUPS_PER_TASK: u64 = 3;
const CHILD: &str = "SHOAL_STORE_FAULTS_CHILD";

/// What the process writes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    /// At once, each with groups of its own.
    pub(crate) tasks: u64,
    /// Appends of each of the tasks.
    pub(crate) rounds: u64,
    pub(crate) record_bytes_max: usize,
    pub(crate) memtable_bytes: u64,
}

impl Workload {
    pub(crate) fn small(seed: u64) -> Self {
        Self { seed, tasks: TASKS_MAX, rounds: 80, record_bytes_max: 600, memtable_bytes: 64 << 10 }
    }

    pub(crate) fn limits(&self) -> StoreLimits {
        StoreLimits { memtable_bytes: self.memtable_bytes, active_groups_max: 4, ..StoreLimits::default() }
    }

    /// Runs it in a process whose file calls are recorded.
    pub(crate) fn run(&self, place: &Place, variables: &[(&str, &str)]) {
        let library = std::env::current_exe().unwrap().with_file_name("libshoal_power_loss.so");
        assert!(library.exists(), "{} is built with this test", library.display());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "workload::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD, serde_json::to_string(&(self, place.root())).unwrap())
            .env("LD_PRELOAD", library)
            .env("POWER_LOSS_ROOT", place.root())
            .env("POWER_LOSS_LOG", place.log())
            .env("POWER_LOSS_ACKS", place.acks())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&child.stderr).into_owned() + &String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "the workload failed: {said}");
    }
}

/// Where a workload leaves its files.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    /// In memory where the machine has a folder there: what a sync does is the model's matter.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("shoal-faults").tempdir_in("/dev/shm");
        let place = Self(folder.or_else(|_| tempfile::tempdir()).unwrap());
        std::fs::create_dir(place.0.path().join("root")).unwrap();
        place
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("root")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root().with_file_name("log")
    }

    pub(crate) fn acks(&self) -> PathBuf {
        self.root().with_file_name("acks")
    }
}

/// Opens a store, or what is in it, that nobody else has. A process that another test has just
/// started still holds every lock of this one, until it has become another program.
pub(crate) fn when_free<T, E>(
    open: impl Fn() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match open() {
            Err(error) if is_locked(&error) && Instant::now() < until => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

pub(crate) fn open(dir: &Path, limits: &StoreLimits) -> Result<FjallStore, OpenError> {
    when_free(|| FjallStore::open(dir, limits), |error| matches!(error, OpenError::Locked(_)))
}

/// Another one each time, unless `SHOAL_SEED` says which; a failure names it.
pub(crate) fn seed() -> u64 {
    let seed =
        std::env::var("SHOAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SHOAL_SEED={seed}");
    seed
}

/// Where the store is, inside a root.
pub(crate) fn store_in(root: &Path) -> PathBuf {
    root.join("store")
}

pub(crate) fn group(number: u64) -> GroupId {
    GroupId::named(&format!("group {number}"))
}

fn user(group: u64) -> UserId {
    UserId::new(format!("user{group}")).unwrap()
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

/// A record says what it is, so that no other bytes are taken for it.
fn content(group: u64, seq: u64, bytes_max: usize) -> Bytes {
    let mut random = StdRng::seed_from_u64(group << 32 | seq);
    let mut bytes = format!("{group}/{seq} ").into_bytes();
    let pattern: [u8; 256] = std::array::from_fn(|_| random.random());
    let length = bytes.len() + random.random_range(0..bytes_max);
    bytes.extend(pattern.repeat(length / pattern.len() + 1));
    bytes.truncate(length);
    bytes.into()
}

fn redacted(group: u64, seq: u64) -> Bytes {
    format!("{group}/{seq} recalled").into()
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promised {
    tails: BTreeMap<u64, u64>,
    redacted: BTreeSet<(u64, u64)>,
    cursors: BTreeMap<u64, u64>,
    settings: BTreeMap<u64, u64>,
    /// The store said that it writes no more.
    pub(crate) stopped: bool,
    /// After that, everything acknowledged was still read.
    pub(crate) read_on: bool,
}

impl Promised {
    pub(crate) fn of(acks: &Path) -> Self {
        let mut promised = Self::default();
        std::fs::read_to_string(acks).unwrap().lines().for_each(|line| promised.take(line));
        promised
    }

    /// One line of the process.
    pub(crate) fn take(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "tail" => drop(self.tails.insert(number(1), number(2))),
            "redacted" => drop(self.redacted.insert((number(1), number(2)))),
            "cursor" => drop(self.cursors.insert(number(1), number(2))),
            "setting" => drop(self.settings.insert(number(1), number(2))),
            "stopped" => self.stopped = true,
            "read-on" => self.read_on = true,
            other => panic!("{other} is nothing the workload says"),
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.tails.values().map(|tail| tail - 1).sum()
    }

    /// The first promise that the store does not keep, and nothing if it keeps them all. An error
    /// that a read reports is passed on.
    pub(crate) async fn broken(
        &self,
        store: &dyn Store,
        workload: &Workload,
    ) -> Result<Option<String>, String> {
        for number in 0..TASKS_MAX * GROUPS_PER_TASK {
            if let Some(broken) = self.broken_in(number, store, workload).await? {
                return Ok(Some(broken));
            }
        }
        for (task, version) in &self.settings {
            let setting = store.setting(&format!("key {task}")).await.map_err(|error| error.to_string())?;
            if setting.as_ref().is_none_or(|setting| setting.version < *version) {
                return Ok(Some(format!("setting {task} is {setting:?}, not {version}")));
            }
        }
        Ok(None)
    }

    async fn broken_in(
        &self,
        number: u64,
        store: &dyn Store,
        workload: &Workload,
    ) -> Result<Option<String>, String> {
        let promised = self.tails.get(&number).copied().unwrap_or(1);
        let reported = |error: shoal_node::store::StoreError| error.to_string();
        let row = store.group(group(number)).await.map_err(reported)?;
        let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
        let records = store.read(group(number), Seq::FIRST, limit).await.map_err(reported)?;
        let tail = row.map_or(1, |row| row.tail.get());
        if tail < promised || tail != 1 + records.len() as u64 {
            let found = records.len();
            return Ok(Some(format!(
                "group {number}: tail {tail}, {found} records, and {promised} was promised"
            )));
        }
        for (at, record) in (1..).zip(records) {
            let recalled = record == redacted(number, at);
            let must_be_recalled = self.redacted.contains(&(number, at));
            if !recalled && (must_be_recalled || record != content(number, at, workload.record_bytes_max)) {
                return Ok(Some(format!("group {number}: record {at} is another")));
            }
        }
        let cursor = store.cursors(&user(number), &[group(number)]).await.map_err(reported)?[0].read;
        let promised = self.cursors.get(&number).and_then(|cursor| Seq::new(*cursor));
        Ok((cursor < promised)
            .then(|| format!("group {number}: cursor {cursor:?}, and {promised:?} was promised")))
    }

    /// What a store that opens must do: keep every promise, and take more, across another opening.
    pub(crate) fn judge(&self, root: &Path, workload: &Workload) -> Judgement {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = match open(&store_in(root), &workload.limits()) {
                Ok(store) => store,
                Err(error) => return Judgement::Refused(error),
            };
            match self.broken(&store, workload).await {
                Err(reported) => return Judgement::Reported(reported),
                Ok(Some(broken)) => return Judgement::Broken(broken),
                Ok(None) => {}
            }
            if let Err(error) = append_one(&store, workload).await {
                return Judgement::Reported(error);
            }
            drop(store);
            match open(&store_in(root), &workload.limits()) {
                Ok(store) => match self.broken(&store, workload).await {
                    Ok(None) => Judgement::Kept,
                    Ok(Some(broken)) => Judgement::Broken(broken),
                    Err(reported) => Judgement::Reported(reported),
                },
                Err(error) => Judgement::Refused(error),
            }
        })
    }
}

/// What became of the promises.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// All are kept.
    Kept,
    /// The store does not open, and says why.
    Refused(OpenError),
    /// A read or a write says what is wrong.
    Reported(String),
    /// One is broken, without a word.
    Broken(String),
}

async fn append_one(store: &FjallStore, workload: &Workload) -> Result<(), String> {
    let create = Create { incarnation: 1, created_ms: 1 };
    let row = store.activate(group(0), Some(create)).await.map_err(|error| error.to_string())?;
    let row = row.ok_or("the group was not made")?;
    let records = vec![content(0, row.tail.get(), workload.record_bytes_max)];
    let changes = Changes { records, ..Changes::default() };
    let append = Append { group: group(0), epoch: row.epoch, expected_tail: row.tail, changes };
    store.append(append).await.map_err(|error| error.to_string())
}

/// The process.
#[test]
#[ignore = "run by the tests of this file, recorded"]
fn child() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (workload, root): (Workload, PathBuf) = serde_json::from_str(&child).unwrap();
    let acks = PathBuf::from(std::env::var_os("POWER_LOSS_ACKS").unwrap());
    let file = Mutex::new(File::options().create(true).append(true).open(&acks).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(FjallStore::open(&store_in(&root), &workload.limits()).unwrap());
        let say = |line: String| file.lock().unwrap().write_all((line + "\n").as_bytes()).unwrap();
        let tasks = (0..workload.tasks).map(|task| write(task, &workload, &store, &say));
        let failed: Vec<_> = join_all(tasks).await.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() {
            return;
        }
        store.health().expect_err("a store that failed a write has stopped");
        say("stopped".into());
        let promised = Promised::of(&acks);
        assert_eq!(promised.broken(&*store, &workload).await, Ok(None), "reads go on");
        say("read-on".into());
    });
}

/// One task has groups of its own, and knows their tails.
async fn write(
    task: u64,
    workload: &Workload,
    store: &FjallStore,
    say: &impl Fn(String),
) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(workload.seed << 8 | task);
    let mut rows = BTreeMap::new();
    for number in task * GROUPS_PER_TASK..(task + 1) * GROUPS_PER_TASK {
        let create = Some(Create { incarnation: 1, created_ms: 1 });
        let row = store.activate(group(number), create).await.map_err(|error| error.to_string())?;
        rows.insert(number, row.unwrap());
    }
    for round in 0..workload.rounds {
        let number = task * GROUPS_PER_TASK + random.random_range(0..GROUPS_PER_TASK);
        let row = rows.get_mut(&number).unwrap();
        let tail = row.tail.get();
        let after = tail + random.random_range(1..8);
        let recalled = (random.random_ratio(1, 8) && tail > 1).then(|| random.random_range(1..tail));
        let changes = Changes {
            records: (tail..after).map(|at| content(number, at, workload.record_bytes_max)).collect(),
            redactions: recalled.map(|at| (seq(at), redacted(number, at))).into_iter().collect(),
            ..Changes::default()
        };
        let append = Append { group: group(number), epoch: row.epoch, expected_tail: row.tail, changes };
        store.append(append).await.map_err(|error| error.to_string())?;
        row.tail = seq(after);
        recalled.into_iter().for_each(|at| say(format!("redacted {number} {at}")));
        say(format!("tail {number} {after}"));
        if random.random_ratio(1, 6) {
            let cursors = Cursors { read: Some(seq(after)), delivered: None };
            let raise = CursorRaise { user: user(number), group: group(number), cursors };
            store.raise_cursors(vec![raise]).await.map_err(|error| error.to_string())?;
            say(format!("cursor {number} {after}"));
        }
        if round % 16 == 15 {
            let (key, expected) = (format!("key {task}"), round / 16);
            let swapped = store.compare_and_swap(&key, expected, Some("value".into())).await;
            let version = swapped.map_err(|error| error.to_string())?.unwrap();
            say(format!("setting {task} {version}"));
        }
    }
    Ok(())
}
