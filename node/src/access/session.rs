//! One client on one connection, from its handshake to its end.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connecting, Connection};
use shoal_protocol::{Code, DeviceId, GroupId, Incarnation, Refusal, UserId, wire};
use tokio::sync::Notify;

use super::{
    Shared,
    accept::Newcomer,
    control::{Control, End},
    datagrams::Clearance,
    hello::{self, Greeting, Identity, NoSession},
    registry::Registered,
    stream::OpenStreams,
    violation::wire_code,
};
use crate::{
    clock::milliseconds,
    config::AccessLimits,
    delivery::{Deliveries, Signal},
    group::Actor,
    pace::Pace,
};

/// Who ends so soon after an offer has taken it: a handshake, and the answers still due.
const OFFER_TAKEN_MAX: Duration = Duration::from_secs(10);

/// What a session is told by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    /// Tell the client that the node is going.
    Drain = 1,
    /// The device has another session.
    Replaced = 2,
    /// The node stays after all.
    Stay = 4,
    /// Tell the client where it is better off: in its own region, or where there is more room.
    Offer = 8,
}

impl Order {
    /// The order that it takes back.
    fn revokes(self) -> u8 {
        match self {
            Self::Drain => Self::Stay as u8,
            Self::Stay => Self::Drain as u8,
            Self::Replaced | Self::Offer => 0,
        }
    }
}

/// What its tasks share.
pub(crate) struct Session {
    id: u64,
    device: DeviceId,
    /// Where its client says it is; empty where it says nothing.
    region: Box<str>,
    is_admin: AtomicBool,
    connection: Connection,
    signal: Arc<Signal>,
    deliveries: Deliveries,
    orders: AtomicU8,
    ordered: Notify,
    /// When it began, or was offered another node: milliseconds since the node started.
    rests_from_ms: AtomicU64,
    is_offered: AtomicBool,
    clearance: Mutex<Option<Clearance>>,
    /// How fast it may publish, over all its streams.
    pub(super) publish_pace: Pace,
    /// In milliseconds: an incarnation that is issued to it is of a later time.
    incarnation_after_ms: AtomicU64,
    /// How fast it may ask.
    pub(super) request_pace: Pace,
    /// How many streams of each kind it has.
    pub(super) open: OpenStreams,
}

