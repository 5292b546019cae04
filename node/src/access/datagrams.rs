//! What may be lost: who types, who is there. Passed on to the sessions that follow the group here,
//! where they are few.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use shoal_protocol::{GroupId, wire};

use super::{Shared, pace::Pace, registry::Registered, session::Session};
use crate::delivery::{Signal, Tail};

/// Passes a session's datagram on, with its user's name in it, or drops it.
pub(super) fn forward(shared: &Shared, session: &Session, pace: &Pace, datagram: Bytes) {
    let others = receivers(shared, session, pace, datagram);
    let Some((others, datagram)) = others else {
        shared.metrics.datagrams_dropped.inc();
        return;
    };
    for other in others {
        other.send_datagram(datagram.clone());
        shared.metrics.datagrams_forwarded.inc();
    }
}

fn receivers(
    shared: &Shared,
    session: &Session,
    pace: &Pace,
    datagram: Bytes,
) -> Option<(Vec<Arc<Signal>>, Bytes)> {
    if datagram.len() > shared.limits.load().signal_bytes_max || pace.check().is_err() {
        return None;
    }
    let mut signal = wire::Signal::decode(datagram).ok()?;
    signal.what.as_ref()?;
    // Whoever follows a group is a member of it, and that was checked.
    let tail = session.deliveries().tail(GroupId::from_wire(&signal.group).ok()?)?;
    let others = others(&tail, session, shared.limits.load().signal_sessions_max)?;
    signal.user = session.user().to_string();
    Some((others, signal.encode_to_vec().into()))
}

/// The other sessions at a tail, if they are few.
fn others(tail: &Tail, session: &Session, sessions_max: usize) -> Option<Vec<Arc<Signal>>> {
    if tail.attached() > sessions_max {
        return None;
    }
    let mut others = Vec::new();
    // They are gathered first, for sending takes locks that must not be waited for under the tail's.
    tail.for_each_attached(|signal| {
        if !Arc::ptr_eq(signal, session.signal()) {
            others.push(Arc::clone(signal));
        }
    });
    Some(others)
}
