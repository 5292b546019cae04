//! Asks the other nodes and the store for signs of life, and watches its own timers.
//!
//! A question goes the way of any request: to a node through its link, its endpoint, its tasks and back. So
//! what is measured is what others feel of a node, and not only how long datagrams take. The store is asked
//! past what waits for it: a node that has much to write is not slow.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use shoal_protocol::Code;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    Others,
    findings::{Asked, Findings, Patience},
};
use crate::{
    clock::{Clock, milliseconds},
    config::{ClusterLimits, Current},
    coordination::Complaints,
    ops::{Event, Events, Kind, Metrics},
    peer::Links,
    store::Store,
};

/// Between two looks. Whoever has answered is asked again at the next one, so of a node that has time once
/// a second an answer takes three quarters of one.
const LOOK: Duration = Duration::from_millis(250);

/// Looks for nodes that are slow.
pub(super) struct Lookout {
    pub(super) others: Arc<Others>,
    pub(super) links: Arc<Links>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Current<ClusterLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
}

impl Lookout {
    /// Never ends.
    pub(super) async fn run(self, found: watch::Sender<Option<Complaints>>) {
        let (began, began_ms) = (Instant::now(), self.clock.now_ms());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut findings = Findings::default();
        let mut asked = FuturesUnordered::new();
        let mut due = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                Some((whom, is_well)) = asked.next() => {
                    let took = findings.answered(&whom, is_well, began.elapsed());
                    self.metrics.sign_of_life_ms.observe(milliseconds(took));
                }
                _ = looks.tick() => {
                    let now = began.elapsed();
                    let overdue = now.saturating_sub(due);
                    due = now + LOOK;
                    self.metrics.timers_late_ms.observe(milliseconds(overdue));
                    let (nodes, me) = (self.others.nodes(), self.others.me());
                    let questions = findings.look(now, overdue, &nodes, me, self.patience());
                    asked.extend(questions.into_iter().map(|whom| self.ask(whom)));
                    self.tell(&found, findings.complaints(me, began_ms));
                }
            }
        }
    }

    fn patience(&self) -> Patience {
        let limits = self.limits.load();
        Patience {
            late: Duration::from_millis(limits.slow_ms),
            slow_after: Duration::from_millis(limits.slow_after_ms),
            well_after: Duration::from_millis(limits.well_after_ms),
        }
    }

    /// Asks; whether an answer came.
    async fn ask(&self, whom: Asked) -> (Asked, bool) {
        let is_well = match &whom {
            // Whatever a node says, it has answered; that it was not reached its link says as `Busy`.
            Asked::Node(node) => {
                self.links.sign_of_life(node).await.map_or_else(|why| why.code != Code::Busy, |()| true)
            }
            Asked::Store => self.store.sign_of_life().await.is_ok(),
        };
        (whom, is_well)
    }

    fn tell(&self, found: &watch::Sender<Option<Complaints>>, now: Complaints) {
        found.send_if_modified(|before| {
            if before.as_ref() == Some(&now) {
                return false;
            }
            self.tell_apart(&before.take().unwrap_or_default(), &now);
            *before = Some(now);
            true
        });
    }

    /// Says what is new. That nodes are slow is a complaint: whether they are is for the cluster to say.
    fn tell_apart(&self, before: &Complaints, now: &Complaints) {
        let me = self.others.me();
        for node in now.of.keys().filter(|node| !before.of.contains_key(*node)) {
            match node == me {
                true => warn!("this node is slow: its timers fire late"),
                false => warn!(node = node.0, "a node is slow: it holds its lease and answers late"),
            }
        }
        for node in before.of.keys().filter(|node| !now.of.contains_key(*node)) {
            info!(node = node.0, "a node is slow no more");
        }
        let store = match (before.store_since_ms, now.store_since_ms) {
            (None, Some(_)) => Event::new(Kind::StoreSlow, "the store answers this node late"),
            (Some(_), None) => Event::new(Kind::StoreWell, "the store answers this node in time again"),
            _ => return,
        };
        self.events.tell(store);
    }
}
