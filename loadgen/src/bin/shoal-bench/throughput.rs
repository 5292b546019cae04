//! Durable messages a second, from publish to receipt and to a follower, into one group and many.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::Serialize;
use shoal_protocol::GroupId;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    process::{Kind, Server},
    raw::{PublishHalf, Raw, ReceiptHalf, ensure_in_order},
    setup::Setup,
};

const SENDERS: usize = 16;
/// So that more than 1,000 are under way, each sender below the protocol's bound for one group.
const UNANSWERED_MAX: usize = 100;
const RECEIVERS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) groups: usize,
    pub(crate) in_flight: usize,
    /// Receipts.
    pub(crate) durable_per_second: f64,
    /// At the followers, one for each group.
    pub(crate) delivered_per_second: f64,
    /// The server's, over both cores.
    pub(crate) cpu_us_per_message: f64,
}

/// Publishes into `groups` groups with over a thousand messages under way.
pub(crate) async fn measure(groups: usize, shoal: &Path, dir: &Path, length: Duration) -> Result<Sample> {
    let setup = Setup::start(Kind::Shoal, shoal, dir, 128).await?;
    let ids: Vec<_> = (0..groups).map(|at| GroupId::named(&format!("bench-{at}"))).collect();
    let senders: Vec<_> = (0..SENDERS).map(|at| format!("bench-sender-{at}")).collect();
    let receivers: Vec<_> = (0..RECEIVERS.min(groups)).map(|at| format!("bench-receiver-{at}")).collect();
    setup.create_groups(&ids, &[senders.clone(), receivers.clone()].concat()).await?;
    let receivers = connect(&setup, &receivers, |at| every_nth(&ids, at, receivers.len())).await?;
    let senders = connect(&setup, &senders, |_| Vec::new()).await?;

    let flow = Flow { groups: &ids, senders: &senders, receivers: &receivers };
    let rates = flow.measure(&[&setup.server], length).await?;
    let sample = Sample {
        groups,
        in_flight: SENDERS * UNANSWERED_MAX,
        durable_per_second: rates.durable_per_second,
        delivered_per_second: rates.delivered_per_second,
        cpu_us_per_message: rates.cpu_us_per_message.iter().sum(),
    };
    drop((senders, receivers));
    setup.stop()?;
    Ok(sample)
}

/// Who sends into which groups, and who receives.
pub(crate) struct Flow<'a> {
    pub(crate) groups: &'a [GroupId],
    pub(crate) senders: &'a [Raw],
    pub(crate) receivers: &'a [Raw],
}

/// What came of it.
pub(crate) struct Rates {
    pub(crate) durable_per_second: f64,
    pub(crate) delivered_per_second: f64,
    /// Of each server.
    pub(crate) cpu_us_per_message: Vec<f64>,
}

impl Flow<'_> {
    /// Lets everybody send, and looks at the servers meanwhile; all that was sent has arrived when
    /// this returns.
    pub(crate) async fn measure(&self, servers: &[&Server], length: Duration) -> Result<Rates> {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let published = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for (at, raw) in self.senders.iter().enumerate() {
            let own = match self.groups {
                [_] => self.groups.to_vec(),
                groups => every_nth(groups, at, self.senders.len()),
            };
            let (send, receipts) = raw.publisher().await?;
            let unanswered = Arc::new(Semaphore::new(UNANSWERED_MAX));
            tasks.spawn(publish(send, own, unanswered.clone(), published.clone(), stopped.clone()));
            tasks.spawn(take_receipts(receipts, unanswered, acknowledged.clone()));
        }
        let cpu = || servers.iter().map(|server| server.cpu()).collect::<Result<Vec<_>>>();
        let count = || {
            Ok::<_, anyhow::Error>((
                Instant::now(),
                acknowledged.load(Ordering::Relaxed),
                records(self.receivers),
                cpu()?,
            ))
        };
        tokio::time::sleep(WARM_UP).await;
        let before = count()?;
        tokio::time::sleep(length).await;
        let after = count()?;
        stop.send_replace(true);
        drain(&mut tasks, self.receivers, &published, &acknowledged).await?;

        let seconds = (after.0 - before.0).as_secs_f64();
        let messages = (after.1 - before.1) as f64;
        let each =
            |(after, before): (Duration, Duration)| (after - before).as_secs_f64() * 1e6 / messages.max(1.0);
        Ok(Rates {
            durable_per_second: messages / seconds,
            delivered_per_second: (after.2 - before.2) as f64 / seconds,
            cpu_us_per_message: after.3.into_iter().zip(before.3).map(each).collect(),
        })
    }
}

async fn connect(
    setup: &Setup,
    users: &[String],
    follows: impl Fn(usize) -> Vec<GroupId>,
) -> Result<Vec<Raw>> {
    let logins = users.iter().enumerate().map(|(at, user)| setup.login(user, false, &follows(at)));
    setup.connect_all(logins.collect::<Result<_>>()?).await
}

fn every_nth(ids: &[GroupId], from: usize, n: usize) -> Vec<GroupId> {
    ids.iter().skip(from).step_by(n).copied().collect()
}

fn records(receivers: &[Raw]) -> u64 {
    receivers.iter().map(|raw| raw.progress.records.load(Ordering::Relaxed)).sum()
}

async fn publish(
    mut send: PublishHalf,
    groups: Vec<GroupId>,
    unanswered: Arc<Semaphore>,
    published: Arc<AtomicU64>,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<()> {
    let payload = Bytes::from(vec![b'.'; 128]);
    for number in 1.. {
        for group in &groups {
            unanswered.acquire().await?.forget();
            if *stopped.borrow() {
                // A stream whose sending half is dropped ends.
                return std::future::pending().await;
            }
            published.fetch_add(1, Ordering::Relaxed);
            send.publish(*group, number, payload.clone()).await?;
        }
    }
    Ok(())
}

async fn take_receipts(
    mut receipts: ReceiptHalf,
    unanswered: Arc<Semaphore>,
    acknowledged: Arc<AtomicU64>,
) -> Result<()> {
    loop {
        receipts.committed().await?;
        acknowledged.fetch_add(1, Ordering::Relaxed);
        unanswered.add_permits(1);
    }
}

/// Waits until everything published is acknowledged and has arrived.
async fn drain(
    tasks: &mut tokio::task::JoinSet<Result<()>>,
    receivers: &[Raw],
    published: &AtomicU64,
    acknowledged: &AtomicU64,
) -> Result<()> {
    let end = Instant::now() + DRAIN_MAX;
    loop {
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        let published = published.load(Ordering::Relaxed);
        let (receipts, arrived) = (acknowledged.load(Ordering::Relaxed), records(receivers));
        if receipts == published && arrived == published {
            return ensure_in_order(receivers);
        }
        ensure!(
            Instant::now() < end,
            "of {published} messages {receipts} were acknowledged and {arrived} arrived"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
