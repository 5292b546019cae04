//! What a hop adds to a receipt and to a delivery: a client on the home's node and one on the other,
//! in turn with a message to quinn alone and back.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Serialize;
use shoal_loadgen::report::{Latencies, Quantiles};
use shoal_protocol::GroupId;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::bare::Bare;
use crate::{
    cluster::Cluster,
    echo::Echo,
    raw::{Arrival, PublishHalf, Raw, ReceiptHalf, ensure_in_order},
    setup::Setup,
};

const WARM_UP: Duration = Duration::from_secs(1);
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// To quinn alone in another process, and back.
    pub(crate) echo_ms: Quantiles,
    pub(crate) from_home: From,
    pub(crate) from_other: From,
}

/// Of messages that a client on one of the nodes publishes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct From {
    /// From the publish to its receipt.
    pub(crate) receipt_ms: Quantiles,
    /// From the publish to a client on the home's node.
    pub(crate) at_home_ms: Quantiles,
    /// From the publish to a client on the other node.
    pub(crate) at_other_ms: Quantiles,
}

/// Measures one message at a time, from each end in turn.
pub(super) async fn measure(shoal: &Path, dir: &Path, length: Duration, payload: usize) -> Result<Sample> {
    let (shoal, dir) = (shoal.to_owned(), dir.to_owned());
    // An app's client waits for one thing at a time: threads that wake each other are not its own.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(publishes(&shoal, &dir, length, payload))
    })
    .await?
}

async fn publishes(shoal: &Path, dir: &Path, length: Duration, payload: usize) -> Result<Sample> {
    let cluster = Cluster::start(shoal, dir).await?;
    let bare = Bare::start(dir).await?;
    let group = GroupId::named("bench");
    let users = ["bench-at-home", "bench-at-other"];
    cluster.home.create_groups(&[group], &users.map(str::to_owned)).await?;
    let mut home = Client::connect(&cluster.home, users[0], group).await?;
    let mut other = Client::connect(&cluster.other, users[1], group).await?;
    let mut echo = Echo::open(&bare.connection).await?;
    let payload = Bytes::from(vec![b'.'; payload]);

    let (mut echoes, mut from_home, mut from_other) =
        (Latencies::default(), Waits::default(), Waits::default());
    let started = Instant::now();
    while started.elapsed() < WARM_UP + length {
        if started.elapsed() < WARM_UP {
            (echoes, from_home, from_other) = Default::default();
        }
        let begun = Instant::now();
        echo.round_trip(payload.clone()).await?;
        echoes.record(begun.elapsed());
        let (begun, receipt) = home.publish(group, payload.clone()).await?;
        from_home.record(begun, receipt, home.arrival().await?, other.arrival().await?);
        let (begun, receipt) = other.publish(group, payload.clone()).await?;
        from_other.record(begun, receipt, home.arrival().await?, other.arrival().await?);
    }
    ensure_in_order([&home.session, &other.session])?;
    drop((home, other, echo));
    bare.stop()?;
    cluster.stop()?;
    Ok(Sample {
        echo_ms: echoes.quantiles(),
        from_home: from_home.quantiles(),
        from_other: from_other.quantiles(),
    })
}

/// A member that publishes and receives.
struct Client {
    session: Raw,
    send: PublishHalf,
    receipts: ReceiptHalf,
    number: u64,
    arrivals: watch::Receiver<Arrival>,
    /// The place of the next record.
    next: u64,
}

impl Client {
    async fn connect(node: &Setup, user: &str, group: GroupId) -> Result<Self> {
        let mut login = node.login(user, false, &[group])?;
        login.is_timed = true;
        let session = node.connect_all(vec![login]).await?.pop().context("one login, one session")?;
        let (send, receipts) = session.publisher().await?;
        let arrivals = session.progress.arrivals().context("it was asked for")?;
        let next = session.progress.next.load(std::sync::atomic::Ordering::Relaxed);
        Ok(Self { session, send, receipts, number: 0, arrivals, next })
    }

    /// When it was published, and when its receipt came.
    async fn publish(&mut self, group: GroupId, payload: Bytes) -> Result<(Instant, Instant)> {
        self.number += 1;
        let begun = Instant::now();
        self.send.publish(group, self.number, payload).await?;
        self.receipts.committed().await?;
        Ok((begun, Instant::now()))
    }

    /// When the next record came.
    async fn arrival(&mut self) -> Result<Instant> {
        let wanted = self.next + 1;
        let arrival = timeout(ARRIVAL_MAX, self.arrivals.wait_for(|arrival| arrival.next >= wanted)).await;
        let arrival = *arrival.with_context(|| format!("record {} never came", self.next))??;
        ensure!(arrival.next == wanted, "more came than was sent");
        self.next = wanted;
        Ok(arrival.at)
    }
}

/// Latencies of one sender's messages.
#[derive(Debug, Default)]
struct Waits {
    receipt: Latencies,
    at_home: Latencies,
    at_other: Latencies,
}

impl Waits {
    fn record(&mut self, begun: Instant, receipt: Instant, at_home: Instant, at_other: Instant) {
        self.receipt.record(receipt - begun);
        self.at_home.record(at_home - begun);
        self.at_other.record(at_other - begun);
    }

    fn quantiles(&self) -> From {
        From {
            receipt_ms: self.receipt.quantiles(),
            at_home_ms: self.at_home.quantiles(),
            at_other_ms: self.at_other.quantiles(),
        }
    }
}
