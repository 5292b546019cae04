//! What a delivery costs the server: CPU time and datagrams, node and bare server in turn.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::Serialize;
use shoal_protocol::GroupId;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    process::Kind,
    raw::{PublishHalf, Raw, ReceiptHalf, ensure_in_order},
    setup::Setup,
};

const WARM_UP: Duration = Duration::from_secs(3);
/// Messages that the slowest receiver may be behind while the server is kept saturated. quinn looks
/// through a stream's unacknowledged chunks one by one, so with more of them on their way that search
/// is what costs, at either server.
const WINDOW: u64 = 128;
/// They are sent so many at once or more: by ones and twos, waking tasks would be all there is to see.
const STEP: u64 = 64;
/// Senders, and the messages of each without receipt, below the protocol's bound.
const PUBLISHERS: usize = 8;
const UNANSWERED_MAX: usize = 100;

/// How messages come.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// So many a second, each for itself.
    PerSecond(u32),
    /// As fast as the slowest receiver takes them.
    Saturated,
}

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) payload_bytes: usize,
    pub(crate) measured: Duration,
}

/// What one round of one server came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) server: Kind,
    pub(crate) deliveries_per_second: f64,
    pub(crate) cpu_us_per_delivery: f64,
    /// From the server.
    pub(crate) datagrams_out_per_delivery: f64,
    /// To the server: acknowledgements, above all.
    pub(crate) datagrams_in_per_delivery: f64,
}

/// Measures one round of one server.
pub(crate) async fn measure(kind: Kind, case: Case, shoal: &Path, dir: &Path) -> Result<Sample> {
    let group = GroupId::named("bench");
    let setup = Setup::start(kind, shoal, dir, case.payload_bytes).await?;
    let receivers: Vec<_> = (0..case.connections).map(|at| format!("bench-receiver-{at}")).collect();
    let publishers: Vec<_> = (0..PUBLISHERS).map(|at| format!("bench-publisher-{at}")).collect();
    setup.create_groups(&[group], &[receivers.clone(), publishers.clone()].concat()).await?;
    let logins = receivers.iter().map(|user| setup.login(user, false, &[group])).collect::<Result<_>>()?;
    let receivers = setup.connect_all(logins).await?;
    let mut source = Source::open(setup, &publishers, group, case.payload_bytes).await?;

    source.send(case.pace, &receivers, WARM_UP).await?;
    let before = Counters::read(&source.setup, &receivers)?;
    source.send(case.pace, &receivers, case.measured).await?;
    let after = Counters::read(&source.setup, &receivers)?;
    ensure_in_order(&receivers)?;
    source.settle(&receivers).await?;
    source.setup.stop()?;
    Ok(after.since(&before, kind))
}

/// Where messages come from: senders of the node, or the bare server itself.
struct Source {
    setup: Setup,
    /// Messages that may be sent.
    budget: Arc<Semaphore>,
    granted: u64,
    /// The Seq of the first message.
    first: u64,
    _publishers: Vec<Raw>,
    tasks: tokio::task::JoinSet<Result<()>>,
}

