//! The access layer: clients, their connections and their sessions.
//!
//! ```text
//!  endpoint ─► accept ─► session ─► control stream: hello, heartbeats, follows, notices
//!              (door)      │  ├────► publish streams, requests, datagrams
//!                          │  └────► deliveries: a task of their own
//!                       registry: one session for each device
//! ```
//!
//! A client that breaks the protocol loses what it broke, and nobody else anything. The [`Code`]
//! is the QUIC application error code, with a sentence as its reason:
//!
//! | what | ends | with |
//! |---|---|---|
//! | no hello in time; heartbeats that stopped | connection | `TimedOut` |
//! | no version in common | connection | `VersionUnsupported` |
//! | a token that is missing, invalid, expired (at hello, or since), or another device's | connection | its code |
//! | a control frame that is garbage, cut off, has no place, or is too large | connection | `BadFrame`, `FrameTooLarge` |
//! | a control frame with a field that breaks its rules | connection | `BadRequest` |
//! | the control stream reset or stopped | connection | `BadFrame` |
//! | more follows than the limit | connection | `TooMany` |
//! | more devices of a user than the limit; a full node; a draining one | connection | `TooMany`, `Busy`, `Draining` |
//! | the same device in another session | connection | `SessionReplaced` |
//! | any other stream's first frame is not a `StreamOpen`, or too late | stream | `BadFrame`, `TimedOut` |
//! | garbage, cut off or too large frames on a publish or request stream | stream | `BadFrame`, `FrameTooLarge` |
//! | a request in early data, which may be a replay | stream | `TooEarly` |
//! | a publish without a message, or with a bad id | stream | `BadRequest` |
//! | more publish or request streams than the limit | stream | `TooMany` |
//! | a delivery stream stopped by the client | that follow | nothing: it was its wish |
//! | frames, messages or requests faster than the session's rate | nothing | they are read later |
//! | datagrams that are too many, too large or garbage | nothing | they are dropped |
//! | a heartbeat's watermark for what is not followed, or above what was written | nothing | it is ignored |
//! | more streams than QUIC allows; a unidirectional one; no ALPN in common | connection | QUIC's and TLS's own |
//!
//! A request that cannot be granted is answered with a `Failure`, and is no violation.
//!
//! [`Code`]: shoal_protocol::Code

mod accept;

mod administration;

mod control;

mod datagrams;

mod delivered;

mod drain;

mod events;

mod follows;

mod gone;

mod handshake;

mod hello;

mod publish;

mod registry;

mod offering;

mod request;

mod session;

mod stream;

mod transport;

mod violation;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quinn::{Endpoint, VarInt};
use rand::{Rng, rngs::StdRng};
use shoal_certs::TokenVerifier;
use shoal_protocol::Code;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    clock::Clock,
    cluster::Others,
    config::{AccessLimits, Current},
    delivery::Pages,
    group::{Groups, Views},
    ops::{Events, Metrics},
    pace::Pace,
    peer::Links,
    presence::Presence,
    settings::Settings,
    store::Store,
};
use accept::Newcomers;
use delivered::Delivered;
use registry::Registry;
use session::{Order, Session};
pub(crate) use transport::Transport;

/// The sessions of a node.
pub(crate) type Sessions = Registry<Session>;

/// After all connections are closed, how long their last packets may take.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// What the access layer is made of.
pub(crate) struct AccessParts {
    pub(crate) groups: Groups,
    pub(crate) views: Views,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) tokens: TokenVerifier,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Current<AccessLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) others: Option<Arc<Others>>,
    pub(crate) links: Option<Arc<Links>>,
    pub(crate) settings: Option<Arc<Settings>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) presence: Presence,
    pub(crate) random: StdRng,
}

/// What all sessions share.
struct Shared {
    groups: Groups,
    views: Views,
    store: Arc<dyn Store>,
    pages: Arc<Pages>,
    tokens: TokenVerifier,
    clock: Arc<dyn Clock>,
    limits: Current<AccessLimits>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    name: String,
    addresses: Vec<String>,
    others: Option<Arc<Others>>,
    links: Option<Arc<Links>>,
    settings: Option<Arc<Settings>>,
    started: Instant,
    random: Mutex<StdRng>,
    sessions: Arc<Sessions>,
    presence: Presence,
    newcomers: Newcomers,
    accept_pace: Pace,
    delivered: Delivered,
    grace_ms: AtomicU32,
}

