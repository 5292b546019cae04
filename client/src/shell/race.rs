//! From the nodes that are known to a session on one of them: the first, and where that takes long, others
//! beside it. Whichever answers first is greeted.
//!
//! RFC 8305 ("Happy Eyeballs") does so with the addresses of a host, and gives each 250 ms. A node has more time:
//! a handshake that nobody needs costs the nodes more than an address.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    dial::{self, Connected, DialError, Reached},
    driver::{RETRY_AFTER_MAX, wait},
    greeting::Ahead,
    lock,
    shared::Shared,
};
use crate::{Closed, Lost, core::backoff::Backoff};

/// How long a node is tried alone before the next one is tried beside it: what a handshake takes by satellite, and
/// half of that again.
const STAGGER: Duration = Duration::from_millis(900);

/// How many are tried at the same time.
const NODES_MAX: usize = 3;

/// Tries the nodes, with a wait after each round.
///
/// Where the machine's network changes, waits are cut short, and what was tried by the one before is tried anew.
pub(super) async fn connect(
    shared: &Arc<Shared>,
    backoff: &mut Backoff,
    ahead: Ahead,
) -> Result<Connected, Closed> {
    let mut race = Race::new(shared, ahead);
    loop {
        shared.awake().await;
        if race.is_idle() && !race.begin() {
            wait(shared, backoff, race.retry_after).await;
            race = Race::new(shared, ahead);
            continue;
        }
        let connected = tokio::select! {
            biased;
            () = shared.network.notified() => {
                backoff.reset();
                race = race.anew();
                continue;
            }
            connected = race.next() => connected,
        };
        match connected {
            Ok(connected) => return Ok(connected),
            Err(DialError::Closed(why)) => return Err(why),
            Err(DialError::Lost(why)) => {
                race.retry_after = race.retry_after.max(dial::retry_after(&why)).min(RETRY_AFTER_MAX);
                shared.offline(why);
            }
        }
    }
}

type Reaching<'s> = Pin<Box<dyn Future<Output = (String, Result<Reached<'s>, Lost>)> + Send + 's>>;

/// One round of the nodes.
struct Race<'s> {
    shared: &'s Shared,
    ahead: Ahead,
    /// Those that have not answered, in the order in which they began.
    running: Vec<String>,
    reaching: FuturesUnordered<Reaching<'s>>,
    /// When the next one begins though the others still run.
    next_at: Instant,
    /// All have begun.
    is_over: bool,
    /// How long the nodes asked to be left alone.
    retry_after: Duration,
}

impl<'s> Race<'s> {
    fn new(shared: &'s Shared, ahead: Ahead) -> Self {
        Self {
            shared,
            ahead,
            running: Vec::new(),
            reaching: FuturesUnordered::new(),
            next_at: Instant::now(),
            is_over: false,
            retry_after: Duration::ZERO,
        }
    }

    /// The same nodes from the beginning.
    fn anew(self) -> Self {
        lock(&self.shared.nodes).prefer(self.running);
        Self::new(self.shared, self.ahead)
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins with another node; false at the end of the round.
    fn begin(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let Some(node) = lock(&self.shared.nodes).next() else {
            self.is_over = true;
            return false;
        };
        let (shared, name) = (self.shared, node.clone());
        // The same messages are not sent twice at the same time.
        let ahead = if self.is_idle() { self.ahead } else { Ahead::Hello };
        self.reaching.push(Box::pin(async move {
            let reached = dial::reach(shared, &name, ahead).await;
            (name, reached)
        }));
        self.running.push(node);
        self.next_at = Instant::now() + STAGGER;
        true
    }

    /// What comes of the one that answers first, or fails.
    async fn next(&mut self) -> Result<Connected, DialError> {
        loop {
            let may_begin = !self.is_over && self.running.len() < NODES_MAX;
            tokio::select! {
                biased;
                Some((node, reached)) = self.reaching.next() => {
                    let connected = match reached {
                        Ok(reached) => dial::greet(self.shared, &node, reached).await,
                        Err(why) => Err(DialError::Lost(why)),
                    };
                    if let Err(why) = &connected {
                        tracing::debug!(%node, ?why, "no session");
                    }
                    self.running.retain(|running| *running != node);
                    return connected;
                }
                () = sleep_until(self.next_at), if may_begin => {
                    self.begin();
                }
            }
        }
    }
}
