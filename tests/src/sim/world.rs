//! The world of a run: its hosts, put together, disturbed, and made good again.

mod slowed;

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shoal_node::{
    coordination::{Move, NodeName, Partition},
    store::MemoryDisk,
};

use super::{
    app::{self, App},
    chronicle::Event,
    coordination,
    database::{self, DATABASE, Database},
    judge::Cast,
    node::{Keeping, NodeHost},
    operator::{self, OPERATOR},
    plan::{APPS_PER_PHONE, Disturbance, Host, PHONES, remedies},
    scene::Scene,
    standstill::Standstill,
    strike,
};

/// How often the network moves: two hosts hear of each other no sooner.
const TICK: Duration = Duration::from_millis(2);

/// All must have been quiet for so long before a run is over.
const QUIET: Duration = Duration::from_secs(3);

/// How often an operator looks at the nodes, and the run at the apps.
const LOOK: Duration = Duration::from_millis(500);

/// Datagrams that wait in a socket; more are lost.
const SOCKET_DATAGRAMS: usize = 2048;

/// All hosts of a run.
pub(super) struct World {
    scene: Arc<Scene>,
    sim: turmoil::Sim<'static>,
    disk: MemoryDisk,
    coordination: coordination::Service,
    nodes: Vec<Arc<NodeHost>>,
    apps: Vec<Arc<App>>,
    struck: Option<Struck>,
    slowed: Option<slowed::Slowed>,
}

/// The node that was hit at a step of a plan.
#[derive(Debug, Clone, Copy)]
struct Struck {
    node: usize,
    /// When it is made good; none once it is.
    back: Option<Duration>,
}

impl World {
    pub(super) fn new(scene: Scene) -> Self {
        let scene = Arc::new(scene);
        let plan = &scene.plan;
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(TICK)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .udp_capacity(SOCKET_DATAGRAMS)
            .simulation_duration(Duration::from_secs(3600))
            .build();
        let disk = scene.ledger.disk(plan.seed ^ 0x6469_736b);
        let coordination = coordination::Service::new(plan.lease, scene.clock.clone());
        let nodes = if plan.nodes == 1 {
            let (keeping, standstill) = (Keeping::Alone(disk.clone()), Standstill::default());
            let way = coordination::Way::new(coordination.clone(), standstill.clone());
            vec![Arc::new(NodeHost::new(0, Arc::clone(&scene), keeping, way, standstill))]
        } else {
            let database = Arc::new(Database::new(disk.clone(), plan.timing.clone()));
            let host = Arc::clone(&database);
            sim.host(DATABASE, move || Arc::clone(&host).run());
            let node = |number| {
                let standstill = Standstill::default();
                let store = database::Way::new(Arc::clone(&database), standstill.clone());
                let way = coordination::Way::new(coordination.clone(), standstill.clone());
                let keeping = Keeping::Shared(store);
                Arc::new(NodeHost::new(number, Arc::clone(&scene), keeping, way, standstill))
            };
            (0..plan.nodes).map(node).collect()
        };
        for node in &nodes {
            let host = Arc::clone(node);
            sim.host(node.name(), move || Arc::clone(&host).run());
        }
        let apps: Vec<_> =
            (0..PHONES * APPS_PER_PHONE).map(|number| Arc::new(App::new(number, &scene))).collect();
        if let Some(seed) = plan.operator {
            let scene = Arc::clone(&scene);
            sim.host(OPERATOR, move || operator::run(Arc::clone(&scene), seed));
        }
        for phone in 0..PHONES {
            let apps = apps[phone * APPS_PER_PHONE..][..APPS_PER_PHONE].to_vec();
            sim.host(Host::Phone(phone).name(), move || app::run_all(apps.clone()));
        }
        Self { scene, sim, disk, coordination, nodes, apps, struck: None, slowed: None }
    }

