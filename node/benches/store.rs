//! Durable messages a second at the store alone, beside the engine's own rate on the same bytes,
//! and a lone append beside fdatasync on a growing file: in one run, in turn, on one disk.
//!
//! `cargo bench -p shoal-node --bench store -- [--seconds 3] [--rounds 3] [--dir DIR] [--json FILE]`

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
    /// How long each measurement takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often store and engine take turns; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
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
            throughput.push(measure_throughput(load, &arguments)?);
        }
    }
    let results = Results { throughput, lone_append: measure_latency(&arguments)? };
    print(&results);
    if let Some(path) = &arguments.json {
        serde_json::to_writer_pretty(File::create(path)?, &results)?;
    }
    Ok(())
}

fn measure_throughput(load: Load, arguments: &Arguments) -> Result<Throughput> {
    let time = Duration::from_secs_f64(arguments.seconds);
    let (mut stores, mut engines, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        let (rate, batch) = store_rate(load, time, &arguments.dir)?;
        stores.push(rate);
        batches.push(batch);
        engines.push(engine_rate(load, batch, time, &arguments.dir)?);
    }
    let (store_per_second, engine_per_second) = (median(&mut stores), median(&mut engines));
    batches.sort_unstable();
    let batch = batches[batches.len() / 2];
    let share = store_per_second / engine_per_second;
    Ok(Throughput { load, in_flight: load.in_flight(), batch, store_per_second, engine_per_second, share })
}

fn store_rate(load: Load, time: Duration, dir: &Path) -> Result<(f64, u64)> {
    let dir = tempfile::tempdir_in(dir)?;
    let store = Arc::new(FjallStore::open(dir.path(), &StoreLimits::default())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    runtime.block_on(async {
        let mut rows = Vec::new();
        for number in 0..load.groups {
            let store = Arc::clone(&store);
            rows.push(tokio::spawn(async move { activate(&store, group(number)).await }));
        }
        let mut active = Vec::new();
        for (number, row) in (0..).zip(rows) {
            active.push((group(number), row.await??));
        }
        let (commits, began) = (store.commits(), Instant::now());
        let send = |(group, row)| tokio::spawn(send(Arc::clone(&store), group, row, load, time));
        let tasks: Vec<_> = active.into_iter().map(send).collect();
        let mut sent = 0;
        for task in tasks {
            sent += task.await??;
        }
        let (seconds, commits) = (began.elapsed().as_secs_f64(), store.commits() - commits);
        Ok((sent as f64 / seconds, (sent / commits.max(1)).max(1)))
    })
}

async fn activate(store: &FjallStore, group: GroupId) -> Result<GroupRow> {
    let create = Create { incarnation: 1, created_ms: 0 };
    store.activate(group, Some(create)).await?.context("a group that is made is there")
}

/// One home: it keeps so many appends under way, each behind the other.
async fn send(
    store: Arc<FjallStore>,
    group: GroupId,
    row: GroupRow,
    load: Load,
    time: Duration,
) -> Result<u64> {
    let records = vec![Bytes::from(vec![7; load.payload_bytes]); usize::try_from(load.records)?];
    let (mut tail, mut sent) = (row.tail, 0);
    let mut under_way = VecDeque::new();
    let began = Instant::now();
    while began.elapsed() < time {
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
            sent += load.records;
        }
    }
    for append in under_way {
        append.await?;
        sent += load.records;
    }
    Ok(sent)
}

/// The engine alone: batches of the same keys and values, one sync for each.
fn engine_rate(load: Load, batch: u64, time: Duration, dir: &Path) -> Result<f64> {
    let dir = tempfile::tempdir_in(dir)?;
    let (database, keyspace) = engine(dir.path())?;
    let groups: Vec<_> = (0..load.groups).map(group).collect();
    let mut tails = vec![Seq::FIRST; groups.len()];
    let (mut sent, mut next) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < time {
        let mut writes = database.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..batch {
            // Whoever appends several records appends them together.
            let of = usize::try_from(next / load.records % load.groups)?;
            let key = record_key(groups[of], tails[of]);
            writes.insert(&keyspace, Slice::from(key), Slice::from(vec![7; load.payload_bytes + SEAL_BYTES]));
            tails[of] = tails[of].next();
            next += 1;
        }
        writes.commit()?;
        sent += batch;
    }
    Ok(sent as f64 / began.elapsed().as_secs_f64())
}

fn engine(dir: &Path) -> Result<(Database, Keyspace)> {
    let limits = StoreLimits::default();
    let database = Database::builder(dir).cache_size(limits.cache_bytes).worker_threads(2).open()?;
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
