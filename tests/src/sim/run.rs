//! A run of a seed, and what came of it.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use prost::Message as _;
use shoal_node::store::{MemoryDisk, MemoryStore, MemoryTiming, ReadLimit, Store};
use shoal_protocol::{Code, GroupId, SLOTS, Seq, wire};

use wire::record::Body;

use super::{
    app,
    chronicle::{Event, Outcome},
    judge::{Case, Findings, Holding, Holdings, judge},
    mutation::Mutation,
    panics,
    plan::{Plan, WeakNetwork},
    scene::Scene,
    slowing::{self, Slowing},
    strike::Strike,
    world::World,
};

/// What a run is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// So many nodes, whatever the seed says.
    pub nodes: Option<usize>,
    /// A node is hit at a step of a plan.
    pub strike: Option<Strike>,
    /// A node is slow, and nothing else goes wrong: three nodes, whatever else is said.
    pub slowing: Option<Slowing>,
    /// All phones are on this network, and nothing else goes wrong.
    pub network: Option<WeakNetwork>,
    /// Print what happens.
    pub log: bool,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: usize,
    /// What is wrong.
    pub findings: Findings,
    /// Stands for all that happened and when.
    pub hash: u64,
    /// How much happened.
    pub counts: Counts,
    /// How long it took in the simulated world.
    pub simulated: Duration,
    /// And in this one.
    pub took: Duration,
}

/// How much happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to clients.
    pub sent: usize,
    /// Messages acknowledged.
    pub committed: usize,
    /// Records given to apps.
    pub delivered: usize,
    /// Silent records that apps passed over.
    pub silent: usize,
    /// Changes of groups acknowledged.
    pub changed: usize,
    /// Times an app started.
    pub lives: usize,
    /// Messages refused since their senders were muted.
    pub muted: usize,
    /// Times a group was cut into more sub-groups.
    pub cuts: usize,
    /// And put together into fewer.
    pub merges: usize,
    /// Times a plan was rolled back.
    pub rollbacks: usize,
    /// Nodes that were hit at a step of a plan.
    pub struck: usize,
}

impl Report {
    /// Of a run that panicked.
    #[must_use]
    pub fn of_panic(seed: u64, said: &str) -> Self {
        let mut findings = Findings::default();
        findings.find(|| format!("a panic: {said}"));
        Self {
            seed,
            nodes: 0,
            findings,
            hash: 0,
            counts: Counts::default(),
            simulated: Duration::ZERO,
            took: Duration::ZERO,
        }
    }

    /// Is nothing wrong?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.count() == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            sent,
            committed,
            delivered,
            silent,
            changed,
            lives,
            muted,
            cuts,
            merges,
            rollbacks,
            struck,
        } = self.counts;
        writeln!(
            f,
            "seed {} ({} nodes): {} findings; {sent} sent, {committed} committed, {delivered} delivered, {silent} silent, \
             {muted} muted, {changed} changes, {cuts} cuts, {merges} merges, {rollbacks} rollbacks, {struck} struck, {lives} lives in {:.1} s ({:.1} s of this machine's), trace {:016x}",
            self.seed,
            self.nodes,
            self.findings.count(),
            self.simulated.as_secs_f64(),
            self.took.as_secs_f64(),
            self.hash
        )?;
        for finding in self.findings.told() {
            writeln!(f, "  {finding}")?;
        }
        if !self.is_clean() {
            writeln!(f, "  again: cargo run -p shoal-tests --bin shoal-sim -- --seed {} --log", self.seed)?;
        }
        Ok(())
    }
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let begun = Instant::now();
    panics::watch();
    panics::take();
    let plan = match options {
        Options { slowing: Some(slowing), .. } => Plan::slowing(seed, slowing),
        Options { network: Some(network), .. } => Plan::on_network(seed, network),
        _ => Plan { strike: options.strike, ..Plan::new(seed, options.nodes) },
    };
    let scene = Scene::new(plan, options.mutation, options.log);
    let (nodes, chronicle) = (scene.plan.nodes, scene.chronicle.clone());
    let mut world = World::new(scene);
    let rested = world.play();
    let (simulated, cast, struck) = (world.elapsed(), world.cast(), usize::from(world.has_struck()));
    let slowed = world.slowed().to_vec();
    let holdings = holdings(&world.end(), &app::groups(&cast));
    let events = chronicle.events();
    let mut findings = judge(&Case { cast: &cast, events: &events, holdings: &holdings });
    if options.slowing.is_some() {
        slowing::check(&slowed, &commits(&events), &mut findings);
    }
    if let Err(why) = rested {
        findings.find(|| why);
    }
    panics::take().into_iter().for_each(|panic| findings.find(|| panic));
    let counts = Counts { struck, ..count(&events, &holdings) };
    Report { seed, nodes, findings, hash: chronicle.hash(), counts, simulated, took: begun.elapsed() }
}