    pub(super) fn cast(&self) -> Cast {
        Cast {
            users: self.apps.iter().map(|app| (app.id(), app.user().clone())).collect(),
            sessions_move: self.nodes.len() > 1,
            read: app::read_payload,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// What is left when all hosts are gone.
    pub(super) fn end(self) -> MemoryDisk {
        self.disk
    }

    /// Plays the plan; the reason if it does not come to rest afterwards.
    pub(super) fn play(&mut self) -> Result<(), String> {
        let scene = Arc::clone(&self.scene);
        let mut due = scene.plan.disturbances.iter().peekable();
        while self.sim.elapsed() < scene.plan.busy {
            while let Some((_, disturbance)) = due.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                self.disturb(disturbance);
            }
            self.step()?;
        }
        for remedy in remedies(scene.plan.nodes, scene.plan.latency.1) {
            self.disturb(&remedy);
        }
        scene.stage.end();
        self.come_to_rest()
    }

    fn step(&mut self) -> Result<(), String> {
        let now = self.sim.elapsed();
        self.scene.clock.set(now);
        self.nodes.iter().for_each(|node| node.standstill.pass_to(now));
        self.strike();
        self.slow_one();
        if self.is_time_to_look() {
            self.start_again();
        }
        self.sim.step().map(drop).map_err(|error| format!("a host failed: {error}"))
    }

    /// Was a node hit at a step of a plan?
    pub(super) fn has_struck(&self) -> bool {
        self.struck.is_some()
    }

    /// Hits a node as soon as a plan has come to the step, and makes it good again. By the seed its machine
    /// goes down, or stands still.
    fn strike(&mut self) {
        let (now, seed) = (self.sim.elapsed(), self.scene.plan.seed);
        let goes_down = seed.is_multiple_of(2);
        if let Some(Struck { node, .. }) =
            self.struck.filter(|struck| struck.back.is_some_and(|back| back <= now))
        {
            let back =
                if goes_down { Disturbance::Up(Host::Node(node)) } else { Disturbance::Continue(node) };
            self.disturb(&back);
            self.struck = Some(Struck { node, back: None });
        }
        let Some(strike) = self.scene.plan.strike.filter(|_| self.struck.is_none()) else { return };
        let is_late = now > self.scene.plan.busy / 2;
        let (placed, leader) = (self.coordination.placed(), self.coordination.leader());
        let hit = app::groups(&self.cast()).into_iter().find_map(|group| {
            let layout = self.disk.row(group)?.state.layout?;
            strike.hits(group, &layout, &placed.placement, leader.clone(), is_late)
        });
        let Some(node) = hit.and_then(|hit| self.nodes.iter().position(|node| node.name() == hit.0)) else {
            return;
        };
        let hit = if goes_down { Disturbance::Down(Host::Node(node)) } else { Disturbance::Pause(node) };
        self.disturb(&hit);
        let back = now + strike::away(seed, self.scene.plan.lease);
        self.struck = Some(Struck { node, back: Some(back) });
    }

    /// An operator restarts a node whose store has stopped writing.
    fn start_again(&mut self) {
        let stuck = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_stuck()).map(Host::Node);
        for node in stuck.collect::<Vec<_>>() {
            if self.sim.is_host_running(node.name()) {
                self.disturb(&Disturbance::Down(node));
                self.disturb(&Disturbance::Up(node));
            }
        }
    }

    fn is_time_to_look(&self) -> bool {
        self.sim.elapsed().as_nanos() % LOOK.as_nanos() < TICK.as_nanos()
    }

    fn come_to_rest(&mut self) -> Result<(), String> {
        let deadline = self.sim.elapsed() + self.scene.plan.drain_max;
        let mut restless = self.sim.elapsed();
        while self.sim.elapsed() < deadline {
            self.step()?;
            // A plan may begin by itself between two looks: none is trusted that was before the end.
            let is_over = self.sim.elapsed() > restless + QUIET;
            if (is_over || self.is_time_to_look()) && self.waits_for().is_some() {
                restless = self.sim.elapsed();
            } else if is_over && !self.disk.is_writing() {
                return Ok(());
            }
        }
        Err(format!("it does not come to rest: {}", self.waits_for().unwrap_or_default()))
    }

