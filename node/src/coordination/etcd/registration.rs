//! A node's registration, and the lease that it stands under.
//!
//! One lease id is kept for as long as the registration lives: after the lease has run out it is
//! granted again under its old id. So the id says whose a record is, and a registration that was
//! away renews itself only where nobody has taken its name meanwhile.

use std::{future::pending, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use tracing::{debug, info, warn};

use super::{
    api::{RequestOp, TxnRequest, created_in, get, is_under, put},
    client::{Client, said},
    election::Election,
};
use crate::coordination::{Leadership, Load, NodeName, NodeRecord, Registration, Standing};

/// The lease is prolonged no more seldom than this.
const BEAT_MAX: Duration = Duration::from_secs(1);
/// A changed load is written no oftener than this.
const REPORT: Duration = Duration::from_secs(1);
/// How long to wait after etcd did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// A node's place among the living.
pub(super) struct Registered {
    /// Its end is the registration's.
    load: watch::Sender<Load>,
    standing: watch::Receiver<Standing>,
    election: Election,
}

/// Keeps a registration. Run it in a task; it ends with the registration.
pub(super) struct Keeper {
    client: Client,
    key: String,
    record: NodeRecord,
    lease: i64,
    lasting: Duration,
    /// The lease lasts until then at least.
    held_until: Instant,
    /// What the record in etcd says.
    told: Load,
    told_at: Instant,
    load: watch::Receiver<Load>,
    standing: watch::Sender<Standing>,
}

impl Keeper {
    /// Registers the node in place of whoever has its name.
    pub(super) async fn register(
        client: &Client,
        key: String,
        record: NodeRecord,
        lasting: Duration,
        load: watch::Receiver<Load>,
    ) -> Result<Self, Status> {
        let asked = Instant::now();
        let granted = client.grant(0, lasting).await?;
        // etcd has a shortest lease of its own.
        let lasting = Duration::from_secs(granted.ttl.unsigned_abs());
        let keeper = Self {
            client: client.within(lasting / 3),
            told: record.load.clone(),
            told_at: asked,
            key,
            record,
            lease: granted.id,
            lasting,
            held_until: asked + lasting,
            load,
            standing: watch::Sender::default(),
        };
        let success = vec![keeper.put(&keeper.told)];
        let written = client.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
        if let Some(before) = written.read(0).filter(|before| before.lease != keeper.lease) {
            keeper.end(before.lease).await;
        }
        Ok(keeper)
    }

    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Keeps the lease until the registration ends, here or by another that takes its name.
    pub(super) async fn run(mut self) {
        let beat = (self.lasting / 3).min(BEAT_MAX);
        let mut due_at = Instant::now() + beat;
        let mut load = self.load.clone();
        let mut tried = self.told.placement;
        loop {
            // However much there is to tell, the lease is prolonged in time.
            let is_due = tokio::select! {
                biased;
                () = sleep_until(due_at) => true,
                has_news = urgent(&mut load, tried) => if has_news { false } else { break },
            };
            // What cannot be told now is told with the next beat.
            tried = self.load.borrow().placement;
            let done = if is_due { self.beat().await } else { self.record().await };
            match done {
                Ok(Standing::Lost) => {
                    warn!(name = self.record.name.0, "another registration has taken this node's name");
                    break;
                }
                Ok(_) if is_due => due_at = Instant::now() + beat,
                Ok(_) => {}
                Err(status) => {
                    self.missed(&status);
                    due_at = Instant::now() + RETRY.min(beat);
                }
            }
        }
        self.end(self.lease).await;
    }

    /// Prolongs the lease, and sees to it that the record is there, and this node's.
    async fn beat(&mut self) -> Result<Standing, Status> {
        let asked = Instant::now();
        if !self.client.keep_alive(self.lease).await? {
            self.stand(Standing::Lapsed);
            self.client.grant(self.lease, self.lasting).await?;
        }
        self.held_until = asked + self.lasting;
        let standing = self.record().await?;
        self.stand(standing);
        Ok(standing)
    }

    /// Writes the record where it is not there or says another load; where it is another's, this
    /// registration is lost.
    async fn record(&mut self) -> Result<Standing, Status> {
        let mut load = self.load.borrow().clone();
        let is_urgent = load.placement != self.told.placement;
        if !is_urgent && self.told_at.elapsed() < REPORT {
            load = self.told.clone();
        }
        let report = if load == self.told { Vec::new() } else { vec![self.put(&load)] };
        let create = TxnRequest {
            compare: vec![created_in(&self.key, 0)],
            success: vec![self.put(&load)],
            failure: vec![get(&self.key)],
        };
        let request = TxnRequest {
            compare: vec![is_under(&self.key, self.lease)],
            success: report,
            failure: vec![create.into()],
        };
        let written = self.client.txn(request).await?;
        let is_written = written.succeeded || written.inner().is_some_and(|created| created.succeeded);
        if !is_written {
            return Ok(Standing::Lost);
        }
        if load != self.told {
            (self.told, self.told_at) = (load, Instant::now());
        }
        Ok(Standing::Held)
    }

    fn missed(&self, status: &Status) {
        debug!(because = %said(status), "the lease could not be prolonged");
        if Instant::now() >= self.held_until {
            self.stand(Standing::Lapsed);
        }
    }

    fn stand(&self, now: Standing) {
        let is_new = self.standing.send_if_modified(|standing| std::mem::replace(standing, now) != now);
        match now {
            Standing::Held if is_new => info!("this node is registered again"),
            Standing::Lapsed if is_new => {
                warn!("etcd does not hold this node's lease; others may take it for dead")
            }
            _ => {}
        }
    }

    /// Gives a lease back. Where that fails it runs out.
    async fn end(&self, lease: i64) {
        if let Err(status) = self.client.revoke(lease).await {
            debug!(because = %said(&status), "a lease is left to run out");
        }
    }

    fn put(&self, load: &Load) -> RequestOp {
        let record = NodeRecord { load: load.clone(), ..self.record.clone() };
        let value = serde_json::to_vec(&record).expect("a node's record is JSON");
        put(&self.key, Bytes::from(value), self.lease)
    }
}

impl Registered {
    pub(super) fn new(
        load: watch::Sender<Load>,
        standing: watch::Receiver<Standing>,
        election: Election,
    ) -> Self {
        Self { load, standing, election }
    }
}

#[async_trait]
impl Registration for Registered {
    fn node(&self) -> &NodeName {
        &self.election.node
    }

    fn report(&self, load: Load) {
        self.load.send_replace(load);
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    async fn lead(&self) -> Leadership {
        loop {
            let held = self.standing.clone().wait_for(|standing| *standing == Standing::Held).await.is_ok();
            if !held {
                pending().await
            }
            match self.election.campaign().await {
                Ok(leadership) => return leadership,
                Err(status) => debug!(because = %said(&status), "no election"),
            }
            sleep(RETRY).await;
        }
    }
}

/// Waits for what cannot wait for the next beat: the node acts by another placement than it has
/// told. False once the registration has ended.
async fn urgent(load: &mut watch::Receiver<Load>, tried: u64) -> bool {
    load.wait_for(|load| load.placement != tried).await.is_ok()
}
