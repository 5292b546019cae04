//! Durable messages a second at the store alone, beside the engine's own rate on the same bytes,
//! and a lone append beside fdatasync on a growing file: in one run, in turn, on one disk.
//!
//! `cargo bench -p shoal-node --bench store -- [--seconds 8] [--dir DIR] [--json FILE]`

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};
use serde::Serialize;
use shoal_node::{
    config::StoreLimits,
    store::{Append, Changes, Create, FjallStore, GroupRow, Store},
};
use shoal_protocol::{GroupId, Seq};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEAL_BYTES: usize = 4;
const LONE_APPENDS: usize = 300;

#[derive(Debug, Parser)]
struct Arguments {
    /// How long each of store and engine is measured under each load.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How long each has its turn.
    #[arg(long, default_value_t = 400)]
    slice_ms: u64,
    /// Only loads with so many groups.
    #[arg(long)]
    groups: Option<u64>,
    /// Only loads with so many messages in flight.
    #[arg(long)]
    in_flight: Option<u64>,
    /// A folder on the disk to measure.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Writes the figures there.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, load: Load) -> bool {
        self.groups.is_none_or(|groups| groups == load.groups)
            && self.in_flight.is_none_or(|in_flight| in_flight == load.in_flight())
    }
}

/// Who sends how much at once.
#[derive(Debug, Clone, Copy, Serialize)]
struct Load {
    groups: u64,
    /// Appends of each group under way at once.
    appends: u64,
    records: u64,
    payload_bytes: usize,
}

impl Load {
    fn in_flight(self) -> u64 {
        self.groups * self.appends * self.records
    }
}

#[derive(Debug, Serialize)]
struct Throughput {
    load: Load,
    in_flight: u64,
    /// Messages in a commit, on average.
    batch: u64,
    store_per_second: f64,
    engine_per_second: f64,
    /// Of the engine's rate.
    share: f64,
}

#[derive(Debug, Serialize)]
struct Latency {
    store_p50_us: f64,
    engine_p50_us: f64,
    fdatasync_p50_us: f64,
    /// Store to fdatasync.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    throughput: Vec<Throughput>,
    lone_append: Latency,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut throughput = Vec::new();
    for payload_bytes in [128, 200] {
        let one = Load { groups: 1, appends: 2, records: 1024, payload_bytes };
        let many = Load { groups: 1000, appends: 1, records: 1, payload_bytes };
        for load in [one, many, Load { records: 4, ..many }] {
            if arguments.wants(load) {
                throughput.push(measure_throughput(load, &arguments)?);
            }
        }
    }
    let results = Results { throughput, lone_append: measure_latency(&arguments)? };
    print(&results);
    if let Some(path) = &arguments.json {
        serde_json::to_writer_pretty(File::create(path)?, &results)?;
    }
    Ok(())
}

/// Store and engine take turns of a slice each, so that both meet the same disk and neighbours.
fn measure_throughput(load: Load, arguments: &Arguments) -> Result<Throughput> {
    let mut store = StoreUnderLoad::open(load, &arguments.dir)?;
    let mut engine = EngineUnderLoad::open(load, &arguments.dir)?;
    let slice = Duration::from_millis(arguments.slice_ms);
    let slices = (arguments.seconds / slice.as_secs_f64()).ceil() as u64;
    // The first slice of each fills the caches, and says how many messages a commit has.
    let mut batch = store.run(slice)?.batch();
    engine.run(batch, slice)?;
    let (mut stores, mut engines) = (Rate::default(), Rate::default());
    for _ in 0..slices.max(1) {
        let rate = store.run(slice)?;
        batch = rate.batch();
        stores.add(rate);
        engines.add(engine.run(batch, slice)?);
    }
    let share = stores.per_second() / engines.per_second();
    Ok(Throughput {
        load,
        in_flight: load.in_flight(),
        batch: stores.batch(),
        store_per_second: stores.per_second(),
        engine_per_second: engines.per_second(),
        share,
    })
}