impl Session {
    fn new(shared: &Shared, connection: Connection, identity: &Identity) -> Self {
        let signal = Arc::new(Signal::over(identity.claims.user.clone(), connection.clone()));
        let deliveries = Deliveries::new(
            connection.clone(),
            Arc::clone(&signal),
            Arc::clone(&shared.pages),
            shared.limits.clone(),
            Arc::clone(&shared.metrics),
        );
        let limits = &shared.limits;
        Self {
            id: shared.random(),
            device: identity.device,
            region: identity.region.clone(),
            is_admin: AtomicBool::new(identity.claims.admin),
            connection,
            signal,
            deliveries,
            orders: AtomicU8::new(0),
            ordered: Notify::new(),
            rests_from_ms: AtomicU64::new(milliseconds(shared.started.elapsed())),
            is_offered: AtomicBool::new(false),
            incarnation_after_ms: AtomicU64::new(0),
            clearance: Mutex::default(),
            publish_pace: Pace::new(limits, AccessLimits::publish_rate),
            request_pace: Pace::new(limits, AccessLimits::request_rate),
            open: OpenStreams::default(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Its device has sent to a group under another incarnation, issued by whichever node and clock:
    /// what is issued here is later.
    pub(super) fn has_been(&self, incarnation: Incarnation) {
        self.incarnation_after_ms.fetch_max(incarnation.issued_ms(), Ordering::Relaxed);
    }

    /// A new incarnation, later than all that it has had here.
    pub(super) fn begin_anew(&self, now_ms: u64, random: u64) -> Incarnation {
        let after_ms = self.incarnation_after_ms.load(Ordering::Relaxed);
        let incarnation = Incarnation::issue(now_ms.max(after_ms + 1), random);
        self.has_been(incarnation);
        incarnation
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    pub(super) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// On whose behalf it asks.
    pub(super) fn actor(&self) -> Actor {
        Actor { user: self.user().clone(), admin: self.is_admin.load(Ordering::Relaxed) }
    }

    pub(super) fn set_admin(&self, is_admin: bool) {
        self.is_admin.store(is_admin, Ordering::Relaxed);
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.fetch_and(!order.revokes(), Ordering::AcqRel);
        self.orders.fetch_or(order as u8, Ordering::AcqRel);
        self.ordered.notify_one();
    }

    /// Waits for an order. Cancellation safe.
    pub(super) async fn ordered(&self) {
        self.ordered.notified().await;
    }

    /// It is offered another node.
    pub(super) fn offered(&self, now: Duration) {
        self.is_offered.store(true, Ordering::Relaxed);
        self.rests_from_ms.store(milliseconds(now), Ordering::Relaxed);
    }

    /// Has it been left alone for so long?
    pub(super) fn has_rested(&self, time: Duration, now: Duration) -> bool {
        milliseconds(now) >= self.rests_from_ms.load(Ordering::Relaxed).saturating_add(milliseconds(time))
    }

    /// Was it offered another node, and is here all the same? Until it has rested: then it may be asked
    /// anew.
    pub(super) fn has_stayed(&self, rested: Duration, now: Duration) -> bool {
        let is_offered = self.is_offered.load(Ordering::Relaxed);
        is_offered && self.has_rested(OFFER_TAKEN_MAX, now) && !self.has_rested(rested, now)
    }

    /// Does it end because it was offered another node?
    fn takes_offer(&self, now: Duration) -> bool {
        self.is_offered.load(Ordering::Relaxed) && !self.has_rested(OFFER_TAKEN_MAX, now)
    }

    /// What was found out last about its datagrams.
    pub(super) fn clearance(&self) -> Option<Clearance> {
        *self.clearance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self, clearance: Clearance) {
        *self.clearance.lock().unwrap_or_else(PoisonError::into_inner) = Some(clearance);
    }

    /// Takes an order, if it was given.
    pub(super) fn take_order(&self, order: Order) -> bool {
        self.orders.fetch_and(!(order as u8), Ordering::AcqRel) & order as u8 != 0
    }
}

impl Registered for Session {
    fn user(&self) -> &UserId {
        self.signal.user().expect("a session's bell is its user's")
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn region(&self) -> &str {
        &self.region
    }
}

/// Lives through a session, or finds out that there is none.
pub(super) async fn run(shared: Arc<Shared>, connecting: Connecting, newcomer: Newcomer) {
    // What a hello takes is not kept for the session's life.
    let Some((present, control)) = Box::pin(begin(&shared, connecting)).await else { return };
    drop(newcomer);
    let why = match control.run().await {
        End::Lost(error) => Refusal::new(Code::None, error.to_string()),
        End::Closed(why) => why,
    };
    let session = &present.session;
    session.connection.close(wire_code(why.code), why.reason.as_bytes());
    shared.metrics.sessions_ended.inc(why.code);
    if why.code == Code::None && session.takes_offer(shared.started.elapsed()) {
        shared.metrics.sessions_moved.inc();
    }
    tracing::debug!(user = %session.user(), device = %session.device, code = %why.code, "session ended: {}", why.reason);
}

/// A session that was let in; it is out when this is dropped, however its task ends.
struct Present {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Present {
    fn new(shared: &Arc<Shared>, session: Arc<Session>) -> Self {
        shared.metrics.sessions.inc();
        shared.metrics.sessions_opened.inc();
        Self { shared: Arc::clone(shared), session }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.session.deliveries.close();
        self.shared.sessions.remove(&self.session);
        self.shared.metrics.sessions.dec();
    }
}

/// Handshake and hello, in the time there is for them.
async fn begin(shared: &Arc<Shared>, connecting: Connecting) -> Option<(Present, Control)> {
    let hello_until = tokio::time::Instant::now() + shared.limits.load().hello();
    let connection = match tokio::time::timeout_at(hello_until, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    let greeted = tokio::time::timeout_at(hello_until, hello::greet(shared, &connection)).await;
    let greeted =
        greeted.unwrap_or_else(|_| Err(Refusal::new(Code::TimedOut, "no hello came in time").into()));
    let refused = match greeted.and_then(|greeting| Ok(admit(shared, connection.clone(), greeting)?)) {
        Ok(begun) => return Some(begun),
        Err(NoSession::Lost(_)) => return None,
        Err(NoSession::Refused(refused)) => refused,
    };
    tracing::debug!(code = %refused.code, remote = %connection.remote_address(), "no session: {}", refused.reason);
    shared.metrics.sessions_ended.inc(refused.code);
    connection.close(wire_code(refused.code), refused.reason.as_bytes());
    None
}

fn admit(
    shared: &Arc<Shared>,
    connection: Connection,
    greeting: Greeting,
) -> Result<(Present, Control), Refusal> {
    let follows = greeting.hello.follows.iter().map(super::follows::parse).collect::<Result<Vec<_>, _>>()?;
    let session = Arc::new(Session::new(shared, connection, &greeting.identity));
    let replaced = shared.sessions.admit(&session)?;
    let present = Present::new(shared, Arc::clone(&session));
    let welcome = hello::welcome(shared, &session, &greeting.identity);
    tracing::debug!(user = %session.user(), device = %session.device, agent = greeting.hello.agent, "session began");
    let mut control = Control::new(Arc::clone(shared), Arc::clone(&session), greeting, &welcome);
    control.tell(wire::to_client::Body::Welcome(welcome));
    for (group, from) in follows {
        control.follow(group, from);
    }
    if let Some(replaced) = replaced {
        replaced.order(Order::Replaced);
        control.notify(replacement(&session));
    }
    Ok((present, control))
}

/// Tells the user's other sessions that one of them began in place of another.
fn replacement(session: &Session) -> wire::Notice {
    wire::Notice {
        group: GroupId::own(session.user()).to_wire(),
        what: Some(wire::notice::What::SessionReplaced(wire::notice::SessionReplaced {
            device: session.device.0,
        })),
        group_seq: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::stream;

    /// The size of the task that runs an async function.
    fn task_bytes<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn stream_bytes<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// There are as many as clients, and nearly all of them are idle.
    #[test]
    fn what_an_idle_session_keeps_is_small() {
        let sizes = [
            ("a session", size_of::<Session>(), 1024),
            ("its task", task_bytes(run), 2048),
            ("a stream's task", stream_bytes(stream::serve), 2048),
        ];
        for (what, bytes, bytes_max) in sizes {
            println!("{what}: {bytes} bytes");
            assert!(bytes <= bytes_max, "{what}: {bytes} bytes");
        }
    }
}
