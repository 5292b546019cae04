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
    handshake::Handshake,
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

/// A session whose client has said hello; it is out when this is dropped, however its task ends.
struct Present {
    shared: Arc<Shared>,
    session: Arc<Session>,
    is_admitted: bool,
}

impl Present {
    fn new(shared: &Arc<Shared>, session: Arc<Session>) -> Self {
        Self { shared: Arc::clone(shared), session, is_admitted: false }
    }

    /// Takes the session in, in the place of the one that its device had.
    fn admit(&mut self, control: &mut Control) -> Result<(), Refusal> {
        let replaced = self.shared.sessions.admit(&self.session)?;
        self.is_admitted = true;
        self.shared.metrics.sessions.inc();
        self.shared.metrics.sessions_opened.inc();
        if let Some(replaced) = replaced {
            replaced.order(Order::Replaced);
            control.notify(replacement(&self.session));
        }
        Ok(())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.session.deliveries.close();
        if self.is_admitted {
            self.shared.sessions.remove(&self.session);
            self.shared.metrics.sessions.dec();
        }
    }
}

/// Handshake and hello, in the time there is for them.
async fn begin(shared: &Arc<Shared>, connecting: Connecting) -> Option<(Present, Control)> {
    let Ok((connection, established)) = connecting.into_0rtt() else {
        unreachable!("a node may always write before the handshake is done");
    };
    let mut handshake = Handshake::new(established);
    let hello_until = tokio::time::Instant::now() + shared.limits.load().hello();
    let entering = enter(shared, connection.clone(), &mut handshake);
    let entered = tokio::time::timeout_at(hello_until, entering).await;
    let refused = match entered {
        Ok(Ok(begun)) => return Some(begun),
        Ok(Err(NoSession::Lost(error))) => {
            tracing::debug!(%error, "a connection was lost before there was a session");
            return None;
        }
        Ok(Err(NoSession::Refused(refused))) => {
            // Said before the handshake is done, the code would not get through (RFC 9000 §10.2.3).
            let _ = tokio::time::timeout_at(hello_until, handshake.ended()).await;
            refused
        }
        Err(_) => Refusal::new(Code::TimedOut, "no hello came in time"),
    };
    tracing::debug!(code = %refused.code, remote = %connection.remote_address(), "no session: {}", refused.reason);
    shared.metrics.sessions_ended.inc(refused.code);
    connection.close(wire_code(refused.code), refused.reason.as_bytes());
    None
}

/// From a connection whose handshake may not be done yet to a session.
///
/// A hello in early data (0-RTT, RFC 8446 §2.3) may be a replay of one that was said before. It is answered at
/// once, and so are the messages that come with it: what may be said again in any case is harmless. What is not (a
/// place among the sessions, which its device's other session loses for it) waits for the end of the handshake, to
/// which a replay never comes; see also [`Control::run_early`].
async fn enter(
    shared: &Arc<Shared>,
    connection: Connection,
    handshake: &mut Handshake,
) -> Result<(Present, Control), NoSession> {
    let greeting = hello::greet(shared, &connection).await?;
    let is_early = greeting.recv.is_0rtt();
    let (mut present, mut control) = open(shared, connection, greeting)?;
    if is_early {
        shared.metrics.early_hellos.inc();
        control.run_early(handshake).await?;
    }
    present.admit(&mut control)?;
    Ok((present, control))
}

/// Puts the answer to a good hello on its way.
fn open(
    shared: &Arc<Shared>,
    connection: Connection,
    greeting: Greeting,
) -> Result<(Present, Control), Refusal> {
    let follows = greeting.hello.follows.iter().map(super::follows::parse).collect::<Result<Vec<_>, _>>()?;
    let session = Arc::new(Session::new(shared, connection, &greeting.identity));
    shared.sessions.may_admit(&session)?;
    let present = Present::new(shared, Arc::clone(&session));
    let welcome = hello::welcome(shared, &session, &greeting.identity);
    tracing::debug!(user = %session.user(), device = %session.device, agent = greeting.hello.agent, "session began");
    let mut control = Control::new(Arc::clone(shared), Arc::clone(&session), greeting, &welcome);
    control.tell(wire::to_client::Body::Welcome(welcome));
    for (group, from) in follows {
        control.follow(group, from);
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
