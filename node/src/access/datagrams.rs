//! What may be lost: who types, who is there. Passed on to the sessions that follow the group, on all
//! nodes, where they are few.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use shoal_protocol::{GroupId, wire};
use tokio::time::Instant;

use super::{Shared, registry::Registered, session::Session};
use crate::{
    delivery::Tail,
    group::Place,
    pace::Pace,
    presence::{Audience, pass_on},
};

/// For how long what was found out about a session holds: that it may be heard in a group, or may not.
const CLEARED: Duration = Duration::from_secs(3);

/// Whether a session's datagrams in a group are passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clearance {
    group: GroupId,
    is_heard: bool,
    until: Instant,
}

/// A session's datagram, with its user's name in it.
struct Hint {
    group: GroupId,
    tail: Arc<Tail>,
    datagram: Bytes,
}

/// Passes a session's datagram on, or drops it. Where it has to be found out first whether it may be
/// passed on, the future does so.
pub(super) fn forward(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    pace: &Pace,
    datagram: Bytes,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let Some(hint) = read(shared, session, pace, datagram) else {
        shared.metrics.datagrams_dropped.inc();
        return None;
    };
    let cleared = session.clearance().filter(|cleared| cleared.holds_in(hint.group));
    if let Some(cleared) = cleared {
        hint.pass_on(shared, session, cleared.is_heard);
        return None;
    }
    let (shared, session) = (Arc::clone(shared), Arc::clone(session));
    Some(async move {
        let is_heard = is_heard(&shared, &session, hint.group).await;
        let until = Instant::now() + CLEARED;
        session.clear(Clearance { group: hint.group, is_heard, until });
        hint.pass_on(&shared, &session, is_heard);
    })
}

fn read(shared: &Shared, session: &Session, pace: &Pace, datagram: Bytes) -> Option<Hint> {
    if datagram.len() > shared.limits.load().signal_bytes_max || pace.check().is_err() {
        return None;
    }
    let mut signal = wire::Signal::decode(datagram).ok()?;
    signal.what.as_ref()?;
    let group = GroupId::from_wire(&signal.group).ok()?;
    // Whoever follows a group is a member of it, or was until now.
    let tail = session.deliveries().tail(group)?;
    signal.user = session.user().to_string();
    Some(Hint { group, tail, datagram: signal.encode_to_vec().into() })
}

/// Nobody hears those who may not speak, and all hear nobody where they are too many.
async fn is_heard(shared: &Shared, session: &Session, group: GroupId) -> bool {
    let now_ms = shared.clock.now_ms();
    match shared.groups.authorize(&session.actor(), group).await {
        Ok(member) if member.role == wire::Role::None || member.muted_until_ms > now_ms => false,
        Ok(_) => shared.presence.is_small(group).await,
        Err(_) => false,
    }
}

impl Clearance {
    fn holds_in(&self, group: GroupId) -> bool {
        self.group == group && Instant::now() < self.until
    }
}

impl Hint {
    fn pass_on(&self, shared: &Shared, session: &Session, is_heard: bool) {
        if !is_heard || !self.is_among_members(session) {
            return shared.metrics.datagrams_dropped.inc();
        }
        let home = shared.groups.home(self.group);
        let to = if home == Place::Here { Audience::Everybody } else { Audience::Sessions };
        let from = Some(session.signal());
        let sessions_max = shared.limits.load().signal_sessions_max;
        pass_on(&self.tail, &self.datagram, from, to, sessions_max, &shared.metrics);
        if let Place::There(home) = home {
            shared.groups.elsewhere().signal(&home, self.datagram.clone());
        }
    }

    /// Its follow stands: the user's membership has not ended.
    fn is_among_members(&self, session: &Session) -> bool {
        let mut is_there = false;
        self.tail.for_each_attached(|signal| is_there |= Arc::ptr_eq(signal, session.signal()));
        is_there
    }
}