/// What was written in some time.
#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    messages: u64,
    commits: u64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.commits += other.commits;
        self.seconds += other.seconds;
    }

    fn per_second(self) -> f64 {
        self.messages as f64 / self.seconds
    }

    fn batch(self) -> u64 {
        (self.messages / self.commits.max(1)).max(1)
    }
}

struct StoreUnderLoad {
    load: Load,
    runtime: tokio::runtime::Runtime,
    store: Arc<FjallStore>,
    groups: Vec<(GroupId, GroupRow)>,
    _dir: tempfile::TempDir,
}

impl StoreUnderLoad {
    fn open(load: Load, dir: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(dir)?;
        let store = Arc::new(FjallStore::open(dir.path(), &StoreLimits::default())?);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
        let activate = |number| {
            let store = Arc::clone(&store);
            runtime.spawn(async move {
                Ok::<_, anyhow::Error>((group(number), activate(&store, group(number)).await?))
            })
        };
        let tasks: Vec<_> = (0..load.groups).map(activate).collect();
        let groups = runtime.block_on(async {
            let mut groups = Vec::new();
            for task in tasks {
                groups.push(task.await??);
            }
            Ok::<_, anyhow::Error>(groups)
        })?;
        Ok(Self { load, runtime, store, groups, _dir: dir })
    }

    fn run(&mut self, time: Duration) -> Result<Rate> {
        let (commits, began) = (self.store.commits(), Instant::now());
        let (store, load) = (&self.store, self.load);
        let send = |(group, row): &(GroupId, GroupRow)| {
            self.runtime.spawn(send(Arc::clone(store), *group, row.clone(), load, began + time))
        };
        let tasks: Vec<_> = self.groups.iter().map(send).collect();
        let mut messages = 0;
        for (task, (_, row)) in tasks.into_iter().zip(&mut self.groups) {
            let tail = self.runtime.block_on(task)??;
            messages += tail.since(row.tail);
            row.tail = tail;
        }
        Ok(Rate { messages, commits: store.commits() - commits, seconds: began.elapsed().as_secs_f64() })
    }
}

async fn activate(store: &FjallStore, group: GroupId) -> Result<GroupRow> {
    let create = Create { incarnation: 1, created_ms: 0 };
    store.activate(group, Some(create)).await?.context("a group that is made is there")
}

/// One home: it keeps so many appends under way, each behind the other. The tail that they leave.
async fn send(
    store: Arc<FjallStore>,
    group: GroupId,
    row: GroupRow,
    load: Load,
    until: Instant,
) -> Result<Seq> {
    let records = vec![Bytes::from(vec![7; load.payload_bytes]); usize::try_from(load.records)?];
    let mut tail = row.tail;
    let mut under_way = VecDeque::new();
    while Instant::now() < until {
        while (under_way.len() as u64) < load.appends {
            let changes = Changes { records: records.clone(), ..Changes::default() };
            let append = Append { group, epoch: row.epoch, expected_tail: tail, changes };
            tail = tail.advance(load.records);
            let store = Arc::clone(&store);
            let mut append = Box::pin(async move { store.append(append).await });
            // Polled once, it stands in its place in the queue.
            if let std::task::Poll::Ready(done) = futures_util::poll!(&mut append) {
                done?;
            } else {
                under_way.push_back(append);
            }
        }
        if let Some(append) = under_way.pop_front() {
            append.await?;
        }
    }
    for append in under_way {
        append.await?;
    }
    Ok(tail)
}

/// The engine alone: batches of the same keys and values, one sync for each.
struct EngineUnderLoad {
    load: Load,
    database: Database,
    keyspace: Keyspace,
    groups: Vec<(GroupId, Seq)>,
    next: u64,
    _dir: tempfile::TempDir,
}

impl EngineUnderLoad {
    fn open(load: Load, dir: &Path) -> Result<Self> {
        let dir = tempfile::tempdir_in(dir)?;
        let (database, keyspace) = engine(dir.path())?;
        let groups = (0..load.groups).map(|number| (group(number), Seq::FIRST)).collect();
        Ok(Self { load, database, keyspace, groups, next: 0, _dir: dir })
    }

