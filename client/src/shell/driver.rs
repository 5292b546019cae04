//! Connect, run a session, connect again, until it is over.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::{
    dial,
    greeting::Ahead,
    lock, race,
    session::{self, End},
    shared::Shared,
};
use crate::{Closed, Lost, core::backoff::Backoff, stats::count};

/// The first and the longest wait between rounds of attempts.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(super) const RETRY_CEILING: Duration = Duration::from_secs(5);
/// The longest that a node's `retry_after` is believed.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A session that lived so long was a good one: the next wait is short again.
const SESSION_GOOD: Duration = Duration::from_secs(5);
/// How long a live session has to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The client's task.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut changes = shared.config.transport.changes();
    let watch = async {
        while changes.next().await.is_some() {
            if let Err(error) = shared.network_changed() {
                tracing::debug!(%error, "no other socket");
            }
        }
        std::future::pending().await
    };
    let why = tokio::select! {
        biased;
        why = watch => why,
        why = drive(&shared) => why,
    };
    tracing::debug!(%why, "closed");
    shared.finish(why);
}

async fn drive(shared: &Arc<Shared>) -> Closed {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CEILING);
    let mut moved_to = None;
    loop {
        let connected = match moved_to.take() {
            Some(connected) => connected,
            None => tokio::select! {
                biased;
                () = shared.closing() => return Closed::ByApp,
                connected = Box::pin(race::connect(shared, &mut backoff, Ahead::Messages)) => match connected {
                    Ok(connected) => connected,
                    Err(why) => return why,
                },
            },
        };
        let (began, node) = (Instant::now(), connected.node.clone());
        tracing::debug!(node = %connected.node, session = connected.welcome.session, "online");
        let end = tokio::select! {
            biased;
            end = Box::pin(session::run(shared, connected)) => end,
            () = late(shared) => End::Closed(Closed::ByApp),
        };
        match end {
            End::Closed(why) => return why,
            End::Moved(connected) => {
                count(&shared.counters.moves, 1);
                moved_to = Some(*connected);
            }
            End::Outlived(connected) => moved_to = Some(*connected),
            End::Lost(why) => {
                if began.elapsed() >= SESSION_GOOD {
                    backoff.reset();
                }
                // A node that is silent may be dead: another says at once whether it is the network.
                if dial::elsewhere(&why) || why == Lost::Silent {
                    lock(&shared.nodes).avoid(&node);
                }
                rest(shared, &mut backoff, why).await;
            }
        }
    }
}

/// A session was lost: a short wait, since all who were on that node come back now; none where
/// the node said to go elsewhere.
async fn rest(shared: &Arc<Shared>, backoff: &mut Backoff, why: Lost) {
    tracing::debug!(%why, "offline");
    let (is_elsewhere, retry_after) = (dial::elsewhere(&why), dial::retry_after(&why));
    shared.offline(why);
    if !is_elsewhere {
        tokio::select! {
            biased;
            () = shared.closing() => {}
            () = wait(shared, backoff, retry_after.min(RETRY_AFTER_MAX)) => {}
        }
    }
}

/// A pause that is longer after each failure; none any more once the network has changed.
pub(super) async fn wait(shared: &Shared, backoff: &mut Backoff, least: Duration) {
    let pause = backoff.failed(shared.chance()).max(least);
    tokio::select! {
        biased;
        () = shared.hurry.notified() => backoff.reset(),
        () = sleep(pause) => {}
    }
}

/// The app closes and the session does not come to its end.
async fn late(shared: &Arc<Shared>) {
    shared.closing().await;
    sleep(GOODBYE_TIMEOUT).await;
}
