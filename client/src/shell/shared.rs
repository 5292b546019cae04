//! What the app's handles and the client's task share.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::{ConnectionId, IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use shoal_protocol::{ALPN, UserId, wire};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    dial::Connected,
    follows::Follows,
    hellos::Hellos,
    lock,
    queue::{Outcome, Queue},
};
use crate::{
    Activity, Closed, Config, ConnectError, Lost, Signal, State,
    core::nodes::Nodes,
    saved::Queued,
    stats::{Counters, count},
};

/// Quiet connections are kept by heartbeats, which come at least every 25 s.
const IDLE_TIMEOUT_MS: u32 = 60_000;
/// What one group may have under way to this client, and all together.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// What this client may have under way.
const SEND_WINDOW_BYTES: u64 = 512 << 10;
const DATAGRAMS_IN_BYTES: usize = 32 << 10;
const DATAGRAMS_OUT_BYTES: usize = 16 << 10;
/// The longest chosen connection id: not to be guessed.
const CONNECTION_ID_BYTES: usize = 16;
/// What is believed of a round trip that was measured before: paths change.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(50);
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// Requests that are under way at the same time; more wait.
const REQUESTS_MAX: usize = 4;

/// The live session, for requests and datagrams.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: quinn::Connection,
    /// Tells it from the sessions before.
    pub(crate) session: u64,
    /// A permit for each request that is under way on it.
    asking: Arc<Semaphore>,
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection, session: u64) -> Self {
        Self { connection, session, asking: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// A request is under way until this is dropped.
    pub(crate) async fn ask(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.asking.acquire().await.ok()
    }

    /// Waits until no request is under way.
    pub(crate) async fn answered(&self) {
        // As above.
        let _ = self.asking.acquire_many(REQUESTS_MAX as u32).await;
    }
}

/// What the latest session said.
#[derive(Debug, Clone)]
pub(crate) struct Welcomed {
    pub(crate) user: UserId,
    pub(crate) limits: wire::Limits,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) quic: quinn::ClientConfig,
    started: Instant,
    random: Arc<Mutex<StdRng>>,
    pub(crate) nodes: Mutex<Nodes>,
    pub(crate) hellos: Hellos,
    /// The latest token, while it is good.
    token: Mutex<Option<String>>,
    pub(crate) queue: Queue,
    /// Messages of an earlier run, until the app asks for them.
    pub(crate) restored: Mutex<Vec<(Queued, oneshot::Receiver<Outcome>)>>,
    pub(crate) follows: Follows,
    pub(crate) requests: Semaphore,
    pub(crate) signals: Mutex<Vec<mpsc::Sender<Signal>>>,
    pub(crate) counters: Counters,
    /// How long a round trip took on the network that the machine is on; none where that is not known.
    round_trip: Mutex<Option<Duration>>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) link: watch::Sender<Option<Link>>,
    pub(crate) welcomed: Mutex<Option<Welcomed>>,
    /// Why the latest attempt failed.
    pub(crate) last_failure: Mutex<Option<Lost>>,
    /// Asks the session for a sign of life at once.
    pub(crate) probe: Notify,
    /// Ends the pause before the next attempt.
    pub(crate) hurry: Notify,
    /// The machine's network has changed: what is being tried by the one before is of no use.
    pub(crate) network: Notify,
    activity: watch::Sender<Activity>,
    closing: watch::Sender<bool>,
}

impl Shared {
    /// Is it the session that requests go to?
    pub(crate) fn is_live(&self, link: &Link) -> bool {
        self.link.borrow().as_ref().is_some_and(|live| live.session == link.session)
    }