/// When apps were told of a commit.
fn commits(events: &[(Duration, Event)]) -> Vec<Duration> {
    let told = |event: &Event| matches!(event, Event::Settled { outcome: Outcome::Committed(_), .. });
    events.iter().filter(|(_, event)| told(event)).map(|(at, _)| *at).collect()
}

/// Reads everything from the disk, as whoever opens it again would find it.
fn holdings(disk: &MemoryDisk, groups: &[GroupId]) -> Holdings {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let store = MemoryStore::open(disk, MemoryTiming::default());
    runtime.block_on(async {
        let mut holdings = BTreeMap::new();
        for group in groups {
            if let Some(holding) = holding(&store, *group).await {
                holdings.insert(*group, holding);
            }
        }
        Holdings { groups: holdings }
    })
}

async fn holding(store: &MemoryStore, group: GroupId) -> Option<Holding> {
    let row = retry(|| store.group(group)).await?;
    let mut records: Vec<wire::Record> = Vec::new();
    loop {
        let from = Seq::FIRST.advance(records.len() as u64);
        let page =
            retry(|| store.read(group, from, ReadLimit { records_max: 512, bytes_max: 1 << 20 })).await;
        if page.is_empty() {
            break;
        }
        records.extend(page.into_iter().map(|bytes| wire::Record::decode(bytes).expect("a record decodes")));
    }
    let members = retry(|| store.members_page(group, 0..SLOTS, None, 10_000)).await;
    Some(Holding { row, records, members })
}

/// A read that was made to fail succeeds the next time.
async fn retry<T, E>(read: impl AsyncFn() -> Result<T, E>) -> T {
    loop {
        if let Ok(read) = read().await {
            return read;
        }
    }
}

fn count(events: &[(Duration, Event)], holdings: &Holdings) -> Counts {
    let mut counts = Counts::default();
    for holding in holdings.groups.values() {
        let layouts = holding.records.iter().filter_map(|record| match &record.body {
            Some(Body::Layout(layout)) => {
                layout.last.as_ref().filter(|_| layout.plan.is_none()).map(|end| (layout, end))
            }
            _ => None,
        });
        let mut before = 1;
        for (layout, end) in layouts {
            let sub_groups = layout.partitions.len();
            counts.rollbacks += usize::from(!end.committed);
            counts.cuts += usize::from(sub_groups > before);
            counts.merges += usize::from(sub_groups < before);
            before = sub_groups;
        }
    }
    for (_, event) in events {
        match event {
            Event::Sent { .. } => counts.sent += 1,
            Event::Settled { outcome: Outcome::Committed(_), .. } => counts.committed += 1,
            Event::Settled { outcome: Outcome::Refused(Code::Muted), .. } => counts.muted += 1,
            Event::Delivered { .. } => counts.delivered += 1,
            Event::PassedOver { from, to, .. } => {
                counts.silent += usize::try_from(to.since(*from)).unwrap_or(usize::MAX);
            }
            Event::Changed { .. } => counts.changed += 1,
            Event::Life { .. } => counts.lives += 1,
            _ => {}
        }
    }
    counts
}
