//! The IO round the core: one task for each client, which owns the connection, and one for each
//! delivery stream that is open.
//!
//! - [`shared`]: what the app's handles and the task share;
//! - [`queue`], [`follows`], [`following`]: the core's outbox and inboxes, and who waits for them;
//! - [`driver`]: connect, run a session, connect again; [`race`]: which node it is to be;
//! - [`dial`]: from a node's name to a welcome; [`greeting`]: the first words, and [`hellos`]: those
//!   that got no answer;
//! - [`session`]: one live session, with [`control`], [`publish`], [`delivery`], [`renewal`]
//!   and [`silence`];
//! - [`request`]: one stream for each question.

pub(crate) mod shared;

pub(crate) mod queue;

pub(crate) mod following;

pub(crate) mod follows;

pub(crate) mod driver;

mod race;

pub(crate) mod dial;

mod greeting;

mod hellos;

pub(crate) mod session;

pub(crate) mod control;

pub(crate) mod publish;

pub(crate) mod delivery;

pub(crate) mod renewal;

mod silence;

pub(crate) mod request;

mod framed;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Locks for a moment; never across an await. A panic of another holder leaves nothing half done
/// here, since the core's methods do not panic midway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until then; for ever, where it is never. Cancellation safe.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