    pub(crate) fn new(mut config: Config) -> Result<Self, ConnectError> {
        if config.nodes.is_empty() {
            return Err(ConnectError::NoNodes);
        }
        let saved = config.saved.take();
        if saved.as_ref().is_some_and(|saved| saved.device != config.device) {
            return Err(ConnectError::OtherDevice);
        }
        let mut random = match config.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_rng(&mut rand::rng()),
        };
        let nodes = Nodes::new(config.nodes.clone(), random.random());
        let random = Arc::new(Mutex::new(random));
        let (watermarks, queued) = match &saved {
            Some(saved) => (saved.watermarks.clone(), saved.queued.clone()),
            None => Default::default(),
        };
        let queue = Queue::new(config.queue_messages_per_group, config.queue_bytes);
        let receipts = queue.restore(queued.clone());
        let restored = queued.into_iter().zip(receipts).collect();
        let user = saved.and_then(|saved| saved.user);
        Ok(Self {
            quic: quic_config(&config, &random)?,
            started: Instant::now(),
            random,
            nodes: Mutex::new(nodes),
            hellos: Hellos::default(),
            token: Mutex::new(None),
            queue,
            restored: Mutex::new(restored),
            follows: Follows::new(watermarks, config.follow_buffer_bytes),
            requests: Semaphore::new(REQUESTS_MAX),
            signals: Mutex::new(Vec::new()),
            counters: Counters::default(),
            round_trip: Mutex::new(None),
            state: watch::Sender::new(State::Connecting),
            link: watch::Sender::new(None),
            welcomed: Mutex::new(user.map(|user| Welcomed { user, limits: wire::Limits::default() })),
            last_failure: Mutex::new(None),
            probe: Notify::new(),
            hurry: Notify::new(),
            network: Notify::new(),
            activity: watch::Sender::new(Activity::default()),
            closing: watch::Sender::new(false),
            config,
        })
    }

    /// The time since the client started, as the core takes it.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The same as an instant to sleep until.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn chance(&self) -> f64 {
        lock(&self.random).random()
    }

    /// A token, from the source if there is none.
    pub(crate) async fn token(&self) -> Result<String, Lost> {
        let kept = lock(&self.token).clone();
        match kept {
            Some(token) => Ok(token),
            None => self.fetch_token().await,
        }
    }

    /// A new token from the source.
    pub(crate) async fn fetch_token(&self) -> Result<String, Lost> {
        let token = self.config.token.fetch().await.map_err(Lost::Token)?;
        *lock(&self.token) = Some(token.clone());
        Ok(token)
    }

    /// A node called the token expired.
    pub(crate) fn forget_token(&self) {
        *lock(&self.token) = None;
    }

    /// A session begins.
    pub(crate) fn online(&self, connected: &Connected) {
        count(&self.counters.sessions, 1);
        lock(&self.nodes).online(&connected.node, connected.welcome.nodes.clone());
        let limits = connected.welcome.limits.unwrap_or_default();
        *lock(&self.welcomed) = Some(Welcomed { user: connected.user.clone(), limits });
        self.link.send_replace(Some(connected.link.clone()));
        self.state.send_replace(State::Online { node: connected.node.clone() });
    }

    /// A connection that had a session is gone.
    pub(crate) fn disconnected(&self, connection: &quinn::Connection) {
        let stats = connection.stats();
        *lock(&self.round_trip) = Some(stats.path.rtt);
        self.counters.gone(stats);
    }

    /// How to connect: with the last round trip on this network for a first guess (RFC 9002 §6.2.2), so that a first
    /// packet that is lost is sent again as soon as is due there.
    pub(crate) fn quic(&self) -> quinn::ClientConfig {
        let mut quic = self.quic.clone();
        if let Some(round_trip) = *lock(&self.round_trip) {
            let mut transport = transport_config(self.config.streams_max);
            transport.initial_rtt(round_trip.clamp(ROUND_TRIP_MIN, ROUND_TRIP_MAX));
            quic.transport_config(Arc::new(transport));
        }
        quic
    }

    /// The session was lost, or another attempt failed.
    pub(crate) fn offline(&self, why: Lost) {
        *lock(&self.last_failure) = Some(why.clone());
        self.link.send_replace(None);
        self.state.send_if_modified(|state| {
            *state = match &state {
                State::Connecting => return false,
                State::Reconnecting { since, attempt, .. } => {
                    State::Reconnecting { since: *since, why, attempt: attempt.saturating_add(1) }
                }
                _ => State::Reconnecting { since: Instant::now(), why, attempt: 0 },
            };
            true
        });
    }

    /// The session goes on that was taken for lost.
    pub(crate) fn back_online(&self, link: &Link, node: &str) {
        self.link.send_replace(Some(link.clone()));
        self.state.send_replace(State::Online { node: node.to_owned() });
    }

    /// The session's node may not be there any more, or is there after all.
    pub(crate) fn doubt(&self, node: &str, is_doubtful: bool) {
        self.state.send_if_modified(|state| {
            let node = || node.to_owned();
            *state = match (&*state, is_doubtful) {
                (State::Online { .. }, true) => State::Degraded { node: node(), since: Instant::now() },
                (State::Degraded { .. }, false) => State::Online { node: node() },
                _ => return false,
            };
            true
        });
    }

    /// The machine's network has changed: goes on over another socket, if there is one, and looks at once
    /// whether the node is there, or tries anew.
    pub(crate) fn network_changed(&self) -> io::Result<()> {
        *lock(&self.round_trip) = None;
        let moved = self.config.transport.rebind();
        if matches!(moved, Ok(true)) && self.link.borrow().is_some() {
            count(&self.counters.migrations, 1);
        }
        self.hurry.notify_waiters();
        self.network.notify_waiters();
        self.probe.notify_one();
        moved.map(drop)
    }

    /// What the app says it does.
    pub(crate) fn activity(&self) -> Activity {
        *self.activity.borrow()
    }

    /// Completes when the app is not suspended. Cancellation safe.
    pub(crate) async fn awake(&self) {
        // The sender lives as long as `self`.
        let _ = self.activity.subscribe().wait_for(|activity| *activity != Activity::Suspended).await;
    }

    /// The app does something else from here on: the session looks whether the node is there.
    pub(crate) fn set_activity(&self, activity: Activity) {
        if self.activity.send_replace(activity) != activity {
            self.hurry.notify_waiters();
            self.probe.notify_one();
        }
    }

    /// It is over.
    pub(crate) fn finish(&self, why: Closed) {
        self.link.send_replace(None);
        self.state.send_replace(State::Closed { why });
        self.follows.shut();
        self.queue.shut();
        self.requests.close();
        lock(&self.signals).clear();
    }

    /// Begins to close.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Is the client to close?
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Completes when the client is to close.
    pub(crate) async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

fn quic_config(config: &Config, random: &Arc<Mutex<StdRng>>) -> Result<quinn::ClientConfig, ConnectError> {
    let mut tls = config.tls.clone();
    if tls.alpn_protocols.is_empty() {
        Arc::make_mut(&mut tls).alpn_protocols = vec![ALPN.to_vec()];
    }
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| ConnectError::Tls)?;
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    quic.transport_config(Arc::new(transport_config(config.streams_max)));
    if config.seed.is_some() {
        let random = random.clone();
        quic.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [0; CONNECTION_ID_BYTES];
            lock(&random).fill_bytes(&mut id);
            ConnectionId::new(&id)
        }));
    }
    Ok(quic)
}

/// Windows that fit a phone, and a thousand clients in one process.
fn transport_config(streams_max: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams_max))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_OUT_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(None);
    transport
}
