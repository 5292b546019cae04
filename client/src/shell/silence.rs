//! What becomes of a session whose node does not answer: it is doubted, and then another is opened beside it.
//!
//! ```text
//!  heartbeat ──► no answer ──► Degraded ──► silent: Reconnecting, another session is opened ──► Online there
//!                   ▲             │                        │
//!                   └─────────────┴── the node answers ────┘ and all goes on as it was
//! ```
//!
//! Nobody knows whether it is the node that is gone or the network: so both are tried, and whatever answers
//! first goes on.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout;

use super::{
    driver, framed,
    greeting::Ahead,
    lock, race,
    session::{End, Session},
    sleep_until,
};
use crate::{Lost, core::backoff::Backoff};

/// How soon it is looked again where another session is being opened for another reason.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Session {
    /// Ends the session once the node has been silent for too long and there is another; asks for a sign of
    /// life where something is overdue.
    pub(super) async fn watch_silence(&self) -> End {
        loop {
            let now = self.shared.now();
            let (doubtful_at, silent_at) = {
                let mut liveness = lock(&self.liveness);
                liveness.set_activity(self.shared.activity(), now);
                (liveness.doubtful_at(), liveness.silent_at())
            };
            if silent_at.is_some_and(|at| at <= now) {
                match self.outlive().await {
                    Some(end) => return end,
                    None => continue,
                }
            }
            let is_doubtful = doubtful_at.is_some_and(|at| at <= now);
            self.shared.doubt(&self.node, is_doubtful);
            let next = doubtful_at.filter(|_| !is_doubtful).or(silent_at);
            let next = next.map(|at| self.shared.instant(at));
            tokio::select! {
                biased;
                () = self.shared.probe.notified() => self.probe(),
                () = self.heard.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn probe(&self) {
        let now = self.shared.now();
        let mut liveness = lock(&self.liveness);
        liveness.set_activity(self.shared.activity(), now);
        liveness.probe(now, self.connection.rtt());
        drop(liveness);
        self.shared.follows.wake.notify_one();
    }

    /// Opens another session, unless the node answers before there is one.
    async fn outlive(&self) -> Option<End> {
        if self.moving.load(Ordering::Relaxed) {
            // Another session is being opened already.
            let _ = timeout(LOOK_AGAIN, self.answered()).await;
            return None;
        }
        tracing::debug!(node = %self.node, "silent");
        self.begin_to_move();
        // It may be dead: another says at once whether it is the network.
        lock(&self.shared.nodes).avoid(&self.node);
        let mut backoff = Backoff::new(driver::RETRY_FIRST, driver::RETRY_CEILING);
        self.shared.offline(Lost::Silent);
        let end = tokio::select! {
            biased;
            () = self.answered() => None,
            connected = Box::pin(race::connect(&self.shared, &mut backoff, Ahead::Hello)) => Some(match connected {
                Ok(connected) => End::Outlived(Box::new(connected)),
                Err(why) => End::Closed(why),
            }),
        };
        if end.is_some() {
            return end;
        }
        self.moving.store(false, Ordering::Relaxed);
        if let Some(error) = self.connection.close_reason() {
            return Some(End::Lost(framed::lost(&error)));
        }
        tracing::debug!(node = %self.node, "there after all");
        self.shared.back_online(&self.link, &self.node);
        None
    }

    /// Waits until the node is silent no more. Cancellation safe.
    async fn answered(&self) {
        loop {
            self.heard.notified().await;
            let silent_at = lock(&self.liveness).silent_at();
            if silent_at.is_none_or(|at| at > self.shared.now()) {
                return;
            }
        }
    }
}