    fn run(&mut self, batch: u64, time: Duration) -> Result<Rate> {
        let began = Instant::now();
        let mut rate = Rate::default();
        while began.elapsed() < time {
            let mut writes = self.database.batch().durability(Some(PersistMode::SyncData));
            for _ in 0..batch {
                // Whoever appends several records appends them together.
                let of = usize::try_from(self.next / self.load.records % self.load.groups)?;
                let (group, tail) = &mut self.groups[of];
                let value = vec![7; self.load.payload_bytes + SEAL_BYTES];
                writes.insert(&self.keyspace, Slice::from(record_key(*group, *tail)), Slice::from(value));
                *tail = tail.next();
                self.next += 1;
            }
            writes.commit()?;
            rate.messages += batch;
            rate.commits += 1;
        }
        Ok(Rate { seconds: began.elapsed().as_secs_f64(), ..rate })
    }
}

/// Made as the store makes its own.
fn engine(dir: &Path) -> Result<(Database, Keyspace)> {
    let limits = StoreLimits::default();
    let database = Database::builder(dir).cache_size(limits.cache_bytes).worker_threads(3).open()?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(limits.memtable_bytes);
    let keyspace = database.keyspace("bench", options)?;
    Ok((database, keyspace))
}

fn record_key(group: GroupId, seq: Seq) -> Vec<u8> {
    [b"r".as_slice(), group.as_bytes(), &seq.get().to_be_bytes()].concat()
}

fn group(number: u64) -> GroupId {
    GroupId::named(&format!("bench {number}"))
}

/// One append at a time, one raw batch, one write to a growing file: each in its turn.
fn measure_latency(arguments: &Arguments) -> Result<Latency> {
    let dirs = [tempfile::tempdir_in(&arguments.dir)?, tempfile::tempdir_in(&arguments.dir)?];
    let store = FjallStore::open(dirs[0].path(), &StoreLimits::default())?;
    let (database, keyspace) = engine(dirs[1].path())?;
    let mut file = tempfile::tempfile_in(&arguments.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let row = runtime.block_on(activate(&store, group(0)))?;
    let (mut stores, mut engines, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    let mut tail = row.tail;
    for _ in 0..LONE_APPENDS {
        let changes = Changes { records: vec![Bytes::from(vec![7; 200])], ..Changes::default() };
        let append = Append { group: group(0), epoch: row.epoch, expected_tail: tail, changes };
        stores.push(timed(|| Ok(runtime.block_on(store.append(append))?))?);
        engines.push(timed(|| {
            let mut batch = database.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&keyspace, record_key(group(0), tail), vec![7; 200 + SEAL_BYTES]);
            Ok(batch.commit()?)
        })?);
        syncs.push(timed(|| {
            file.write_all(&[7; 200])?;
            Ok(file.sync_data()?)
        })?);
        tail = tail.next();
    }
    let [store_p50_us, engine_p50_us, fdatasync_p50_us] =
        [&mut stores, &mut engines, &mut syncs].map(|all| median(all));
    Ok(Latency { store_p50_us, engine_p50_us, fdatasync_p50_us, ratio: store_p50_us / fdatasync_p50_us })
}

fn timed(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    what()?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn print(results: &Results) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["groups", "payload", "in flight", "a commit", "store /s", "engine /s", "share"]);
    for row in &results.throughput {
        table.add_row([
            row.load.groups.to_string(),
            format!("{} B", row.load.payload_bytes),
            row.in_flight.to_string(),
            row.batch.to_string(),
            format!("{:.0}", row.store_per_second),
            format!("{:.0}", row.engine_per_second),
            format!("{:.0} %", row.share * 100.0),
        ]);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    let lone = &results.lone_append;
    println!(
        "a lone append: p50 {:.0} us; the engine's {:.0} us; fdatasync on a growing file {:.0} us ({:.2} times)",
        lone.store_p50_us, lone.engine_p50_us, lone.fdatasync_p50_us, lone.ratio
    );
}
