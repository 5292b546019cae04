//! A link's datagrams to a home: what may be lost, sent at once or not at all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::Connection;

use crate::{
    config::{AccessLimits, Current, Rate},
    pace::Pace,
};

/// Datagrams a second to one node, or from one, lasting, and so many at once: more are dropped. QUIC sends
/// them before what streams have, so that these bounds, and that of what waits, are what they may take
/// from records.
const RATE: Rate = Rate { per_second: 1_000, burst: 500 };

/// How fast datagrams may be sent one way.
pub(super) fn pace(limits: &Current<AccessLimits>) -> Pace {
    Pace::new(limits, |_| RATE)
}

/// The way to one node, while there is a link.
#[derive(Debug)]
pub(super) struct Hints {
    connection: Mutex<Option<Connection>>,
    pace: Pace,
}

impl Hints {
    pub(super) fn new(limits: &Current<AccessLimits>) -> Self {
        Self { connection: Mutex::default(), pace: pace(limits) }
    }

    /// There is a link, or there is none any more.
    pub(super) fn set(&self, connection: Option<Connection>) {
        *self.lock() = connection;
    }

    /// Sends a datagram; false where there is no link, or too much to send.
    pub(super) fn send(&self, datagram: Bytes) -> bool {
        let Some(connection) = self.lock().clone() else { return false };
        self.pace.check().is_ok() && connection.send_datagram(datagram).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
