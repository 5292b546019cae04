//! The door: who is let in, who must prove their address first, and who is turned away.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use quinn::{Endpoint, Incoming};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{Shared, session};
use crate::config::AccessLimits;

/// What to do with a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Answer without keeping anything; whoever comes back with the answer does not forge their
    /// address.
    Retry,
    Closed,
}

/// How it is inside.
#[derive(Debug, Clone, Copy)]
struct Inside {
    newcomers: usize,
    is_draining: bool,
}

fn judge(inside: Inside, is_validated: bool, limits: &AccessLimits) -> Door {
    if inside.is_draining || inside.newcomers >= limits.newcomers_max {
        Door::Closed
    } else if inside.newcomers >= limits.newcomers_before_retry && !is_validated {
        Door::Retry
    } else {
        Door::Open
    }
}

/// Counts connections that have not said hello.
#[derive(Debug, Default, Clone)]
pub(super) struct Newcomers(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Newcomer(Newcomers);

impl Newcomers {
    fn enter(&self) -> Newcomer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Newcomer(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections on one endpoint until it is closed, and then waits for their sessions.
pub(super) async fn run(shared: Arc<Shared>, endpoint: Endpoint) {
    let pace = &shared.accept_pace;
    let mut connections = JoinSet::new();
    // A check that is passed is the permit for the next one.
    let mut not_before = pace.check().err();
    loop {
        tokio::select! {
            biased;
            Some(ended) = connections.join_next() => look_at(ended),
            () = sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => {
                not_before = pace.check().err();
            }
            incoming = endpoint.accept(), if not_before.is_none() => match incoming {
                Some(incoming) => {
                    open(&shared, incoming, &mut connections);
                    // Accepting holds the endpoint's lock: the rest waits in its bounded queue.
                    not_before = pace.check().err();
                }
                None => break,
            },
        }
    }
    while let Some(ended) = connections.join_next().await {
        look_at(ended);
    }
}

fn open(shared: &Arc<Shared>, incoming: Incoming, connections: &mut JoinSet<()>) {
    let inside = Inside { newcomers: shared.newcomers.count(), is_draining: shared.sessions.is_draining() };
    match judge(inside, incoming.remote_address_validated(), &shared.limits.load()) {
        Door::Open => {
            let newcomer = shared.newcomers.enter();
            match incoming.accept() {
                Ok(connecting) => {
                    shared.metrics.connections_accepted.inc();
                    connections.spawn(session::run(Arc::clone(shared), connecting, newcomer));
                }
                Err(error) => tracing::debug!(%error, "a connection attempt was no good"),
            }
        }
        Door::Retry => {
            shared.metrics.connections_retried.inc();
            // Fails only for an address that is validated, and then it is not asked for.
            let _ = incoming.retry();
        }
        Door::Closed => {
            shared.metrics.connections_refused.inc();
            incoming.refuse();
        }
    }
}

fn look_at(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session's task panicked; the others go on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_first_asks_for_proof_and_then_closes() {
        let limits = AccessLimits { newcomers_before_retry: 2, newcomers_max: 4, ..AccessLimits::default() };
        let with =
            |newcomers, is_validated| judge(Inside { newcomers, is_draining: false }, is_validated, &limits);
        assert_eq!(with(1, false), Door::Open);
        assert_eq!(with(2, false), Door::Retry);
        assert_eq!(with(2, true), Door::Open);
        assert_eq!(with(4, true), Door::Closed);
        assert_eq!(judge(Inside { newcomers: 0, is_draining: true }, true, &limits), Door::Closed);
    }

    #[test]
    fn a_newcomer_counts_until_it_is_dropped() {
        let newcomers = Newcomers::default();
        let one = newcomers.enter();
        assert_eq!(newcomers.count(), 1);
        drop(one);
        assert_eq!(newcomers.count(), 0);
    }
}