    /// What is still to come.
    fn waits_for(&self) -> Option<String> {
        let unfinished = || self.disk.unfinished().map(|group| format!("{group} has a plan or notices due"));
        self.apps.iter().find_map(|app| app.waits_for()).or_else(unfinished)
    }

    fn disturb(&mut self, disturbance: &Disturbance) {
        let at = self.sim.elapsed();
        let note = Event::Note { who: "world".into(), what: format!("{disturbance:?}") };
        self.scene.chronicle.tell_at(at, note);
        match *disturbance {
            Disturbance::Weather { lost, doubled } => self.scene.weather.set(lost, doubled),
            Disturbance::Latency(longest) => self.sim.set_max_message_latency(longest),
            Disturbance::Partition(one, other) => self.sim.partition(one.name(), other.name()),
            Disturbance::Mute(from, to) => self.sim.partition_oneway(from.name(), to.name()),
            Disturbance::Heal(one, other) => self.sim.repair(one.name(), other.name()),
            Disturbance::Forget(phone) => self.scene.receptions[phone].forget(),
            Disturbance::Mend(phone) => self.scene.receptions[phone].mend(at),
            Disturbance::Hold(one, other) => self.sim.hold(one.name(), other.name()),
            Disturbance::Release(one, other) => self.sim.release(one.name(), other.name()),
            Disturbance::Down(Host::Node(node)) => self.crash_node(node),
            Disturbance::Down(phone) => self.crash(&phone.name()),
            Disturbance::Up(host) => self.start(&host.name()),
            Disturbance::Restart(node) => self.nodes[node].restart(),
            Disturbance::Store(fault) => self.disk.inject(fault),
            Disturbance::DatabaseDown if self.nodes.len() > 1 => {
                self.crash(DATABASE);
                self.disk.crash();
            }
            Disturbance::DatabaseUp if self.nodes.len() > 1 => self.start(DATABASE),
            Disturbance::Pause(node) => self.nodes[node].standstill.begin(),
            Disturbance::Continue(node) => self.nodes[node].standstill.end(),
            Disturbance::Slow(node, is_slow) => self.nodes[node].standstill.slow(is_slow),
            Disturbance::Place(seed) => self.place(seed),
            Disturbance::Drain(node, is_wished) => {
                self.coordination.drain(&NodeName(self.nodes[node].name()), is_wished);
            }
            Disturbance::CoordinationCut(node, is_cut) => self.nodes[node].coordination.cut(is_cut),
            Disturbance::Lag(node, lag) => self.nodes[node].coordination.lag(lag),
            Disturbance::LeaseLost(node) => self.coordination.expire(&NodeName(self.nodes[node].name())),
            Disturbance::Live(key, value) => self.coordination.set_live(key, value),
            Disturbance::DatabaseCut(node, is_cut) => {
                if let Keeping::Shared(store) = &self.nodes[node].keeping {
                    store.cut(is_cut);
                }
            }
            // A node alone has its own.
            Disturbance::DatabaseDown | Disturbance::DatabaseUp => {}
        }
    }

    /// Each group of the run goes to a node that lives, by a coin.
    fn place(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let living = self.coordination.living();
        let mut moves = Vec::new();
        for group in app::groups(&self.cast()) {
            if let Some(to) = living.choose(&mut random).filter(|_| random.random()) {
                moves.push(Move { partition: Partition::of(group), from: None, to: to.clone() });
            }
        }
        self.coordination.move_to(|placement| placement.after(&moves));
    }

    fn crash_node(&mut self, node: usize) {
        let host = Arc::clone(&self.nodes[node]);
        // A machine that goes down gives nothing back.
        host.standstill.begin();
        self.crash(&host.name());
        host.standstill.end();
        if let Keeping::Alone(disk) = &host.keeping {
            disk.crash();
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
