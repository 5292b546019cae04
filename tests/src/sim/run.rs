//! A run: the world is put together, disturbed, made good again, emptied and judged.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use shoal_node::store::{MemoryDisk, MemoryStore, MemoryTiming, ReadLimit, Store};
use shoal_protocol::{GroupId, SLOTS, Seq, wire};

use super::{
    app::{self, App, Stage},
    chronicle::{Chronicle, Event},
    judge::{Case, Cast, Findings, Holding, Holdings, judge},
    keys::{Keys, SimClock},
    mutation::Mutation,
    network::Weather,
    node::{NODE, NodeHost},
    plan::{APPS_PER_PHONE, Disturbance, PHONES, Plan},
};

/// How often the network moves: two hosts hear of each other no sooner.
const TICK: Duration = Duration::from_millis(2);

/// All must have been quiet for so long before a run is over.
const QUIET: Duration = Duration::from_secs(3);

/// How often an operator looks at the node, and the run at the apps.
const LOOK: Duration = Duration::from_millis(500);

/// Datagrams that wait in a socket; more are lost.
const SOCKET_DATAGRAMS: usize = 2048;

/// What a run is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// Print what happens.
    pub log: bool,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
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
    /// Changes of groups acknowledged.
    pub changed: usize,
    /// Times an app started.
    pub lives: usize,
}