impl Source {
    async fn open(setup: Setup, users: &[String], group: GroupId, payload_bytes: usize) -> Result<Self> {
        let budget = Arc::new(Semaphore::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        let mut publishers = Vec::new();
        if setup.server.kind == Kind::Shoal {
            let logins = users.iter().map(|user| setup.login(user, false, &[])).collect::<Result<_>>()?;
            publishers = setup.connect_all(logins).await?;
            for raw in &publishers {
                let (send, receipts) = raw.publisher().await?;
                let unanswered = Arc::new(Semaphore::new(UNANSWERED_MAX));
                let payload = vec![b'.'; payload_bytes].into();
                tasks.spawn(publish(send, group, payload, budget.clone(), unanswered.clone()));
                tasks.spawn(take_receipts(receipts, unanswered));
            }
        }
        Ok(Self { setup, budget, granted: 0, first: 0, _publishers: publishers, tasks })
    }

    /// Lets messages go at this pace for this long.
    async fn send(&mut self, pace: Pace, receivers: &[Raw], length: Duration) -> Result<()> {
        let slowest = |receivers: &[Raw]| {
            let next = receivers.iter().map(|raw| raw.progress.next.load(Ordering::Relaxed));
            next.min().unwrap_or(0)
        };
        if self.first == 0 {
            self.first = slowest(receivers);
        }
        let every = match pace {
            Pace::PerSecond(rate) => Duration::from_secs(1) / rate,
            Pace::Saturated => Duration::from_millis(1),
        };
        let mut ticks = tokio::time::interval(every);
        let end = Instant::now() + length;
        while ticks.tick().await < end {
            self.check_tasks()?;
            let grant = match pace {
                Pace::PerSecond(_) => 1,
                Pace::Saturated => {
                    let room = slowest(receivers) - self.first + WINDOW - self.granted;
                    if room < STEP { 0 } else { room }
                }
            };
            self.grant(grant)?;
        }
        Ok(())
    }

    fn grant(&mut self, messages: u64) -> Result<()> {
        if messages == 0 {
            return Ok(());
        }
        self.granted += messages;
        match self.setup.server.kind {
            Kind::Shoal => self.budget.add_permits(usize::try_from(messages)?),
            Kind::Bare => self.setup.server.advance(self.first + self.granted)?,
        }
        Ok(())
    }

    /// Waits until all that was sent has arrived everywhere.
    async fn settle(&mut self, receivers: &[Raw]) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        let wanted = self.first + self.granted;
        let arrived = |raw: &Raw| raw.progress.next.load(Ordering::Relaxed) >= wanted;
        while !receivers.iter().all(arrived) {
            self.check_tasks()?;
            let missing = receivers.iter().filter(|raw| !arrived(raw)).count();
            ensure!(Instant::now() < end, "{missing} receivers never got all up to {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ensure_in_order(receivers)
    }

    fn check_tasks(&mut self) -> Result<()> {
        self.setup.server.ensure_running()?;
        match self.tasks.try_join_next() {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }
}

async fn publish(
    mut send: PublishHalf,
    group: GroupId,
    payload: Bytes,
    budget: Arc<Semaphore>,
    unanswered: Arc<Semaphore>,
) -> Result<()> {
    for number in 1.. {
        unanswered.acquire().await?.forget();
        budget.acquire().await?.forget();
        send.publish(group, number, payload.clone()).await?;
    }
    Ok(())
}

async fn take_receipts(mut receipts: ReceiptHalf, unanswered: Arc<Semaphore>) -> Result<()> {
    loop {
        receipts.committed().await?;
        unanswered.add_permits(1);
    }
}

/// What is counted from the servers' and the receivers' beginning.
struct Counters {
    at: Instant,
    cpu: Duration,
    records: u64,
    datagrams_out: u64,
    datagrams_in: u64,
}

impl Counters {
    fn read(setup: &Setup, receivers: &[Raw]) -> Result<Self> {
        let cpu = setup.server.cpu()?;
        let records = receivers.iter().map(|raw| raw.progress.records.load(Ordering::Relaxed)).sum();
        let (mut datagrams_out, mut datagrams_in) = (0, 0);
        for raw in receivers {
            let stats = raw.connection.stats();
            datagrams_out += stats.udp_rx.datagrams;
            datagrams_in += stats.udp_tx.datagrams;
        }
        Ok(Self { at: Instant::now(), cpu, records, datagrams_out, datagrams_in })
    }

    fn since(&self, before: &Self, server: Kind) -> Sample {
        let deliveries = (self.records - before.records).max(1) as f64;
        Sample {
            server,
            deliveries_per_second: deliveries / (self.at - before.at).as_secs_f64(),
            cpu_us_per_delivery: (self.cpu - before.cpu).as_secs_f64() * 1e6 / deliveries,
            datagrams_out_per_delivery: (self.datagrams_out - before.datagrams_out) as f64 / deliveries,
            datagrams_in_per_delivery: (self.datagrams_in - before.datagrams_in) as f64 / deliveries,
        }
    }
}
