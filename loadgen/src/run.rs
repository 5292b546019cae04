//! A run from beginning to end: make the groups, connect, send what is due, wait until everything
//! has arrived, judge.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    display::Display,
    judge::{Judge, Progress},
    member::{self, Counts, Done, Member},
    options::Options,
    plan::{Due, MemberId, Plan},
    report::Report,
    sabotage::Saboteur,
    setup::{Present, Setup, SetupError},
};

/// Messages that wait for one client; what is due above that is counted as never sent.
const DUE_MAX: usize = 1024;
/// From the last connection to the first message.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);
/// How long to look out, after everything has arrived, for what should not.
pub(crate) const LINGER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a load against a node and judges every delivery.
///
/// # Errors
/// [`SetupError`] where it did not come about. What went wrong in it is in the report.
pub async fn run(options: Options) -> Result<Report, SetupError> {
    let seed = options.clients.seed.unwrap_or_else(rand::random);
    let plan = options.plan(seed);
    let run: u64 = rand::random();
    let setup = Setup::new(&options.clients, run, seed, options.duration, plan.members().count())?;
    let display = Display::new(plan.members().count());
    let admin = setup.admin().await?;
    let made = setup.make_groups(&admin, &plan).await?;
    admin.close().await;
    let present = setup.connect(&plan, |count| display.connected(count)).await?;

    let begun = Instant::now() + SETTLE;
    let judge = Arc::new(Judge::new(run, begun, &plan));
    judge.begin(&plan, made);
    let mut report = Report { connections: present.len() as u64, seed, ..Report::default() };
    let (stop, stopped) = watch::channel(false);
    let mut crew = Crew::start(&options, &plan, &setup, &judge, present, &stopped);
    let showing = display.show(judge.clone(), begun, plan.duration());
    tokio::select! {
        biased;
        unsent = crew.send(&plan, options.rate, begun) => report.unsent = unsent,
        () = showing => {}
    }
    report.seconds = begun.elapsed().as_secs_f64();
    crew.queues.clear();

    display.draining(options.clients.drain);
    let drained = Instant::now();
    drain(&judge, options.clients.drain).await;
    report.drain_seconds = drained.elapsed().as_secs_f64();
    sleep(LINGER).await;
    stop.send_replace(true);
    crew.finish(&mut report, &judge).await;
    display.finish();
    report.tell(&judge);
    report.network = setup.network_report(report.deliveries);
    Ok(report)
}

/// All members at work.
struct Crew {
    /// What each is to send, by group and member.
    queues: Vec<Vec<mpsc::Sender<Due>>>,
    members: JoinSet<Done>,
}

impl Crew {
    fn start(
        options: &Options,
        plan: &Plan,
        setup: &Setup<'_>,
        judge: &Arc<Judge>,
        present: Vec<(MemberId, Present)>,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let mut queues: Vec<Vec<_>> = plan.groups().iter().map(|_| Vec::new()).collect();
        let mut members = JoinSet::new();
        let mut sabotage = options.clients.sabotage;
        for ((id, habit), (_, present)) in plan.members().zip(present) {
            let (queue, due) = mpsc::channel(DUE_MAX);
            queues[id.group as usize].push(queue);
            let member = Member {
                id,
                habit,
                group: setup.group(id.group),
                judge: judge.clone(),
                payload_bytes: options.clients.payload,
                due,
                interruptions: member::moments(plan.interruptions(id, habit), judge.begun()),
                saboteur: sabotage.take().map(Saboteur::new),
                may_leave: false,
                network: present.network.clone(),
                counts: Counts::default(),
            };
            members.spawn(member.run(present, stopped.clone()));
        }
        Self { queues, members }
    }

    /// Gives each message to its sender at the moment it is due, whatever became of those before;
    /// how many found their sender's queue full.
    async fn send(&self, plan: &Plan, rate: f64, begun: Instant) -> u64 {
        let mut unsent = 0;
        for due in plan.messages(rate) {
            sleep_until(begun + due.at).await;
            let queue = &self.queues[due.sender.group as usize][due.sender.member as usize];
            if queue.try_send(due).is_err() {
                unsent += 1;
            }
        }
        sleep_until(begun + plan.duration()).await;
        unsent
    }

    /// Waits for all members to end, and takes in what they counted.
    async fn finish(mut self, report: &mut Report, judge: &Judge) {
        while let Some(ended) = self.members.join_next().await {
            match ended {
                Ok(done) => done.tell(judge, report),
                Err(panic) => report.fail(format!("a client panicked: {panic}")),
            }
        }
    }
}

/// Waits until everything has arrived and been answered, up to a bound.
async fn drain(judge: &Judge, most: Duration) {
    let end = Instant::now() + most;
    while judge.progress() != Progress::default() && Instant::now() < end {
        sleep(LOOK_EVERY).await;
    }
}