/// The access layer of a node. Dropping it is a crash: nobody is told.
pub(crate) struct Access {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    tasks: JoinSet<()>,
}

impl Access {
    /// Serves on these endpoints.
    pub(crate) fn start(parts: AccessParts, endpoints: Vec<Endpoint>) -> Self {
        let shared = Arc::new(Shared::new(parts));
        let mut tasks = JoinSet::new();
        for endpoint in &endpoints {
            tasks.spawn(accept::run(Arc::clone(&shared), endpoint.clone()));
        }
        if let Some(others) = &shared.others {
            tasks.spawn(drain::run(Arc::clone(&shared), Arc::clone(others)));
            tasks.spawn(offering::run(Arc::clone(&shared), Arc::clone(others)));
        }
        let flusher = Arc::clone(&shared);
        tasks.spawn(async move { flusher.delivered.run(&flusher.store).await });
        Self { shared, endpoints, tasks }
    }

    /// Where it serves.
    pub(crate) fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.endpoints.iter().map(Endpoint::local_addr).collect()
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.shared.sessions.len()
    }

    /// Does it let its clients go?
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.sessions.is_draining()
    }

    /// Waits until nobody is here.
    pub(crate) async fn emptied(&self) {
        self.shared.sessions.emptied().await;
    }

    /// Tells all clients to leave, waits up to `grace` until they have, and closes the connections
    /// of those who stayed.
    pub(crate) async fn shut_down(mut self, grace: Duration) {
        self.shared.set_grace(grace);
        for session in self.shared.sessions.drain() {
            session.order(Order::Drain);
        }
        if timeout(grace, self.shared.sessions.emptied()).await.is_err() {
            tracing::info!(sessions = self.sessions(), "the grace is over; closing who stayed");
        }
        for endpoint in &self.endpoints {
            endpoint.close(violation::wire_code(Code::Draining), b"the node is going");
        }
        for endpoint in &self.endpoints {
            // What is not acknowledged by then is found out by the clients' own timers.
            let _ = timeout(CLOSE_MAX, endpoint.wait_idle()).await;
        }
        self.endpoints.clear();
        self.tasks.shutdown().await;
        self.shared.delivered.flush(&self.shared.store).await;
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        for endpoint in &self.endpoints {
            let Ok(address) = endpoint.local_addr() else { continue };
            // An endpoint keeps its last socket for stragglers: the second change frees the first.
            for _ in 0..2 {
                let _ = endpoint.rebind_abstract(Arc::new(gone::GoneSocket(address)));
            }
            endpoint.close(VarInt::from_u32(Code::None as u32), b"");
        }
    }
}

impl Shared {
    fn new(parts: AccessParts) -> Self {
        let limits = parts.limits;
        Self {
            pages: parts.pages,
            accept_pace: Pace::new(&limits, AccessLimits::accept_rate),
            sessions: parts.sessions,
            presence: parts.presence,
            delivered: Delivered::new(limits.clone()),
            groups: parts.groups,
            views: parts.views,
            store: parts.store,
            tokens: parts.tokens,
            clock: parts.clock,
            limits,
            metrics: parts.metrics,
            events: parts.events,
            name: parts.name,
            addresses: parts.addresses,
            others: parts.others,
            links: parts.links,
            settings: parts.settings,
            started: Instant::now(),
            random: Mutex::new(parts.random),
            newcomers: Newcomers::default(),
            grace_ms: AtomicU32::new(0),
        }
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// A number in `0.0..1.0`.
    #[expect(clippy::cast_precision_loss, reason = "a chance needs no more than 53 bits")]
    fn chance(&self) -> f64 {
        self.random() as f64 / u64::MAX as f64
    }

    /// Where a client of this region may go instead. One of a node alone may come back to it.
    fn elsewhere(&self, region: &str) -> Vec<String> {
        self.others
            .as_ref()
            .map_or_else(|| self.addresses.clone(), |others| others.addresses(region, || self.chance()))
    }

    /// How long whoever is told to leave has for it.
    fn set_grace(&self, grace: Duration) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.grace_ms.store(grace_ms, Ordering::Relaxed);
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.load(Ordering::Relaxed).into())
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}