impl Report {
    /// Of a run that panicked.
    #[must_use]
    pub fn of_panic(seed: u64, said: &str) -> Self {
        let mut findings = Findings::default();
        findings.find(|| format!("a panic: {said}"));
        Self {
            seed,
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
        let Counts { sent, committed, delivered, changed, lives } = self.counts;
        writeln!(
            f,
            "seed {}: {} findings; {sent} sent, {committed} committed, {delivered} delivered, {changed} changes, \
             {lives} lives in {:.1} s ({:.1} s of this machine's), trace {:016x}",
            self.seed,
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
    let mut world = World::new(Plan::new(seed), options);
    let drained = world.play();
    let simulated = world.sim.elapsed();
    let World { sim, node, chronicle, cast, .. } = world;
    drop(sim);
    let holdings = holdings(&node.disk, &app::groups(&cast));
    let events = chronicle.events();
    let mut findings = judge(&Case { cast: &cast, events: &events, holdings: &holdings });
    if let Err(why) = drained {
        findings.find(|| why);
    }
    let counts = count(&events);
    Report { seed, findings, hash: chronicle.hash(), counts, simulated, took: begun.elapsed() }
}

struct World {
    plan: Plan,
    sim: turmoil::Sim<'static>,
    node: Arc<NodeHost>,
    apps: Vec<Arc<App>>,
    cast: Cast,
    chronicle: Chronicle,
    weather: Weather,
    clock: SimClock,
    stage: Stage,
}

impl World {
    fn new(plan: Plan, options: Options) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(TICK)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .udp_capacity(SOCKET_DATAGRAMS)
            .simulation_duration(Duration::from_secs(3600))
            .build();
        let chronicle = Chronicle::new(options.log);
        let (weather, clock, stage) = (Weather::default(), SimClock::default(), Stage::default());
        let keys = Arc::new(Keys::new(plan.seed));
        let node = Arc::new(NodeHost::new(
            plan.clone(),
            options.mutation,
            chronicle.clone(),
            keys.clone(),
            clock.clone(),
            weather.clone(),
        ));
        let host = node.clone();
        sim.host(NODE, move || host.clone().run());
        let apps: Vec<_> = (0..PHONES * APPS_PER_PHONE)
            .map(|number| Arc::new(App::new(number, &node, &stage, &weather)))
            .collect();
        for phone in 0..PHONES {
            let apps = apps[phone * APPS_PER_PHONE..][..APPS_PER_PHONE].to_vec();
            sim.host(phone_name(phone), move || app::run_all(apps.clone()));
        }
        let cast = Cast {
            users: apps.iter().map(|app| (app.id(), app.user().clone())).collect(),
            read: app::read_payload,
        };
        Self { plan, sim, node, apps, cast, chronicle, weather, clock, stage }
    }

    /// Plays the plan; the reason if it does not come to rest afterwards.
    fn play(&mut self) -> Result<(), String> {
        let mut due = std::mem::take(&mut self.plan.disturbances).into_iter().peekable();
        while self.sim.elapsed() < self.plan.busy {
            while let Some((_, disturbance)) = due.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                self.disturb(&disturbance);
            }
            self.step()?;
        }
        self.make_good();
        self.stage.end();
        self.come_to_rest()
    }

    fn step(&mut self) -> Result<(), String> {
        self.clock.set(self.sim.elapsed());
        if self.is_time_to_look() && self.node.is_stuck() && self.sim.is_host_running(NODE) {
            self.disturb(&Disturbance::NodeDown);
            self.disturb(&Disturbance::NodeUp);
        }
        self.sim.step().map(drop).map_err(|error| format!("a host failed: {error}"))
    }

    fn is_time_to_look(&self) -> bool {
        self.sim.elapsed().as_nanos() % LOOK.as_nanos() < TICK.as_nanos()
    }

    fn come_to_rest(&mut self) -> Result<(), String> {
        let deadline = self.sim.elapsed() + self.plan.drain_max;
        let mut restless = self.sim.elapsed();
        while self.sim.elapsed() < deadline {
            self.step()?;
            if self.is_time_to_look() && self.apps.iter().any(|app| app.waits_for().is_some()) {
                restless = self.sim.elapsed();
            }
            if self.sim.elapsed() > restless + QUIET {
                return Ok(());
            }
        }
        let waiting = self.apps.iter().find_map(|app| app.waits_for());
        Err(format!("it does not come to rest: {}", waiting.unwrap_or_default()))
    }

    fn make_good(&mut self) {
        let mut all = vec![
            Disturbance::Weather { lost: 0, doubled: 0 },
            Disturbance::Latency(self.plan.latency.1),
            Disturbance::NodeUp,
        ];
        for phone in 0..PHONES {
            all.extend([Disturbance::Heal(phone), Disturbance::Release(phone), Disturbance::PhoneUp(phone)]);
        }
        all.iter().for_each(|good| self.disturb(good));
    }

    fn disturb(&mut self, disturbance: &Disturbance) {
        let at = self.sim.elapsed();
        let note = Event::Note { who: "world".into(), what: format!("{disturbance:?}") };
        self.chronicle.tell_at(at, note);
        match *disturbance {
            Disturbance::Weather { lost, doubled } => self.weather.set(lost, doubled),
            Disturbance::Latency(longest) => self.sim.set_max_message_latency(longest),
            Disturbance::Partition(phone) => self.sim.partition(phone_name(phone), NODE),
            Disturbance::Mute(phone) => self.sim.partition_oneway(phone_name(phone), NODE),
            Disturbance::Deafen(phone) => self.sim.partition_oneway(NODE, phone_name(phone)),
            Disturbance::Heal(phone) => self.sim.repair(phone_name(phone), NODE),
            Disturbance::Hold(phone) => self.sim.hold(phone_name(phone), NODE),
            Disturbance::Release(phone) => self.sim.release(phone_name(phone), NODE),
            Disturbance::NodeDown => {
                self.crash(NODE);
                self.node.disk.crash();
            }
            Disturbance::NodeUp => self.start(NODE),
            Disturbance::NodeRestart => self.node.restart(),
            Disturbance::PhoneDown(phone) => self.crash(&phone_name(phone)),
            Disturbance::PhoneUp(phone) => self.start(&phone_name(phone)),
            Disturbance::Store(fault) => self.node.disk.inject(fault),
        }
    }

    fn crash(&mut self, host: &str) {
        if self.sim.is_host_running(host) {
            self.sim.crash(host);
        }
    }

    fn start(&mut self, host: &str) {
        if !self.sim.is_host_running(host) {
            self.sim.bounce(host);
        }
    }
}

fn phone_name(phone: usize) -> String {
    format!("phone{phone}")
}

/// Reads everything from the disk, as a node that starts would find it.
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

fn count(events: &[(Duration, Event)]) -> Counts {
    let mut counts = Counts::default();
    for (_, event) in events {
        match event {
            Event::Sent { .. } => counts.sent += 1,
            Event::Settled { outcome: super::chronicle::Outcome::Committed(_), .. } => counts.committed += 1,
            Event::Delivered { .. } => counts.delivered += 1,
            Event::Changed { .. } => counts.changed += 1,
            Event::Life { .. } => counts.lives += 1,
            _ => {}
        }
    }
    counts
}
