//! A node's lease, kept from the node: where the service is not reached in time, it lapses.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use shoal_node::coordination::{
    CoordinationError, Leadership, Load, NodeName, NodeRecord, Registration, Standing,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::{Way, model::LeaseId};

/// How long a node waits before it asks again whether it leads.
const RETRY: Duration = Duration::from_millis(60);

/// One registration. Dropping it gives the lease back, if the service is reached.
pub(super) struct Lease {
    way: Way,
    id: LeaseId,
    node: NodeName,
    record: Arc<Mutex<NodeRecord>>,
    standing: watch::Sender<Standing>,
    keeping: JoinHandle<()>,
}

impl Lease {
    pub(super) async fn take(way: &Way, record: NodeRecord) -> Result<Self, CoordinationError> {
        let id = way.reach().await?.register(record.clone());
        let node = record.name.clone();
        let (record, standing) = (Arc::new(Mutex::new(record)), watch::Sender::default());
        let keeping = spawn_local(keep(way.clone(), id, Arc::clone(&record), standing.clone()));
        Ok(Self { way: way.clone(), id, node, record, standing, keeping })
    }
}

async fn keep(way: Way, id: LeaseId, record: Arc<Mutex<NodeRecord>>, standing: watch::Sender<Standing>) {
    let lease = way.service.model().lease();
    let mut held_until = way.service.clock.elapsed() + lease;
    while *standing.borrow() != Standing::Lost {
        sleep(lease / 3).await;
        let now = way.service.clock.elapsed();
        if way.is_open() {
            let record = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let kept = way.service.model().keep(id, record);
            held_until = now + lease;
            if kept == Standing::Lapsed {
                stand(&standing, Standing::Lapsed);
                stand(&standing, Standing::Held);
            } else {
                stand(&standing, kept);
            }
        } else if now >= held_until {
            stand(&standing, Standing::Lapsed);
        }
    }
}

fn stand(standing: &watch::Sender<Standing>, now: Standing) {
    standing.send_if_modified(|standing| std::mem::replace(standing, now) != now);
}

#[async_trait]
impl Registration for Lease {
    fn node(&self) -> &NodeName {
        &self.node
    }

    fn report(&self, load: Load) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).load = load;
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    async fn lead(&self) -> Leadership {
        loop {
            let is_held = *self.standing.borrow() == Standing::Held;
            if is_held && self.way.is_open() {
                let elected = self.way.service.model().elect(self.id);
                if let Some(leadership) = elected {
                    return leadership;
                }
            }
            sleep(RETRY).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeping.abort();
        if self.way.is_open() {
            self.way.service.model().give_back(self.id);
        }
    }
}
